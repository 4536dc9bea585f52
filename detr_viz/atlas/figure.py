"""The atlas of one model as a figure: a row for each mode and layer, a column for each head.

Of attention to cells of boxes: a column for each stage, and the cells as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.atlas.box_frame import MARGIN
from detr_viz.atlas.table import AtlasTable
from detr_viz.atlas.words import (
    FOOT_NOTES,
    Row,
    facts_of,
    largest,
    level_notes,
    notes_of,
    objects_of,
    panel_names,
    role_lines,
    rows_of,
)
from detr_viz.attention.grids import Grid
from detr_viz.figures.page import tiles
from detr_viz.figures.page.canvas import figure_of, warn_if_high, write
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import (
    AIR,
    BOX_BLUE,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    SMALL_PT,
    TEXT_PT,
    TextLine,
)
from detr_viz.figures.page.layout import check_size
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.scale import plain_colors
from detr_viz.figures.page.text import Lettering, clean, plain_settings
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNSEEN = 205  # grey, where hardly any object has the image
_GROUND = 244  # of a panel: its extent is seen where there is no attention
_ROW_GAP = 5.0  # points
_LEAST_ROLE = 0.75  # size of the words under panels, of other small text
_WIDEST = "peak to edge 88.8"


def atlas_figure(
    table: AtlasTable,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Mean maps around the box, the role of each head, and the numbers of each mode.

    style: norm "head" (each panel on its own scale), "query" (each row; the default) or "figure",
    colour map, interpolation. FigureError where no object was added, or for a page too narrow.
    """
    if not table.objects:
        raise FigureError("nothing to draw: no object was found in any image")
    with plain_settings():
        return _Sheet(table, style, page_format).figure()


def check(table: AtlasTable, style: Style, page_format: PageFormat) -> None:
    """FigureError where the figure of this table, which may still be empty, cannot be drawn."""
    with plain_settings():
        _Sheet(table, style, page_format)


