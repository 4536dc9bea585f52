"""The foot of a page: one line of what is shown at the left, the key of the colours at the right.

All else that a reader must know stands in the caption and in the metadata, and here if asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    GRAY,
    INK,
    LINE,
    SMALL_PT,
    TEXT_PT,
    Group,
    KeySign,
    PageLayout,
    PageMetrics,
    Ramp,
    TextLine,
    luminance,
    number,
)
from detr_viz.figures.page.scale import EVEN_TICKS, RAMP_GRAY, colors, even_tone, opacity
from detr_viz.figures.styles import Style

if TYPE_CHECKING:
    from detr_viz.figures.page.elements import MapRow

LEVEL_COLORS = {8: "#0072b2", 16: "#009e73", 32: "#e69f00", 64: "#a8327d"}  # by stride
OTHER_LEVELS = ("#56b4e9", "#5c5c5c", "#8a5a00")
_RAMP_PT = (62.0, 6.4)  # length and height
_SAMPLE_PT = 12.0  # of a contour
_DOT_SHARES = (0.1, 0.5)  # weights whose circles the key shows
_EVEN_CONTRAST = 0.179  # luminance on which black and white have the same contrast (WCAG 2)
_SEPARATOR = " · "


@dataclass(frozen=True)
class Foot:
    """What stands under the panels.

    words    of the line at the left; the last ones are left out where there is no room
    cells    (h, w) of the maps; None: no note on their size
    notes    all that a reader must know, printed where the format asks for it
    lut      256 colours of the style
    """

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cells: tuple[int, int] | None = None
    lut: np.ndarray | None = None


def with_foot(
    layout: PageLayout, groups: Sequence[Group], foot: Foot, style: Style, page: PageMetrics
) -> PageLayout:
    """The layout with its foot: a line, or two where words and key do not fit beside each other."""
    words = list(foot.words)
    if page.stretched:
        words.append("photo not in its true proportions")
    place = _Place(layout, groups, page)
    for size in (2, 1):
        key = _key(layout, page, style, groups, foot, size)
        left = place.left(words, foot, key.x - page.px(6), size)
        if left is not None and key.x >= page.margin:
            break
    two_lines = left is None
    if two_lines:
        step = page.px(SMALL_PT * LINE + AIR)
        for size in (2, 1, 0):
            key = _key(layout, page, style, groups, foot, size)
            if key.x >= page.margin:
                break
        left = place.left(words, foot, layout.width - page.margin, 0, True) or ([], [])
        if left[0]:
            left = (
                [replace(t, baseline=t.baseline + step) for t in left[0]],
                [replace(s, y=s.y + step) for s in left[1]],
            )
        else:
            two_lines = False
    lines, signs = left
    bottom = key.baseline + page.px(SMALL_PT * 0.3)
    if two_lines:
        bottom += step
    layout = replace(
        layout,
        height=bottom + page.margin,
        lines=(*layout.lines, *key.lines, *lines),
        ramps=(*layout.ramps, *key.ramps),
        signs=(*layout.signs, *key.signs, *signs),
    )
    notes = list(foot.notes) if page.page_format.notes else []
    return with_notes(layout, notes, page) if notes else layout


def with_notes(layout: PageLayout, notes: Sequence[str], page: PageMetrics) -> PageLayout:
    """Notes under the page from the left, on as few lines as they need."""
    limit = layout.width - 2 * page.margin
    baseline, lines = layout.height - page.margin + page.px(AIR), []
    for text in page.pen.join(
        page.pen.broken(list(notes), limit, page.small_pt), limit, page.small_pt, f" {_SEPARATOR} "
    ):
        baseline += page.px(SMALL_PT * (LINE if lines else CAP))
        for run in page.pen.runs(text, page.small_pt):
            middle, base = page.margin + run.left + run.width / 2, baseline + run.drop
            lines.append(TextLine(run.text, middle, base, run.size_pt, GRAY, run.style, "center"))
    height = baseline + page.px(SMALL_PT * 0.3) + page.margin
    return replace(layout, height=height, lines=(*layout.lines, *lines))


class _Place:
    """The line at the left of a layout's foot."""

    def __init__(self, layout: PageLayout, groups: Sequence[Group], page: PageMetrics) -> None:
        self._layout, self._groups, self._page = layout, groups, page

    def left(
        self, words: list[str], foot: Foot, limit: float, size: int, last: bool = False
    ) -> tuple[list[TextLine], list[KeySign]] | None:
        """The words, and the size of a cell; None where they do not fit. last: shortened instead.

        size: 2 with the size of a cell
        """
        page = self._page
        base = _baseline(self._layout.height, page)
        text = _SEPARATOR.join(words)
        width, x = page.pen.length(text, page.text_pt) if text else 0, page.margin
        if x + width > limit:
            if not last:
                return None
            text = page.pen.shorten(text.replace("$", ""), limit - x, page.text_pt)
            width = page.pen.width(text, page.text_pt)
        lines = [
            TextLine(
                run.text,
                x + run.left + run.width / 2,
                base + run.drop,
                run.size_pt,
                GRAY,
                run.style,
                "center",
            )
            for run in page.pen.runs(text, page.text_pt)
        ]
        if foot.cells is None or (size < 2 and not last):
            return lines, []
        h, w = foot.cells
        note, side = f"1 of {w} \N{MULTIPLICATION SIGN} {h} cells", self._cell_px()
        start = x + width + page.px(7)
        end = start + side + page.px(2) + page.pen.width(note, page.text_pt)
        if end > limit or not 1.5 <= side <= page.px(12):
            return lines, []
        middle = base - page.px(TEXT_PT * CAP) / 2
        lines.append(TextLine(note, start + side + page.px(2), base, page.text_pt, GRAY))
        return lines, [KeySign("cell", start + side / 2, middle, side)]

    def _cell_px(self) -> float:
        """The width of a cell in the panels, where all show the whole photo; else 0."""
        maps = self._layout.maps
        if not maps or any(crop.is_part for crop in self._layout.crops):
            return 0.0
        group = self._groups[maps[0].group]
        row = group.rows[maps[0].row]
        if row.attended or row.grid.hw[1] < 2:
            return 0.0
        centers = row.grid.centers(group.photo.shape[1], 1)
        return float(centers[1] - centers[0]) * maps[0].width / group.photo.shape[1]


