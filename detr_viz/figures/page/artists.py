"""What is drawn over the panels of a page as vectors: contour lines, plates, boxes, marks.

All in the page's pixels, on the axes of canvas.figure_of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page import contours
from detr_viz.figures.page.elements import Group, PageLayout, luminance
from detr_viz.figures.styles import CONTOUR_SHARES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_PT = 0.25  # the thinnest line that prints reliably
_CONTOUR_PT = (0.85, 0.6, 0.42)  # lines for 50, 80 and 95 % of the mass
_CONTOUR_TONES = (0.98, 0.74, 0.5)  # where in the colour map their colours are
_HALO_PT = 0.5  # how much wider the dark line under a contour is
_HALO = (0.0, 0.0, 0.0, 0.55)
_PLATE = (0.15, 0.15, 0.15, 0.86)


def add_contours(
    ax: Axes,
    groups: Sequence[Group],
    layout: PageLayout,
    lut: np.ndarray,
    style: Style,
    unit_px: float,
    dpi: float,
) -> None:
    """Lines that hold shares of each map's mass, over wider, darker ones: visible on any photo."""
    from matplotlib.collections import LineCollection

    lines_of_shares: list[list[np.ndarray]] = [[] for _ in CONTOUR_SHARES]
    for group, position in zip(groups, layout.positions, strict=True):
        for row, top in zip(group.rows, position.row_tops, strict=True):
            panels = contours.lines(
                row.maps, row.grid, layout.panel_hw, CONTOUR_SHARES, style.smoothing
            )
            for panel, left in zip(panels, layout.panel_lefts, strict=False):
                for lines, drawn in zip(panel, lines_of_shares, strict=True):
                    drawn += [line + np.array((left, top)) for line in lines]
    for drawn, (left, right, middle) in zip(lines_of_shares, layout.samples, strict=True):
        drawn.append(np.array([(left, middle), (right, middle)]))
    unit_px = min(unit_px, min(layout.panel_hw) / 32)  # thinner in small panels
    inks = [lut[round(tone * 255)] / 255 for tone in _CONTOUR_TONES]
    widths = [max(pt * unit_px * 72 / dpi, LEAST_PT) for pt in _CONTOUR_PT]
    more = _HALO_PT * unit_px * 72 / dpi
    # from the outermost line in: the narrower lines lie on top where they meet
    for order, drawn, ink, width in reversed(
        list(zip(range(3, 0, -1), lines_of_shares, inks, widths, strict=True))
    ):
        for color, wide, z in ((_HALO, width + more, 2), ((*ink, 1.0), width, 3 + order * 0.1)):
            ax.add_collection(
                LineCollection(
                    drawn,
                    colors=[color],
                    linewidths=wide,
                    antialiaseds=True,
                    capstyle="butt",
                    joinstyle="round",
                    zorder=z,
                ),
                autolim=False,
            )


def add_plates(ax: Axes, layout: PageLayout) -> None:
    """Dark plates under the numbers, over maps and lines: near-white text is legible on them.

    A plate darkens what is under it and keeps its colours: a map that faded there would look like
    less attention.
    """
    from matplotlib.collections import PolyCollection

    tops = [top for position in layout.positions for top in position.row_tops]
    panel_h, panel_w = layout.panel_hw
    corners = []
    for top, plates in zip(tops, layout.plates, strict=bool(layout.plates)):
        for left, ((high, wide), (low, right)) in zip(layout.panel_lefts, plates, strict=False):
            y, x = top + (panel_h - high) * low, left + (panel_w - wide) * right
            corners.append([(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)])
    if corners:
        plates = PolyCollection(corners, facecolors=[_PLATE], linewidths=0, zorder=5.5)
        ax.add_collection(plates, autolim=False)


def add_boxes(
    ax: Axes, groups: Sequence[Group], layout: PageLayout, style: Style, unit_px: float, dpi: float
) -> None:
    """The box: in the class colour on the photo, white on every panel.

    Each is drawn twice, the first time wider and in the opposite lightness, so that it stands out
    on any ground.
    """
    from matplotlib.collections import PolyCollection

    # whole pixels: the lines stay sharp; thinner in small panels
    px = max(1, min(round(0.25 * unit_px), min(layout.panel_hw) // 90))
    corners, colors, widths = [], [], []
    for group, position in zip(groups, layout.positions, strict=True):
        if position.photo_top is None or group.box_xyxy_px is None:
            continue
        box, photo_hw, top = group.box_xyxy_px, group.photo.shape[:2], position.photo_top
        corners.append(corners_in(box, photo_hw, top, layout.photo_left, layout.photo_hw, 5 * px))
        colors.append(group.label.color)
        widths.append(3 * px)
        for row, top in zip(group.rows, position.row_tops, strict=True):
            inner = box if row.box_xyxy_px is None else row.box_xyxy_px
            for left in layout.panel_lefts[: len(row.maps)]:
                corners.append(corners_in(inner, photo_hw, top, left, layout.panel_hw, 4 * px))
                colors.append("#ffffff")
                widths.append(2 * px)
    dark = (0, 0, 0, 0.85 if style.name == "contour" else 0.6)  # untouched photos may be light
    halos = [(1, 1, 1, 0.8) if luminance(c) < 0.3 else dark for c in colors]
    for order, edges, extra in ((4, halos, 2 * px), (5, colors, 0)):
        boxes = PolyCollection(
            corners,
            closed=True,
            facecolors="none",
            edgecolors=edges,
            linewidths=[(w + extra) * 72 / dpi for w in widths],
            antialiaseds=True,
            joinstyle="miter",
            snap=False,
            zorder=order,
        )
        ax.add_collection(boxes, autolim=False)


def add_marks(
    ax: Axes, groups: Sequence[Group], layout: PageLayout, unit_px: float, dpi: float
) -> None:
    """A ring around each group's mark: in the class colour on the photo, white on every panel.

    A ring lies inside its panel as a whole, so that a mark on the very edge is visible.
    """
    from matplotlib.collections import EllipseCollection

    panel = min(layout.panel_hw)
    wide = min(max(2.2 * unit_px, panel / 18), panel / 7)  # pixels across
    thick = max(unit_px, wide / 2.2)
    centres, colors = [], []
    for group, position in zip(groups, layout.positions, strict=True):
        if group.mark is None or position.photo_top is None:
            continue
        panels = [(position.photo_top, layout.photo_left, layout.photo_hw, group.label.color)]
        for row, top in zip(group.rows, position.row_tops, strict=True):
            lefts = layout.panel_lefts[: len(row.maps)]
            panels += [(top, left, layout.panel_hw, "#ffffff") for left in lefts]
        for top, left, (high, across), color in panels:
            x = group.mark[0] * across / group.photo.shape[1]
            y = group.mark[1] * high / group.photo.shape[0]
            half = wide * 0.8
            centres.append(
                (left + min(max(x, half), across - half), top + min(max(y, half), high - half))
            )
            colors.append(color)
    if not centres:
        return
    halos = [(1, 1, 1, 0.9) if luminance(c) < 0.3 else (0, 0, 0, 0.7) for c in colors]
    for order, edges, width in ((5.1, halos, 0.46), (5.2, colors, 0.2)):
        rings = EllipseCollection(
            [wide] * len(centres),
            [wide] * len(centres),
            [0] * len(centres),
            units="xy",
            offsets=centres,
            transOffset=ax.transData,
            facecolors="none",
            edgecolors=edges,
            linewidths=max(width * thick * 72 / dpi, LEAST_PT),
            zorder=order,
        )
        ax.add_collection(rings, autolim=False)
