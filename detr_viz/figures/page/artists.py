"""What is drawn over the panels of a page as vectors: boxes, corner ticks, marks, bars, contours.

All in the page's pixels, on the axes of canvas.figure_of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page.elements import (
    BOX_BLUE,
    GRAY,
    INK,
    LOCATOR,
    PHOTO,
    WHITE,
    Group,
    PageLayout,
    Panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_PT = 0.25  # the thinnest line that prints reliably
CONTOUR = "#ffd400"
_BOX_PT, _HALO_PT = 0.5, 0.35  # the box on the photo, and the white beside it
_TICK_PT, _TICK_HALO_PT = 0.45, 0.25
_TICK_SHARE, _TICK_RANGE_PT = 0.2, (1.3, 4.2)  # of the box's side; points
_FRAME_PT = 0.4  # of a locator
_CONTOUR_PT, _CASING_PT = 0.7, 0.45


class Pen:
    """Adds lines to the axes; widths in points at the default size of type.

    scale, origin  a point (x, y) of the page is drawn at origin + scale * (x, y) of the axes
    """

    def __init__(
        self,
        ax: Axes,
        dpi: float,
        unit_px: float,
        scale: float = 1.0,
        origin: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.ax, self.dpi, self.unit_px = ax, dpi, unit_px
        self.scale, self.origin = scale, origin

    def _placed(self, xy) -> np.ndarray:
        """Points (..., 2) of the page as points of the axes."""
        return np.asarray(xy, np.float64) * self.scale + self.origin

    def width(self, pt: float) -> float:
        """The line width in matplotlib's points."""
        return max(pt * self.unit_px * 72 / self.dpi, LEAST_PT)

    def lines(self, segments, color, pt: float, zorder: float, clip=None, **more) -> None:
        """clip: a path in pixels, outside of which nothing is drawn; None: the page."""
        from matplotlib.collections import LineCollection

        if len(segments):
            more = {"capstyle": "projecting", "joinstyle": "miter", "antialiaseds": True, **more}
            placed, width = [self._placed(line) for line in segments], self.width(pt)
            drawn = LineCollection(placed, colors=color, linewidths=width, zorder=zorder, **more)
            self._add(drawn, clip)

    def circles(self, xy, sizes, face, edge, pt: float, zorder: float, clip=None) -> None:
        """Circles of so many pixels across, with an edge of so many points; clip as of lines."""
        from matplotlib.collections import EllipseCollection

        across = np.asarray(sizes, np.float64) * self.scale
        drawn = EllipseCollection(
            across,
            across,
            [0] * len(sizes),
            units="xy",
            offsets=self._placed(xy),
            transOffset=self.ax.transData,
            facecolors=face,
            edgecolors=edge,
            linewidths=self.width(pt) if pt else 0,
            zorder=zorder,
        )
        self._add(drawn, clip)

    def _add(self, drawn, clip) -> None:
        self.ax.add_collection(drawn, autolim=False)
        if clip is not None:
            corners = type(clip)(self._placed(clip.vertices), clip.codes)
            drawn.set_clip_path(corners, self.ax.transData)