def _baseline(height: int, page: PageMetrics) -> int:
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
        """A bar of colours; ticks: (place in [0, 1], text, ink), centred at the place."""
        page = self.page
        length, height = page.px(_RAMP_PT[0] * share), page.px(_RAMP_PT[1])
        self.x -= length
        left = round(self.x)
        self.ramps.append(Ramp(kind, round(self.middle - height / 2), left, height, length))
        size = page.small_pt * 0.94
        base = self.middle + page.px(SMALL_PT * 0.94 * CAP) / 2
        for place, text, ink in ticks:
            self.lines.append(TextLine(text, left + place * length, base, size, ink, "", "center"))
        self.x -= page.px(2.4)

    def sign(self, kind: str, size: float, color: str = INK, level: int = 0) -> None:
        self.x -= size
        self.signs.append(KeySign(kind, self.x + size / 2, self.middle, size, color, level))
        self.x -= self.page.px(2)


def _key(
    layout: PageLayout,
    page: PageMetrics,
    style: Style,
    groups: Sequence[Group],
    foot: Foot,
    size: int,
) -> _Key:
    """The key of the colours. size: 2 with all words, 1 with few, 0 with the fewest."""
    key = _Key(layout.width - page.margin, _baseline(layout.height, page), page)
    rows = [row for group in groups for row in group.rows]
    if any(row.samples for row in rows):
        _sample_key(key, rows, size)
        return key
    weights = [row for row in rows if not row.reach and not row.attended and row.cells is None]
    signed = [row for row in rows if row.reach]
    if any(row.attended for row in rows):
        return key
    if style.name == "contour" and weights:
        _contour_key(key, style, size)
    elif weights:
        words = "weights" if signed else "attention"
        _weight_key(key, style, weights, foot, size, words)
    if signed:
        if weights:
            key.x -= page.px(6)
        _signed_key(key, signed, size)
    return key


def _weight_key(
    key: _Key, style: Style, rows: Sequence[MapRow], foot: Foot, size: int, what: str
) -> None:
    share = 1.0 if size else 0.8
    if style.scaling == "even":
        key.write("\N{MULTIPLICATION SIGN}256", 2)
        inks = _tick_inks(foot, style)
        key.ramp(
            "even",
            [
                (float(even_tone_of(t)), f"\N{MULTIPLICATION SIGN}{t}", ink)
                for t, ink in zip(EVEN_TICKS, inks, strict=True)
            ],
            share,
        )
        key.write(f"{what}: even spread" if size == 2 else "even spread" if size else "even", 0)
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


def _tick_inks(foot: Foot, style: Style) -> list[str]:
    """Black or white for each tick, whichever the colours under it let be read."""
    lut = colors(style) if foot.lut is None else foot.lut
    inks = []
    for times in EVEN_TICKS:
        at = round(even_tone_of(times) * 255)
        share = 1.0 if style.name == "heat" else float(opacity(np.float64(at / 255)))
        under = np.rint(share * lut[at] + (1 - share) * RAMP_GRAY).astype(int)
        ground = "#" + "".join(f"{c:02x}" for c in under)
        inks.append("#000000" if luminance(ground) > _EVEN_CONTRAST else "#ffffff")
    return inks


def _signed_key(key: _Key, rows: Sequence[MapRow], size: int) -> None:
    reaches = {row.reach for row in rows}
    ends = [f"{max(reaches):.2g}"] * 2 if len(reaches) == 1 else ["", ""]
    key.write("adds" if size else "+", 2)
    ticks = [(0.13, f"\N{MINUS SIGN}{ends[0]}", "#ffffff"), (0.5, "0", "#000000")]
    ticks.append((0.87, f"+{ends[1]}", "#ffffff"))
    key.ramp("signed", ticks if ends[0] else ticks[1:2], 1.0 if size else 0.8)
    key.write("logit: takes away" if size == 2 else "takes away" if size else "\N{MINUS SIGN}", 0)


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
    samples = next(row.samples for row in rows if row.samples)
    if samples.reference is not None and size:
        key.write("reference", 2)
        key.sign("plus", page.px(5))
        key.x -= page.px(5)
    for share in reversed(_DOT_SHARES):
        key.write(f"{round(share * 100)} %", 2)
        key.sign("dot", 2 * dot_radius(share, page.px(1)), "#8a8a8a")
        key.x -= page.px(3)
    if size == 2:
        key.write("weight", 6)
    for level, stride in reversed(list(enumerate(samples.strides))):
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
