"""The atlas of one model as a figure: a row a mode (and layer), a column a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import detr_viz
from detr_viz.atlas.box_frame import BAND, LEAST_CELLS, MARGIN
from detr_viz.atlas.statistics import SEEN, HeadRole, HeadStatistics
from detr_viz.atlas.table import EVEN, IN_BOX, AtlasTable
from detr_viz.attention.grids import Grid
from detr_viz.figures.page import tiles
from detr_viz.figures.page.canvas import figure_of, warn_if_high, write
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    NOTE_GRAY,
    SMALL_PT,
    TEXT_PT,
    PageMetrics,
    TextLine,
    number,
)
from detr_viz.figures.page.layout import check_size
from detr_viz.figures.page.paint import colors
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

_UNSEEN = 237  # grey, where hardly any image was
_ROW_GAP = 5.0  # points
_TOO_SMALL = "too small"
_LEAST_KIND = 0.75  # size of the words under panels, of other small text
_WIDEST = "peak to edge 88.8"


@dataclass(frozen=True)
class _Row:
    """A tally in words and pictures: lines beside its panels, maps (M, B, B), a kind a head."""

    title: str
    details: tuple[str, ...]
    maps: np.ndarray
    kinds: Sequence[HeadRole | None]


def atlas_figure(
    book: AtlasTable, *, style: Style = DEFAULT_STYLE, page_format: PageFormat = DEFAULT_PAGE_FORMAT
) -> Figure:
    """Mean maps around the box, what each head is, and the numbers of each mode.

    look: norm "head" (each panel on its own scale), "query" (each row; the default) or "figure",
    colour map, interpolation. FigureError where no object was added, or for a page too narrow.
    """
    if not book.objects:
        raise FigureError("nothing to draw: no object was found in any image")
    with plain_settings():
        return _Sheet(book, style, page_format).figure()


def check(book: AtlasTable, style: Style, page_format: PageFormat) -> None:
    """FigureError where its figure could not be drawn, before anything is in it."""
    with plain_settings():
        _Sheet(book, style, page_format)


class _Sheet:
    """Everything measured first, then drawn; pixels from the top left corner."""

    def __init__(self, book: AtlasTable, style: Style, page_format: PageFormat) -> None:
        self.book, self.style, self.page_format = book, style, page_format
        self.page, self.pen = PageMetrics(page_format, (1, 1)), Lettering(page_format.dpi)
        several = len({layer for layer, _ in book.tallies}) > 1
        self.rows = [
            _row(f"{mode}, layer {layer}" if several else mode, tally)
            for (layer, mode), tally in book.tallies.items()
        ]
        self.heads = max(tally.heads for tally in book.tallies.values())
        self._measure_across()
        self._measure_down()

    def _measure_across(self) -> None:
        page = self.page
        said = [(row.title, page.text_pt, "bold") for row in self.rows]
        said += [(text, page.small_pt, "") for row in self.rows for text in row.details]
        said.append((_WIDEST, page.small_pt, ""))  # so that numbers do not change the layout
        names = max(self.pen.width(*text) for text in said)
        self.left = round(page.margin + names + page.px(AIR * 2))
        words = [
            text
            for row in self.rows
            for kind, values in zip(row.kinds, row.maps, strict=True)
            for text in _lines(kind, values)
        ]
        widest = max(self.pen.width(text, page.small_pt, style) for text, style in words)
        for lines in (1, 2):  # two lines of panels where one would make the words tiny
            self.across = -(-self.heads // lines)
            gaps = (self.across - 1) * page.gap
            room = page.width - self.left - page.margin - gaps
            self.panel = page.panel_width(room, self.across)
            self.kind_pt = page.small_pt * min(1.0, self.panel / widest)  # one size for all
            if self.kind_pt >= _LEAST_KIND * page.small_pt:
                break
        self.width = self.left + self.across * self.panel + gaps + page.margin

    def _measure_down(self) -> None:
        page, line = self.page, self.page.px(SMALL_PT * LINE)
        self.line = line
        self.title_base = page.margin + page.px(CLASS_PT * CAP)
        name = page.px(AIR) + page.px(TEXT_PT * LINE)  # of a head, over its panel
        self.kind_line = self.pen.px(self.kind_pt * LINE)
        under = page.px(AIR * 0.6) + self.pen.px(self.kind_pt * CAP) + self.kind_line
        beside = page.px(TEXT_PT * CAP) + 3 * line
        lines = -(-self.heads // self.across)
        self.names = range(len(self.rows)) if lines > 1 else range(1)  # rows that have them
        self.line_step = self.panel + under + name * (lines > 1) + page.px(AIR)
        high = (lines - 1) * self.line_step + self.panel + under
        step = max(high, beside) + page.px(_ROW_GAP) + name * (lines > 1)
        top = self.title_base + name + page.px(AIR)
        self.tops = [top + i * step for i in range(len(self.rows))]
        self.notes = self._notes()
        self.notes_base = self.tops[-1] + step + page.px(SMALL_PT * CAP)
        below = (len(self.notes) - 1) * line + page.px(SMALL_PT * 0.3) + page.margin
        self.height = self.notes_base + below
        check_size(self.width, self.height, len(self.rows))

    def figure(self) -> Figure:
        fig, ax = figure_of(self._pixels(), self.page_format.dpi)
        lines = [*self._title(), *self._head_names()]
        for row, top in zip(self.rows, self.tops, strict=True):
            lines += [*self._beside(row, top), *self._under(row, top)]
        right = self.width - self.page.margin
        for i, said in enumerate(self.notes):
            base = self.notes_base + i * self.line
            lines.append(TextLine(said, right, base, self.page.small_pt, NOTE_GRAY, "", "right"))
        self._add_boxes(ax)
        write(ax, lines, self.page_format.dpi)
        fig.facts = self._facts()
        warn_if_high(fig, self.page_format, above=2, way_out="choose fewer layers, or one mode")
        return fig

    def _at(self, top: int, head: int) -> tuple[int, int]:
        """Left and top of a head's panel in a row that begins at `top`."""
        line, column = divmod(head, self.across)
        return self.left + column * (self.panel + self.page.gap), top + line * self.line_step

    def _pixels(self) -> np.ndarray:
        lut = colors(Style(name="heat", cmap=self.style.cmap))
        of_all = max(_most(row.maps) for row in self.rows)
        sheet = tiles.blank_sheet(self.height, self.width)
        for row, top in zip(self.rows, self.tops, strict=True):
            of_row = _most(row.maps)
            for head, values in enumerate(row.maps):
                last = {"head": _most(values), "figure": of_all}.get(self.style.norm, of_row)
                levels = _smooth(np.nan_to_num(values), self.panel, self.style.smoothing)
                shown = lut[np.clip(levels / (last or 1) * 255, 0, 255).round().astype(np.intp)]
                shown[_smooth(np.isnan(values), self.panel, "nearest") > 0.5] = _UNSEEN
                left, above = self._at(top, head)
                sheet[above : above + self.panel, left : left + self.panel, :3] = shown
        return sheet

    def _title(self) -> list[TextLine]:
        page, about = self.page, self._about()
        room = self.width - 2 * page.margin - self.pen.width(about, page.small_pt) - page.px(8)
        title = self.pen.shorten(clean(self.book.name), room, page.class_pt, "bold")
        end = self.width - page.margin
        return [
            TextLine(title, page.margin, self.title_base, page.class_pt, INK, "bold"),
            TextLine(about, end, self.title_base, page.small_pt, GRAY, align="right"),
        ]

    def _about(self) -> str:
        count, images = self.book.objects, self.book.images
        return f"{count} object{'s' * (count != 1)} in {images} image{'s' * (images != 1)}"

    def _head_names(self) -> list[TextLine]:
        names = ["head 0", *map(str, range(1, self.heads))]
        size, lines = self.page.text_pt, []
        if self.pen.width(f"{names[0]} ", size) > self.panel:
            names[0] = "0"
        for row in self.names:
            for head, name in enumerate(names):
                left, top = self._at(self.tops[row], head)
                lines.append(TextLine(name, left, top - self.page.px(AIR), size, INK))
        return lines

    def _beside(self, row: _Row, top: int) -> list[TextLine]:
        page = self.page
        base = top + page.px(TEXT_PT * CAP)
        lines = [TextLine(row.title, page.margin, base, page.text_pt, INK, "bold")]
        for i, said in enumerate(row.details, 1):
            at = base + i * self.line
            lines.append(TextLine(said, page.margin, at, page.small_pt, GRAY))
        return lines

    def _under(self, row: _Row, top: int) -> list[TextLine]:
        lines = []
        below = self.panel + self.page.px(AIR * 0.6) + self.pen.px(self.kind_pt * CAP)
        for head, (kind, values) in enumerate(zip(row.kinds, row.maps, strict=True)):
            left, above = self._at(top, head)
            middle, base = left + self.panel / 2, above + below
            for i, (said, style) in enumerate(_lines(kind, values)):
                at, ink = base + i * self.kind_line, INK if style else GRAY
                lines.append(TextLine(said, middle, at, self.kind_pt, ink, style, "center"))
        return lines

    def _add_boxes(self, ax: Axes) -> None:
        """The unit square in every panel, white over something darker."""
        from matplotlib.collections import PolyCollection

        low, high = (round((t + MARGIN) / (1 + 2 * MARGIN) * self.panel) for t in (0, 1))
        corners = [
            [(left + x, top + y) for x, y in ((low, low), (high, low), (high, high), (low, high))]
            for row in self.tops
            for left, top in [self._at(row, head) for head in range(self.heads)]
        ]
        px = max(1, round(0.5 * self.page_format.type_size * self.page_format.dpi / 72))
        for ink, wide, order in (((0, 0, 0, 0.6), 2 * px, 4), ((1, 1, 1, 1), px, 5)):
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

    def _notes(self) -> list[str]:
        chance, boxed = (self.book.chance[name].means() for name in (EVEN, IN_BOX))
        scale = {"head": "each panel on its own scale", "figure": "all panels on one scale"}
        scale = scale.get(self.style.norm, "each row on one scale")
        pieces = [
            "white: the box, with half of it to each side",
            "colour: mean attention (1: all of it, evenly over the box)",
            scale,
            "below: where most of a map lies, for how many objects (?: not surely most), and the "
            "largest mean",
            f"an edge: within {number(BAND)} of the box",
            "peak to edge: cells",
            f"even over the image: in box {number(float(chance['mass_in_box'][0]))}, peak to edge "
            f"{chance['peak_to_edge'][0]:.1f}",
        ]
        if self.book.chance[IN_BOX].objects:
            pieces.append(f"even in the box: peak to edge {boxed['peak_to_edge'][0]:.1f}")
        small = self.book.objects - self.book.chance[EVEN].resolved
        if small:
            pieces.append(f"panels are without {small} narrower than {LEAST_CELLS} cells")
        if any(np.isnan(row.maps).any() for row in self.rows) and self.book.objects:
            pieces.append(f"grey: in the image for fewer than {SEEN:.0%} of the objects")
        if self.book.scale == "layer":
            pieces.append("logits at the layer's own scale")
        limit, size = self.width - 2 * self.page.margin, self.page.small_pt
        return self.pen.join(self.pen.broken(pieces, limit, size), limit, size, "  ·  ")

    def _facts(self) -> dict[str, str]:
        kinds = [
            f"{row.title}: "
            + ", ".join(f"{k.zone} {k.share:.0%}" if k else _TOO_SMALL for k in row.kinds)
            for row in self.rows
        ]
        return {
            "Title": f"{clean(self.book.name)}: what each head does, {self._about()}",
            "Software": f"detr_viz {detr_viz.__version__}",
            "Description": ". ".join([*kinds, *self.notes, self.book.made_of]).rstrip(". "),
        }


