"""Arguments of other people's modules, brought into one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]


def full(x: Tensor) -> Tensor:
    """Half precision widened: cells are counted in it, and bfloat16 counts to 256."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def batch_first(x: Any, rows: int, batch: int, width: int) -> Tensor | None:
    """A float tensor of these rows as (B or 1, rows, width); None if it is something else.

    (rows, B, width) and (rows, width) become it too.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[-1:] != (width,):
        return None
    if x.ndim == 2 and len(x) == rows:
        return x[None]
    if x.ndim != 3:
        return None
    if x.shape[1] == rows and x.shape[0] in (1, batch):
        return x
    if x.shape[0] == rows and x.shape[1] in (1, batch):
        return x.transpose(0, 1)
    return None


def level_shapes(arguments: Mapping[str, Any], cells: int) -> Shapes | None:
    """(h, w) of levels whose areas sum to `cells`: an integer tensor, or pairs of integers."""
    for value in arguments.values():
        pairs = None
        if isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 2:
            pairs = value.tolist() if value.shape[1] == 2 else None
        elif isinstance(value, list | tuple) and value:
            pairs = [_pair(item) for item in value]
        if pairs and None not in pairs and sum(h * w for h, w in pairs) == cells:
            return tuple((int(h), int(w)) for h, w in pairs)
    return None


def _pair(item: Any) -> tuple[int, int] | None:
    if isinstance(item, Tensor):
        item = item.tolist() if item.ndim == 1 and not item.is_floating_point() else ()
    whole = isinstance(item, list | tuple) and len(item) == 2
    return tuple(item) if whole and all(type(x) is int for x in item) else None


def masks(arguments: Mapping[str, Any], cells: int, batch: int) -> Iterator[Tensor]:
    """Masks of these cells, (B, cells) or (1, cells), bool; what True means is not known."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or value.ndim != 2 or value.shape[1] != cells:
            continue
        if len(value) in (1, batch) and ("mask" in name or not value.is_floating_point()):
            yield value.bool()


def number(modules: Sequence[Any], names: Sequence[str]) -> Any:
    """The first of these attributes that is a number, of the first module that has one."""
    for module in modules:
        for name in names:
            value = getattr(module, name, None)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            if isinstance(value, Tensor) and value.numel() == 1:
                return value.item()
    return None
