"""Which cells of a map a line goes around: those that hold a share of its weight.

    level(map_hw, 0.5)                  cells above it are the fewest that hold half of the map
    found = region(map_hw, 0.5, "smooth")
    found.field, found.level            what a line is drawn in, and at which height
    found.inside                        (h, w) bool, the cells

As they are, the densest cells of a noisy map are dozens of specks. "smooth" orders cells by the map
under a Gaussian, but counts their own weights, so that the line still holds its share; and leaves
out the least islands as long as they hold little.

Letters: M maps, h w cells of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPREAD = 1 / 3  # of the map: a line around more says nothing of where the weight is
SMOOTHED_CELLS = 0.8  # sigma of the Gaussian that orders cells
ISLANDS = 0.06  # of what a line holds: islands that hold no more together are left out
_ROUNDING = 1e-6  # relative, of a softmax in float32: weights this close are equal


class Region(NamedTuple):
    """Cells of a map (h, w): where `field` is above `level`; None: no line parts them."""

    field: np.ndarray
    level: float | None
    inside: np.ndarray


def level(map_hw: np.ndarray, share: float, order_hw: np.ndarray | None = None) -> float | None:
    """Height above which lie the fewest cells that hold `share` of the map (h, w), or None.

    order_hw  heights by which cells are taken, the highest first; None: their weights

    Cells are taken until the sum of their weights is share * sum(map). The level is halfway between
    the height of the last one taken and the next: no line at it meets a cell's centre, and the
    cells above hold the share, over by less than the last one. Equal heights (to 1e-6) cannot be
    parted: all of them are taken or none, whichever comes closer to the share; all where both are
    equally close. None if every cell is taken, or none: no line separates them then.

    The cells above are the discrete highest-density region: Hyndman (1996), Computing and graphing
    highest density regions.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share!r} is not above 0 and up to 1")
    weights = np.asarray(map_hw, np.float64).ravel()
    heights = weights if order_hw is None else np.asarray(order_hw, np.float64).ravel()
    order = np.argsort(heights, kind="stable")[::-1]
    weights, heights = weights[order], heights[order]
    held = np.concatenate([[0.0], np.cumsum(weights)])  # by the first n cells
    target = share * held[-1]
    parted = heights[:-1] - heights[1:] > _ROUNDING * heights[:-1]
    cuts = np.flatnonzero(np.concatenate([[True], parted, [True]]))  # n cells can be taken alone
    reached = np.searchsorted(held, target * (1 - _ROUNDING))
    at = np.searchsorted(cuts, reached)
    taken = cuts[at]
    if taken > reached and target - held[cuts[at - 1]] < held[taken] - target:
        taken = cuts[at - 1]
    if taken in (0, weights.size):
        return None
    return float(heights[taken - 1] + heights[taken]) / 2


def region(map_hw: np.ndarray, share: float, interpolation: str) -> Region:
    """The cells whose line holds a share of a map (h, w).

    interpolation  "smooth": the map under a Gaussian of .8 of a cell orders the cells, and of the
                   islands the least are left out while together they hold at most 6 % of the line's
                   weight; else the cells of the largest weights, all of them
    """
    weights = np.asarray(map_hw, np.float64)
    if interpolation != "smooth":
        at = level(weights, share)
        return Region(weights, at, np.full(weights.shape, True) if at is None else weights > at)
    field = _smoothed(weights)
    at = level(weights, share, field)
    if at is None:
        return Region(field, None, np.full(weights.shape, True))
    inside = field > at
    return _without_specks(weights, Region(field, at, inside))


def region_rule(interpolation: str) -> str:
    """Which cells are inside, in words."""
    if interpolation != "smooth":
        return "the cells of the largest weights"
    return (
        f"cells in the order of the map under a Gaussian of {SMOOTHED_CELLS:g} cells; the least "
        f"islands left out, which hold up to {round(100 * ISLANDS)} % of it"
    )


def held_cells(maps: np.ndarray, share: float, interpolation: str) -> np.ndarray:
    """(M,): the part of all cells that the line of a share holds; 1 where there is no line."""
    return np.array([region(one, share, interpolation).inside.mean() for one in maps])


def is_spread(maps: np.ndarray, share: float, interpolation: str) -> np.ndarray:
    """(M,): whether the line of a share would hold more than a third of the map."""
    return held_cells(maps, share, interpolation) > SPREAD


def _smoothed(weights: np.ndarray) -> np.ndarray:
    """A map under the Gaussian; its borders mirror, so an even map stays even."""
    from scipy import ndimage

    return ndimage.gaussian_filter(weights, SMOOTHED_CELLS, mode="reflect", truncate=4)


def _without_specks(weights: np.ndarray, found: Region) -> Region:
    """Without the least islands (cells that touch by a side or corner) of 6 % together."""
    from scipy import ndimage

    islands, count = ndimage.label(found.inside, np.ones((3, 3)))
    if count < 2:
        return found
    held = ndimage.sum_labels(weights, islands, np.arange(1, count + 1))
    order = np.argsort(held, kind="stable")
    small = order[np.cumsum(held[order]) <= ISLANDS * held.sum()] + 1
    if not small.size:
        return found
    dropped = np.isin(islands, small)
    below = found.field[~found.inside].max()  # the highest field outside: no line goes around it
    field = np.where(dropped, below, found.field)
    return Region(field, found.level, found.inside & ~dropped)
