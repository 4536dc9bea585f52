"""The queries that a query attends to, drawn in its panels: their boxes, and lines to them.

Opacity follows the weight. The largest weights lie on top; weights below LEAST of the scale's end
are not drawn. The query's own box is drawn twice: its weight as a box inside the white one, and the
white one in dashes over the boxes of other queries that lie on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page.artists import LEAST_PT
from detr_viz.figures.page.elements import Group, MapRow, PageLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 0.25  # of the weight that is opaque
_TONE = 0.78  # where in the colour map their colour is
_BOX_PT, _LINE_PT = 0.55, 0.4
_GRID = 24  # cells along a side of the grid in which `coverage` looks for room
_SAMPLES = 40  # points along a line, in the same search


def one_color(lut: np.ndarray) -> np.ndarray:
    """One colour at every level, (256, 3) like the colour map: opacity alone shows the weight."""
    return np.repeat(lut[round(_TONE * 255)][None], 256, 0)


def visible(levels: np.ndarray, boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Ids of the queries to draw, the weakest first.

    levels: weights (Q,) as shares of the scale
    """
    drawn = (levels >= LEAST) & np.isfinite(boxes_xyxy_px).all(1)
    return np.flatnonzero(drawn)[np.argsort(levels[drawn], kind="stable")]


def _centre(box: np.ndarray) -> np.ndarray:
    return (np.asarray(box[:2], np.float64) + box[2:]) / 2


def coverage(row: MapRow, photo_hw: tuple[int, int]) -> np.ndarray:
    """The largest weight drawn in each cell of a grid over the panel, (M, rows, columns)."""
    assert row.attended is not None
    boxes, query = row.attended.boxes_xyxy_px, row.attended.query
    out = np.zeros((len(row.maps), _GRID, _GRID))
    side = np.asarray(photo_hw[::-1], np.float64)
    for panel, weights in zip(out, row.maps[:, 0], strict=True):
        for other in visible(weights / max(weights.max(), 1e-30), boxes):
            x0, y0, x1, y1 = boxes[other]
            ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
            ends = [*pairwise(ring)]
            if np.isfinite(boxes[query]).all():
                ends.append((_centre(boxes[query]), _centre(boxes[other])))
            for a, b in ends:
                way = np.linspace(a, b, _SAMPLES) / side * _GRID
                columns, rows = np.clip(way.astype(int), 0, _GRID - 1).T
                panel[rows, columns] = np.maximum(panel[rows, columns], weights[other])
    return out


def add(
    ax: Axes,
    groups: Sequence[Group],
    layout: PageLayout,
    levels: Sequence[np.ndarray],
    color: np.ndarray,
    unit_px: float,
    dpi: float,
) -> None:
    """Draw the attended queries of every row.

    levels: the weights of each row as shares of its scale, (M, Q)
    """
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    px = max(1, min(round(0.25 * unit_px), min(layout.panel_hw) // 90))  # as of the white box
    paths: dict[str, list[tuple[float, Path]]] = {"line": [], "box": []}
    own_boxes = []
    of_rows = iter(levels)
    for group, position in zip(groups, layout.positions, strict=True):
        photo_hw = group.photo.shape[:2]
        for row, top in zip(group.rows, position.row_tops, strict=True):
            shares = next(of_rows)
            assert row.attended is not None
            boxes, query = row.attended.boxes_xyxy_px, row.attended.query
            scale = np.divide(layout.panel_hw[::-1], photo_hw[::-1])
            for own, left in zip(shares, layout.panel_lefts, strict=False):
                if np.isfinite(boxes[query]).all():
                    ring = corners_in(boxes[query], photo_hw, top, left, layout.panel_hw, 4 * px)
                    own_boxes.append([*ring, ring[0]])
                for other in visible(own, boxes):
                    inset = 4 * px if other == query else 0
                    corners = np.array(
                        corners_in(boxes[other], photo_hw, top, left, layout.panel_hw, 2 * px)
                    )
                    if inset:
                        corners = _shrunk(corners, inset)
                    paths["box"].append((own[other], Path([*corners, corners[0]], closed=True)))
                    if other != query and np.isfinite(boxes[query]).all():
                        ends = [_centre(boxes[q]) * scale + (left, top) for q in (query, other)]
                        if np.hypot(*(ends[1] - ends[0])) > 4 * px:  # shorter ones are dots
                            paths["line"].append((own[other], Path(ends)))
    unit_px = min(unit_px, min(layout.panel_hw) / 32)  # thinner in small panels
    for order, (kind, pt) in enumerate((("line", _LINE_PT), ("box", _BOX_PT))):
        drawn = sorted(paths[kind], key=lambda pair: pair[0])  # the strongest on top
        ax.add_collection(
            PathCollection(
                [path for _, path in drawn],
                sizes=None,
                facecolors="none",
                edgecolors=[(*color, share) for share, _ in drawn],
                linewidths=max(pt * unit_px * 72 / dpi, LEAST_PT),
                antialiaseds=True,
                joinstyle="miter",
                capstyle="butt",
                zorder=5.1 + order / 10,
            ),
            autolim=False,
        )
    dash = 1.6 * unit_px * 72 / dpi
    ax.add_collection(
        PathCollection(
            [Path(ring) for ring in own_boxes],
            sizes=None,
            facecolors="none",
            edgecolors="#ffffff",
            linewidths=2 * px * 72 / dpi,
            linestyles=[(0, (dash / (2 * px * 72 / dpi), 1.5 * dash / (2 * px * 72 / dpi)))],
            capstyle="butt",
            zorder=5.3,
        ),
        autolim=False,
    )


def _shrunk(corners: np.ndarray, inset: float) -> np.ndarray:
    """A box that is smaller by the inset on every side; its sides do not cross."""
    middle = corners.mean(0)
    apart = corners - middle
    return middle + np.sign(apart) * np.maximum(np.abs(apart) - inset, 0.5)
