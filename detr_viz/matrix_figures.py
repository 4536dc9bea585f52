"""Who looks at whom in the decoder, among some queries: a matrix a head.

e = explain(model, "photo.jpg", layers="all", sites=["decoder"])
fig = query_matrix(e, [17, 3, 61], ["combine"])
figures.save(fig, "matrix.png")

    band        a layer and a mode: its name, then lines of matrices side by side
      matrix    head 0
                    17   3  61  others        whom it looks at
        cat   17   .62 .10 .02   .26          a row: who looks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz import compose
from detr_viz.annotations import with_notes
from detr_viz.decoder_figures import notes_of, subject_of
from detr_viz.drawing import colors
from detr_viz.facts import Subject, heads_of, metadata_of_view, mode_name, normalisation
from detr_viz.figures import label_of, words_of
from detr_viz.layout import check_size
from detr_viz.lettering import plain_settings
from detr_viz.matching import Match, SharedObject
from detr_viz.page import (
    AIR,
    CAP,
    INK,
    LINE,
    SMALL_PT,
    TEXT_PT,
    Line,
    Page,
    Plan,
    legible,
    luminance,
    number,
)
from detr_viz.panels import columns
from detr_viz.sheets import figure_of, warn_if_high, write
from detr_viz.styles import DEFAULT_FORMAT, DEFAULT_LOOK, FigureError, Format, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation import Explanation

_CELL_PT = 5.4  # of the numbers
_MOST_PT, _HIGH_PT = 20.0, 12.0  # width and height of a cell at most
_SEEN_PX = 4  # width of a cell at least
_BETWEEN, _BESIDE, _LINES, _BANDS = 5.0, 1.5, 5.0, 9.0  # points: heads, others, lines, bands
_NAME_SHARE = 0.2  # of the page, for names of classes at most
_GREYS = (246, 120)  # of 0 and of 1, in the column of the others


def query_matrix(
    e: Explanation,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    scale: str = "mode",
    look: Look = DEFAULT_LOOK,
    page: Format = DEFAULT_FORMAT,
) -> Figure:
    """Decoder self-attention among some queries: a matrix (q, q) a head, and what goes elsewhere.

    queries  ids of two at least, in the order to show
    Row i, column j: the weight that queries[i] gives to queries[j]. The column "others", in greys
    from 0 to 1, is the sum of all it gives to queries that are not shown, so that a row sums to 1
    (but not with heads "max", where every cell is the largest of any head). Colours have one scale
    in all the figure, or as look.norm says: in a matrix, or in a query's row of all heads. Heads
    "sort": by the mean entropy of the rows. The rest as in decoder_figures.decoder_grid.
    """
    if len(queries) < 2:
        raise FigureError("a matrix is of two queries at least: choose more of them")
    subject = subject_of(e, queries, modes, layers, look)
    bands = [
        _band(subject, queries, layer, mode, scale, look, len(subject.layers), len(modes))
        for layer in subject.layers
        for mode in modes
    ]
    look = replace(look, norm=look.norm or "figure")  # a number in a cell is that of all heads
    lut = colors(replace(look, style="heat"))
    rest = e.num_queries - len(queries)
    notes = notes_of(subject, modes, scale, look)
    if look.heads == "sort":
        notes.append("the heads whose rows have the least entropy first")
    notes.append("rows look, columns are looked at; on the diagonal, at itself")
    with plain_settings():
        table = _Table(bands, rest, Page(page, (1, 1)))
        made = table.plan()
        if rest:
            whole = "each row sums to 1" if look.heads != "max" else "rows do not sum to 1"
            notes.append(f"{table.rest_name}, grey: all that the other {rest} queries get; {whole}")
        notes += ["after a head: its largest weight here"] * (not table.numbered)
        if table.without:
            notes.append(f"cells without a number: below {table.without}")
        made = with_notes(made, notes, look, table.page)
    check_size(made.width, made.height, sum(len(band.labels) for band in bands))
    sheet = compose.blank_sheet(made.height, made.width)
    largest = max(float(band.shown.max()) for band in bands)
    for band, cells in zip(bands, table.cells, strict=True):
        inks = _inks(band, lut, look, largest)
        for (head, i, j), (top, left, high, wide) in cells.items():
            sheet[top : top + high, left : left + wide, :3] = inks[head, i, j]
    lines = [*made.lines, *table.numbers(bands, lut, look, largest)]
    fig, ax = figure_of(sheet, page.dpi)
    write(ax, lines, page.dpi)
    title = f"decoder self-attention between queries, {heads_of(look)}".rstrip(",")
    about = "; ".join(words_of([subject], SharedObject(0, (Match(q, 1.0),)))[0] for q in queries)
    fig.facts = metadata_of_view(e, title, [*notes, normalisation(look)], about)
    warn_if_high(fig, page)
    return fig


@dataclass(frozen=True, eq=False)
class _Label:
    """A query of a band: class name, id, the colour of both, whether it is a weak detection."""

    name: str
    query: str
    ink: str
    style: str


@dataclass(frozen=True, eq=False)
class _Band:
    """Matrices (M, q, q) of a layer and a mode, what goes to the others (M, q), names of heads."""

    name: str
    heads: tuple[str, ...]
    shown: np.ndarray
    others: np.ndarray
    labels: tuple[_Label, ...]


def _band(
    subject: Subject,
    queries: Sequence[int],
    layer: int,
    mode: str,
    scale: str,
    look: Look,
    layers: int,
    modes: int,
) -> _Band:
    e, ids = subject.explanation, list(queries)
    weights = e.attention(("decoder", layer), mode, ids, scale).transpose(1, 0, 2)  # (M, q, Q)
    rest = np.setdiff1d(np.arange(weights.shape[-1]), ids)
    shown, others = weights[..., ids], weights[..., rest].sum(-1)
    names = [f"head {m}" for m in range(len(weights))]
    if isinstance(look.heads, tuple):
        order = [*look.heads]
    elif look.heads == "sort":
        logs = np.log(weights, out=np.zeros(weights.shape), where=weights > 0)
        order = np.argsort(-(weights * logs).sum(-1).mean(-1), kind="stable").tolist()
    elif look.heads is None:
        order = [*range(len(weights))]
    else:
        made = np.mean if look.heads == "mean" else np.max
        shown, others = made(shown, 0, keepdims=True), made(others, 0, keepdims=True)
        order, names = [0], columns(look, len(weights))
    labels = []
    for query in ids:
        label = label_of(subject, query, layer)
        ink = legible(label.color, label.weak)
        labels.append(_Label(label.title, str(query), ink, "" if label.weak else "bold"))
    said = [f"layer {layer}"] * (layers > 1) + [mode_name(mode)] * (modes > 1)
    return _Band(
        " ".join(said), tuple(names[m] for m in order), shown[order], others[order], tuple(labels)
    )


def _inks(band: _Band, lut: np.ndarray, look: Look, largest: float) -> np.ndarray:
    """Colours of all cells, (M, q, q + 1, 3) uint8; the last column is of the others."""
    scale = {
        "head": band.shown.max((1, 2), keepdims=True),
        "query": band.shown.max((0, 2), keepdims=True),
        "figure": np.float32(largest),
    }[look.norm or "figure"]
    levels = band.shown / np.where(scale > 0, scale, 1)
    white, grey = _GREYS
    greys = np.rint(white + (grey - white) * np.clip(band.others, 0, 1)).astype(np.uint8)
    greys = np.repeat(greys[..., None, None], 3, -1)
    return np.concatenate([lut[np.rint(levels * 255).astype(int)], greys], 2)


class _Table:
    """Where everything goes, in pixels: as many heads side by side as leave room for numbers."""

    def __init__(self, bands: Sequence[_Band], rest: int, page: Page) -> None:
        self.bands, self.rest, self.page = bands, rest, page
        pen, self.count = page.pen, len(bands[0].labels)
        self.cell_pt = _CELL_PT * page.made_for.type_size
        labels = [label for band in bands for label in band.labels]
        limit = _NAME_SHARE * page.width
        self.names = {
            (label.name, label.style): pen.shorten(label.name, limit, page.text_pt, label.style)
            for label in labels
        }
        widest = max(
            pen.width(text, page.text_pt, style) for (_, style), text in self.names.items()
        )
        ids = int(max(pen.width(label.query, page.small_pt) for label in labels)) + 1
        self.names_right = page.margin + int(widest) + 1
        self.ids_right = self.names_right + page.px(AIR) + ids
        self.left = self.ids_right + page.px(AIR)
        self._choose_widths()
        self.cells: list[dict[tuple[int, int, int], tuple[int, int, int, int]]] = []

    def _choose_widths(self) -> None:
        """How many heads stand side by side, and how large cells are: numbers first, then rows that
        can all be named, then at least seen."""
        page, pen = self.page, self.page.pen
        heads = max(len(band.heads) for band in self.bands)
        need = int(pen.width(".00", self.cell_pt)) + page.px(1.2)
        row = page.px(SMALL_PT * LINE + 1.2)
        across = _halves(heads)
        tries = [(n, need) for n in across if 4 * n >= heads]
        tries += [(n, int(row * 0.6)) for n in across] + [(n, _SEEN_PX) for n in across]
        for self.across, least in tries:
            if any(self._fill(name, need) >= least for name in ("others", f"+{self.rest}")):
                break
        if self.wide < _SEEN_PX:
            raise FigureError(
                f"a figure {page.made_for.width_in:g} in wide is too narrow for a matrix of "
                f"{self.count} queries: choose fewer, or make it wider"
            )
        self.numbered = least == need
        self.high = row if self.wide >= row * 0.6 else self.wide
        if self.numbered:
            self.high = min(max(self.wide, row), page.px(_HIGH_PT))
        self.gap = 1 if self.wide >= 12 else 0

    def _fill(self, rest_name: str, need: int) -> int:
        """Set and give the width of cells, where the others are called so."""
        page = self.page
        self.rest_name, self.beside = rest_name, 0
        if self.rest:
            label = int(page.pen.width(rest_name, page.small_pt)) + page.px(1)
            self.beside = page.px(_BESIDE) + max(label, need)
        room = page.width - self.left - page.margin
        room -= self.across * self.beside + (self.across - 1) * page.px(_BETWEEN)
        self.wide = max(min(room // (self.across * self.count), page.px(_MOST_PT)), 0)
        return self.wide

    @property
    def _digits(self) -> int:
        """Digits that a number in a cell may have, 2 or 3: more would say less."""
        room = self.wide - self.page.px(0.6)
        return 2 + (self.page.pen.width(".888", self.cell_pt) <= room)

    @property
    def without(self) -> str:
        """Below which weight cells have no number; "" where all have one, or none."""
        shares = [band.others for band in self.bands] if self.rest else []
        smallest = min(float(a.min()) for a in (*shares, *(band.shown for band in self.bands)))
        if not self.numbered or len(number(smallest)) <= self._digits + 1:
            return ""
        return number(10.0**-self._digits)

    def plan(self) -> Plan:
        """The page but for its notes and numbers; where cells lie, in `cells`."""
        page, lines = self.page, []
        one = self.count * self.wide + self.beside
        step = one + page.px(_BETWEEN)
        most = min(self.across, max(len(band.heads) for band in self.bands))
        width = self.left + most * step - page.px(_BETWEEN) + page.margin
        top = page.margin
        for band in self.bands:
            places: dict[tuple[int, int, int], tuple[int, int, int, int]] = {}
            if band.name:
                baseline = top + page.px(TEXT_PT * CAP)
                lines.append(Line(band.name, page.margin, baseline, page.text_pt, INK, "bold"))
                first_beside = True
            else:
                first_beside = False
            for first in range(0, len(band.heads), self.across):
                some = range(first, min(first + self.across, len(band.heads)))
                baseline = top + page.px(TEXT_PT * CAP)
                if first == 0 and first_beside and not self._fits_beside(band.name):
                    baseline += page.px(TEXT_PT * LINE)
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
                            places[head, i, j] = (y, x, *size)
                        if self.rest:
                            x = left + self.count * self.wide + page.px(_BESIDE)
                            wide = self.beside - page.px(_BESIDE)
                            places[head, i, self.count] = (y, x, self.high - self.gap, wide)
                bottom = top + self.count * self.high
                top = bottom + page.px(_LINES)
            top = bottom + page.px(_BANDS)
            self.cells.append(places)
        return Plan(
            width=max(width, page.width // 2),
            height=bottom,
            panel_hw=(self.high, self.wide),
            photo_hw=(1, 1),
            panel_lefts=(),
            photo_left=0,
            spots=(),
            lines=tuple(lines),
        )

    def _fits_beside(self, name: str) -> bool:
        wide = self.page.pen.width(name, self.page.text_pt, "bold")
        return self.page.margin + wide + self.page.px(AIR) <= self.left

    def _row_labels(self, band: _Band, top: int) -> list[Line]:
        """Class and id before every row; before every second and so on where rows are low."""
        page, lines = self.page, []
        every = -(-page.px(SMALL_PT * LINE) // self.high)
        for i, label in enumerate(band.labels):
            if i % every:
                continue
            middle = top + i * self.high + self.high / 2
            name = self.names[label.name, label.style]
            base = middle + page.px(TEXT_PT * CAP) / 2
            lines.append(
                Line(name, self.names_right, base, page.text_pt, label.ink, label.style, "right")
            )
            base = middle + page.px(SMALL_PT * CAP) / 2
            ids = Line(label.query, self.ids_right, base, page.small_pt, label.ink, "", "right")
            lines.append(ids)
        return lines

    def _over(self, band: _Band, head: int, left: int, baseline: int, ids_base: int) -> list[Line]:
        """Over a matrix: its head, and whom the columns are."""
        page, pen = self.page, self.page.pen
        inner = self.count * self.wide
        title = band.heads[head]
        if not self.numbered:
            title += f"  {number(float(band.shown[head].max()))}"
        title = pen.shorten(title, inner + self.beside + page.px(_BETWEEN * 0.8), page.text_pt)
        middle = left + max(inner, pen.width(title, page.text_pt)) / 2
        lines = [Line(title, middle, baseline, page.text_pt, INK, align="center")]
        widest = max(pen.width(label.query, page.small_pt) for label in band.labels)
        every = -(-int(widest + page.px(1.5)) // self.wide)
        for j, label in enumerate(band.labels):
            if j % every == 0:
                x = left + j * self.wide + (self.wide - self.gap) / 2
                lines.append(Line(label.query, x, ids_base, page.small_pt, label.ink, "", "center"))
        if self.rest:
            wide = self.beside - page.px(_BESIDE)
            x = left + inner + page.px(_BESIDE) + wide / 2
            lines.append(Line(self.rest_name, x, ids_base, page.small_pt, INK, "", "center"))
        return lines

    def numbers(
        self, bands: Sequence[_Band], lut: np.ndarray, look: Look, largest: float
    ) -> list[Line]:
        """What is printed in cells: in black or white, whichever is read better."""
        if not self.numbered:
            return []
        page, lines = self.page, []
        for band, cells in zip(bands, self.cells, strict=True):
            inks = _inks(band, lut, look, largest)
            for (head, i, j), (top, left, high, wide) in cells.items():
                last = j == self.count
                value = float(band.others[head, i] if last else band.shown[head, i, j])
                text = number(value)
                if len(text) > self._digits + 1:
                    continue
                light = luminance("#" + "".join(f"{c:02x}" for c in inks[head, i, j])) > 0.18
                base = top + (high + page.px(_CELL_PT * CAP)) / 2
                ink = "#000000" if light else "#ffffff"
                lines.append(Line(text, left + wide / 2, base, self.cell_pt, ink, "", "center"))
        return lines


def _halves(count: int) -> list[int]:
    """8, 4, 2, 1."""
    found = [count]
    while found[-1] > 1:
        found.append(-(-found[-1] // 2))
    return found
