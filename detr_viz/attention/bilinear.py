"""Bilinear sampling of several levels as one weighted sum of cells, and its transpose, the splat.

    sampled(value, xy, weight, shapes)          # (B, M, Q, D), as a deformable network computes it
    splat(xy, weight, shapes)                   # (B, M, Q, S): splat @ value is the same again

A sample lies between four cells: at pixel = location * size - 0.5, with zeros outside. So a head's
output for a query is a sum of 4 * L * P cells, which `embedding_bag` adds up without any tensor of
that size. On a CPU that takes a sixth of the time of the usual grid_sample of each level.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """
    points = weight.shape[-1]
    sizes = torch.tensor(shapes, device=xy.device, dtype=torch.int32)
    sizes = sizes.repeat_interleave(points, 0)  # (L * P, 2)
    start = _starts(shapes, xy.device).repeat_interleave(points).to(torch.int32) * heads
    if heads > 1:
        start = start + torch.arange(heads, device=xy.device, dtype=torch.int32)[:, None]
    flat = xy.flatten(-3, -2)
    rows, row_shares = _neighbours(flat[..., 1], sizes[:, 0])
    columns, column_shares = _neighbours(flat[..., 0], sizes[:, 1])
    each = weight.flatten(-2)
    columns = [column * heads for column in columns]
    index, shares = [], []
    for row, row_share in zip(rows, row_shares, strict=True):
        first, part = row * (sizes[:, 1] * heads) + start, row_share * each
        for column, column_share in zip(columns, column_shares, strict=True):
            index.append(first + column)
            shares.append(part * column_share)
    return torch.cat(index, -1), torch.cat(shares, -1)


def _neighbours(at: Tensor, size: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Along one axis the two cells next to each location, and their shares (0 outside)."""
    extent = size.to(at.dtype)
    pixel = at * extent - 0.5
    low = pixel.floor()
    high = low + 1
    near = pixel - low
    shares = (
        (1 - near) * ((low >= 0) & (low < extent)),
        near * ((high >= 0) & (high < extent)),
    )
    cells = (torch.minimum(cell.clamp(min=0), extent - 1).to(size.dtype) for cell in (low, high))
    return tuple(cells), shares


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