def _lines(kind: HeadRole | None, values: np.ndarray) -> list[tuple[str, str]]:
    """Zone, in bold where it is clear; its share, and the most that the mean map has."""
    if kind is None:
        return [(_TOO_SMALL, "")]
    numbers = (f"{kind.share:.0%} · {_amount(_most(values))}", "")
    return [(kind.zone, "bold") if kind.clear else (f"{kind.zone}?", ""), numbers]


def _row(title: str, tally: HeadStatistics) -> _Row:
    found = {name: float(values.mean()) for name, values in tally.means().items()}
    if not tally.objects:  # only measured
        return _Row(title, (), tally.mean_map(), tally.kinds())
    details = (
        f"entropy {number(found['entropy'])}",
        f"in box {number(found['mass_in_box'])}",
        f"peak to edge {found['peak_to_edge']:.1f}",
    )
    return _Row(title, details, tally.mean_map(), tally.kinds())


def _amount(value: float) -> str:
    return number(value) if value < 0.995 else f"{value:.1f}"


def _most(values: np.ndarray) -> float:
    """The largest; 0 where there is none."""
    return float(np.nan_to_num(values).max())


def _smooth(values: np.ndarray, side: int, interpolation: str) -> np.ndarray:
    """Bins (B, B) as (side, side) pixels."""
    grid = Grid(values.shape, values.shape, 1, "centered")
    return tiles.resample(values, grid, (side, side), interpolation)
