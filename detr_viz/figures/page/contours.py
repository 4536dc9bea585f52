"""Lines around the densest cells of a map, which hold a share of its weight.

    level  = contours.level(map_hw, 0.8)                     cells above it hold 80 % of the map
    drawn  = contours.lines(maps, grid, (114, 152))         drawn[map][share] -> [(n, 2), ...]

Letters: M maps, h w cells of a map, H W pixels of a panel. A panel spans [0, W] x [0, H] in x to
the right and y down, so pixel j is centred at j + 0.5. The lines are those of the picture that
`tiles.resample` makes of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.figures.page import tiles
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.styles import CONTOUR_SHARES

SHARES = CONTOUR_SHARES

SPREAD = 1 / 3  # of the map: a line around more says nothing of where the weight is
_SAMPLES = 4  # a cell, along an axis: between them a line is straight
_ROUNDING = 1e-6  # relative, of a softmax in float32: weights this close are equal
_DECIMALS = 12  # of a position in samples; below are the last bits of an interpolation
_STRAIGHT = 1e-9  # sine of an angle that is none


def level(map_hw: np.ndarray, share: float) -> float | None:
    """Weight above which lie the fewest cells that hold `share` of the map (h, w), or None.

    Cells are taken from the largest down until their sum is share * sum(map). The level is halfway
    between the last one taken and the next: no line at it meets a cell's centre, and the cells
    above hold the share, over by less than the last one. Equal cells (to 1e-6 of their weight)
    cannot be parted: all of them are taken or none, whichever comes closer to the share; all where
    both are equally close. None if every cell is taken, or none: no line separates them then.

    The cells above are the discrete highest-density region: Hyndman (1996), Computing and graphing
    highest density regions.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share!r} is not above 0 and up to 1")
    weights = np.sort(np.asarray(map_hw, np.float64), axis=None)[::-1]
    held = np.concatenate([[0.0], np.cumsum(weights)])  # by the first n cells
    target = share * held[-1]
    parted = weights[:-1] - weights[1:] > _ROUNDING * weights[:-1]
    cuts = np.flatnonzero(np.concatenate([[True], parted, [True]]))  # n cells can be taken alone
    reached = np.searchsorted(held, target * (1 - _ROUNDING))
    at = np.searchsorted(cuts, reached)
    taken = cuts[at]
    if taken > reached and target - held[cuts[at - 1]] < held[taken] - target:
        taken = cuts[at - 1]
    if taken in (0, weights.size):
        return None
    return float(weights[taken - 1] + weights[taken]) / 2


def held_cells(maps: np.ndarray, share: float) -> np.ndarray:
    """(M,): the part of all cells that is above the level of a share; 1 where there is no level."""
    parts = []
    for one in maps:
        at = level(one, share)
        parts.append(1.0 if at is None else float((one > at).mean()))
    return np.array(parts)


def is_spread(maps: np.ndarray, share: float) -> np.ndarray:
    """(M,): whether the line of a share would hold more than a third of the map."""
    return held_cells(maps, share) > SPREAD


