"""Harmless values beside the weights are read; what could run code is named and never run."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import functools
import io
import operator
import pathlib
import pickle
import sys
import threading
import types
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from checkpoint_factory import small_state_dict

from detr_viz.checkpoints import plain_values, weight_files
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.common.errors import UserError

DETR = small_state_dict("detr")
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)


def rewritten(path, *changes):
    """A torch file with other bytes in its pickle: names as another version writes them."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name in parts:
        if name.endswith("data.pkl"):
            for old, new in changes:
                assert old in parts[name]
                parts[name] = parts[name].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def namespace_of(value):
    return vars(value)


def array_of(value):
    return value.array.tolist() if isinstance(value.array, np.ndarray) else value.array


def text_of(value):
    return str(value)


class Always:
    """The value need only be read."""


NUMPY_1 = (b"numpy._core.multiarray", b"numpy.core.multiarray")
LOCAL = (b"cpathlib\n", b"cpathlib._local\n")
WINDOWS = (b"PosixPath", b"WindowsPath")
# name -> value, what it is read as, how to look at that, changes of the pickle
VALUES = {
    "float64": (np.float64(0.413), 0.413),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(-7), -7),
    "bool_": (np.bool_(True), True),
    "big endian": (np.dtype(">f8").type(2.5), 2.5),
    "str_": (np.str_("ä"), "ä"),
    "bytes_": (np.bytes_(b"ab"), b"ab"),
    "float64 of numpy 1": (np.float64(0.413), 0.413, None, [NUMPY_1]),
    "array": (np.arange(6.0).reshape(2, 3), [[0, 1, 2], [3, 4, 5]], array_of),
    "array, Fortran": (
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        [[0, 1, 2], [3, 4, 5]],
        array_of,
    ),
    "array, big endian": (np.arange(3, dtype=">i4"), [0, 1, 2], array_of),
    "array of numpy 1": (np.arange(3), [0, 1, 2], array_of, [NUMPY_1]),
    "array of texts": (np.array(["a", "bcd"]), ["a", "bcd"], array_of),
    "array of objects": (np.array([None, "x"], object), [None, "x"], array_of),
    "dtype": (np.dtype("float32"), "f4", operator.attrgetter("code")),
    "datetime64": (np.datetime64("2026-01-01"), Always),
    "record": (np.zeros(1, [("a", "f4"), ("b", "O")])[0], Always),
    "numpy type": ({"dtype": np.float32}, Always),
    "path": (pathlib.PurePosixPath("out/a"), PurePosixPath("out/a")),
    "PosixPath": (pathlib.Path("/out/a"), PurePosixPath("/out/a")),
    "path of 3.13": (pathlib.Path("out"), PurePosixPath("out"), None, [LOCAL]),
    "WindowsPath": (pathlib.Path("out"), PureWindowsPath("out"), None, [WINDOWS]),
    "PureWindowsPath": (PureWindowsPath(r"C:\out\a"), PureWindowsPath(r"C:\out\a")),
    "WindowsPath of 3.13": (pathlib.Path("out"), PureWindowsPath("out"), None, [WINDOWS, LOCAL]),
    "datetime": (NOW, NOW),
    "date": (NOW.date(), NOW.date()),
    "time": (NOW.time(), NOW.time()),
    "timedelta": (datetime.timedelta(1, 2, 3), datetime.timedelta(1, 2, 3)),
    "timezone": (datetime.timezone(datetime.timedelta(hours=2)),) * 2,
    "Decimal": (decimal.Decimal("0.1"), decimal.Decimal("0.1")),
    "OrderedDict": (collections.OrderedDict(a=1), {"a": 1}),
    "Counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "defaultdict(list)": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "defaultdict(int)": (collections.defaultdict(int, {"a": 1}), {"a": 1}),
    "defaultdict()": (collections.defaultdict(None, {"a": 1}), {"a": 1}),
    "deque": (collections.deque([1, 2], maxlen=5), [1, 2]),
    "set": ({1, 2}, {1, 2}),
    "frozenset": (frozenset({1, 2}), frozenset({1, 2})),
    "bytes": (b"ab", b"ab"),
    "no bytes": (b"", b""),
    "range": (range(2, 9, 3), range(2, 9, 3)),
    "slice": (slice(1, 2), slice(1, 2)),
    "complex": (1 + 2j, 1 + 2j),
    "type": ({"type": float}, Always),
    "Size": (torch.Size([1, 2]), torch.Size([1, 2])),
    "device": (torch.device("cpu"), torch.device("cpu")),
    "torch dtype": (torch.bfloat16, torch.bfloat16),
    "torch version": (torch.__version__, str(torch.__version__), text_of),
    "Namespace": (argparse.Namespace(a=1), {"a": 1}, namespace_of),
    "SimpleNamespace": (types.SimpleNamespace(a=[np.float64(2)]), {"a": [2.0]}, namespace_of),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_harmless_values_are_read(tmp_path, name, zipped):
    value, expected, *more = VALUES[name]
    look, changes = (*more, None, None)[:2]
    file = tmp_path / "w.pth"
    torch.save({"model": DETR, "best": value}, file, _use_new_zipfile_serialization=zipped)
    if changes and not zipped:
        pytest.skip("the bytes are changed in zip files only")
    if changes:
        rewritten(file, *changes)
    content = weight_files.read(file).content
    read = content["best"] if look is None else look(content["best"])
    if expected is not Always:
        assert read == expected and type(read) in (type(expected), dict, collections.OrderedDict,
                                                   collections.Counter)  # fmt: skip
    checkpoint = load_checkpoint(file)
    assert all(torch.equal(checkpoint.state_dict[key], DETR[key]) for key in DETR)


