"""RoIAlign and its exact adjoint, by two small matrices a box.

    RoI = Wy F Wx^T            F (h, w) a channel of a level, Wy (side, h), Wx (side, w)
    adjoint of S = Wy^T S Wx   S (side, side): what a value of each cell of the box read, and where

Both are separable: a bin is the mean of `samples` x `samples` bilinear samples, and a sample has
one weight along y and one along x. Equal to torchvision.ops.roi_align(aligned=True). Only tensor
maths: no model, no image.

Source: He et al. 2017 (Mask R-CNN), section 3, with the half-pixel shift of detectron2's
ROIAlignV2; levels by Lin et al. 2017 (Feature Pyramid Networks), equation 1.

Letters: B images, Q boxes, S cells of all levels (level by level, finest first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.attention.bilinear import Shapes

_SMALLEST = 1e-8  # detectron2's: a box without area is on the finest level


class RoIRule(NamedTuple):
    """How boxes read a pyramid.

    side             cells of a box along each axis
    samples          bilinear samples of a cell along each axis
    canonical_px     side of a square box that is read on canonical_level, in pixels of the input
    canonical_level  its level, as the logarithm of the stride: 4 means stride 16
    """

    side: int = 7
    samples: int = 2
    canonical_px: float = 224.0
    canonical_level: int = 4


class Pyramid(NamedTuple):
    """The levels of the memory, finest first: (h, w) and pixels from cell to cell of each."""

    shapes: Shapes
    strides: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Number of cells of all levels, S."""
        return sum(h * w for h, w in self.shapes)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first cell of each level."""
        return tuple(sum(h * w for h, w in self.shapes[:i]) for i in range(len(self.shapes)))


class Bins(NamedTuple):
    """What each cell of a box reads along y and along x: (..., side, 2 * samples) each.

    rows, columns         indices on the box's own level
    row_weights, column_weights   of a cell they sum to 1, less what falls off the map
    """

    rows: Tensor
    columns: Tensor
    row_weights: Tensor
    column_weights: Tensor


def levels_of(boxes: Tensor, strides: Sequence[int], rule: RoIRule) -> Tensor:
    """The level on which each box is read, (...) int64; boxes (..., 4) xyxy, pixels of the input.

    floor(canonical_level + log2(sqrt(area) / canonical_px)), clamped to the levels there are.
    """
    size = boxes.detach()[..., 2:] - boxes.detach()[..., :2]
    side = size.prod(-1).clamp(min=0).sqrt()
    level = torch.floor(rule.canonical_level + torch.log2(side / rule.canonical_px + _SMALLEST))
    first = math.log2(strides[0])
    return (level.nan_to_num(0) - first).clamp(0, len(strides) - 1).long()


def bins_of(boxes: Tensor, levels: Tensor, pyramid: Pyramid, rule: RoIRule) -> Bins:
    """What each cell of the boxes (..., 4), on their levels (...), reads."""
    stride = boxes.new_tensor(pyramid.strides)[levels]
    cells = torch.as_tensor(pyramid.shapes, device=boxes.device)[levels]  # (..., 2) h, w
    low, high = (boxes[..., i : i + 2] / stride[..., None] - 0.5 for i in (0, 2))
    (columns, x), (rows, y) = (
        _axis(low[..., k], high[..., k] - low[..., k], cells[..., 1 - k], rule) for k in (0, 1)
    )
    return Bins(rows, columns, y, x)


def _axis(start: Tensor, length: Tensor, cells: Tensor, rule: RoIRule) -> tuple[Tensor, Tensor]:
    """Indices and weights along one axis, (..., side, 2 * samples); start, length in cells.

    A sample more than a cell off the map reads nothing, a nearer one reads the map's edge.
    """
    count = rule.side * rule.samples
    steps = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    at = start[..., None] + steps * length[..., None]
    cells = cells[..., None]
    on_map = (at >= -1) & (at <= cells)
    at = torch.where(on_map, at, 0).clamp(min=0).minimum((cells - 1).to(at.dtype))
    low = at.floor()
    upper = at - low
    weight = torch.stack([1 - upper, upper], -1) * (on_map[..., None].to(at.dtype) / rule.samples)
    low = low.long()
    index = torch.stack([low, (low + 1).minimum(cells - 1)], -1)
    return tuple(x.unflatten(-2, (rule.side, rule.samples)).flatten(-2) for x in (index, weight))


def pooled(
    memory: Tensor, boxes: Tensor, levels: Tensor, pyramid: Pyramid, rule: RoIRule
) -> Tensor:
    """RoIAlign of each box on its level: (B, Q, side * side, C), cells row by row.

    memory (B or 1, S, C), boxes (B, Q, 4), levels (B, Q). Reads a few rows of memory for each cell
    (embedding_bag), whatever the size of the levels.
    """
    bins = bins_of(boxes, levels, pyramid, rule)
    starts, widths = (
        torch.as_tensor(x, device=boxes.device)[levels][..., None, None]
        for x in (pyramid.starts, [w for _, w in pyramid.shapes])
    )
    step = pyramid.cells if len(memory) > 1 else 0  # one memory for all, or one each
    images = torch.arange(len(boxes), device=boxes.device) * step
    rows = images[:, None, None, None] + starts + bins.rows * widths
    index = rows[..., :, None, :, None] + bins.columns[..., None, :, None, :]
    weight = bins.row_weights[..., :, None, :, None] * bins.column_weights[..., None, :, None, :]
    table = memory.reshape(-1, memory.shape[-1])
    bags = (x.flatten(-2).flatten(0, -2) for x in (index, weight.to(memory.dtype)))
    out = F.embedding_bag(next(bags), table, per_sample_weights=next(bags), mode="sum")
    return out.view(*levels.shape, rule.side**2, -1)


def pooled_by_matrices(
    memory: Tensor, boxes: Tensor, levels: Tensor, pyramid: Pyramid, rule: RoIRule
) -> Tensor:
    """The same as Wy F Wx^T: quicker forward and backward where levels are small."""
    bins = bins_of(boxes, levels, pyramid, rule)
    out = memory.new_zeros(*levels.shape, rule.side, rule.side, memory.shape[-1])
    for level, (start, hw) in enumerate(zip(pyramid.starts, pyramid.shapes, strict=True)):
        here = levels == level
        image = here.nonzero()[:, 0]
        if len(image):
            y, x = _matrices(Bins(*(part[here] for part in bins)), hw)
            grid = memory[:, start : start + hw[0] * hw[1]].unflatten(1, hw)
            grid = grid[image if len(memory) > 1 else torch.zeros_like(image)]
            rows = (y @ grid.flatten(2)).unflatten(-1, grid.shape[2:])  # (n, side, w, C)
            out[here] = x[:, None] @ rows
    return out.flatten(2, 3)


def adjoint(
    share: Tensor, boxes: Tensor, levels: Tensor, pyramid: Pyramid, rule: RoIRule
) -> Tensor:
    """Wy^T S Wx of each box on its level, (Q, S): shares (Q, side, side) as mass on the cells.

    A row sums to the sum of its shares, less what falls off the map.
    """
    bins = bins_of(boxes, levels, pyramid, rule)
    out = share.new_zeros(len(share), pyramid.cells)
    for level, (start, hw) in enumerate(zip(pyramid.starts, pyramid.shapes, strict=True)):
        here = (levels == level).nonzero()[:, 0]
        if len(here):
            y, x = _matrices(Bins(*(part[here] for part in bins)), hw)
            mass = y.transpose(-1, -2) @ (share[here] @ x)
            out[here, start : start + hw[0] * hw[1]] = mass.flatten(1)
    return out


def _matrices(bins: Bins, hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Wy (..., side, h) and Wx (..., side, w); indices beyond the grid are of other levels."""
    pairs = (bins.rows, bins.row_weights, hw[0]), (bins.columns, bins.column_weights, hw[1])
    return tuple(
        weight.new_zeros(*weight.shape[:-1], cells).scatter_add_(
            -1, index.clamp(max=cells - 1), weight
        )
        for index, weight, cells in pairs
    )