def add_boxes(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """The box as a line on each photo, and as corner ticks just outside of it on each map.

    The old box, before something was removed, is white. All stand on white, or dark, halos.
    """
    boxes, old, ticks, frames = [], [], [], []
    for panel in layout.panels:
        group, crop = groups[panel.group], layout.crop_of(panel)
        box = group.box_xyxy_px
        if panel.row == LOCATOR:
            frames.append(_view_frame(panel, group, crop))
            continue
        if panel.row == PHOTO and group.photo_samples is not None:
            if box is not None:
                ticks += _ticks(box, panel, crop, pen.unit_px)
            continue
        if panel.row == PHOTO:
            for one, into in ((group.old_box_xyxy_px, old), (box, boxes)):
                if one is not None:
                    into.append(_closed(_corners(one, panel, crop, pen)))
            continue
        row = group.rows[panel.row]
        box = row.box_of(panel.head, group)
        if box is not None and row.attended is None:
            ticks += _ticks(box, panel, crop, pen.unit_px)
    pen.lines(old, "#000000", _BOX_PT + 2 * _HALO_PT, 4.0)
    pen.lines(old, "#ffffff", _BOX_PT, 4.1)
    pen.lines(boxes, "#ffffff", _BOX_PT + 2 * _HALO_PT, 4.2)
    pen.lines(boxes, BOX_BLUE, _BOX_PT, 4.3)
    pen.lines(ticks, "#ffffff", _TICK_PT + 2 * _TICK_HALO_PT, 4.4)
    pen.lines(ticks, BOX_BLUE, _TICK_PT, 4.5)
    pen.lines(frames, "#ffffff", 3 * _FRAME_PT, 4.6)
    pen.lines(frames, "#000000", _FRAME_PT, 4.7)


def _closed(corners: list) -> np.ndarray:
    return np.array([*corners, corners[0]])


def _corners(box, panel: Panel, crop, pen: Pen) -> list:
    """Corners of a box in the photo; the line stays inside of it where the box reaches its edge."""
    low, high = crop.on_panel(np.reshape(box, (2, 2)), 0, 0, panel.hw)
    flat = np.clip([*low, *high], 0, [panel.width, panel.height] * 2)
    line = max((_BOX_PT + 2 * _HALO_PT) * pen.unit_px, 1)
    return corners_in(flat, panel.hw, panel.top, panel.left, panel.hw, line)


def _view_frame(panel: Panel, group: Group, crop) -> np.ndarray:
    high, wide = group.photo.shape[:2]
    x0, x1 = (panel.left + x / wide * panel.width for x in (crop.x0, crop.x1))
    y0, y1 = (panel.top + y / high * panel.height for y in (crop.y0, crop.y1))
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])


def _ticks(box, panel: Panel, crop, unit_px: float) -> list[np.ndarray]:
    """Four corners of a box in a panel; just outside of it, but inside the panel."""
    low, high = crop.on_panel(np.reshape(np.asarray(box, np.float64), (2, 2)), 0, 0, panel.hw)
    out = _TICK_PT / 2 * unit_px
    edge = (_TICK_PT / 2 + _TICK_HALO_PT) * unit_px  # white and all stay inside
    size = np.array([panel.width, panel.height])
    low, high = np.clip(low - out, edge, size - edge), np.clip(high + out, edge, size - edge)
    least, most = (pt * unit_px for pt in _TICK_RANGE_PT)
    side = np.minimum(np.clip(_TICK_SHARE * (high - low), least, most), (high - low) / 2)
    first = np.array([panel.left, panel.top])
    found = []
    for x, dx in ((low[0], side[0]), (high[0], -side[0])):
        for y, dy in ((low[1], side[1]), (high[1], -side[1])):
            found.append(np.array([(x + dx, y), (x, y), (x, y + dy)]) + first)
    return found


