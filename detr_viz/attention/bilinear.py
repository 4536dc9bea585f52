"""Bilinear sampling of several levels as one weighted sum of cells, and its transpose, the splat.

    sampled(value, xy, weight, shapes)          # (B, M, Q, D), as a deformable network computes it
    splat(xy, weight, shapes)                   # (B, M, Q, S): splat @ value is the same again

A sample lies between four cells: at pixel = location * size - 0.5, with zeros outside. So a head's
output for a query is a sum of 4 * L * P cells, which `embedding_bag` adds up without any tensor of
that size. On a CPU that takes a sixth of the time of the usual grid_sample of each level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Sequence[tuple[int, int]]  # (h, w) of each level
_CHUNK = 1024  # queries at a time: their indices and weights stay in the processor's cache


def corners(xy: Tensor, weight: Tensor, shapes: Shapes, heads: int = 1) -> tuple[Tensor, Tensor]:
    """The four cells of each sample: index int32 (..., 4 * L * P) of the S cells, and weights.

    xy (..., L, P, 2) in [0, 1] of each level's grid, weight (..., L, P). A corner outside its grid
    has weight 0 and any index. heads: the index is that of rows (cell, head) where samples are
    (..., heads, L, P, 2).

    Both axes go through each step together: on many threads every step costs a wait for all.
    """
    points = weight.shape[-1]
    layout = _layout(shapes, heads, points, xy)
    pixel = torch.addcmul(layout.half, xy.flatten(-3, -2), layout.extent)  # (..., L * P, 2)
    low = torch.minimum(pixel.floor().clamp_(min=0), layout.last)
    # A cell's share falls from 1 at its centre to 0 at its neighbours', so it is 0 for both of
    # the cells at an edge if the sample lies outside: no test of what is inside is needed.
    apart = torch.stack((pixel - low, pixel - (low + layout.reach)), -3)  # (..., 2, L * P, 2)
    share = (1 - apart.abs_()).clamp_(min=0)
    first = low.to(torch.int32) * layout.stride  # (..., L * P, 2)
    index = (first[..., 0] + first[..., 1] + layout.start)[..., None, :] + layout.steps
    down = share[..., 1] * weight.flatten(-2)[..., None, :]
    shares = down[..., :, None, :] * share[..., None, :, :, 0]
    return index.flatten(-2), shares.flatten(-3)


class _Layout(NamedTuple):
    """Constants of `corners` for each of L * P points; the last axis is x, y."""

    half: Tensor  # -0.5, the first cell's centre lies half a cell inside
    extent: Tensor  # (L * P, 2) cells along an axis
    last: Tensor  # (L * P, 2) the last cell that has a neighbour after it, or 0
    reach: Tensor  # (L * P, 2) from a cell to its neighbour; out of reach if there is no other
    stride: Tensor  # (L * P, 2) rows of the table from a cell to the next
    start: Tensor  # (L * P) or (heads, L * P), the level's first row of the table
    steps: Tensor  # (4, L * P) from the first of the four corners to each


def _layout(shapes: Shapes, heads: int, points: int, like: Tensor) -> _Layout:
    size = torch.tensor(shapes, device=like.device, dtype=torch.int32).flip(-1)  # (L, 2) w, h
    start = _starts(shapes, like.device).to(torch.int32) * heads
    stride = torch.stack((torch.full_like(size[:, 0], heads), size[:, 0] * heads), -1)
    step = torch.where(size > 1, stride, 0)
    steps = torch.stack((torch.zeros_like(start), step[:, 0], step[:, 1], step.sum(-1)))
    start = start.repeat_interleave(points)
    if heads > 1:
        start = start + torch.arange(heads, device=like.device, dtype=torch.int32)[:, None]
    extent = size.to(like.dtype).repeat_interleave(points, 0)
    return _Layout(
        extent.new_tensor(-0.5),
        extent,
        (extent - 2).clamp(min=0),
        torch.where(extent > 1, 1.0, 2.0).to(like.dtype),
        stride.repeat_interleave(points, 0),
        start,
        steps.repeat_interleave(points, 1),
    )


def _starts(shapes: Shapes, device: torch.device) -> Tensor:
    """Index of the first cell of each level."""
    cells = torch.tensor([h * w for h, w in shapes], device=device)
    return cells.cumsum(0) - cells


def sampled(value: Tensor, xy: Tensor, weight: Tensor, shapes: Shapes) -> Tensor:
    """The weighted sum of the samples of each head: (B, Q, M, D).

    value (B, S, M, D), xy (B, Q, M, L, P, 2), weight (B, Q, M, L, P). A batch of one value stands
    for all images.
    """
    cells, heads, width = value.shape[1:]
    out = value.new_empty(*weight.shape[:3], width)
    for image in range(len(weight)):
        table = value[image if len(value) > 1 else 0].reshape(cells * heads, width)
        for start in range(0, weight.shape[1], _CHUNK):
            some = slice(start, start + _CHUNK)
            index, share = corners(xy[image, some], weight[image, some], shapes, heads)
            total = F.embedding_bag(
                index.flatten(0, 1),
                table,
                mode="sum",
                per_sample_weights=share.flatten(0, 1).to(table.dtype),
            )
            out[image, some] = total.unflatten(0, (-1, heads))
    return out


def splat(xy: Tensor, weight: Tensor, shapes: Shapes) -> Tensor:
    """Each sample's weight on the cells that it reads: (..., S), the transpose of the sampling.

    xy (..., L, P, 2), weight (..., L, P). What falls outside is left out, so a row's sum is less
    than that of the weights.
    """
    index, share = corners(xy, weight, shapes)
    cells = sum(h * w for h, w in shapes)
    return share.new_zeros(*share.shape[:-1], cells).scatter_add_(-1, index.long(), share)


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
