"""The key of a page: what its colours, lines and circles mean; one line, written from the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import (
    CAP,
    GRAY,
    INK,
    SMALL_PT,
    TEXT_PT,
    Group,
    KeySign,
    PageLayout,
    Ramp,
    TextLine,
    number,
)
from detr_viz.figures.page.ground import luminance
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.scale import EVEN_TICKS, RAMP_GRAY, colors, even_tone, opacity
from detr_viz.figures.page.shown import LinearScale
from detr_viz.figures.styles import Style

if TYPE_CHECKING:
    from detr_viz.figures.page.elements import MapRow

LEVEL_COLORS = {8: "#0072b2", 16: "#009e73", 32: "#e69f00", 64: "#a8327d"}  # by stride
OTHER_LEVELS = ("#56b4e9", "#5c5c5c", "#8a5a00")
_RAMP_PT = (62.0, 6.4)  # length and height
_SAMPLE_PT = 12.0  # of a contour
_DOT_SHARES = (0.1, 0.5)  # weights whose circles the key shows
_EVEN_CONTRAST = 0.179  # luminance on which black and white have the same contrast (WCAG 2)


def baseline_of(height: int, page: PageMetrics) -> int:
    """The baseline of the foot's first line, under panels that end at a height."""
    return height + page.px(5 + TEXT_PT * CAP)


class _Key:
    """One line under the panels, written from the right."""

    def __init__(self, right: float, baseline: int, page: PageMetrics) -> None:
        self.page, self.x, self.baseline = page, right, baseline
        self.middle = baseline - page.px(TEXT_PT * CAP) / 2
        self.lines: list[TextLine] = []
        self.ramps: list[Ramp] = []
        self.signs: list[KeySign] = []

    def write(self, text: str, gap_pt: float) -> None:
        if not text:
            return
        size = self.page.text_pt
        self.lines.append(TextLine(text, self.x, self.baseline, size, GRAY, align="right"))
        self.x -= self.page.pen.width(text, size) + self.page.px(gap_pt)

    def ramp(self, kind: str, ticks: Sequence[tuple[float, str, str]], share: float = 1.0) -> None:
        """A bar of colours; ticks: (place in [0, 1], text, ink), centred at the place.

        A tick that would touch the one before it, or the bar's end, is left out.
        """
        page = self.page
        length, height = page.px(_RAMP_PT[0] * share), page.px(_RAMP_PT[1])
        self.x -= length
        left = round(self.x)
        self.ramps.append(Ramp(kind, round(self.middle - height / 2), left, height, length))
        size = page.small_pt * 0.94
        base = self.middle + page.px(SMALL_PT * 0.94 * CAP) / 2
        gap, end = page.px(1.2), float(left)
        for place, text, ink in ticks:
            middle, half = left + place * length, page.pen.width(text, size) / 2
            if middle - half < end or middle + half > left + length:
                continue
            end = middle + half + gap
            self.lines.append(TextLine(text, middle, base, size, ink, "", "center"))
        self.x -= page.px(2.4)

    def sign(self, kind: str, size: float, color: str = INK, level: int = 0) -> None:
        self.x -= size
        self.signs.append(KeySign(kind, self.x + size / 2, self.middle, size, color, level))
        self.x -= self.page.px(2)


def key_of(
    layout: PageLayout,
    page: PageMetrics,
    style: Style,
    groups: Sequence[Group],
    size: int,
) -> _Key:
    """The key of the colours. size: 2 with all words, 1 with few, 0 with the fewest."""
    key = _Key(layout.width - page.margin, baseline_of(layout.height, page), page)
    rows = [row for group in groups for row in group.rows]
    if rows and rows[0].linear:
        _linear_key(key, rows[0].linear, size)
        return key
    if any(row.samples for row in rows):
        _sample_key(key, rows, size)
        return key
    weights = [row for row in rows if not row.reach and not row.attended and row.cells is None]
    signed = [row for row in rows if row.reach]
    if any(row.attended for row in rows):
        return key
    if any(row.cells for row in rows):
        _cell_key(key, rows, size)
        return key
    if size and any(group.anchor for group in groups):
        key.write("anchor", 2)
        key.sign("plus", page.px(5))
        key.x -= page.px(5)
    if style.name == "contour" and weights:
        _contour_key(key, style, size)
    elif weights:
        words = "weights" if signed else "attention"
        _weight_key(key, style, weights, size, words)
    if signed:
        if weights:
            key.x -= page.px(6)
        _signed_key(key, signed, size)
    return key


def _weight_key(key: _Key, style: Style, rows: Sequence[MapRow], size: int, what: str) -> None:
    share = 1.0 if size else 0.8
    if style.scaling == "even":
        key.write("\N{MULTIPLICATION SIGN}256", 2)
        inks = _tick_inks(style)
        key.ramp(
            "even",
            [
                (float(even_tone_of(t)), f"\N{MULTIPLICATION SIGN}{t}", ink)
                for t, ink in zip(EVEN_TICKS, inks, strict=True)
            ],
            share,
        )
        text = f"{what}: even spread" if size == 2 else "even spread" if size else "even"
        key.write(f"{text} \N{MULTIPLICATION SIGN}1", 0)
        return
    largest = max(float(row.maps.max()) for row in rows)
    end = {
        "head": "largest of the panel",
        "query": "largest of the row",
        "figure": number(largest),
    }[style.scaling or "head"]
    if size == 0:
        end = {"head": "panel's max", "query": "row's max"}.get(style.scaling or "", end)
    key.write(end, 2)
    key.ramp("linear", [], share)
    key.write(f"{what}: 0" if size else "0", 0)