def add_crosses(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """A line through each panel of a removed head."""
    crossed = [
        [(p.left, p.top + p.height), (p.left + p.width, p.top)]
        for p in layout.maps
        if p.head in groups[p.group].rows[p.row].crossed
    ]
    pen.lines(crossed, GRAY, 0.6, 5.0, capstyle="butt")


def add_joins(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """Lines from maps to their points in the photo, each with a dot on its point."""
    segments, dots = [], []
    for panel, photo in layout.joined:
        crop = layout.crops[photo.group]
        point = crop.on_panel(np.array(groups[panel.group].mark), photo.left, photo.top, photo.hw)
        x = panel.left + (panel.width if panel.left < photo.left else 0)
        segments.append(np.array([(x, panel.top + panel.height / 2), point]))
        dots.append(point)
    pen.lines(segments, "#ffffff", 1.2, 4.8, capstyle="butt")
    pen.lines(segments, BOX_BLUE, 0.5, 4.9, capstyle="butt")
    if dots:
        pen.circles(dots, [3.4 * pen.unit_px] * len(dots), BOX_BLUE, "#ffffff", 0.6, 5.0)


def add_bars(ax: Axes, layout: PageLayout) -> None:
    """Bars: all of it light, the value's part in colour."""
    from matplotlib.collections import PolyCollection

    rectangles, colors = [], []
    for bar in layout.bars:
        for share, color in ((1.0, "#dcdcdc"), (min(max(bar.value, 0), 1), bar.color)):
            x1, y1 = bar.left + share * bar.width, bar.top + bar.height
            rectangles.append([(bar.left, bar.top), (x1, bar.top), (x1, y1), (bar.left, y1)])
            colors.append(color)
    if rectangles:
        ax.add_collection(
            PolyCollection(rectangles, facecolors=colors, linewidths=0, zorder=3), autolim=False
        )


def add_marks(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """A ring in blue on white around each group's mark, on the photo and on every panel.

    A ring lies inside its panel as a whole, so that a mark on the very edge is visible.
    """
    centers, sizes = [], []
    for panel in layout.panels:
        mark, crop = groups[panel.group].mark, layout.crop_of(panel)
        if mark is None or panel.row == LOCATOR or (panel.row == PHOTO and layout.joined):
            continue
        wide = min(max(2.4 * pen.unit_px, min(panel.hw) / 18), min(panel.hw) / 5)
        half = wide * 0.8
        x, y = crop.on_panel(np.array(mark), 0, 0, panel.hw)
        x = panel.left + min(max(x, half), panel.width - half)
        y = panel.top + min(max(y, half), panel.height - half)
        centers.append((x, y))
        sizes.append(wide)
    if not centers:
        return
    pen.circles(centers, sizes, "none", "#ffffff", 1.4, 5.1)
    pen.circles(centers, sizes, "none", BOX_BLUE, 0.6, 5.2)


def add_contours(
    pen: Pen, curves: Sequence[tuple[Sequence[np.ndarray], ...]], above: float = 3.0
) -> None:
    """Lines of the shares of each panel, in yellow in a black casing; the later ones dashed.

    above: their place in the order of drawing
    """
    shares = len(curves[0]) if curves else 0
    for level in range(shares):
        lines = [line for panel in curves for line in panel[level]]
        dashes = "solid" if level == 0 else (0, (3.2, 1.6) if level == 1 else (1.2, 1.4))
        for color, pt, order in (
            ("#000000", _CONTOUR_PT + 2 * _CASING_PT, above),
            (CONTOUR, _CONTOUR_PT, above + 0.2),
        ):
            pen.lines(
                lines,
                color,
                pt,
                order + level * 0.01,
                capstyle="butt",
                joinstyle="round",
                linestyles=[dashes],
            )


def add_signs(pen: Pen, layout: PageLayout) -> None:
    """The small drawings of the key."""
    squares, dots, colors = [], [], []
    plus: list = []
    strokes: list = []
    frames: list = []
    contours: dict[int, list] = {}
    for sign in layout.signs:
        half = sign.size / 2
        x0, x1, y0, y1 = sign.x - half, sign.x + half, sign.y - half, sign.y + half
        square = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        if sign.kind == "cell":
            squares.append(square)
        elif sign.kind == "hatch":
            squares.append(square)
            strokes += [[(x0, y1), (x1, y0)], [(x0, sign.y), (sign.x, y0)]]
            strokes.append([(sign.x, y1), (x1, sign.y)])
        elif sign.kind == "dot":
            dots.append((sign.x, sign.y, sign.size))
            colors.append(sign.color)
        elif sign.kind in ("plus", "framed"):
            arm = half if sign.kind == "plus" else 0.5 * half
            plus += [[(sign.x - arm, sign.y), (sign.x + arm, sign.y)]]
            plus += [[(sign.x, sign.y - arm), (sign.x, sign.y + arm)]]
            if sign.kind == "framed":
                frames.append(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]))
        else:
            contours.setdefault(sign.level, []).append(np.array([(x0, sign.y), (x1, sign.y)]))
    pen.lines(squares, INK, 0.4, 6)
    pen.lines(plus, INK, 0.7, 6)
    pen.lines(strokes, INK, 0.3, 6, capstyle="butt")
    pen.lines(frames, INK, 0.4, 6, capstyle="butt", linestyles=[(0, (2.2, 1.4))])
    if contours:
        most = max(contours) + 1
        add_contours(pen, [tuple(contours.get(level, []) for level in range(most))])
    if dots:
        xy = [(x, y) for x, y, _ in dots]
        edges = [INK if color == WHITE else "none" for color in colors]
        pen.circles(xy, [size for *_, size in dots], colors, edges, 0.35, 6)
