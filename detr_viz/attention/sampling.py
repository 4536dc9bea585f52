"""Reading between the cells of several levels, as deformable networks do: weighted sums of cells.

    sampled(value, xy, weight, shapes)                       # (B, Q, M, D)
    cells = Cells.of(value, shapes)                          # the same in two steps, for parts of
    cells.read(pixel, weight)                                # the queries

A sample lies between four cells, with zeros outside. So a head's output for a query is a sum of
4 * L * P cells, which `embedding_bag` adds up without any tensor of that size. On a CPU that takes
a sixth of the time of the usual grid_sample of each level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.attention.bilinear import Shapes

CHUNK = 1024  # queries at a time: their indices and weights stay in the processor's cache


def sampled(value: Tensor, xy: Tensor, weight: Tensor, shapes: Shapes) -> Tensor:
    """The weighted sum of the samples of each head: (B, Q, M, D).

    value (B, S, M, D), xy (B, Q, M, L, P, 2), weight (B, Q, M, L, P). A batch of one value stands
    for all images.
    """
    cells = Cells.of(value, shapes)
    chunks = zip(xy.split(CHUNK, 1), weight.split(CHUNK, 1), strict=True)
    parts = [cells.at(*chunk) for chunk in chunks]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class Cells(NamedTuple):
    """The cells of all levels, each level with a border of zeros, to read between them.

    With the border a sample needs no test of whether it lies inside: beyond the border it is moved
    onto it. A row of cells ends where the next begins, so one column is the border of both sides.

    tables  an image each: (rows of (cell, head), D)
    """

    tables: tuple[Tensor, ...]
    heads: int
    shapes: Shapes

    def __repr__(self) -> str:
        rows, width = self.tables[0].shape
        return f"Cells of {len(self.tables)} images: {rows} rows of {width} numbers"

    @classmethod
    def of(cls, value: Tensor, shapes: Shapes) -> Cells:
        """value (B, S, M, D)."""
        batch, _, heads, width = value.shape
        starts, rows = _bordered(shapes)
        tables = value.new_zeros(batch, rows, heads * width)
        parts = value.flatten(2).split([h * w for h, w in shapes], 1)
        for (h, w), start, part in zip(shapes, starts, parts, strict=True):
            grid = tables[:, start : start + (h + 2) * (w + 1)].unflatten(1, (h + 2, w + 1))
            grid[:, 1:-1, 1:] = part.unflatten(1, (h, w))
        return cls(tuple(tables.view(batch, rows * heads, width)), heads, shapes)

    def at(self, xy: Tensor, weight: Tensor) -> Tensor:
        """As `sampled`, of these samples."""
        size = xy.new_tensor([(w, h) for h, w in self.shapes])[:, None]
        pixel = torch.addcmul(xy.new_tensor(-0.5), xy, size)
        return self.read(pixel.flatten(-3, -2), weight.flatten(-2))

    def read(self, pixel: Tensor, weight: Tensor) -> Tensor:
        """The weighted sums (B, q, M, D) of samples at pixel (B, q, M, L * P, 2), x, y in cells.

        0 is the middle of the first cell. weight (B, q, M, L * P). Each step runs over whole rows
        of L * P points of one axis: in pairs of x and y the same steps take twice the time.
        """
        read = []
        for image, (points, share) in enumerate(zip(pixel, weight, strict=True)):
            table = self.tables[image if len(self.tables) > 1 else 0]
            index, shares = self._corners(points, share)
            if shares.requires_grad and not table.requires_grad:
                table = table.detach().requires_grad_()  # torch 2.5 fails by weights alone
            total = F.embedding_bag(
                index, table, mode="sum", per_sample_weights=shares.to(table.dtype)
            )
            read.append(total.unflatten(0, (-1, self.heads)))
        return read[0][None] if len(read) == 1 else torch.stack(read)

    def _corners(self, pixel: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table int32 (q * M, 4 * L * P) and weights of the four cells of samples."""
        points = weight.shape[-1] // len(self.shapes)
        shapes = tuple(map(tuple, self.shapes))
        layout = _border_layout(shapes, self.heads, points, pixel.dtype, pixel.device)
        x, y = pixel.unbind(-1)
        x = torch.clamp(x, layout.least, layout.most_x)
        y = torch.clamp(y, layout.least, layout.most_y)
        left, top = x.floor(), y.floor()
        x -= left
        y -= top
        wide = layout.start.dtype  # which counts all rows exactly
        first = torch.addcmul(layout.start, top.to(wide), layout.down)
        first = torch.addcmul(first, left.to(wide), layout.right).to(torch.int32)
        below = weight * y
        above = weight - below
        right_above, right_below = above * x, below * x
        shares = (above - right_above, right_above, below - right_below, right_below)
        index = first[..., None, :] + layout.steps
        return (
            index.flatten(-2).flatten(0, 1),
            torch.stack(shares, -2).flatten(-2).flatten(0, 1),
        )


class _BorderLayout(NamedTuple):
    """Constants of `Cells` for L * P points.

    least, most_x, most_y  of the coordinates: on the border
    start  (M, L * P) row of the table at x = y = 0
    right, down  rows of the table from a cell to the next
    steps  (4, L * P) int32, from the first of the four corners to each
    """

    least: Tensor
    most_x: Tensor
    most_y: Tensor
    start: Tensor
    right: Tensor
    down: Tensor
    steps: Tensor


def _bordered(shapes: Shapes) -> tuple[list[int], int]:
    """(first cell of each level with its border, number of cells).

    At the end is room for the neighbours, of no weight, of what lies on the last border.
    """
    starts, rows = [], 0
    for h, w in shapes:
        starts.append(rows)
        rows += (h + 2) * (w + 1)
    return starts, rows + shapes[-1][1] + 3


@lru_cache(maxsize=64)
def _border_layout(
    shapes: tuple[tuple[int, int], ...],
    heads: int,
    points: int,
    dtype: torch.dtype,
    device: torch.device,
) -> _BorderLayout:
    starts, rows = _bordered(shapes)
    counts = torch.float32 if rows * heads < 1 << 24 else torch.float64
    wide = torch.promote_types(dtype, counts)

    def each(values: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, device=device, dtype=dtype).repeat_interleave(points)

    with torch.inference_mode(False):  # else no training could use them later
        right = each([heads] * len(shapes), wide)
        down = each([(w + 1) * heads for _, w in shapes], wide)
        start = each([start * heads for start in starts], wide) + down + right
        head = torch.arange(heads, device=device, dtype=wide)[:, None]
        steps = torch.stack([torch.zeros_like(right), right, down, right + down])
        return _BorderLayout(
            least=torch.tensor(-1.0, device=device, dtype=dtype),
            most_x=each([w for _, w in shapes], dtype),
            most_y=each([h for h, _ in shapes], dtype),
            start=start + head,
            right=right,
            down=down,
            steps=steps.to(torch.int32),
        )
