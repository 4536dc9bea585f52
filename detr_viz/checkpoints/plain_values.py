"""Harmless Python values that people save beside weights: read without running what they name.

    with allowed():
        torch.load(path, weights_only=True)

A pickle names functions and classes, and calls them. Here each name that is allowed is the name of
a stand-in of ours, which can do nothing but hold values: numpy's own, for example, would follow a
forged dtype into any memory. Three real ones have no side effect: argparse.Namespace,
decimal.Decimal and those of datetime. Never allowed: what imports, looks up an attribute, calls
another function or opens anything, as getattr, functools.partial, eval or an unknown class.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from types import FunctionType
from typing import Any

import numpy as np
import torch

_LOCK = threading.Lock()  # torch's list of what is allowed belongs to the whole process
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and 2
_PATHLIB = ("pathlib", "pathlib._local")  # the latter of Python 3.13
_CODE = re.compile(r"([?]|[bBhHiIlLqQefdgFDG]|[biufcSUmM]\d+|O8?)")
_CONFIGS = (  # classes of other packages that are dicts
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
_MOST_STEPS = 10**6  # of a range, which another call could fill memory with


class DType:
    """numpy.dtype by its code alone; fields and the like of a forged one are never looked at."""

    def __init__(self, code: str = "", *_: object) -> None:
        if not isinstance(code, str):
            code = ""  # a structured dtype's
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order if order in ("<", ">") else "="

    def plain(self) -> np.dtype | None:
        """The dtype of plain values; None for objects, records and what else there is."""
        if not _CODE.fullmatch(self.code) or self.code.startswith("O"):
            return None
        return np.dtype("i8" if self.code[0] in "mM" else self.order + self.code)


class NDArray:
    """numpy.ndarray: what is in it, as an array of plain numbers or as a list of objects."""

    array: np.ndarray | list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        plain = dtype.plain() if isinstance(dtype, DType) else None
        if plain is None:
            self.array = data if isinstance(data, list) else None
            return
        values = np.frombuffer(_bytes_of(data), plain)
        self.array = values.reshape(shape, order="F" if fortran else "C")


def _bytes_of(data: object) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


def scalar(dtype: object, data: object = b"") -> object:
    """A numpy scalar as a plain Python value; None for a record."""
    if not isinstance(dtype, DType):
        raise TypeError("a numpy scalar needs a dtype")
    if dtype.code.startswith("O"):
        return data
    plain = dtype.plain()
    return None if plain is None else np.frombuffer(_bytes_of(data), plain, 1)[0].item()


def reconstruct(kind: object, *_: object) -> object:
    if not (isinstance(kind, type) and issubclass(kind, NDArray)):
        raise TypeError("only plain numpy arrays are read")
    return kind()


def _posix(*parts: str) -> PurePosixPath:
    return PurePosixPath(*parts)


def _windows(*parts: str) -> PureWindowsPath:
    return PureWindowsPath(*parts)


def plain_dict(*_: object) -> dict[Any, Any]:
    """A defaultdict; its factory is not kept."""
    return {}


def _list(items: object = (), *_: object) -> list[Any]:
    """A deque."""
    return list(items) if isinstance(items, list | tuple) else []


def _frozenset(items: object = ()) -> frozenset[Any]:
    return frozenset(items if isinstance(items, list | tuple) else ())


def _bytes(data: object = b"") -> bytes:
    return data if isinstance(data, bytes) else b""


def _range(*bounds: int) -> range:
    steps = range(*bounds)
    if len(steps) > _MOST_STEPS:
        raise ValueError("a range of too many steps")
    return steps


def _slice(*bounds: object) -> slice:
    return slice(*bounds)


class _Config:
    """A dict of settings of another package: torch fills no other class than OrderedDict."""

    def __new__(cls, items: object = None, *_: object) -> Any:
        return OrderedDict(items if isinstance(items, dict) else {})


def _under(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function that torch finds under the full name that pickles have."""
    module, _, leaf = name.rpartition(".")
    code, values = function.__code__, function.__globals__
    copy = FunctionType(code, values, leaf, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = module, leaf
    return copy


def _class_under(name: str, *bases: type) -> type:
    module, _, leaf = name.rpartition(".")
    return type(leaf, bases, {"__module__": module, "__qualname__": leaf})


def _stand_ins() -> Iterator[Any]:
    functions: dict[str, Callable[..., Any]] = {
        "collections.defaultdict": plain_dict,
        "collections.deque": _list,
        "builtins.frozenset": _frozenset,
        "builtins.bytes": _bytes,
        "builtins.range": _range,
        "builtins.slice": _slice,
    }
    for module in _NUMPY:
        functions |= {f"{module}.scalar": scalar, f"{module}._reconstruct": reconstruct}
    for module in _PATHLIB:
        functions |= {f"{module}.{name}": _posix for name in ("PosixPath", "PurePosixPath")}
        functions |= {f"{module}.{name}": _windows for name in ("WindowsPath", "PureWindowsPath")}
    yield from (_under(name, function) for name, function in functions.items())
    yield _class_under("numpy.ndarray", NDArray)
    yield _class_under("numpy.dtype", DType)
    yield _class_under("types.SimpleNamespace", argparse.Namespace)
    yield from (_class_under(name, _Config) for name in _CONFIGS)
    yield _class_under("torch.torch_version.TorchVersion", str)
    # names of types, as a defaultdict's factory or as a value: classes that do nothing
    for name in ("int", "float", "str", "bool", "list", "dict", "tuple"):
        yield _class_under(f"builtins.{name}")
    for bits in (8, 16, 32, 64):
        yield from (_class_under(f"numpy.{kind}{bits}") for kind in ("int", "uint"))
    for name in ("float16", "float32", "float64", "bool", "bool_", "complex64", "complex128"):
        yield _class_under(f"numpy.{name}")


_ALLOWED = (
    argparse.Namespace,
    decimal.Decimal,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    *_stand_ins(),
)


@contextmanager
def allowed() -> Iterator[None]:
    """In the block torch.load(weights_only=True) reads these values; one block at a time.

    What the caller's program has allowed itself stays allowed afterwards.
    """
    with _LOCK:
        theirs = torch.serialization.get_safe_globals()
        ours = [value for value in _ALLOWED if value not in theirs]
        with torch.serialization.safe_globals(ours):
            yield
