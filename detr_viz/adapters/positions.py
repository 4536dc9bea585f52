"""The position that a site's queries and keys have, found without names where that can be.

    found = query_position(call, rows)          # Position, or None where no rule is open

In this order: an argument of the module, an argument of its layer, and the difference rule: what
projects queries is called with content + position, what projects values with content alone. Where
an argument and the difference are there they must agree, because the self-check does not see how
content and position are divided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.tensors import batch_first
from detr_viz.common.errors import UserError
from detr_viz.explanation.explain_image import SelfCheckError

AGREEMENT_LIMIT = 1e-3  # right readings are 5e-8 apart, wrong ones 1 to 2
_HALF_LIMIT = 0.1  # of half precision, where the sum was rounded to 8 bits before the difference
_POSITION = re.compile(r"pos|query_embed|object_queries", re.IGNORECASE)
_OF_KEYS = re.compile(r"^pos$|encoder|memory|spatial|key", re.IGNORECASE)
_OTHERS = re.compile(r"mask|shape|index|reference|points|valid", re.IGNORECASE)
# (name of the site, arguments of layer and module by name) -> position of queries, of keys
Given = Callable[[str, Mapping[str, Any]], tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Position:
    """A position (B or 1, rows, C).

    error  how far two ways to find it are apart, a share of its size; None: there was one way
    way    words on how it was found
    """

    value: Tensor
    error: float | None
    way: str


def row_position(call: RawCall, x: Tensor, side: str, given: Given | None) -> Position | None:
    """The position in x (B, rows, C), which queries ("q") or keys ("k") are projected from.

    SelfCheckError where two ways disagree. UserError for a `position=` of another shape.
    """
    batch, rows, width = x.shape
    if given is not None:
        found = given(call.site.name, {**call.layer_bound, **call.bound})["qk".index(side)]
        if found is None:
            return None
        value = batch_first(found, rows, batch, width)
        if value is None:
            raise UserError(
                f"position= gives {tuple(found.shape)} for {call.name}, not "
                f"(batch, {rows}, {width})"
            )
        return Position(value, None, "position=")
    names, other = _named(call, x, side), difference(call, x, side)
    if names is None or other is None:
        only = names or other
        return only and Position(only[0], None, only[1])
    error = distance(names[0], other[0])
    limit = AGREEMENT_LIMIT if x.dtype in (torch.float32, torch.float64) else _HALF_LIMIT
    if error > limit:
        raise SelfCheckError(
            f"position of {call.name} by {names[1]} and by difference are {error:.2g} apart "
            f"(limit {limit:g}): give position="
        )
    return Position(names[0], error, names[1])


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| as a share of the greater; 0 where both are 0."""
    a, b = a.detach().double(), b.detach().double()
    a, b = torch.broadcast_tensors(a, b)
    size = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def _named(call: RawCall, x: Tensor, side: str) -> tuple[Tensor, str] | None:
    """An argument whose name says that it is a position, and whose rows are those of x."""
    batch, rows, width = x.shape
    for words, arguments in (("argument", call.bound), ("layer argument", call.layer_bound)):
        found = {}
        for name, value in arguments.items():
            if not _POSITION.search(name) or _OTHERS.search(name):
                continue
            position = batch_first(value, rows, batch, width)
            if position is not None:
                found[name] = position
        if len(found) > 1:  # as many queries as keys: then names must tell
            mine = {n: p for n, p in found.items() if bool(_OF_KEYS.search(n)) == (side == "k")}
            found = mine or found
        if found:
            name, value = next(iter(found.items()))
            return value, f"{words} {name}"
    return None


def difference(call: RawCall, x: Tensor, side: str) -> tuple[Tensor, str] | None:
    """x less what values are projected from, of this site, or of the layer's self-attention."""
    if side == "k":
        own = values_of(call)
        return None if own is None or own.shape != x.shape else (x - own, "difference")
    for other in [call, *(s for s in call.siblings if s is not call)]:
        query, value = queries_of(other), values_of(other)
        if query is None or value is None or query.shape != value.shape:
            continue
        if query.shape[1:] == x.shape[1:]:
            return query - value, "difference"
    return None


def queries_of(call: RawCall) -> Tensor | None:
    """What queries are projected from, (B, Q, C)."""
    if call.site.kind == "packed":
        return packed_argument(call, "query", 0)
    if call.site.kind == "watched":
        return None
    found = call.inputs.get("offsets" if call.site.kind == "sampled" else "q")
    return found if isinstance(found, Tensor) and found.ndim == 3 else None


def values_of(call: RawCall) -> Tensor | None:
    """What values are projected from, (B, K, C)."""
    if call.site.kind == "packed":
        return packed_argument(call, "value", 2)
    found = call.inputs.get("value" if call.site.kind == "sampled" else "v")
    return found if isinstance(found, Tensor) and found.ndim == 3 else None


def packed_argument(call: RawCall, name: str, place: int) -> Tensor | None:
    """An argument of nn.MultiheadAttention, batch first."""
    x = call.kwargs.get(name, call.args[place] if len(call.args) > place else None)
    if not isinstance(x, Tensor) or x.is_nested or x.ndim not in (2, 3):
        return None
    if x.ndim == 2:
        return x[None]
    return x if call.site.module.batch_first else x.transpose(0, 1)


def is_nothing(position: Position | None) -> bool:
    """Whether there is no position, or it is 0 everywhere."""
    return position is None or not bool(torch.count_nonzero(position.value))
