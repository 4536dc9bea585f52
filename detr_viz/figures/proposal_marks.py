"""What is drawn over the panels of a figure of proposals: boxes, chosen tokens, their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.labels import finite
from detr_viz.figures.page import artists, tokens
from detr_viz.figures.page.elements import BOX_BLUE, INK, PHOTO, Group, Panel
from detr_viz.figures.page.text import Lettering
from detr_viz.figures.styles import PageFormat

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.explanation.proposals import Proposals

CHOSEN, SHOWN = 4.2, 5.45  # the order of drawing of dots: all chosen tokens, those of the queries
FROM = 4.15  # and of the lines from proposals to boxes
DARK = 0.45  # tones from which on a dot is white
_FIRST = 3  # ranks that are printed beside the tokens of queries that are not shown
_DOT_PT, _SHOWN_PT, _RING_PT = (0.5, 1.7), 3.0, 0.5  # across; the first grow with the cells
_GROWTH = 0.5  # of a cell
_BOX_PT, _HALO_PT = 0.5, 0.3
_THIN_PT, _CASING_PT = 0.45, 0.18  # of proposals
_MORE = 1.5  # times the dots, those of queries without a number
_FAR = 5.0  # lines' widths between two centres that are joined


def add_marks(
    fig: Figure,
    group: Group,
    boxes_xyxy_px: NDArray[np.float32],
    proposals: Proposals,
    queries: Sequence[int],
    named: int,
    page_format: PageFormat,
) -> None:
    """Marks of these queries, and a dot for the token of each other one.

    group: the photo and the tones of its levels. boxes_xyxy_px: of all queries, of the last layer.
    named: how many of the queries, from the first, have a number.
    """
    dpi = page_format.dpi
    pen = artists.Pen(fig.axes[0], dpi, page_format.type_size * dpi / 72)
    numbers = tokens.Numbers(pen, Lettering(dpi, page_format.font))
    layout = fig.layout_
    for panel in layout.panels:
        if panel.row == PHOTO:
            boxes = proposals.boxes_xyxy_px, boxes_xyxy_px
            _add_boxes(pen, numbers, group.photo, boxes, proposals.ranks, queries, named, panel)
    tokens.add_hatching(
        pen,
        [
            (panel, proposals.grids[panel.row], proposals.invalid[panel.row])
            for panel in layout.maps
        ],
    )
    for panel in layout.maps:
        tones = group.rows[panel.row].maps[0]
        _add_tokens(pen, numbers, proposals, tones, queries, named, panel)


def _add_boxes(
    pen: artists.Pen,
    numbers: tokens.Numbers,
    photo: NDArray[np.uint8],
    boxes: tuple[NDArray[np.float32], NDArray[np.float32]],
    ranks: NDArray[np.int64],
    queries: Sequence[int],
    named: int,
    panel: Panel,
) -> None:
    """The proposals, white; over them the boxes of the last layer, blue, each with its number.

    Where the two are apart, a line joins their middles.
    """
    line = max((_BOX_PT + 2 * _HALO_PT) * pen.unit_px, 1)
    thin, last, joins, wanted = [], [], [], []
    for i, query in enumerate(queries):
        pair = [finite(of_queries[query]) for of_queries in boxes]
        rings = [
            None
            if box is None
            else np.array(corners_in(box, photo.shape[:2], panel.top, panel.left, panel.hw, line))
            for box in pair
        ]
        for ring, into in zip(rings, (thin, last), strict=True):
            if ring is not None:
                into.append(np.concatenate([ring, ring[:1]]))
        if rings[1] is not None and i < named:
            wanted.append((str(ranks[query]), rings[1][0], line))
        if rings[0] is not None and rings[1] is not None:
            ends = np.stack([ring.mean(0) for ring in rings])
            if np.hypot(*(ends[1] - ends[0])) > _FAR * line:
                joins.append(ends)
    pen.lines(joins, "#ffffff", _THIN_PT + 2 * _HALO_PT, FROM, capstyle="butt")
    pen.lines(joins, BOX_BLUE, _THIN_PT, FROM + 0.02, capstyle="butt")
    pen.lines(thin, "#000000", _THIN_PT + 2 * _CASING_PT, 4.0)
    pen.lines(thin, "#ffffff", _THIN_PT, 4.1)
    pen.lines(last, "#ffffff", _BOX_PT + 2 * _HALO_PT, 4.2)
    pen.lines(last, BOX_BLUE, _BOX_PT, 4.3)
    numbers.add(panel, wanted, BOX_BLUE, [], needed=True)


def _add_tokens(
    pen: artists.Pen,
    numbers: tokens.Numbers,
    proposals: Proposals,
    tones: NDArray[np.float32],
    queries: Sequence[int],
    named: int,
    panel: Panel,
) -> None:
    """A dot on each chosen token of the panel's level; larger and blue on those of the queries."""
    cells, ranks = proposals.cells, proposals.ranks
    xs, ys = tokens.places(proposals.grids[panel.row], panel)
    on_level = np.flatnonzero(cells[:, 0] == panel.row)
    centers = {int(q): np.array((xs[cells[q, 2]], ys[cells[q, 1]])) for q in on_level}
    edge = panel.left + panel.width, panel.top + panel.height
    centers = {q: at for q, at in centers.items() if (at <= edge).all()}  # the others: padding
    shown = [q for q in queries if q in centers]
    others = [q for q in centers if q not in {*shown}]
    pitch = min(float(np.diff(at[:2])[0]) if len(at) > 1 else panel.width for at in (xs, ys))
    smallest, largest = (pt * pen.unit_px for pt in _DOT_PT)
    across, shown_px = min(max(pitch * _GROWTH, smallest), largest), _SHOWN_PT * pen.unit_px
    dark = {q: tones[cells[q, 1], cells[q, 2]] >= DARK for q in others}
    for ink, is_dark in ((INK, False), ("#ffffff", True)):
        dots = [_inside(panel, centers[q], across / 2) for q in others if dark[q] == is_dark]
        if dots:
            pen.circles(dots, [across] * len(dots), ink, "none", 0, CHOSEN)
    numbered = [q for q in queries[:named] if q in centers]
    plain = [q for q in shown if q not in numbered]
    for who, size, ring, order in (
        (plain, min(_MORE * across, shown_px), 0, SHOWN - 0.02),
        (numbered, shown_px, _RING_PT, SHOWN),
    ):
        if who:
            dots = [_inside(panel, centers[q], size / 2 + ring * pen.unit_px) for q in who]
            pen.circles(dots, [size] * len(who), BOX_BLUE, "#ffffff", ring, order)
    taken = [(centers[q], np.full(2, shown_px / 2 + 1)) for q in numbered]
    first = [q for q in others if ranks[q] <= _FIRST]
    for who, size, ink in ((numbered, shown_px, BOX_BLUE), (first, across, INK)):
        wanted = [(str(ranks[q]), centers[q], size / 2) for q in sorted(who, key=ranks.__getitem__)]
        numbers.add(panel, wanted, ink, taken, needed=who is numbered)


def _inside(panel: Panel, at: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """A point so far from the panel's edges at least."""
    low = np.array((panel.left, panel.top), float)
    return np.clip(at, low + reach, low + panel.hw[::-1] - reach)
