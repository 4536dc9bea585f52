"""The queries that a query attends to, drawn in its panels: their boxes, and lines to them.

Opacity follows the weight. The largest weights lie on top; weights below LEAST of the scale's end,
and all but the MOST largest of a panel, are not drawn: hundreds of boxes would hide the photo. The
query's own box is drawn twice: its weight as a box inside the blue one, and the blue one in dashes
over the boxes of other queries that lie on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page.artists import Pen
from detr_viz.figures.page.elements import BOX_BLUE, Group, MapRow, PageLayout, Panel
from detr_viz.figures.page.scale import colors
from detr_viz.figures.styles import Style

LEAST = 0.25  # of the weight that is opaque
MOST = 24  # boxes in a panel
_TONE = 0.62  # where in the colour map their colour is
_BOX_PT, _LINE_PT, _OWN_PT = 0.6, 0.45, 0.5


def one_color(lut: np.ndarray) -> np.ndarray:
    """The colour (3,) of boxes and lines: opacity alone shows the weight."""
    return lut[round(_TONE * 255)]


def visible(levels: np.ndarray, boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Ids of the queries to draw, the weakest first.

    levels: weights (Q,) as shares of the scale
    """
    drawn = (levels >= LEAST) & np.isfinite(boxes_xyxy_px).all(1)
    return np.flatnonzero(drawn)[np.argsort(levels[drawn], kind="stable")][-MOST:]


def levels_of(row: MapRow, style: Style, largest: float) -> np.ndarray:
    """Weights (M, Q) as shares of the scale: of each panel, of the row or of the figure.

    largest: of all rows. "even" has no meaning among queries, and is taken as "head".
    """
    weights = row.maps[:, 0]
    end = weights.max(1, keepdims=True)
    if style.scaling == "query":
        end = weights.max()
    elif style.scaling == "figure":
        end = np.float32(largest)
    return weights / np.where(end > 0, end, 1)


def add(pen: Pen, groups: Sequence[Group], layout: PageLayout, style: Style) -> None:
    """Draw the attended queries of every row that has them."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    rows = [row for group in groups for row in group.rows if row.attended is not None]
    if not rows:
        return
    largest = max(float(row.maps.max()) for row in rows)
    color = one_color(colors(style)) / 255
    levels = {id(row): levels_of(row, style, largest) for row in rows}
    paths: dict[str, list[tuple[float, Path]]] = {"line": [], "box": []}
    own_boxes = []
    for panel in layout.maps:
        row = groups[panel.group].rows[panel.row]
        if row.attended is None:
            continue
        _collect(
            levels[id(row)][panel.head], row, panel, groups[panel.group], pen, paths, own_boxes
        )
    for order, (kind, pt) in enumerate((("line", _LINE_PT), ("box", _BOX_PT))):
        drawn = sorted(paths[kind], key=lambda pair: pair[0])  # the strongest on top
        pen.ax.add_collection(
            PathCollection(
                [path for _, path in drawn],
                sizes=None,
                facecolors="none",
                edgecolors=[(*color, share) for share, _ in drawn],
                linewidths=pen.width(pt),
                antialiaseds=True,
                joinstyle="miter",
                capstyle="butt",
                zorder=5.1 + order / 10,
            ),
            autolim=False,
        )
    pen.lines(own_boxes, BOX_BLUE, _OWN_PT, 5.0, capstyle="butt")
    pen.lines(own_boxes, BOX_BLUE, _OWN_PT, 5.3, capstyle="butt", linestyles=[(0, (3, 4.5))])


def _collect(
    shares: np.ndarray,
    row: MapRow,
    panel: Panel,
    group: Group,
    pen: Pen,
    paths: dict,
    own_boxes: list,
) -> None:
    """The boxes and lines of one panel."""
    from matplotlib.path import Path

    assert row.attended is not None
    boxes, query = row.attended.boxes_xyxy_px, row.attended.query
    photo_hw, line = group.photo.shape[:2], max(_BOX_PT * pen.unit_px, 1)
    scale = np.divide(panel.hw[::-1], photo_hw[::-1])
    finite = np.isfinite(boxes[query]).all()
    if finite:
        ring = corners_in(boxes[query], photo_hw, panel.top, panel.left, panel.hw, line)
        own_boxes.append(np.array([*ring, ring[0]]))
    for other in visible(shares, boxes):
        corners = np.array(
            corners_in(boxes[other], photo_hw, panel.top, panel.left, panel.hw, line)
        )
        if other == query:
            corners = _shrunk(corners, 2.2 * line)
        paths["box"].append((shares[other], Path([*corners, corners[0]], closed=True)))
        if other != query and finite:
            ends = [_center(boxes[q]) * scale + (panel.left, panel.top) for q in (query, other)]
            if np.hypot(*(ends[1] - ends[0])) > 4 * line:  # shorter ones are dots
                paths["line"].append((shares[other], Path(ends)))


def _center(box: np.ndarray) -> np.ndarray:
    return (np.asarray(box[:2], np.float64) + box[2:]) / 2


def _shrunk(corners: np.ndarray, inset: float) -> np.ndarray:
    """A box that is smaller by the inset on every side; its sides do not cross."""
    middle = corners.mean(0)
    apart = corners - middle
    return middle + np.sign(apart) * np.maximum(np.abs(apart) - inset, 0.5)
