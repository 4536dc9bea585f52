"""The atlas of one model as a figure: a row a mode (and layer), a column a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import detr_viz
from detr_viz.atlas.book import EVEN, IN_BOX, Book
from detr_viz.atlas.geometry import BAND, LEAST_CELLS, MARGIN
from detr_viz.atlas.tally import Kind, Tally
from detr_viz.drawing import colors
from detr_viz.lettering import Lettering, clean, plain_settings
from detr_viz.page import (
    AIR,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    NOTE_GRAY,
    SMALL_PT,
    TEXT_PT,
    Page,
    number,
)
from detr_viz.styles import DEFAULT_FORMAT, DEFAULT_LOOK, FigureError, Format, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNSEEN = (0.93, 0.93, 0.93)  # where no image was
_ROW_GAP = 5.0  # points


@dataclass(frozen=True)
class _Row:
    """A tally in words and pictures: lines beside its panels, maps (M, B, B), a kind a head."""

    title: str
    details: tuple[str, ...]
    maps: np.ndarray
    kinds: Sequence[Kind | None]


def atlas_figure(book: Book, *, look: Look = DEFAULT_LOOK, page: Format = DEFAULT_FORMAT) -> Figure:
    """Mean maps around the box, what each head is, and the numbers of each mode.

    look: norm "head" (each panel on its own scale), "query" (each row; the default) or "figure",
    colour map, interpolation. FigureError where no object was added, or for a page too narrow.
    """
    if not book.objects:
        raise FigureError("nothing to draw: no object was found in any image")
    with plain_settings():
        return _Sheet(book, look, page).figure()


class _Sheet:
    """Everything measured first, then drawn; pixels from the top left corner."""

    def __init__(self, book: Book, look: Look, made_for: Format) -> None:
        self.book, self.look, self.made_for = book, look, made_for
        self.page, self.pen = Page(made_for, (1, 1)), Lettering(made_for.dpi)
        several = len({layer for layer, _ in book.tallies}) > 1
        self.rows = [
            self._row(f"{mode}, layer {layer}" if several else mode, tally)
            for (layer, mode), tally in book.tallies.items()
        ]
        page = self.page
        self.heads = max(tally.heads for tally in book.tallies.values())
        wide = [(row.title, page.text_pt, "bold") for row in self.rows]
        wide += [(text, page.small_pt, "") for row in self.rows for text in row.details]
        self.names = max(self.pen.width(*text) for text in wide)
        self.left = round(page.margin + self.names + page.px(AIR * 2))
        room = page.width - self.left - page.margin - (self.heads - 1) * page.gap
        self.panel = page.panel_width(room, self.heads)
        words = [text for row in self.rows for kind in row.kinds for text in _lines(kind)]
        widest = max(self.pen.width(text, page.small_pt, style) for text, style in words)
        self.kind_pt = page.small_pt * min(1.0, self.panel / widest)  # one size for all
        self.width = self.left + self.heads * self.panel + (self.heads - 1) * page.gap + page.margin

    def _row(self, title: str, tally: Tally) -> _Row:
        found = {name: float(values.mean()) for name, values in tally.means().items()}
        details = (
            f"entropy {number(found['entropy'])}",
            f"in box {number(found['mass_in_box'])}",
            f"peak to edge {found['peak_to_edge']:.1f}",
        )
        return _Row(title, details, tally.mean_map(), tally.kinds())

    def figure(self) -> Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        page, line = self.page, self.page.px(SMALL_PT * LINE)
        title_base = page.margin + page.px(CLASS_PT * CAP)
        heads_base = title_base + page.px(AIR) + page.px(TEXT_PT * LINE)
        top = heads_base + page.px(AIR)
        under = page.px(AIR * 0.6) + page.px(SMALL_PT * CAP) + line  # two lines of text
        text = page.px(TEXT_PT * CAP) + 3 * line
        step = max(self.panel + under, text) + page.px(_ROW_GAP)
        tops = [top + i * step for i in range(len(self.rows))]
        notes = self._notes()
        base = tops[-1] + step + page.px(SMALL_PT * CAP)
        height = round(base + (len(notes) - 1) * line + page.px(SMALL_PT * 0.3) + page.margin)
        if height * self.width > 250_000_000 or height > 65_000:
            raise FigureError("too many layers and modes for one figure: choose fewer, or a width")
        dpi = self.made_for.dpi
        wide, high = self.width + 1e-3, height + 1e-3
        fig = Figure(figsize=(wide / dpi, high / dpi), dpi=dpi, facecolor="white", layout="none")
        FigureCanvasAgg(fig)
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        self._panels(ax, tops)
        ax.set_xlim(0, wide)
        ax.set_ylim(high, 0)
        self._write_title(ax, title_base)
        for head in range(self.heads):
            name = f"head {head}" if head == 0 else str(head)
            self._write(ax, self._x(head), heads_base, name, page.text_pt, INK)
        for row, at in zip(self.rows, tops, strict=True):
            self._write_row(ax, row, at, line)
        for i, said in enumerate(notes):
            x = self.width - page.margin
            self._write(ax, x, base + i * line, said, page.small_pt, NOTE_GRAY, align="right")
        fig.facts = self._facts(notes)
        return fig

    def _x(self, head: int) -> int:
        return self.left + head * (self.panel + self.page.gap)

    def _write_title(self, ax: Axes, base: float) -> None:
        page, about = self.page, self._about()
        room = self.width - 2 * page.margin - self.pen.width(about, page.small_pt) - page.px(8)
        title = self.pen.shorten(self.book.name, room, page.class_pt, "bold")
        self._write(ax, page.margin, base, title, page.class_pt, INK, "bold")
        end = self.width - page.margin
        self._write(ax, end, base, about, page.small_pt, GRAY, align="right")

    def _about(self) -> str:
        count, images = self.book.objects, self.book.images
        return f"{count} object{'s' * (count != 1)} in {images} image{'s' * (images != 1)}"

    def _write_row(self, ax: Axes, row: _Row, top: float, line: float) -> None:
        page = self.page
        base = top + page.px(TEXT_PT * CAP)
        self._write(ax, page.margin, base, row.title, page.text_pt, INK, "bold")
        for i, said in enumerate(row.details, 1):
            self._write(ax, page.margin, base + i * line, said, page.small_pt, GRAY)
        base = top + self.panel + page.px(AIR * 0.6) + page.px(SMALL_PT * CAP)
        for head, kind in enumerate(row.kinds):
            for i, (said, style) in enumerate(_lines(kind)):
                ink = INK if style else GRAY
                x = self._x(head) + self.panel / 2
                self._write(ax, x, base + i * line, said, self.kind_pt, ink, style, "center")

    def _panels(self, ax: Axes, tops: Sequence[float]) -> None:
        from matplotlib.collections import LineCollection, PolyCollection

        lut = colors(Look(style="heat", cmap=self.look.cmap)) / 255
        of_all = max(_most(row.maps) for row in self.rows)
        squares, plates, texts = [], [], []
        page, pen = self.page, self.pen
        for row, top in zip(self.rows, tops, strict=True):
            for head, values in enumerate(row.maps):
                left = self._x(head)
                own = _most(values)
                most = {"head": own, "figure": of_all}.get(self.look.norm, _most(row.maps))
                pixels = _smooth(values, self.panel, self.look)
                shown = lut[np.clip(pixels / (most or 1) * 255, 0, 255).round().astype(int)]
                shown[_smooth(np.isnan(values), self.panel, Look("heat")) > 0.5] = _UNSEEN
                extent = (left, left + self.panel, top + self.panel, top)
                ax.imshow(shown, extent=extent, interpolation="none", aspect="auto", zorder=1)
                low, high = ((t + MARGIN) / (1 + 2 * MARGIN) * self.panel for t in (0.0, 1.0))
                corners = ((low, low), (high, low), (high, high), (low, high), (low, low))
                squares.append([(left + x, top + y) for x, y in corners])
                said = number(own) if own < 0.995 else f"{own:.1f}"
                size = page.small_pt * 0.9
                wide, tall = pen.width(said, size) + page.px(2), page.px(SMALL_PT * CAP + 1.6)
                right, bottom = left + self.panel, top + self.panel
                plates.append(
                    [
                        (right - wide, bottom - tall),
                        (right, bottom - tall),
                        (right, bottom),
                        (right - wide, bottom),
                    ]
                )
                texts.append((right - page.px(1), bottom - page.px(0.9), said, size))
        unit = self.made_for.type_size
        for ink, width, z in (((0, 0, 0, 0.55), 1.1, 2), ((1, 1, 1, 1), 0.5, 3)):
            ax.add_collection(
                LineCollection(squares, colors=[ink], linewidths=width * unit, zorder=z),
                autolim=False,
            )
        ax.add_collection(
            PolyCollection(plates, facecolors=[(0.15, 0.15, 0.15, 0.86)], linewidths=0, zorder=4),
            autolim=False,
        )
        for x, y, said, size in texts:
            self._write(ax, x, y, said, size, "#e0e0e0", align="right")

    def _write(
        self,
        ax: Axes,
        x: float,
        base: float,
        text: str,
        size: float,
        ink: str,
        style: str = "",
        align: str = "left",
    ) -> None:
        ax.text(
            x,
            base,
            text,
            fontproperties=self.pen.properties(text, size, style),
            parse_math=False,
            usetex=False,
            color=ink,
            ha=align,
            va="baseline",
            zorder=6,
        )

    def _notes(self) -> list[str]:
        chance, boxed = (self.book.chance[name].means() for name in (EVEN, IN_BOX))
        scale = {"head": "each panel on its own scale", "figure": "all panels on one scale"}
        scale = scale.get(self.look.norm, "each row on one scale") + "; numbers: the most"
        pieces = [
            "white: the box, with half of it to each side",
            "mean attention: 1 were all of it, spread evenly over the box",
            scale,
            "words: where most of a map lies, and for how many objects (an edge: within "
            f"{number(BAND)} of the box; ?: unclear)",
            "peak to edge: cells",
            f"even over the image: in box {number(float(chance['mass_in_box'][0]))}, peak to edge "
            f"{chance['peak_to_edge'][0]:.1f}",
        ]
        if self.book.chance[IN_BOX].objects:
            pieces.append(f"even in the box: peak to edge {boxed['peak_to_edge'][0]:.1f}")
        small = self.book.objects - self.book.chance[EVEN].resolved
        if small:
            pieces.append(f"panels are without {small} narrower than {LEAST_CELLS} cells")
        if self.book.scale == "layer":
            pieces.append("logits at the layer's own scale")
        limit, size = self.width - 2 * self.page.margin, self.page.small_pt
        return self.pen.join(self.pen.broken(pieces, limit, size), limit, size, "  ·  ")

    def _facts(self, notes: Sequence[str]) -> dict[str, str]:
        kinds = [
            f"{row.title}: " + ", ".join(" ".join(t for t, _ in _lines(k)) for k in row.kinds)
            for row in self.rows
        ]
        return {
            "Title": f"{clean(self.book.name)}: what each head does, {self._about()}",
            "Software": f"detr_viz {detr_viz.__version__}",
            "Description": ". ".join([*kinds, *notes]),
        }


def _lines(kind: Kind | None) -> list[tuple[str, str]]:
    """Zone and share, in bold where it is clear."""
    if kind is None:
        return [("too small", "")]
    sure = f"{kind.share:.0%}"
    return [(kind.zone, "bold"), (sure, "")] if kind.clear else [(f"{kind.zone}?", ""), (sure, "")]


def _most(values: np.ndarray) -> float:
    """The largest; 0 where there is none."""
    return float(np.nan_to_num(values).max())


def _smooth(values: np.ndarray, side: int, look: Look) -> np.ndarray:
    """Bins (B, B) as (side, side) pixels."""
    from detr_viz import compose
    from detr_viz.cells import Placement

    bins = len(values)
    place = Placement((bins, bins), 1, "centered")
    filled = np.nan_to_num(values.astype(np.float64))
    return compose.resample(filled, place, (side, side), look.smoothing)