@pytest.mark.parametrize("form", [argparse.Namespace, types.SimpleNamespace, dict])
def test_args_of_any_form_are_followed(tmp_path, form):
    args = form(nheads=np.int64(4), dilation=np.bool_(False), output_dir=pathlib.Path("out"))
    torch.save({"model": DETR, "args": args}, tmp_path / "w.pth")
    checkpoint = load_checkpoint(tmp_path / "w.pth")
    assert checkpoint.config.nheads == 4 and not checkpoint.config.backbone.dilation
    assert checkpoint.notes == ()


class Call:
    """Unpickled without care, it calls something."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def config_class(name, base, monkeypatch):
    """A class of a package that is not here, as yacs.config.CfgNode."""
    module, _, leaf = name.rpartition(".")
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        full = ".".join(parts[:depth])
        monkeypatch.setitem(sys.modules, full, types.ModuleType(full))
    made = type(leaf, (base,), {"__module__": module, "__qualname__": leaf})
    setattr(sys.modules[module], leaf, made)
    return made


CONFIGS = {  # -> whether its entries are read
    "yacs.config.CfgNode": (dict, True),
    "easydict.EasyDict": (dict, True),
    "mmengine.config.config.ConfigDict": (dict, True),
    "pytorch_lightning.utilities.parsing.AttributeDict": (dict, True),
    "omegaconf.dictconfig.DictConfig": (dict, False),
    "omegaconf.listconfig.ListConfig": (list, False),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_other_packages_are_read_or_named(tmp_path, monkeypatch, name, zipped):
    file = tmp_path / "w.pth"
    base, is_read = CONFIGS[name]
    with monkeypatch.context() as patch:
        made = config_class(name, base, patch)()
        if is_read:
            made.update(nheads=4, dilation=False)
        made.frozen = True
        torch.save({"model": DETR, "args": made}, file, _use_new_zipfile_serialization=zipped)
    if is_read:
        assert load_checkpoint(file).config.nheads == 4
    else:
        refused(file, f"asks for {name}", 'torch.save({"model": model.state_dict()}')


def refused(file, *fragments):
    with pytest.raises(UserError) as raised:
        load_checkpoint(file)
    message = str(raised.value)
    assert "\n" not in message
    for fragment in (str(file), *fragments):
        assert fragment in message
    assert "damaged" not in message
    return message


TRAPS = {
    "getattr": (Call(getattr, "a", "upper"), "getattr"),
    "eval": (Call(eval, "1 + 1"), "eval"),
    "exec": (Call(exec, "1"), "exec"),
    "import": (Call(__import__, "os"), "__import__"),
    "open": (Call(open, "trap", "w"), "io.open"),
    "partial": (functools.partial(int, 3), "functools.partial"),
    "attrgetter": (operator.attrgetter("a"), "operator.attrgetter"),
    "methodcaller": (operator.methodcaller("a"), "operator.methodcaller"),
    "defaultdict(partial)": (
        collections.defaultdict(functools.partial(int, 3)),
        "functools.partial",
    ),
    "defaultdict(open)": (collections.defaultdict(open), "io.open"),
    "io": (argparse.Namespace(logger=io.StringIO), "io.StringIO"),
    "map": (Call(map, len, [[]]), "map"),
    "type": (Call(type, "A", (), {}), "type"),
    "enum": (Call(type(argparse.Action), "A"), "type"),
    "memory": (Call(np.frombuffer, b"ab", "u1"), "numpy"),
    "file": (Call(np.load, "a.npy"), "numpy"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_could_run_code_is_named_and_not_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    value, asked = TRAPS[name]
    torch.save({"model": DETR, "evil": value}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", asked, "only plain weights are loaded")
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


class Forged:
    """Pickled as a numpy scalar or array with a state of its own."""

    def __init__(self, function, args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


RECORD = Forged(  # says of itself that it holds no object, but has a field of them
    np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
)
SCALAR = np.float64(1).__reduce__()[0]
ARRAY = np.zeros(1).__reduce__()[0]


@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        (Forged(SCALAR, (np.dtype("O"), b"\x41" * 8)), b"\x41" * 8),
        (Forged(SCALAR, (RECORD, b"\x41" * 8)), None),
        (
            Forged(ARRAY, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, b"\x41" * 8)),
            None,
        ),
        (Forged(ARRAY, (np.ndarray, (0,), b"b"), (1, (1,), RECORD, False, b"\x41" * 8)), None),
    ],
)
def test_bytes_never_become_objects(tmp_path, forged, expected):
    torch.save({"model": DETR, "evil": forged}, tmp_path / "w.pth")
    value = weight_files.read(tmp_path / "w.pth").content["evil"]
    assert getattr(value, "array", value) == expected


def test_arrays_of_a_wrong_size_are_refused_in_a_line(tmp_path):
    state = (1, (10**9,), np.dtype("f8"), False, b"\0" * 8)
    forged = Forged(ARRAY, (np.ndarray, (0,), b"b"), state)
    torch.save({"model": DETR, "evil": forged}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth is truncated or damaged"):
        load_checkpoint(tmp_path / "w.pth")


class Trap:
    """Says so when it is called or asked for anything."""

    def __init__(self, log):
        object.__setattr__(self, "log", log)

    def __getattr__(self, name):
        self.log.append(name)
        raise AttributeError(name)

    def __call__(self, *args, **kwargs):
        self.log.append("call")


def test_no_stand_in_calls_what_it_is_given():
    real = {argparse.Namespace, decimal.Decimal} | {
        getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")
    }
    names = {f"{value.__module__}.{value.__qualname__}" for value in plain_values._ALLOWED}
    assert len(names) == len(plain_values._ALLOWED)
    assert not {name.rpartition(".")[2] for name in names} & {
        "getattr", "eval", "exec", "partial", "reduce", "type", "__import__", "open", "map",
    }  # fmt: skip
    made = 0
    for value in plain_values._ALLOWED:
        if value in real:
            continue
        # a stand-in: none is the thing whose name it bears
        module = sys.modules.get(value.__module__)
        assert getattr(module, value.__qualname__, None) is not value
        for count in range(4):
            log: list[str] = []
            try:
                one = value(*[Trap(log)] * count)
                made += 1
                if hasattr(type(one), "__setstate__"):
                    one.__setstate__(tuple([Trap(log)] * 5))
            except (TypeError, ValueError):
                pass
            assert log == []
    assert made > len(names)  # most can be made of something


def test_several_threads_and_a_program_with_values_of_its_own(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"model": DETR, "best": np.float64(1), "args": argparse.Namespace()}, file)
    torch.serialization.add_safe_globals([argparse.Namespace])
    before = list(torch.serialization.get_safe_globals())
    errors = []

    def work():
        try:
            for _ in range(10):
                weight_files.read(file)
        except Exception as error:
            errors.append(error)

    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert set(torch.serialization.get_safe_globals()) == set(before)
        assert argparse.Namespace in before
    finally:
        torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