def lines(
    maps: np.ndarray,
    grid: Grid,
    panel_hw: tuple[int, int],
    shares: Sequence[float] = SHARES,
    interpolation: str = "cubic",
    crop: Crop | None = None,
    photo_hw: tuple[int, int] = (1, 1),
) -> list[tuple[list[np.ndarray], ...]]:
    """Lines of maps (M, h, w) at the levels of `shares`: M tuples of a list of (n, 2) a share.

    A line is float64 (x, y) in panel pixels. It is closed, and repeats its first point, or it ends
    on the panel's edge, exactly: none runs along the edge or passes it. A cell's centre is inside
    if, and only if, its weight is above the level. A share that has no level has no lines.

    cubic, linear: straight between points that are a quarter of a cell apart or less; nearest: the
    outlines of cells, which end at the edge where it cuts a cell. Cubic lines around peaks that the
    interpolation adds between the cells are left out: no cell has such a weight.

    crop: the part of a photo of photo_hw pixels that the panel shows; None: all of it
    """
    from contourpy import LineType, contour_generator

    cells_hw = maps.shape[-2:]
    if crop is None:
        crop, photo_hw = Crop.whole(panel_hw), panel_hw
    edges = ((crop.y0, crop.y1), (crop.x0, crop.x1))
    centers = [
        (grid.centers(photo_hw[k], k) + 0.5 - edges[k][0])
        * (panel_hw[k] / (edges[k][1] - edges[k][0]))
        for k in (0, 1)
    ]
    y, v = _samples(centers[0], panel_hw[0], interpolation)
    x, u = _samples(centers[1], panel_hw[1], interpolation)
    rows = tiles.weights_at(v, cells_hw[0], interpolation)
    columns = tiles.weights_at(u, cells_hw[1], interpolation)
    points, counts, owners = [np.empty((0, 2))], [], []
    for m, map_hw in enumerate(np.asarray(maps, np.float64)):
        field = rows @ map_hw @ columns.T
        generator = contour_generator(z=field, line_type=LineType.ChunkCombinedOffset)
        for s, share in enumerate(shares):
            at = level(map_hw, share)
            (xy_of_lines,), (offsets,) = generator.lines(at) if at is not None else ([None], [None])
            if xy_of_lines is not None:
                points.append(xy_of_lines)
                counts.extend(np.diff(offsets.astype(np.intp)))
                owners.extend([(m, s)] * (len(offsets) - 1))

    # In samples one coordinate of every point is whole. Rounded to it, a point on an edge of the
    # panel or of a cell is on it exactly.
    i = np.round(np.concatenate(points), _DECIMALS)
    xy = np.stack([np.interp(i[:, k], np.arange(at.size), at) for k, at in enumerate((x, y))], -1)
    counts = np.array(counts, np.intp)
    kept = _has_cells(xy, counts, centers[::-1])
    drawn = [tuple([] for _ in shares) for _ in maps]
    thin = _thinned(xy[np.repeat(kept, counts)], counts[kept])
    for line, k in zip(thin, np.flatnonzero(kept), strict=True):
        m, s = owners[k]
        drawn[m][s].append(line)
    return drawn


def _samples(centers: np.ndarray, out_px: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Where an axis is sampled, in panel pixels from 0 to out_px, and the same in cells.

    Every cell's centre is among them, and has its weight there, not one that is nearly it.
    """
    whole = np.arange(centers.size)
    if interpolation == "nearest":  # two samples on a border: the weight leaps there
        px, u = np.repeat((centers[:-1] + centers[1:]) / 2, 2), np.repeat(whole, 2)[1:-1]
    else:
        u = np.arange((centers.size - 1) * _SAMPLES + 1) / _SAMPLES
        px = np.interp(u, whole, centers)
    shown = (px > 0) & (px < out_px)
    first, last = np.interp([0, out_px], centers, whole)
    return np.r_[0, px[shown], out_px], np.r_[first, u[shown], last]


def _has_cells(points: np.ndarray, counts: np.ndarray, centers_xy: list[np.ndarray]) -> np.ndarray:
    """Which lines (counts of points (N, 2) each) are open or have a cell's centre in their box."""
    ends = np.cumsum(counts)
    starts = ends - counts
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    some = np.ones(len(counts), bool)
    for k, centers in enumerate(centers_xy):
        some &= centers.searchsorted(low[:, k]) < centers.searchsorted(high[:, k])
    return some | (points[starts] != points[ends - 1]).any(1)


def _thinned(points: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Lines (counts of points (N, 2) each) without points that repeat or lie on a straight way.

    For all lines at once, as there are thousands of small ones.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    closed = (points[starts] == points[ends - 1]).all(1)
    distinct = np.ones(len(points), bool)
    distinct[:-1] = (points[:-1] != points[1:]).any(1)
    distinct[ends - 1] = ~closed  # the last point of a closed line comes back below
    counts = np.add.reduceat(distinct, starts, dtype=np.intp)
    points = points[distinct]

    ends = np.cumsum(counts)
    starts = ends - counts
    before, after = np.arange(len(points)) - 1, np.arange(len(points)) + 1
    before[starts] = np.where(closed, ends - 1, starts)
    after[ends - 1] = np.where(closed, starts, ends - 1)
    (ax, ay), (bx, by) = (points - points[before]).T, (points[after] - points).T
    sine, cosine = ax * by - ay * bx, ax * bx + ay * by  # times the lengths of both steps
    turns = (np.abs(sine) > _STRAIGHT * np.hypot(sine, cosine)) | (cosine <= 0)

    counts = np.add.reduceat(turns, starts, dtype=np.intp)
    points, ends = points[turns], np.cumsum(counts)
    starts = ends - counts
    points = np.insert(points, ends[closed], points[starts[closed]], axis=0)
    return np.split(points, np.cumsum(counts + closed))[:-1]
