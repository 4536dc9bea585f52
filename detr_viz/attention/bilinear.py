"""The cells between which samples of several levels lie: the splat of their weights on them.

    splat(xy, weight, shapes)                   # (B, M, Q, S): splat @ value is what was read

A sample lies between four cells: at pixel = location * size - 0.5, with zeros outside. How networks
read between them is in sampling.py, worked out in another way on purpose: a fault in one of the two
shows where maps are held against the network's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Sequence[tuple[int, int]]  # (h, w) of each level


def corners(xy: Tensor, weight: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """The four cells of each sample: index int32 (..., 4 * L * P) of the S cells, and weights.

    xy (..., L, P, 2) in [0, 1] of each level's grid, weight (..., L, P). A corner outside its grid
    has weight 0 and any index.

    Each step runs over whole rows of L * P points of one axis: in pairs of x and y, or all four
    corners at once, the same steps take twice the time on a CPU.
    """
    points = weight.shape[-1]
    layout = _layout(tuple(map(tuple, shapes)), points, xy.dtype, xy.device)
    x, y = xy.flatten(-3, -2).unbind(-1)  # (..., L * P)
    left, at_left, at_right = _shares(x, layout.x)
    top, above, below = _shares(y, layout.y)
    first = torch.addcmul(layout.start, left, layout.x.stride)
    first = torch.addcmul(first, top, layout.y.stride)
    weight = weight.flatten(-2)
    above, below = above * weight, below * weight
    shares = (above * at_left, above * at_right, below * at_left, below * at_right)
    index = first[..., None, :] + layout.steps
    return index.flatten(-2), torch.stack(shares, -2).flatten(-2)


def _shares(at: Tensor, axis: _Axis) -> tuple[Tensor, Tensor, Tensor]:
    """The first of the two cells of an axis that each sample reads, int32, and the share of both.

    A cell's share falls from 1 at its centre to 0 at its neighbours', so it is 0 for both of the
    cells at an edge if the sample lies outside: no test of what is inside is needed.
    """
    pixel = torch.addcmul(axis.half, at, axis.extent)
    first = torch.minimum(pixel.floor().clamp_(min=0), axis.last)
    apart = pixel - first
    beyond = apart - axis.reach
    return first.to(torch.int32), *((1 - d.abs()).clamp_(min=0) for d in (apart, beyond))


class _Axis(NamedTuple):
    """Constants of one axis, each for L * P points."""

    half: Tensor  # -0.5, the first cell's centre lies half a cell inside
    extent: Tensor  # cells along the axis
    last: Tensor  # the last cell that has a neighbour after it, or 0
    reach: Tensor  # from a cell to its neighbour; infinite if there is no other
    stride: Tensor  # int32, from the index of a cell to that of the next


class _Layout(NamedTuple):
    """Constants of `corners` for L * P points."""

    x: _Axis
    y: _Axis
    start: Tensor  # int32, the level's first cell
    steps: Tensor  # (4, L * P) int32, from the first of the four corners to each


@lru_cache(maxsize=64)
def _layout(
    shapes: tuple[tuple[int, int], ...],
    points: int,
    dtype: torch.dtype,
    device: torch.device,
) -> _Layout:
    with torch.inference_mode(False):  # else no training could use them later
        start = _starts(shapes, device).to(torch.int32)
        x = _axis([w for _, w in shapes], [1] * len(shapes), points, dtype, device)
        y = _axis([h for h, _ in shapes], [w for _, w in shapes], points, dtype, device)
        right = torch.where(x.extent > 1, x.stride, 0)
        down = torch.where(y.extent > 1, y.stride, 0)
        start = start.repeat_interleave(points)
        return _Layout(
            x, y, start, torch.stack((torch.zeros_like(right), right, down, right + down))
        )


def _axis(
    cells: Sequence[int],
    stride: Sequence[int],
    points: int,
    dtype: torch.dtype,
    device: torch.device,
) -> _Axis:
    extent = torch.tensor(cells, device=device, dtype=dtype).repeat_interleave(points)
    return _Axis(
        extent.new_tensor(-0.5),
        extent,
        (extent - 2).clamp(min=0),
        torch.where(extent > 1, 1.0, torch.inf).to(dtype),
        torch.tensor(stride, device=device, dtype=torch.int32).repeat_interleave(points),
    )


def _starts(shapes: Shapes, device: torch.device) -> Tensor:
    """Index of the first cell of each level."""
    cells = torch.tensor([h * w for h, w in shapes], device=device)
    return cells.cumsum(0) - cells


def splat(xy: Tensor, weight: Tensor, shapes: Shapes) -> Tensor:
    """Each sample's weight on the cells that it reads: (..., S), the transpose of the sampling.

    xy (..., L, P, 2), weight (..., L, P). What falls outside is left out, so a row's sum is less
    than that of the weights.
    """
    index, share = corners(xy, weight, shapes)
    cells = sum(h * w for h, w in shapes)
    return share.new_zeros(*share.shape[:-1], cells).scatter_add_(-1, index.long(), share)


def mixed_corners(xy: Tensor, weight: Tensor, shapes: Shapes, value: Tensor) -> Tensor:
    """splat(xy, weight, shapes) @ value, of the cells that are read alone: (M, Q, D).

    xy (M, Q, L, P, 2), weight (M, Q, L, P), value (M, S, D).
    """
    index, share = corners(xy, weight, shapes)
    heads, cells, _ = value.shape
    first = torch.arange(heads, device=index.device)[:, None, None] * cells
    wide = torch.promote_types(value.dtype, torch.float32)  # sums of half precisions lose digits
    total = F.embedding_bag(
        (index + first).flatten(0, 1),
        value.flatten(0, 1).to(wide),
        mode="sum",
        per_sample_weights=share.flatten(0, 1).to(wide),
    )
    return total.unflatten(0, (heads, -1)).to(value.dtype)


def places_of(xy: Tensor, shapes: Shapes) -> Tensor:
    """Where each sample lies: (..., L, P) index of a cell of the finest level, whatever its own.

    xy (..., L, P, 2) in [0, 1] of each level's grid; all levels cover the same image. A sample up
    to half a cell of its level outside lies in the cell at the edge, which it reads, and one
    beyond, where nothing is read, has -1.
    """
    sizes = torch.tensor(shapes, device=xy.device)[:, None]  # (L, 1, 2): h, w
    finest = sizes[sizes.prod(-1).argmax()][0]
    share = xy.flip(-1)
    inside = ((share * sizes > -0.5) & (share * sizes < sizes + 0.5)).all(-1)
    cell = torch.minimum((share * finest).clamp(min=0).to(torch.long), finest - 1)
    return torch.where(inside, cell[..., 0] * finest[1] + cell[..., 1], -1)


def in_boxes(xy: Tensor, boxes: Tensor) -> Tensor:
    """Whether each sample lies in its query's box, its outline included: (..., Q, L, P).

    xy (..., Q, L, P, 2) and boxes (Q, 4), x0, y0, x1, y1, both in [0, 1] of the levels' grids.
    """
    low, high = boxes[:, None, None].to(xy.dtype).split(2, -1)
    return ((low <= xy) & (xy <= high)).all(-1)
