"""Recorded calls of deformable attention as SampledAttention, by their children alone.

Offsets, logits and values come of the children's inputs and outputs, so the core operation, whether
Python or a kernel, is never looked at. The self-check says whether it samples as is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detr_viz.adapters.positions import Given, Position, is_nothing, queries_of, row_position
from detr_viz.adapters.read_dense import HEADS, NO_POSITION
from detr_viz.adapters.recorder import RawCall, bias_part, linear_part
from detr_viz.adapters.tensors import Shapes, full, level_shapes, masks, number
from detr_viz.attention.kernel import split_heads
from detr_viz.attention.sampled import SampledAttention
from detr_viz.attention.undivided import UndividedSamples
from detr_viz.common.errors import UserError

_POINTS = ("num_points_list", "n_points_list", "num_points", "n_points")
_SCALE = ("offset_scale",)
_BOX_SHARE = 0.5  # of half a reference box, that P steps of SampledAttention reach
_NEVER = -1e4  # logit of a point that is not there: its weight is exactly 0


def sampled_value(call: RawCall) -> Tensor:
    """(B, S, C) values of all levels before padding is put to 0."""
    if "value" in call.outputs:
        return call.outputs["value"]
    query = queries_of(call)
    for value in call.bound.values():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 3:
            if value is query or value.shape[-1] != query.shape[-1]:
                continue
            if level_shapes(_arguments(call), value.shape[1]):
                return value
        elif isinstance(value, list | tuple) and value and all(_is_level(x) for x in value):
            heads = _heads(call)
            levels = [x.reshape(-1, heads, *x.shape[-2:]) for x in value]  # (B, M, D, cells)
            return torch.cat(levels, -1).permute(0, 3, 1, 2).flatten(2)
    raise UserError(f"{call.name} has no value_proj, and no argument that looks like its values")


def _is_level(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim in (3, 4)


def sampled_rows(call: RawCall) -> tuple[int, int]:
    """(queries, cells of all levels) of a call."""
    return call.inputs["offsets"].shape[1], sampled_value(call).shape[1]


def _arguments(call: RawCall) -> Mapping[str, Any]:
    return {**call.layer_bound, **call.bound}


def shapes_of(call: RawCall) -> Shapes:
    """(h, w) of the levels of a call."""
    cells = sampled_value(call).shape[1]
    found = level_shapes(call.bound, cells) or level_shapes(call.layer_bound, cells)
    if found is None:
        raise UserError(f"{call.name} was called without the shapes of its {cells} cells")
    return found


def reference_of(call: RawCall, levels: int) -> Tensor:
    """(B, Q, L, 2 or 4) reference points or boxes of a call."""
    rows = call.inputs["offsets"].shape[1]
    for arguments in (call.bound, call.layer_bound):
        names = sorted(arguments, key=lambda name: "ref" not in name)
        for name in names:
            x = arguments[name]
            if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[-1] not in (2, 4):
                continue
            if x.ndim == 3:
                x = x[:, :, None]
            if x.ndim == 4 and x.shape[1] == rows and x.shape[2] in (1, levels):
                return x.expand(-1, -1, levels, -1)
    raise UserError(f"{call.name} was called without reference points of its {rows} queries")


def _heads(call: RawCall) -> int:
    heads = number((call.site.module,), HEADS)
    if not heads:
        raise UserError(f"{call.name} does not say how many heads it has: give it num_heads")
    return int(heads)


def _points(call: RawCall, heads: int, levels: int) -> list[int]:
    """Points of each level."""
    total = call.outputs["logits"].shape[-1] // heads
    for name in _POINTS:
        own = getattr(call.site.module, name, None)
        if isinstance(own, list | tuple) and len(own) == levels and sum(own) == total:
            return [int(n) for n in own]
    if total % levels:
        raise UserError(
            f"{call.name} has {total} points for {levels} levels: it does not say which"
        )
    return [total // levels] * levels


def read_sampled(
    call: RawCall, image: int, given: Given | None
) -> tuple[Iterator[SampledAttention], list[Position | None]]:
    """(readings, one for each meaning of its mask, position of queries)."""
    shapes, heads = shapes_of(call), _heads(call)
    points = _points(call, heads, len(shapes))
    query = queries_of(call)
    position = row_position(call, query, "q", given)
    nothing = is_nothing(position)
    of_position = torch.zeros_like(query) if nothing else position.value.expand_as(query)
    reference = reference_of(call, len(shapes))
    logits, offsets = (call.site.children[name] for name in ("logits", "offsets"))
    by_box = reference.shape[-1] == 4
    factor = (number((call.site.module,), _SCALE) or _BOX_SHARE) / _BOX_SHARE if by_box else 1.0

    def parts(module: torch.nn.Module, per_point: int) -> tuple[Tensor, Tensor, Tensor]:
        c = linear_part(module, query if nothing else query - of_position)[image]
        p = linear_part(module, of_position)[image]
        b = bias_part(module, query)[None]
        return tuple(_by_level(full(x), heads, points, per_point) for x in (c, p, b))

    c_w, p_w, b_w = (x[..., 0] for x in parts(logits, 1))
    offset_parts = tuple(x * factor for x in parts(offsets, 2))
    if len(set(points)) > 1:
        b_w = b_w.clone()
        most = max(points)
        for level, count in enumerate(points):
            b_w[:, :, level, count:] = _NEVER
            if by_box:  # steps are of the level's own number of points
                for x in offset_parts:
                    x[:, :, level] *= most / count
    value = split_heads(sampled_value(call), heads)
    attention = SampledAttention(
        c_w, p_w, b_w, *offset_parts,
        reference=full(reference[image if len(reference) > 1 else 0]),
        value=full(value[image]),
        shapes=shapes,
    )  # fmt: skip
    if nothing:
        attention = UndividedSamples.of(attention, NO_POSITION)
    return _padded(call, attention, image, len(value)), [position]


def _by_level(x: Tensor, heads: int, points: Sequence[int], per_point: int) -> Tensor:
    """(Q, M * sum P * n) -> (M, Q, L, most P, n), filled up with 0."""
    split = x.unflatten(-1, (heads, sum(points), per_point)).transpose(0, 1)
    out = split.new_zeros(*split.shape[:2], len(points), max(points), per_point)
    for level, part in enumerate(split.split(list(points), 2)):
        out[:, :, level, : part.shape[2]] = part
    return out


def _padded(
    call: RawCall, attention: SampledAttention, image: int, batch: int
) -> Iterator[SampledAttention]:
    """One image's attention under each meaning of its mask; not masked at last."""
    for mask in masks(call.bound, attention.value.shape[1], batch):
        own = mask[image if len(mask) > 1 else 0]
        for padding in (own, ~own):
            if padding.any() and not padding.all():
                value = attention.value.masked_fill(padding[None, :, None], 0)
                yield replace(attention, value=value, padding=padding)
    yield attention
