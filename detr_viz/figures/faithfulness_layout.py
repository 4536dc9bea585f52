"""Where everything goes in a figure of deletion and insertion curves: maps, plots, areas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from detr_viz.explanation.curves import Faithfulness, area
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    GRAY,
    INK,
    LINE,
    PHOTO,
    SMALL_PT,
    TEXT_PT,
    WIDE,
    Group,
    Label,
    PageLayout,
    Panel,
    TextLine,
)
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.label_lines import label_lines
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.shares import captions
from detr_viz.figures.styles import PageFormat, Style

_INKS = {"position": "#0072b2", "content": "#b84a00"}  # any other mode: INK
_MEAN_INK = "#757575"  # the gray of the mean as text, which needs more contrast
_PLOT_SHARE = 1.4  # width of a plot, in panels
_LEAST_PLOT_PT = 26.0  # height of a plot
_LABEL_PT = 52.0  # a label may be so much wider than its photo: it holds "0.98 · query 123"
_ROW_GAP = 6.0
_LEAST_PANEL_PT = 14.0  # panels do not shrink below this for a format's height
_AXIS_WORDS = {"deletion": "hidden", "insertion": "seen"}  # of the cells, along x
WAYS = tuple(_AXIS_WORDS)

Box = tuple[int, int, int, int]  # left, top, width, height of a plot, pixels


def label_widths(labels: Sequence[Label], modes: int, page: PageMetrics) -> tuple[int, int, int]:
    """Widths of a page with these labels, as `_widths`; FigureError where it is too narrow."""
    return _widths([_label_lines(label, page) for label in labels], modes, page)


def _label_lines(label: Label, page: PageMetrics) -> list[TextLine]:
    return label_lines(label, page.px(_LABEL_PT), page)


def fitted_layout(
    groups: Sequence[Group],
    curves: Faithfulness,
    foot: Foot,
    style: Style,
    page_format: PageFormat,
) -> tuple[PageLayout, list[tuple[Box, Box]], float]:
    """The page, its plots, the pixels of a point. Panels shrink where the figure is too high."""
    limit, most = None, page_format.height_in * page_format.dpi
    first = None
    for _ in range(8):
        page = PageMetrics(page_format, groups[0].photo.shape[:2], limit)
        layout, plots = _laid_out(groups, curves, style, page)
        layout = with_foot(layout, groups, foot, style, page)
        result = layout, plots, page_format.type_size * page_format.dpi / 72
        first = first or result
        if layout.height <= most:
            return result
        high, wide = layout.maps[0].hw
        limit = min(wide * (1 - (layout.height - most) / len(plots) / high), wide - 1)
        if limit < page.px(_LEAST_PANEL_PT):
            break
    return first


def _widths(
    labels: Sequence[Sequence[TextLine]], count: int, page: PageMetrics
) -> tuple[int, int, int]:
    """Widths of the column of photos and labels, of a panel, and of the numbers beside an axis."""
    widest = page.widest([line for label in labels for line in label])
    tick = math.ceil(page.pen.width("1", page.small_pt)) + page.px(1.5)
    beside = page.px(WIDE) + (count - 1) * page.gap + len(WAYS) * (page.pad + tick)
    room = page.width - 2 * page.margin - beside
    panels = count + len(WAYS) * _PLOT_SHARE
    width = page.panel_width(room, 1 + panels)
    if widest <= width:
        return width, width, tick
    column = min(widest, page.px(_LABEL_PT))  # wider than the photo
    width = min(width, page.panel_width(room - column, panels))
    return max(column, width), width, tick


def _laid_out(
    groups: Sequence[Group], curves: Faithfulness, style: Style, page: PageMetrics
) -> tuple[PageLayout, list[tuple[Box, Box]]]:
    """From left to right: photo over label, maps over their modes, plots over their areas."""
    count, pen, small = len(curves.maps), page.pen, page.small_pt
    labels = [_label_lines(group.label, page) for group in groups]
    column, width, tick = _widths(labels, count, page)
    height, across = page.panel_height(width), int(_PLOT_SHARE * width)
    high = max(min(height, across), page.px(_LEAST_PLOT_PT))
    left = page.margin + column + page.px(WIDE)
    lefts = tuple(left + i * (width + page.gap) for i in range(count))
    right = lefts[-1] + width
    plot_lefts = [right + (i + 1) * (page.pad + tick) + i * across for i in range(len(WAYS))]
    lines, panels, plots = [], [], []
    for name, x in zip(WAYS, plot_lefts, strict=True):
        text = pen.shorten(name, across + tick, page.text_pt)
        middle, baseline = x + across / 2, page.margin + page.px(TEXT_PT * CAP)
        lines.append(TextLine(text, middle, baseline, page.text_pt, INK, align="center"))
    top = page.margin + page.px(TEXT_PT * CAP + AIR)
    for i, label in enumerate(labels):
        under = top + height + page.px(AIR)
        lines += [replace(t, x=page.margin + t.x, baseline=under + t.baseline) for t in label]
        panels.append(Panel(i, PHOTO, 0, top, page.margin, height, width))
        panels += [Panel(i, 0, k, top, x, height, width) for k, x in enumerate(lefts)]
        plots.append(tuple((x, top, across, high) for x in plot_lefts))
        ends = [under + label[-1].baseline]
        shares = captions(groups[i].rows[0], groups[i], style)
        for mode, share, x in zip(curves.maps, shares, lefts, strict=True):
            baseline = under
            for text in [*pen.fit(mode, width, small), pen.shorten(share, width, small)]:
                baseline += page.px(SMALL_PT * (CAP if baseline == under else LINE))
                middle = x + width / 2
                lines.append(TextLine(text, middle, baseline, small, ink_of(mode), align="center"))
            ends.append(baseline)
        for way, x in zip(WAYS, plot_lefts, strict=True):
            around = _around(curves, i, way, (x, top, across, high), tick, page)
            lines += around
            ends.append(around[-1].baseline)
        bottom = math.ceil(max(ends)) + page.px(SMALL_PT * 0.3)
        top = bottom + page.px(_ROW_GAP)
    layout = PageLayout(
        width=plot_lefts[-1] + across + page.margin,
        height=bottom,
        panels=tuple(panels),
        lines=tuple(lines),
        crops=tuple(Crop.whole(group.photo.shape[:2]) for group in groups),
    )
    return layout, plots


def ink_of(mode: str) -> str:
    """The colour of a mode's curve and words."""
    return _INKS.get(mode, INK)


