"""The queries that a query looks at, in its panels: their boxes, and lines to them.

A rival is as opaque as its weight is large; the strongest lie on top, and what has less than LEAST
of the scale's end is left out. The query itself has its own box once more, inside the white one,
which shows through a rival's that lies on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page.elements import Group, MapRow, PageLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 0.25  # of the weight that is opaque
_TONE = 0.78  # where in the colour map their colour is
_BOX_PT, _LINE_PT = 0.55, 0.4
_LEAST_PT = 0.25  # what is printed reliably
_GRID = 24  # cells a side, to tell where in a panel there is room
_SAMPLES = 40  # points along a line, for that


def one_color(lut: np.ndarray) -> np.ndarray:
    """The colour of rivals at every level, (256, 3) as the map's: opacity alone says how much."""
    return np.repeat(lut[round(_TONE * 255)][None], 256, 0)


def visible(levels: np.ndarray, boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Ids of those to draw, the weakest first; levels (Q,): weights as shares of the scale."""
    drawn = (levels >= LEAST) & np.isfinite(boxes_xyxy_px).all(1)
    return np.flatnonzero(drawn)[np.argsort(levels[drawn], kind="stable")]


def _centre(box: np.ndarray) -> np.ndarray:
    return (np.asarray(box[:2], np.float64) + box[2:]) / 2


def coverage(row: MapRow, photo_hw: tuple[int, int]) -> np.ndarray:
    """The largest weight of what is drawn somewhere, in cells of a grid, (M, rows, columns)."""
    assert row.rivals is not None
    boxes, query = row.rivals.boxes_xyxy_px, row.rivals.query
    out = np.zeros((len(row.maps), _GRID, _GRID))
    side = np.asarray(photo_hw[::-1], np.float64)
    for panel, weights in zip(out, row.maps[:, 0], strict=True):
        for rival in visible(weights / max(weights.max(), 1e-30), boxes):
            x0, y0, x1, y1 = boxes[rival]
            ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
            ends = [*pairwise(ring)]
            if np.isfinite(boxes[query]).all():
                ends.append((_centre(boxes[query]), _centre(boxes[rival])))
            for a, b in ends:
                way = np.linspace(a, b, _SAMPLES) / side * _GRID
                columns, rows = np.clip(way.astype(int), 0, _GRID - 1).T
                panel[rows, columns] = np.maximum(panel[rows, columns], weights[rival])
    return out


def add(
    ax: Axes,
    groups: Sequence[Group],
    made: PageLayout,
    levels: Sequence[np.ndarray],
    color: np.ndarray,
    unit_px: float,
    dpi: float,
) -> None:
    """Draw the rivals of every row; levels: a row's weights as shares of its scale, (M, Q)."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    px = max(1, min(round(0.25 * unit_px), min(made.panel_hw) // 90))  # as of the white box
    found: dict[str, list[tuple[float, Path]]] = {"line": [], "box": []}
    own_boxes = []
    of_rows = iter(levels)
    for group, spot in zip(groups, made.spots, strict=True):
        photo_hw = group.photo.shape[:2]
        for row, top in zip(group.rows, spot.row_tops, strict=True):
            shares = next(of_rows)
            assert row.rivals is not None
            boxes, query = row.rivals.boxes_xyxy_px, row.rivals.query
            scale = np.divide(made.panel_hw[::-1], photo_hw[::-1])
            for own, left in zip(shares, made.panel_lefts, strict=False):
                if np.isfinite(boxes[query]).all():
                    ring = corners_in(boxes[query], photo_hw, top, left, made.panel_hw, 4 * px)
                    own_boxes.append([*ring, ring[0]])
                for rival in visible(own, boxes):
                    inset = 4 * px * (rival == query)
                    corners = np.array(
                        corners_in(boxes[rival], photo_hw, top, left, made.panel_hw, 2 * px)
                    )
                    if inset:
                        corners = _shrunk(corners, inset)
                    found["box"].append((own[rival], Path([*corners, corners[0]], closed=True)))
                    if rival != query and np.isfinite(boxes[query]).all():
                        ends = [_centre(boxes[q]) * scale + (left, top) for q in (query, rival)]
                        if np.hypot(*(ends[1] - ends[0])) > 4 * px:  # shorter ones are dots
                            found["line"].append((own[rival], Path(ends)))
    unit_px = min(unit_px, min(made.panel_hw) / 32)  # thinner in small panels
    for order, (kind, pt) in enumerate((("line", _LINE_PT), ("box", _BOX_PT))):
        drawn = sorted(found[kind], key=lambda one: one[0])  # the strongest on top
        ax.add_collection(
            PathCollection(
                [path for _, path in drawn],
                sizes=None,
                facecolors="none",
                edgecolors=[(*color, share) for share, _ in drawn],
                linewidths=max(pt * unit_px * 72 / dpi, _LEAST_PT),
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
    """A box so much smaller on every side, as far as it can be."""
    middle = corners.mean(0)
    apart = corners - middle
    return middle + np.sign(apart) * np.maximum(np.abs(apart) - inset, 0.5)