class _Sheet:
    """The page: everything is measured first, then drawn. Pixels from the top left corner."""

    def __init__(self, table: AtlasTable, style: Style, page_format: PageFormat) -> None:
        self.table, self.style, self.page_format = table, style, page_format
        self.page, self.pen = (
            PageMetrics(page_format, (1, 1)),
            Lettering(page_format.dpi, page_format.font),
        )
        self.rows = rows_of(table)
        self.panel_names = panel_names(table)
        self.heads = len(self.panel_names)
        self._measure_across()
        self._measure_down()

    def _measure_across(self) -> None:
        page = self.page
        beside = [(row.title, page.text_pt, "bold") for row in self.rows]
        beside += [(text, page.small_pt, "") for row in self.rows for text in row.details]
        beside.append((_WIDEST, page.small_pt, ""))  # so that numbers do not change the layout
        names = max(self.pen.width(*text) for text in beside)
        self.left = round(page.margin + names + page.px(AIR * 2))
        words = [
            text
            for row in self.rows
            for role, values in zip(row.roles, row.maps, strict=True)
            for text in role_lines(role, values)
        ]
        widest = max(self.pen.width(text, page.small_pt, style) for text, style in words)
        for lines in (1, 2):  # two lines of panels where one would make the words tiny
            self.across = -(-self.heads // lines)
            gaps = (self.across - 1) * page.gap
            room = page.width - self.left - page.margin - gaps
            self.panel = page.panel_width(room, self.across)
            self.role_pt = page.small_pt * min(1.0, self.panel / widest)  # one size for all
            if self.role_pt >= _LEAST_ROLE * page.small_pt:
                break
        wide = self.left + self.across * self.panel + gaps + page.margin
        # a single panel is narrower than the name of its model
        name = self.pen.width(clean(self.table.name), page.class_pt, "bold")
        title = name + self._about_width + 2 * page.margin + page.px(1)
        self.width = max(wide, min(page.width, math.ceil(title)))

    def _measure_down(self) -> None:
        page, line = self.page, self.page.px(SMALL_PT * LINE)
        self.line = line
        self.title_base = page.margin + page.px(CLASS_PT * CAP)
        name = page.px(AIR) + page.px(TEXT_PT * LINE)  # of a head, over its panel
        self.role_line = self.pen.px(self.role_pt * LINE)
        under = page.px(AIR * 0.6) + self.pen.px(self.role_pt * CAP) + self.role_line
        beside = page.px(TEXT_PT * CAP) + 3 * line
        lines = -(-self.heads // self.across)
        self.names = range(len(self.rows)) if lines > 1 else range(1)  # rows with names of heads
        over = name if lines > 1 else 0
        self.line_step = self.panel + under + over + page.px(AIR)
        high = (lines - 1) * self.line_step + self.panel + under
        step = max(high, beside) + page.px(_ROW_GAP) + over
        top = self.title_base + name + page.px(AIR)
        self.tops = [top + i * step for i in range(len(self.rows))]
        self.notes = notes_of(self.table, self.rows, self.style)
        shown = self.notes if self.page_format.notes else self.notes[:FOOT_NOTES]
        levels = level_notes(self.table)
        shown, self.notes = [*shown, *levels], [*self.notes, *levels]
        size, limit = page.small_pt, self.width - 2 * page.margin
        self.foot = self.pen.join(self.pen.broken(shown, limit, size), limit, size, " · ")
        self.notes_base = self.tops[-1] + step + page.px(SMALL_PT * CAP)
        below = (len(self.foot) - 1) * line + page.px(SMALL_PT * 0.3) + page.margin
        self.height = self.notes_base + below
        check_size(self.width, self.height, len(self.rows))

    def figure(self) -> Figure:
        fig, ax = figure_of(self._pixels(), self.page_format.dpi)
        lines = [*self._title(), *self._head_names()]
        for row, top in zip(self.rows, self.tops, strict=True):
            lines += [*self._beside(row, top), *self._under(row, top)]
        for i, note in enumerate(self.foot):
            base = self.notes_base + i * self.line
            lines.append(TextLine(note, self.page.margin, base, self.page.small_pt, GRAY))
        self._add_boxes(ax)
        write(ax, lines, self.page_format.dpi, self.page_format.font)
        fig.facts = facts_of(self.table, self.rows, self.notes)
        warn_if_high(fig, self.page_format, above=2, way_out="choose fewer layers, or one mode")
        return fig

    def _at(self, top: int, head: int) -> tuple[int, int]:
        """Left and top of a head's panel in a row that begins at `top`."""
        line, column = divmod(head, self.across)
        return self.left + column * (self.panel + self.page.gap), top + line * self.line_step

    def _pixels(self) -> np.ndarray:
        lut = plain_colors(self.style, _GROUND)
        of_all = max(largest(row.maps) for row in self.rows)
        # cells of boxes are few: squares
        smoothing = "nearest" if self.table.of_stages else self.style.smoothing
        sheet = tiles.blank_sheet(self.height, self.width)
        for row, top in zip(self.rows, self.tops, strict=True):
            of_row = largest(row.maps)
            for head, values in enumerate(row.maps):
                last = {"head": largest(values), "figure": of_all}.get(self.style.norm, of_row)
                levels = _smooth(np.nan_to_num(values), self.panel, smoothing)
                shown = lut[np.clip(levels / (last or 1) * 255, 0, 255).round().astype(np.intp)]
                shown[_smooth(np.isnan(values), self.panel, "nearest") > 0.5] = _UNSEEN
                left, above = self._at(top, head)
                sheet[above : above + self.panel, left : left + self.panel, :3] = shown
        return sheet

    def _title(self) -> list[TextLine]:
        page, about = self.page, objects_of(self.table)
        room = self.width - 2 * page.margin - self._about_width
        title = self.pen.shorten(clean(self.table.name), room, page.class_pt, "bold")
        end = self.width - page.margin
        return [
            TextLine(title, page.margin, self.title_base, page.class_pt, INK, "bold"),
            TextLine(about, end, self.title_base, page.small_pt, GRAY, align="right"),
        ]

    @property
    def _about_width(self) -> float:
        """Of the words at the right of the title, with their gap."""
        return self.pen.width(objects_of(self.table), self.page.small_pt) + self.page.px(8)

    def _head_names(self) -> list[TextLine]:
        names = list(self.panel_names)
        size, lines = self.page.text_pt, []
        if self.pen.width(f"{names[0]} ", size) > self.panel:
            names[0] = names[0].rsplit(" ", 1)[-1]
        for row in self.names:
            for head, name in enumerate(names):
                left, top = self._at(self.tops[row], head)
                lines.append(TextLine(name, left, top - self.page.px(AIR), size, INK))
        return lines

    def _beside(self, row: Row, top: int) -> list[TextLine]:
        page = self.page
        base = top + page.px(TEXT_PT * CAP)
        lines = [TextLine(row.title, page.margin, base, page.text_pt, INK, "bold")]
        for i, detail in enumerate(row.details, 1):
            at = base + i * self.line
            lines.append(TextLine(detail, page.margin, at, page.small_pt, GRAY))
        return lines

    def _under(self, row: Row, top: int) -> list[TextLine]:
        lines = []
        below = self.panel + self.page.px(AIR * 0.6) + self.pen.px(self.role_pt * CAP)
        for head, (role, values) in enumerate(zip(row.roles, row.maps, strict=True)):
            left, above = self._at(top, head)
            middle, base = left + self.panel / 2, above + below
            for i, (text, style) in enumerate(role_lines(role, values)):
                at, ink = base + i * self.role_line, INK if style else GRAY
                lines.append(TextLine(text, middle, at, self.role_pt, ink, style, "center"))
        return lines

    def _add_boxes(self, ax: Axes) -> None:
        """The unit square in every panel, blue over white; cells fill theirs."""
        from matplotlib.collections import PolyCollection

        margin = 0.0 if self.table.of_stages else MARGIN
        low, high = (round((t + margin) / (1 + 2 * margin) * self.panel) for t in (0, 1))
        corners = [
            [(left + x, top + y) for x, y in ((low, low), (high, low), (high, high), (low, high))]
            for row in self.tops
            for left, top in [self._at(row, head) for head in range(self.heads)]
        ]
        px = max(1, round(0.5 * self.page_format.type_size * self.page_format.dpi / 72))
        for ink, wide, order in (("#ffffff", 2.4 * px, 4), (BOX_BLUE, px, 5)):
            boxes = PolyCollection(
                corners,
                closed=True,
                facecolors="none",
                edgecolors=[ink],
                linewidths=wide * 72 / self.page_format.dpi,
                joinstyle="miter",
                zorder=order,
            )
            ax.add_collection(boxes, autolim=False)


def _smooth(values: np.ndarray, side: int, interpolation: str) -> np.ndarray:
    """Bins (B, B) as (side, side) pixels."""
    grid = Grid(values.shape, values.shape, 1, "centered")
    method = "cubic" if interpolation == "smooth" else interpolation
    return tiles.resample(
        values, grid, (side, side), Crop.whole((side, side)), (side, side), method
    )
