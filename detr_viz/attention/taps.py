"""Deformable convolution over neighbouring levels as an attention site: points, but no softmax.

attention = ...                                 # TapAttention, captured at one encoder block
attention.samples(rows=[3])                     # xy (1, L, L, 9, 2), weight (1, L, L, 9)

A block of Dynamic DETR reads, for each cell of a level, nine places of the level itself and of its
neighbours (`part_calls`). Each tap has a matrix of its own, so that the points do not mix values by
weights as attention does: what a point has is its mask, in [0, 1]. Shown are masks as parts of
their sum. "Head" l of a row is the cell of level l that covers cell row of the finest level.

The self-check is the convolution itself, cell by cell: sum over taps of W_k m_k x(place k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detr_viz.attention.base import Rows
from detr_viz.attention.bilinear import Shapes, splat
from detr_viz.attention.grids import Grid
from detr_viz.attention.self_check import all_finite
from detr_viz.attention.terms import SCALES

PARTS = ("finer", "own", "coarser")  # levels that a block reads, beside and on the level itself
FORMULA = "m_k, the mask of tap k, as a part of the sum of all taps"
WHY = "offsets and masks of the encoder are predicted from the cell alone"
_MOST_CHECKED = 128  # rows of a self-check, of all parts together


class PartCall(NamedTuple):
    """One deformable convolution of a block.

    level   that the part is for
    part    one of PARTS
    source  the level that is read
    grid    the level on whose grid the part is made
    """

    level: int
    part: str
    source: int
    grid: int


def part_calls(levels: int) -> tuple[PartCall, ...]:
    """All convolutions of a block on so many levels, level by level."""
    calls = []
    for level in range(levels):
        for part, source in zip(PARTS, (level - 1, level, level + 1), strict=True):
            if 0 <= source < levels:
                calls.append(PartCall(level, part, source, max(level, source)))
    return tuple(calls)


@dataclass(frozen=True, eq=False)
class TapAttention:
    """The convolutions of one block for one image (an `Attention`), in the order of `part_calls`.

    places    of each (cells, K, 2) x, y in [0, 1] of the grid that is read; cells of its own grid
    masks     of each (cells, K)
    matrices  of each (K, C, C_out)
    values    of each level (h * w, C)
    shapes    (h, w) of each level
    grids     of the levels; () while they are not known
    """

    places: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    matrices: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    shapes: Shapes
    grids: tuple[Grid, ...] = ()

    kind = "taps"
    term_names = ()
    value = None

    def __repr__(self) -> str:
        return f"TapAttention({len(self.places)} convolutions on {len(self.shapes)} levels)"

    def of_image(self, i: int) -> TapAttention:
        """The same: there is one image."""
        return self

    @property
    def num_heads(self) -> int:
        """Levels of the cells that read."""
        return len(self.shapes)

    @property
    def num_rows(self) -> int:
        """Cells of the finest level."""
        return self.shapes[0][0] * self.shapes[0][1]

    @property
    def modes(self) -> dict[str, str]:
        """Combine alone, with its formula."""
        return {"combine": FORMULA}

    def _cells(self, rows: Rows, level: int) -> Tensor:
        """The cells of a level that cover these cells of the finest one, (q,)."""
        device = self.places[0].device
        if rows is None:
            rows = range(self.num_rows)
        chosen = torch.as_tensor(list(rows), dtype=torch.long, device=device)
        h, w = self.shapes[level]
        row = (chosen // self.shapes[0][1] >> level).clamp(max=h - 1)
        column = (chosen % self.shapes[0][1] >> level).clamp(max=w - 1)
        return row * w + column

    def _read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """xy (q, M, L, K, 2) in [0, 1] of the grids that are read, weight (q, M, L, K)."""
        levels, first = len(self.shapes), self.places[0]
        count = self.num_rows if rows is None else len(rows)
        xy = first.new_full((count, levels, levels, *first.shape[1:]), 0.5)
        weight = first.new_zeros(xy.shape[:-1])
        calls = zip(part_calls(levels), self.places, self.masks, strict=True)
        for call, places, masks in calls:
            cells = self._cells(rows, call.grid)
            xy[:, call.level, call.source] = places[cells]
            weight[:, call.level, call.source] = masks[cells]
        return xy, weight / weight.sum((-2, -1), keepdim=True).clamp(min=1e-12)

    def samples(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """xy (q, M, L, K, 2) in [0, 1] of the network's input, weight (q, M, L, K), 1 in all.

        Levels that a cell does not read have weight 0.
        """
        _check(mode)
        xy, weight = self._read(rows)
        for level, grid in enumerate(self.grids):
            reach = [grid.hw[k] * grid.stride / grid.input_hw[k] for k in (1, 0)]
            xy[:, :, level] *= xy.new_tensor(reach)
        return xy, weight

    def weights(self, mode: str = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S): masks on the cells that are read; a row sums to 1 less what is off the map."""
        _check(mode)
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
        return splat(*self._read(rows), self.shapes).transpose(0, 1)

    def even(self, rows: Rows = None) -> Tensor:
        """(M, 1, S): the same weight on every cell."""
        cells = sum(h * w for h, w in self.shapes)
        return self.places[0].new_full((len(self.shapes), 1, cells), 1 / cells)

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """How far the sum over the taps is from the convolutions' own outputs (R, C).

        |rec - out| / |out - uni| over some rows of every part; in uni each tap reads the mean cell.
        NaN if it cannot be tested, inf if something is not finite.
        """
        if not all_finite(out):
            return float("inf")
        calls = part_calls(len(self.shapes))
        counts = [len(places) for places in self.places]
        each = max(1, _MOST_CHECKED // len(calls))
        apart = spread = size = 0.0
        for i, rows_out in enumerate(out.split(counts)):
            rows = range(0, counts[i], -(-counts[i] // each))
            rec, uni = self._rows(i, calls[i].source, rows)
            own = rows_out[list(rows)].cpu().double()
            apart += float((rec - own).square().sum())
            spread += float((own - uni).square().sum())
            size += float(own.square().sum())
        if not apart < float("inf"):
            return float("inf")
        if spread < 1e-6 * size:
            return float("nan")
        return (apart / spread) ** 0.5 if spread else float("nan")

    def _rows(self, i: int, source: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Rows of a part as the sum over its taps, and the same if each tap reads the mean cell.

        In float64 on the CPU: some devices do not have it.
        """
        chosen = torch.as_tensor(list(rows), device=self.places[i].device)
        places, masks = self.places[i][chosen], self.masks[i][chosen]
        value = self.values[source]
        on_cells = splat(places[..., None, None, :], masks[..., None, None], [self.shapes[source]])
        read = on_cells @ value  # (n, K, C)
        even = masks[..., None] * value.mean(0)
        return tuple(
            torch.einsum("nkc,kcd->nd", x.cpu().double(), self.matrices[i].cpu().double())
            for x in (read, even)
        )


def _check(mode: object) -> None:
    if mode != "combine":
        raise ValueError(f"mode {mode!r} does not exist: {WHY}")
