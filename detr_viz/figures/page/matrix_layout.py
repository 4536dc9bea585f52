"""Where everything goes in a figure of matrices: cells, names before them and over them.

table = Table(bands, rest, page)
layout = table.layout()                 # then the cells are in table.cells
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    INK,
    LINE,
    SMALL_PT,
    TEXT_PT,
    PageLayout,
    TextLine,
    number,
)
from detr_viz.figures.page.ground import luminance
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.styles import FigureError

_CELL_PT = 5.4  # of the numbers
_WIDEST_PT, _HIGHEST_PT = 20.0, 12.0  # of a cell
_LEAST_PX = 4  # width of a cell at least
_BETWEEN, _BESIDE, _LINES, _BANDS = 5.0, 1.5, 5.0, 9.0  # points: heads, others, lines, bands
_NAME_SHARE = 0.2  # of the page, for names of classes at most


@dataclass(frozen=True, eq=False)
class Entry:
    """A query of a band: class name, id, the colour of both, whether it is a weak detection."""

    name: str
    query: str
    ink: str
    style: str


@dataclass(frozen=True, eq=False)
class Band:
    """Matrices (M, q, q) of one layer and mode, the weights of all other queries (M, q), names."""

    name: str
    heads: tuple[str, ...]
    shown: np.ndarray
    others: np.ndarray
    labels: tuple[Entry, ...]


class Table:
    """Positions in pixels, for as many heads side by side as leave room for numbers.

    rest: how many queries are not shown
    """

    def __init__(self, bands: Sequence[Band], rest: int, page: PageMetrics) -> None:
        self.bands, self.rest, self.page = bands, rest, page
        pen, self.count = page.pen, len(bands[0].labels)
        self.cell_pt = _CELL_PT * page.page_format.type_size
        labels = [label for band in bands for label in band.labels]
        limit = _NAME_SHARE * page.width
        self.names = {
            (label.name, label.style): pen.shorten(label.name, limit, page.text_pt, label.style)
            for label in labels
        }
        widest = max(
            pen.width(text, page.text_pt, style) for (_, style), text in self.names.items()
        )
        self.ids = int(max(pen.width(label.query, page.small_pt) for label in labels)) + 1
        self.names_right = page.margin + int(widest) + 1
        self.ids_right = self.names_right + page.px(AIR) + self.ids
        self.left = self.ids_right + page.px(AIR)
        self._choose_widths()
        self.cells: list[dict[tuple[int, int, int], tuple[int, int, int, int]]] = []

    def _choose_widths(self) -> None:
        """How many heads stand side by side, and how large cells are.

        Cells with room for numbers are best, then rows that all have room for a name, then cells
        that are just visible.
        """
        page, pen = self.page, self.page.pen
        heads = max(len(band.heads) for band in self.bands)
        need = int(pen.width(".00", self.cell_pt)) + page.px(1.2)
        row = page.px(SMALL_PT * LINE + 1.2)
        over = page.px(TEXT_PT * CAP + SMALL_PT * CAP + 1.7 * AIR + _LINES)
        across, small = _halves(heads), _halves(heads)[::-1]
        tries = [(n, need) for n in across if 4 * n >= heads]
        tries += [(n, int(row * 0.6)) for n in small] + [(n, _LEAST_PX) for n in small]
        most = min(
            page.page_format.height_in * page.page_format.dpi, 3 * page.width * len(self.bands)
        )
        for limit, (self.across, least) in product((most, math.inf), tries):
            wide_enough = any(self._fill(n, need) >= least for n in ("others", f"+{self.rest}"))
            self.high = self.wide if least == _LEAST_PX else row
            if wide_enough and self._lines() * (self.count * self.high + over) <= limit:
                break
        if self.wide < _LEAST_PX:
            raise FigureError(
                f"a figure {page.page_format.width_in:g} in wide is too narrow for a matrix of "
                f"{self.count} queries: choose fewer, or make it wider"
            )
        self.numbered = self.wide >= need and self.high >= row
        higher = min(max(self.wide, row), page.px(_HIGHEST_PT))
        if self.numbered and self._lines() * (self.count * higher + over) <= most:
            self.high = higher
        self.gap = 1 if self.wide >= 12 else 0
        self.every_row = -(-page.px(SMALL_PT * LINE) // self.high)
        self.every_column = -(-(self.ids + page.px(1.5)) // self.wide)
        self.thinned = max(self.every_row, self.every_column) > 1

    def _lines(self) -> int:
        """How many lines of matrices there are in all bands."""
        return sum(-(-len(band.heads) // self.across) for band in self.bands)

    def _fill(self, rest_name: str, need: int) -> int:
        """Set and return the width of cells where the column of the others has this name."""
        page = self.page
        self.rest_name, self.beside = rest_name, 0
        if self.rest:
            label = int(page.pen.width(rest_name, page.small_pt)) + page.px(1)
            self.beside = page.px(_BESIDE) + max(label, need)
        room = page.width - self.left - page.margin
        room -= self.across * self.beside + (self.across - 1) * page.px(_BETWEEN)
        self.wide = max(min(room // (self.across * self.count), page.px(_WIDEST_PT)), 0)
        return self.wide

    @property
    def _digits(self) -> int:
        """Digits that a number in a cell may have: 3 where they fit, else 2."""
        room = self.wide - self.page.px(0.6)
        return 3 if self.page.pen.width(".888", self.cell_pt) <= room else 2

    def largest(self, band: Band) -> list[str]:
        """What follows each head's name: its largest weight, where cells have no numbers and there
        is room; else nothing.
        """
        texts = [f"  {number(float(shown.max()))}" for shown in band.shown]
        room = self.count * self.wide + self.beside
        titles = (name + text for name, text in zip(band.heads, texts, strict=True))
        fits = all(self.page.pen.width(title, self.page.text_pt) <= room for title in titles)
        return texts if fits and not self.numbered else [""] * len(texts)

    @property
    def without(self) -> str:
        """The weight below which cells have no number; "" where all cells have one, or none has."""
        shares = [band.others for band in self.bands] if self.rest else []
        smallest = min(float(a.min()) for a in (*shares, *(band.shown for band in self.bands)))
        if not self.numbered or len(number(smallest)) <= self._digits + 1:
            return ""
        return number(10.0**-self._digits)

    def layout(self) -> PageLayout:
        """The page without its notes and numbers; sets `cells`."""
        page, lines = self.page, []
        one = self.count * self.wide + self.beside
        step = one + page.px(_BETWEEN)
        most = min(self.across, max(len(band.heads) for band in self.bands))
        width = self.left + most * step - page.px(_BETWEEN) + page.margin
        top = page.margin
        for band in self.bands:
            positions: dict[tuple[int, int, int], tuple[int, int, int, int]] = {}
            if band.name:
                baseline = top + page.px(TEXT_PT * CAP)
                lines.append(TextLine(band.name, page.margin, baseline, page.text_pt, INK, "bold"))
                if page.widest(lines[-1:]) + page.px(AIR) > self.left:
                    top += page.px(TEXT_PT * LINE)  # too long to stand beside the first head
            for first in range(0, len(band.heads), self.across):
                some = range(first, min(first + self.across, len(band.heads)))
                baseline = top + page.px(TEXT_PT * CAP)
                ids_base = baseline + page.px(SMALL_PT * CAP + AIR)
                top = ids_base + page.px(AIR * 0.7)
                lines += self._row_labels(band, top)
                for k, head in enumerate(some):
                    left = self.left + k * step
                    lines += self._over(band, head, left, baseline, ids_base)
                    for i in range(self.count):
                        y = top + i * self.high
                        for j in range(self.count):
                            x = left + j * self.wide
                            size = self.high - self.gap, self.wide - self.gap
                            positions[head, i, j] = (y, x, *size)
                        if self.rest:
                            x = left + self.count * self.wide + page.px(_BESIDE)
                            wide = self.beside - page.px(_BESIDE)
                            positions[head, i, self.count] = (y, x, self.high - self.gap, wide)
                bottom = top + self.count * self.high
                top = bottom + page.px(_LINES)
            top = bottom + page.px(_BANDS)
            self.cells.append(positions)
        return PageLayout(
            width=max(width, page.width // 2),
            height=bottom,
            lines=tuple(lines),
        )

    def _row_labels(self, band: Band, top: int) -> list[TextLine]:
        """Class and id before every row; before every second and so on where rows are low."""
        page, lines = self.page, []
        for i in range(self.every_row // 2, self.count, self.every_row):
            label = band.labels[i]
            middle = top + i * self.high + self.high / 2
            name = self.names[label.name, label.style]
            base = middle + page.px(TEXT_PT * CAP) / 2
            lines.append(
                TextLine(
                    name, self.names_right, base, page.text_pt, label.ink, label.style, "right"
                )
            )
            base = middle + page.px(SMALL_PT * CAP) / 2
            ids = TextLine(label.query, self.ids_right, base, page.small_pt, label.ink, "", "right")
            lines.append(ids)
        return lines

    def _over(
        self, band: Band, head: int, left: int, baseline: int, ids_base: int
    ) -> list[TextLine]:
        """What stands over a matrix: its head, and the queries of the columns."""
        page, pen = self.page, self.page.pen
        inner = self.count * self.wide
        title = band.heads[head] + self.largest(band)[head]
        if pen.width(title, page.text_pt) > inner + self.beside:
            title = title.removeprefix("head ")
        title = pen.shorten(title, inner + self.beside, page.text_pt)
        middle = left + max(inner, pen.width(title, page.text_pt)) / 2
        lines = [TextLine(title, middle, baseline, page.text_pt, INK, align="center")]
        for j in range(self.every_column // 2, self.count, self.every_column):
            label = band.labels[j]
            x = left + j * self.wide + (self.wide - self.gap) / 2
            if x + pen.width(label.query, page.small_pt) / 2 <= left + inner + page.px(1):
                lines.append(
                    TextLine(label.query, x, ids_base, page.small_pt, label.ink, "", "center")
                )
        if self.rest:
            wide = self.beside - page.px(_BESIDE)
            x = left + inner + page.px(_BESIDE) + wide / 2
            lines.append(TextLine(self.rest_name, x, ids_base, page.small_pt, INK, "", "center"))
        return lines

    def numbers(self, inks: Sequence[np.ndarray]) -> list[TextLine]:
        """The numbers in cells, after `layout`: in black or white, whichever has more contrast.

        inks: the colours of the cells of each band, (M, q, q + 1, 3) uint8
        """
        if not self.numbered:
            return []
        page, lines = self.page, []
        for band, cells, ink in zip(self.bands, self.cells, inks, strict=True):
            for (head, i, j), (top, left, high, wide) in cells.items():
                last = j == self.count
                value = float(band.others[head, i] if last else band.shown[head, i, j])
                text = number(value)
                if len(text) > self._digits + 1:
                    continue
                light = luminance("#" + "".join(f"{c:02x}" for c in ink[head, i, j])) > 0.18
                base = top + (high + page.px(_CELL_PT * CAP)) / 2
                color = "#000000" if light else "#ffffff"
                lines.append(
                    TextLine(text, left + wide / 2, base, self.cell_pt, color, "", "center")
                )
        return lines


def _halves(count: int) -> list[int]:
    """The count, half of it and so on down to 1, rounded up: 8, 4, 2, 1."""
    halves = [count]
    while halves[-1] > 1:
        halves.append(-(-halves[-1] // 2))
    return halves
