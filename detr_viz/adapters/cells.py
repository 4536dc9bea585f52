"""The grids of the cells that a recorded cross-attention reads."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from detr_viz.adapters.read import rows_of
from detr_viz.adapters.read_sampled import shapes_of
from detr_viz.adapters.recorder import RawCall
from detr_viz.attention.grids import Grid
from detr_viz.common.errors import UserError


def grids_of(
    call: RawCall,
    input_hw: tuple[int, int],
    valid_hw: tuple[int, int] | None,
    rule: str,
    maps: Iterable[tuple[int, int]] = (),
    cells: int | None = None,
) -> tuple[Grid, ...]:
    """Grids, finest first as the network has them.

    maps: (h, w) of maps that the network made. cells: how many of the keys are cells, None: all.
    UserError where nothing says how the cells lie in rows and columns.
    """
    if call.site.kind == "sampled":
        shapes = shapes_of(call)
    else:
        shapes = (_dense(call, cells or rows_of(call)[1], input_hw, maps),)
    strides = [_stride(hw, input_hw) for hw in shapes]
    several = len(shapes) > 1
    return tuple(
        Grid(hw, input_hw, s, rule, valid_hw, f"level {i}, stride {s}" if several else "")
        for i, (hw, s) in enumerate(zip(shapes, strides, strict=True))
    )


def _dense(
    call: RawCall, cells: int, input_hw: tuple[int, int], maps: Iterable[tuple[int, int]]
) -> tuple[int, int]:
    seen = [hw for hw in maps if hw[0] * hw[1] == cells]
    if seen:
        return seen[-1]
    fitting = {
        hw: None
        for s in _strides(input_hw)
        if (hw := tuple(-(-side // s) for side in input_hw))[0] * hw[1] == cells
    }
    if len(fitting) != 1:
        raise UserError(
            f"{call.name} has {cells} keys, which are no grid of an input of "
            f"{input_hw[0]} x {input_hw[1]} pixels"
        )
    return next(iter(fitting))


def _strides(input_hw: tuple[int, int]) -> Iterable[int]:
    return range(1, max(input_hw) + 1)


def _stride(hw: tuple[int, int], input_hw: tuple[int, int]) -> int:
    """Pixels from cell to cell: a power of two where one fits, else the nearest whole number."""
    exact = (2**n for n in range(1, 8))
    for stride in exact:
        if hw == tuple(math.ceil(side / stride) for side in input_hw):
            return stride
    return max(1, round(max(side / cells for side, cells in zip(input_hw, hw, strict=True))))


def map_size(out: object) -> tuple[int, int] | None:
    """(h, w) of a map of channels, (B, C, h, w)."""
    return tuple(out.shape[-2:]) if isinstance(out, Tensor) and out.ndim == 4 else None
