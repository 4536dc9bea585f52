"""How much of each query's attention lies in a box, and how much would lie there by chance.

    wide = widened(explanation, boxes)
    mass = attention_mass(explanation, wide)                # (Q, n)
    beyond_chance(mass, area_shares(wide, explanation.image.hw))

The attention is the one that the network uses (mode combine), the mean over its heads, in the last
captured layer. Of sampled attention the samples are spread over the four cells around them; of
stages it is where the stage reads the image. A cell counts by the part of its area in the box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detr_viz.attention.grids import Grid
    from detr_viz.explanation.results import ExplanationBase

_AT_ONCE = 64  # queries, for memory


def attention_mass(
    explanation: ExplanationBase, boxes_xyxy_px: NDArray
) -> NDArray[np.float64]:  # (Q, n)
    """(Q, n): the part of each query's attention in each box (n, 4), pixels of the image."""
    grids, hw = explanation.grids(), explanation.image.hw
    cover = [
        tuple(_cover(grid, boxes_xyxy_px, hw[axis], axis) for axis in (0, 1)) for grid in grids
    ]
    count = explanation.num_queries
    mass = np.zeros((count, len(boxes_xyxy_px)))
    for start in range(0, count, _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, count))
        levels = explanation.level_maps("combine", list(some))
        for maps, (rows, columns) in zip(levels, cover, strict=True):
            mean = maps.mean(1, dtype=np.float64)
            mass[some.start : some.stop] += np.einsum("qhw,nh,nw->qn", mean, rows, columns)
    return mass


def _cover(grid: Grid, boxes: NDArray, image_px: int, axis: int) -> NDArray[np.float64]:
    """(n, cells): the fraction of each cell's width (axis 1) or height (0) in each box."""
    borders = grid.of_photo(axis) * image_px
    low, high = boxes[:, [1 - axis]], boxes[:, [3 - axis]]
    inside = np.minimum(borders[None, 1:], high) - np.maximum(borders[None, :-1], low)
    return np.clip(inside, 0, None) / np.diff(borders)[None]


def widened(explanation: ExplanationBase, boxes_xyxy_px: NDArray) -> NDArray[np.float64]:  # (n, 4)
    """The boxes cut at the image's edges, and at least as wide and high as a cell of the finest
    grid: attention knows no finer place. (n, 4)
    """
    hw = explanation.image.hw
    cell = cell_px(explanation)
    boxes = np.asarray(boxes_xyxy_px, np.float64).copy()
    for low, axis in ((0, 1), (1, 0)):
        side = min(cell[axis], hw[axis])
        start, end = (np.clip(boxes[:, k], 0, hw[axis]) for k in (low, low + 2))
        middle, half = (start + end) / 2, np.maximum(end - start, side) / 2
        middle = np.clip(middle, half, hw[axis] - half)
        boxes[:, low], boxes[:, low + 2] = middle - half, middle + half
    return boxes


def cell_px(explanation: ExplanationBase) -> tuple[float, float]:
    """Height and width of a cell of the finest grid, pixels of the image."""
    grid, hw = explanation.grid(), explanation.image.hw
    return tuple(grid.stride * hw[axis] / grid.shown_hw[axis] for axis in (0, 1))


def area_shares(boxes_xyxy_px: NDArray, image_hw: tuple[int, int]) -> NDArray[np.float64]:  # (n,)
    """(n,): the share of each box in the image's area: what even attention would have there."""
    sides = np.clip(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], 0, None)
    return np.prod(sides, -1) / (image_hw[0] * image_hw[1])


def beyond_chance(mass: NDArray, share: NDArray) -> NDArray[np.float64]:
    """What of the attention that could be beyond chance is: (mass - share) / (1 - share).

    1: all attention is there; 0: as much as even attention would have; below 0: less.
    """
    room = 1 - share
    return np.divide(mass - share, room, out=np.zeros_like(mass - share), where=room > 1e-9)
