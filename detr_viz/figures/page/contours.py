"""Lines around the densest cells of a map, which hold a share of its weight.

    drawn = contours.lines(maps, grid, (114, 152))         drawn[map][share] -> [(n, 2), ...]

Letters: M maps, h w cells of a map, H W pixels of a panel. A panel spans [0, W] x [0, H] in x to
the right and y down, so pixel j is centred at j + 0.5. Which cells are inside: see `regions`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.figures.page import tiles
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.regions import region
from detr_viz.figures.styles import CONTOUR_SHARES

SHARES = CONTOUR_SHARES

_SAMPLES = 4  # a cell, along an axis: between them a line is straight
_DECIMALS = 12  # of a position in samples; below are the last bits of an interpolation
_STRAIGHT = 1e-9  # sine of an angle that is none


def lines(
    maps: np.ndarray,
    grid: Grid,
    panel_hw: tuple[int, int],
    shares: Sequence[float] = SHARES,
    interpolation: str = "cubic",
    crop: Crop | None = None,
    photo_hw: tuple[int, int] = (1, 1),
) -> list[tuple[list[np.ndarray], ...]]:
    """Lines of maps (M, h, w) around the regions of `shares`: M tuples of a list of (n, 2) a share.

    A line is float64 (x, y) in panel pixels. It is closed, and repeats its first point, or it ends
    on the panel's edge, exactly: none runs along the edge or passes it. A cell's centre is inside
    if, and only if, the cell is in the region. A share that has no level has no lines.

    smooth, cubic, linear: straight between points that are a quarter of a cell apart or less
    (smooth is cubic in the field of a smoothed region); nearest: the outlines of cells, which end
    at the edge where it cuts a cell. Cubic lines around peaks that the interpolation adds between
    the cells are left out: no cell has such a weight.

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
    between = "cubic" if interpolation == "smooth" else interpolation
    rows = tiles.weights_at(v, cells_hw[0], between)
    columns = tiles.weights_at(u, cells_hw[1], between)
    points, counts, owners = [np.empty((0, 2))], [], []
    for m, map_hw in enumerate(np.asarray(maps, np.float64)):
        for s, share in enumerate(shares):
            held = region(map_hw, share, interpolation)
            if held.level is None:
                continue
            generator = contour_generator(
                z=rows @ held.field @ columns.T, line_type=LineType.ChunkCombinedOffset
            )
            (xy_of_lines,), (offsets,) = generator.lines(held.level)
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
