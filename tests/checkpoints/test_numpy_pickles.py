"""Pickles of numpy arrays: read, and never run."""

from __future__ import annotations

import collections
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from detr_viz.checkpoints import numpy_pickles, weight_files
from detr_viz.checkpoints.weight_files import CheckpointError

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(3, 2)),
    "b": np.arange(4, dtype=">f4"),
    "half": np.ones(3, np.float16),
    "count": np.array(7, np.int64),
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_detectron2_pickles(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    content = {
        "model": collections.OrderedDict(ARRAYS),
        "__author__": "third_party",
        "matching_heuristics": True,
        "scalar": np.float32(0.5),
    }
    path.write_bytes(pickle.dumps(content, protocol))
    got = weight_files.read(path).content
    assert got["__author__"] == "third_party" and got["matching_heuristics"] is True
    assert got["scalar"] == 0.5
    assert list(got["model"]) == list(ARRAYS)
    for key, array in ARRAYS.items():
        assert got["model"][key].shape == array.shape
        assert np.array_equal(got["model"][key].numpy(), array)
    got["model"]["a.weight"] += 1  # its own memory


class Runs:
    """A pickle that would run a command."""

    def __init__(self, path: object) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused_and_not_run(tmp_path, protocol):
    path, trace = tmp_path / "evil.pkl", tmp_path / "it_ran"
    path.write_bytes(pickle.dumps({"model": ARRAYS, "x": Runs(trace)}, protocol))
    with pytest.raises(CheckpointError, match=r"evil\.pkl is refused: .*system, and only plain"):
        weight_files.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR.",
        b"cdetr_viz.checkpoints.plain_values\nNDArray\n.",
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"\x82\x01.",  # the extension registry
        b"Pname\n.",  # a persistent id
    ],
)
def test_no_other_name_is_found(tmp_path, code):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + code)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        numpy_pickles.read(path)
    with pytest.raises(CheckpointError):
        weight_files.read(path)


def test_stand_ins_cannot_be_changed(tmp_path):
    """BUILD would set attributes of the function that a pickle names."""
    names = numpy_pickles._known()
    before = {name: vars(value).copy() for name, value in names.items() if isinstance(value, type)}
    for target in (b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"):
        path = tmp_path / "x.pkl"
        path.write_bytes(b"\x80\x02" + target + b"N}U\x05array" + b"K\x01s\x86b.")
        with pytest.raises((AttributeError, TypeError)):
            numpy_pickles.read(path)
    after = {name: vars(value) for name, value in names.items() if isinstance(value, type)}
    assert all(dict(after[name]) == dict(values) for name, values in before.items())


def test_a_forged_array_reads_only_its_own_bytes(tmp_path):
    array = pickle.dumps({"model": {"x.y": np.zeros(4, np.float32)}}, 2)
    forged = array.replace(b"K\x04\x85", b"J" + struct.pack("<i", 1 << 20) + b"\x85")
    assert forged != array
    path = tmp_path / "x.pkl"
    path.write_bytes(forged)
    with pytest.raises(ValueError, match="reshape"):
        numpy_pickles.read(path)
    with pytest.raises(CheckpointError):
        weight_files.read(path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path, share):
    data = pickle.dumps({"model": ARRAYS}, 4)
    path = tmp_path / "x.pkl"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"x\.pkl is (truncated|a pickle that)"):
        weight_files.read(path)


def test_objects_are_left_out(tmp_path):
    path = tmp_path / "x.pkl"
    content = {"model": {**ARRAYS, "names": np.array(["a", "b"], object), "none": None}}
    path.write_bytes(pickle.dumps(content, 2))
    assert list(weight_files.read(path).content["model"]) == list(ARRAYS)


def test_older_files_of_torch_are_read_by_torch(tmp_path):
    path = tmp_path / "x.pkl"
    torch.save({"model": {"a.b": torch.ones(2)}}, path, _use_new_zipfile_serialization=False)
    assert path.read_bytes().startswith(numpy_pickles.TORCH_HEAD)
    assert torch.equal(weight_files.read(path).content["model"]["a.b"], torch.ones(2))