def even_tone_of(times: float) -> float:
    """The tone of so many times an even spread."""
    return float(even_tone(np.array([times], np.float64))[0])


def _tick_inks(style: Style) -> list[str]:
    """Black or white for each tick, whichever the colours under it let be read."""
    lut, inks = colors(style), []
    for times in EVEN_TICKS:
        at = round(even_tone_of(times) * 255)
        share = 1.0 if style.name == "heat" else float(opacity(np.float64(at / 255)))
        under = np.rint(share * lut[at] + (1 - share) * RAMP_GRAY).astype(int)
        ground = "#" + "".join(f"{c:02x}" for c in under)
        inks.append("#000000" if luminance(ground) > _EVEN_CONTRAST else "#ffffff")
    return inks


def _signed_key(key: _Key, rows: Sequence[MapRow], size: int) -> None:
    reaches = {row.reach for row in rows}
    end = max(reaches)
    text = f"{end:.0f}" if end >= 100 else f"{end:.2g}"
    ends = [text] * 2 if len(reaches) == 1 else ["", ""]
    key.write("adds" if size else "+", 2)
    ticks = [(0.13, f"\N{MINUS SIGN}{ends[0]}", "#ffffff"), (0.5, "0", "#000000")]
    ticks.append((0.87, f"+{ends[1]}", "#ffffff"))
    key.ramp("signed", ticks if ends[0] else ticks[1:2], 1.0 if size else 0.8)
    key.write("logit: takes away" if size == 2 else "takes away" if size else "\N{MINUS SIGN}", 0)


def _linear_key(key: _Key, scale: LinearScale, size: int) -> None:
    sizes = {"dot": key.page.px(3.2), "hatch": key.page.px(5)}
    for kind, color, text in reversed(scale.signs):
        key.write(text if size == 2 else text.split(",")[0], 2)
        key.sign(kind, sizes[kind], color)
        key.x -= key.page.px(4)
    key.write(scale.high, 2)
    key.ramp("linear", [], 1.0 if size else 0.8)
    key.write(f"{scale.words}: {scale.low}" if size else scale.low, 0)


def _cell_key(key: _Key, rows: Sequence[MapRow], size: int) -> None:
    reach = max(row.cells.reach for row in rows if row.cells)
    end = f"{reach:.2g}".removeprefix("0")
    key.write("adds" if size else "+", 2)
    ticks = [(0.13, f"\N{MINUS SIGN}{end}", "#ffffff"), (0.5, "0", "#000000")]
    key.ramp("signed", [*ticks, (0.87, f"+{end}", "#ffffff")], 1.0 if size else 0.8)
    what = "share of a cell: takes away" if size == 2 else "takes away"
    key.write(what if size else "\N{MINUS SIGN}", 0)


def _contour_key(key: _Key, style: Style, size: int) -> None:
    page = key.page
    for i, share in reversed(list(enumerate(style.contours))):
        text = f"holds {round(share * 100)} %" if size and i == 0 else f"{round(share * 100)} %"
        key.write(text, 2)
        key.sign("line", page.px(_SAMPLE_PT), level=i)
        key.x -= page.px(3)
    if size == 2:
        key.write("a line", 3)


def _sample_key(key: _Key, rows: Sequence[MapRow], size: int) -> None:
    page = key.page
    shown = [row.samples for row in rows if row.samples]
    if size and any(samples.reference is not None for samples in shown):
        key.write("reference", 2)
        boxed = any(samples.reference_box is not None for samples in shown)
        key.sign("framed" if boxed else "plus", page.px(6.5 if boxed else 5))
        key.x -= page.px(5)
    for share in reversed(_DOT_SHARES):
        key.write(f"{round(share * 100)} %", 2)
        key.sign("dot", 2 * dot_radius(share, page.px(1)), "#8a8a8a")
        key.x -= page.px(3)
    if size == 2:
        key.write("weight", 6)
    levels = dict.fromkeys(pair for samples in shown for pair in samples.numbered)
    for level, stride in sorted(levels, key=lambda pair: pair[::-1], reverse=True):
        key.write(str(stride), 2)
        key.sign("dot", page.px(4.4), level_color(stride, level))
        key.x -= page.px(3)
    key.write("stride", 0)


def level_color(stride: int, level: int) -> str:
    """The colour of a level of sampling points."""
    return LEVEL_COLORS.get(stride, OTHER_LEVELS[level % len(OTHER_LEVELS)])


def dot_radius(weight: float, unit_px: float) -> float:
    """The radius of a sampling point in pixels: its area follows the weight."""
    return 5.6 * unit_px * max(weight, 0.002) ** 0.5