def _around(
    curves: Faithfulness, i: int, way: str, box: Box, tick: int, page: PageMetrics
) -> list[TextLine]:
    """Numbers at the ends of a plot's axes; under them the areas of curves and random orders."""
    left, top, width, height = box
    small, cap, gap = page.small_pt, page.px(SMALL_PT * CAP), page.px(1.5)
    below = top + height + gap + cap
    lines = [
        TextLine("1", left - gap, top + cap, small, GRAY, align="right"),
        TextLine("0", left - gap, top + height, small, GRAY, align="right"),
        TextLine("0", left, below, small, GRAY),
        TextLine("1", left + width, below, small, GRAY, align="right"),
        TextLine(_AXIS_WORDS[way], left + width / 2, below, small, GRAY, align="center"),
    ]
    texts = [("area", GRAY)]
    texts += [
        (_two(area(rows[i], curves.shares)), ink_of(mode))
        for mode, rows in getattr(curves, way).items()
    ]
    if curves.random.shape[1]:
        texts.append((_two(area(curves.random[i], curves.shares).mean()), _MEAN_INK))
    space = page.px(3)
    room, row, baseline = width + tick, [], below
    rows = [row]
    for text, ink in texts:
        wide = page.pen.width(text, small)
        if row and sum(w + space for _, _, w in row) + wide > room:
            row = []
            rows.append(row)
        row.append((text, ink, wide))
    for row in rows:
        baseline += page.px(SMALL_PT * LINE)
        whole = sum(w for _, _, w in row) + space * (len(row) - 1)
        x = left + min((width - whole) / 2, width - whole)  # wider ones reach under the tick
        for text, ink, wide in row:
            lines.append(TextLine(text, x + wide / 2, baseline, small, ink, align="center"))
            x += wide + space
    return lines


def _two(value: float) -> str:
    """An area: .07, 1.0 where it rounds to that."""
    text = f"{max(float(value), 0):.2f}"
    return text[1:] if text.startswith("0") else "1.0"
