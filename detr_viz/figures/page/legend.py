"""What is written around and in a page's panels; each function adds to the layout it returns.

Head names once on top, each panel's maximum in a corner, a colour bar or the samples of contour
lines, and the reading rule at the bottom right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    INK,
    LINE,
    NOTE_GRAY,
    NUMBER_INK,
    SMALL_PT,
    WIDE,
    Group,
    MapRow,
    PageLayout,
    PageMetrics,
    TextLine,
    number,
)
from detr_viz.figures.page.query_links import coverage
from detr_viz.figures.styles import CONTOUR_SHARES, Style

NUMBER_NOTES = ("%: ", "numbers ")  # how notes on the numbers in panels begin
Corner = tuple[int, int]  # (1 low, 1 right)
_CORNERS: tuple[Corner, ...] = ((1, 1), (1, 0), (0, 1), (0, 0))
_EXTRA_COST = (0.0, 0.05, 0.05, 0.1)  # so much less must a row's other corners hide
_CLEAR_GAIN = 0.15  # a panel leaves its row's corner where another hides so much less
_INSET, _ABOVE = 2.0, 1.2  # points around a number on its plate
_BOX_LINE = 0.6  # points that the box's line reaches beyond it
_BAR_PT, _SAMPLE_PT = (60.0, 5.0), 12.0  # colour bar: length and height; a contour's sample


def _whole_names(heads: Sequence[str]) -> list[str]:
    return [f"head {h}" if h.isdecimal() else h for h in heads]


def _numbers_only(heads: Sequence[str], panel_width: int, page: PageMetrics) -> bool:
    """Whether "head 0", ... are too wide for their panels."""
    widest = max(page.pen.width(name, page.text_pt) for name in _whole_names(heads))
    return widest > panel_width and all(h.isdecimal() for h in heads)


def _head_right(panels_left: int, panel_width: int, page: PageMetrics) -> float:
    """Right edge of the word before the numbers: a space before the first number."""
    return panels_left + (panel_width - page.pen.width("0", page.text_pt)) / 2 - page.px(2)


def head_names_left(
    panels_left: int, panel_width: int, heads: Sequence[str], page: PageMetrics
) -> float:
    """Where the names of the heads begin: what stands beside them must end before this."""
    if not _numbers_only(heads, panel_width, page):
        return panels_left
    end = _head_right(panels_left, panel_width, page)
    return end - page.pen.width("head", page.text_pt) - page.px(WIDE)


def with_head_names(layout: PageLayout, heads: Sequence[str], page: PageMetrics) -> PageLayout:
    """Over the panels, once: "head 0" and so on; over narrow panels numbers after one "head".

    heads: numbers, or other names of columns, which are shortened to their panels.
    """
    baseline = page.header - page.px(AIR)
    wide = layout.panel_hw[1] + page.gap
    names = [page.pen.shorten(name, wide, page.text_pt) for name in _whole_names(heads)]
    lines = []
    if _numbers_only(heads, layout.panel_hw[1], page):
        names = list(heads)
        x = _head_right(layout.panel_lefts[0], layout.panel_hw[1], page)
        lines.append(TextLine("head", x, baseline, page.text_pt, INK, align="right"))
    for left, name in zip(layout.panel_lefts, names, strict=True):
        x = left + layout.panel_hw[1] / 2
        lines.append(TextLine(name, x, baseline, page.text_pt, INK, align="center"))
    return replace(layout, lines=(*layout.lines, *lines))


def with_numbers(
    layout: PageLayout, groups: Sequence[Group], style: Style, page: PageMetrics
) -> PageLayout:
    """The number of every panel, in the corner where it hides least; small panels have none."""
    height, width = layout.panel_hw
    if width < page.px(4.5 * SMALL_PT) or height < page.px(1.8 * SMALL_PT):
        return layout
    inset, above, cap = page.px(_INSET), page.px(_ABOVE), page.px(SMALL_PT * CAP)
    lines, plates, shared = [], [], largest_weight(groups)
    tops = iter([top for position in layout.positions for top in position.row_tops])
    for group in groups:
        for row in group.rows:
            top, texts = next(tops), row.numbers
            if texts is None:
                texts = [number(v) for v in row.maps.max((1, 2))]
            widths = [int(page.pen.width(t, page.small_pt)) + inset + above for t in texts]
            sizes = [(cap + inset + above, wide) for wide in widths]
            scale = {"query": row.maps.max(), "figure": shared}.get(style.norm or "")
            scale = row.reach or scale
            corners = _corners(row, group, layout.panel_hw, sizes, page.px(_BOX_LINE), scale)
            plates.append(tuple(zip(sizes, corners, strict=True)))
            for text, (low, right), left in zip(texts, corners, layout.panel_lefts, strict=False):
                baseline = top + (height - inset if low else cap + inset)
                x, align = (left + width - inset, "right") if right else (left + inset, "left")
                lines.append(TextLine(text, x, baseline, page.small_pt, NUMBER_INK, align=align))
    return replace(layout, lines=(*layout.lines, *lines), plates=tuple(plates))


def _corners(
    row: MapRow,
    group: Group,
    panel_hw: tuple[int, int],
    sizes: Sequence[tuple[int, int]],
    line_px: int,
    scale: float | None,
) -> list[Corner]:
    """For every panel the corner where its plate hides little: the row's common corner if it does.

    A plate hides the largest weight under it, as a share of the scale's end (None: of the panel's
    largest weight), and the box.
    """
    cost = np.empty((len(row.maps), len(_CORNERS)))
    visible = np.abs(row.maps) if row.attended is None else coverage(row, group.photo.shape[:2])
    for m, (cells, size_hw) in enumerate(zip(visible, sizes, strict=True)):
        largest = max(float(cells.max() if scale is None else scale), np.finfo(np.float32).tiny)
        for i, corner in enumerate(_CORNERS):
            rows, columns = (
                slice(max(count - int(count * size / side) - 1, 0), count)
                if far
                else slice(0, int(count * size / side) + 1)
                for count, size, side, far in zip(
                    cells.shape, size_hw, panel_hw, corner, strict=True
                )
            )
            hidden = float(cells[rows, columns].max()) / largest
            cost[m, i] = hidden + _box_in_the_way(group, panel_hw, size_hw, corner, line_px)
    common = int((cost.mean(0) + _EXTRA_COST).argmin())
    better = cost[:, common] > cost.min(1) + _CLEAR_GAIN
    return [_CORNERS[i] for i in np.where(better, cost.argmin(1), common)]


def _box_in_the_way(
    group: Group, panel_hw: tuple[int, int], size_hw: tuple[int, int], corner: Corner, line_px: int
) -> float:
    """The cost of a plate that covers the box: its inside costs less than its outline."""
    if group.box_xyxy_px is None:
        return 0.0
    scale = [panel_hw[1] / group.photo.shape[1], panel_hw[0] / group.photo.shape[0]] * 2
    x0, y0, x1, y1 = (float(v) * s for v, s in zip(group.box_xyxy_px, scale, strict=True))
    top = (panel_hw[0] - size_hw[0]) * corner[0] - line_px
    left = (panel_hw[1] - size_hw[1]) * corner[1] - line_px
    bottom, right = top + size_hw[0] + 2 * line_px, left + size_hw[1] + 2 * line_px
    if x0 >= right or x1 <= left or y0 >= bottom or y1 <= top:
        return 0.0
    return 0.15 if x0 < left and x1 > right and y0 < top and y1 > bottom else 0.4


def largest_weight(groups: Sequence[Group]) -> float:
    """The largest weight of all maps: the end of a colour bar. Signed maps do not count."""
    rows = (row for g in groups for row in g.rows if not row.reach)
    return max((float(row.maps.max()) for row in rows), default=0.0)


def with_legend(
    layout: PageLayout, groups: Sequence[Group], style: Style, page: PageMetrics
) -> PageLayout:
    """The colour bar of a shared scale, or a sample of each contour line; at the bottom right.

    It has fewer words where the page is too narrow for all.
    """
    if style.name != "contour" and style.norm != "figure":
        return layout
    for wordy in (True, False):
        key = _Key(layout, page)
        if style.name == "contour":
            key.write("of each map's mass" if wordy else "of the mass", 3)
            for share in reversed(CONTOUR_SHARES):
                key.write(f"{round(share * 100)} %", 2)
                key.sample()
        else:
            key.write(number(largest_weight(groups)), 2)
            key.bar_of(1.0 if wordy else 0.6)
            what = "query" if any(r.attended for g in groups for r in g.rows) else "cell"
            key.write(f"weight of a {what}  0" if wordy else "0", 0)
        if key.x >= page.margin:
            break
    return replace(
        layout,
        height=key.baseline + page.px(SMALL_PT * 0.24),
        lines=(*layout.lines, *key.lines),
        samples=tuple(key.samples),
        bar=key.bar,
    )


class _Key:
    """One line under the panels, written from the right."""

    def __init__(self, layout: PageLayout, page: PageMetrics) -> None:
        self.page = page
        self.x: float = layout.width - page.margin
        self.baseline = layout.height + page.px(4 + SMALL_PT * CAP)
        self.middle = self.baseline - page.px(SMALL_PT * CAP) / 2
        self.lines: list[TextLine] = []
        self.samples: list[tuple[float, float, float]] = []
        self.bar: tuple[int, int, int, int] | None = None

    def write(self, text: str, gap_pt: float) -> None:
        size = self.page.small_pt
        self.lines.append(TextLine(text, self.x, self.baseline, size, NOTE_GRAY, align="right"))
        self.x -= self.page.pen.width(text, size) + self.page.px(gap_pt)

    def sample(self) -> None:
        length = self.page.px(_SAMPLE_PT)
        self.samples.insert(0, (self.x - length, self.x, self.middle))
        self.x -= length + self.page.px(6)

    def bar_of(self, share: float) -> None:
        length, height = (self.page.px(pt) for pt in (_BAR_PT[0] * share, _BAR_PT[1]))
        self.x -= length
        self.bar = round(self.middle - height / 2), round(self.x), height, length
        self.x -= self.page.px(2)


def _scaling(style: Style, numbered: bool) -> list[str]:
    """Which colours can be compared, and what the numbers are."""
    if style.scaling is None:
        return ["numbers: each map's largest weight"] if numbered else []
    scale, meaning = {
        "head": ("each panel on its own scale", ", from 0 to the number in it"),
        "query": ("each row on one scale", ", from 0 to its largest number"),
        "figure": ("all panels on one scale", "; numbers: each one's largest weight"),
    }[style.scaling]
    return [scale + meaning if numbered else scale]


def with_notes(
    layout: PageLayout, notes: Sequence[str], style: Style, page: PageMetrics, signed: bool = False
) -> PageLayout:
    """The reading rule at the bottom right, on as few lines as it needs.

    signed: some rows are not weights, and have a scale of their own.
    """
    scaling = _scaling(style, bool(layout.plates))
    if not layout.plates:
        notes = [note for note in notes if not note.startswith(NUMBER_NOTES)]
    if signed:
        scaling = [f"weights: {piece}" for piece in scaling]
    pieces = [*notes, *scaling]
    if page.stretched:
        pieces.append("photo not in its true proportions")
    x, limit = layout.width - page.margin, layout.width - 2 * page.margin
    baseline, lines = layout.height + page.px(4), []
    for text in page.pen.join(
        page.pen.broken(pieces, limit, page.small_pt), limit, page.small_pt, "  ·  "
    ):
        baseline += page.px(SMALL_PT * (LINE if lines else CAP))
        start = x - page.pen.length(text, page.small_pt)
        for run in page.pen.runs(text, page.small_pt):
            middle, base = start + run.left + run.width / 2, baseline + run.drop
            line = TextLine(run.text, middle, base, run.size_pt, NOTE_GRAY, run.style, "center")
            lines.append(line)
        lines[-1] = replace(lines[-1], x=x, align="right")
    height = baseline + page.px(SMALL_PT * 0.24) + page.margin
    return replace(layout, height=height, lines=(*layout.lines, *lines))
