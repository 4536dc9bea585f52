"""Pickles of numpy arrays, as detectron2 writes them (.pkl): read without running what they name.

    content = read(Path("r50_300pro_3x.pkl"))       # {"model": {name: tensor}, "__author__": ...}

A pickle names functions and calls them. Here each of the few names that such a file needs is that
of a stand-in, which can do nothing but hold numbers (see plain_values.py); any other name ends the
reading with RefusedError.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detr_viz.checkpoints import plain_values
from detr_viz.checkpoints.pickle_costs import check_costs
from detr_viz.common.regular import open_regular

# How a torch.save before 2020 (not zipped) begins: protocol 2, then torch's magic number.
TORCH_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_DEPTH = 8
_MOST_VALUES = 4_000_000  # of lists and dicts


class RefusedError(pickle.UnpicklingError):
    """A pickle of this protocol that asks for a name that plain numbers do not need."""

    def __init__(self, name: str, protocol: int = 2) -> None:
        super().__init__(name)
        self.name, self.protocol = name, protocol


class _StandIn:
    """A function without attributes that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a stand-in does not change")

    def __call__(self, *args: object) -> Any:
        return self._function(*args)


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C") -> object:
    """An array of protocol 5."""
    array = plain_values.NDArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Bytes of protocol 2 and below, which are written as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("only bytes written as latin1 are read")
    return text.encode("latin1")


def _known() -> dict[str, Any]:
    names: dict[str, Any] = {
        "collections.OrderedDict": _StandIn(plain_values.plain_dict),
        "_codecs.encode": _StandIn(_encode),
        "numpy.ndarray": plain_values.NDArray,
        "numpy.dtype": plain_values.DType,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = _StandIn(plain_values.reconstruct)
        names[f"{core}.multiarray.scalar"] = _StandIn(plain_values.scalar)
        names[f"{core}.numeric._frombuffer"] = _StandIn(_from_buffer)
    return names


class _Unpickler(pickle.Unpickler):
    _names = _known()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._names:
            raise RefusedError(full)
        return self._names[full]


def is_of_torch(path: Path) -> bool:
    """Whether torch.save wrote this pickle, in its form before zip archives."""
    with open_regular(path) as file:
        return file.read(len(TORCH_HEAD)) == TORCH_HEAD


def read(path: Path) -> Any:
    """The content, arrays of numbers as tensors; RefusedError, or whatever a damaged file raises.

    Values that are neither numbers, text, lists nor dicts are left out of dicts.
    """
    with open_regular(path) as file:
        protocol = file.read(2)[1:]
        file.seek(0)
        check_costs(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        try:
            return _plain(_Unpickler(file, encoding="latin1").load(), 0, [_MOST_VALUES])
        except RefusedError as error:
            raise RefusedError(error.name, *protocol) from None


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """A copy of plain values. left: how many more there may be, for lists that hold one list."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {_MOST_VALUES:,} values")
    if depth > _MOST_DEPTH:
        return None
    if isinstance(value, plain_values.NDArray):
        array = value.array
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            return None
        native = np.array(array, array.dtype.newbyteorder("="), order="C")  # a copy of its own
        return torch.from_numpy(native) if native.dtype.itemsize <= 8 else None
    if isinstance(value, Mapping):
        parts = {key: _plain(part, depth + 1, left) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part, depth + 1, left) for part in value]
    return value if isinstance(value, str | int | float | bool) else None


def has_tensors(content: Any) -> bool:
    """Whether a content is a dict of tensors, or has one."""
    if not isinstance(content, Mapping):
        return False
    parts = [content, *(part for part in content.values() if isinstance(part, Mapping))]
    return any(torch.is_tensor(value) for part in parts for value in part.values())
