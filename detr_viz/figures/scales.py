"""How much of the finer, the own and the coarser level each encoder block takes: tables of numbers.

fig = scales_figure(e)                          # e.scales is of a model with scale attention
figures.save(fig, "scales.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detr_viz.explanation.scales import PARTS, ScaleAttention
from detr_viz.figures.page.canvas import warn_if_high
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
    Bar,
    Group,
    Label,
    PageLayout,
    Panel,
    TextLine,
    number,
    percent,
)
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.paint import paint
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.reading_rule import DASH
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.truth_marks import group_with_truth, truth_notes, truth_words
from detr_viz.figures.view_contents import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.results import ExplanationBase

_PHOTO_PT, _CELL_PT, _LEAST_CELL_PT = 84.0, 27.0, 15.0
_CELL_GAP, _TABLE_GAP, _BAR_PT = 4.0, 14.0, 1.7
_BARS = {"finer": "#56b4e9", "own": "#0072b2", "coarser": "#d55e00"}


def scales_figure(
    e: ExplanationBase,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """The photo, and for each block a table: a row for each level, a column for each part.

    A number and its bar are the scale weight; under it the part's share in the block's sum.
    FigureError for a model without scale attention, or where the page is too narrow.
    """
    scales = e.scales
    if scales is None:
        raise FigureError(f"{e.model_title} has no scale attention in its encoder")
    group = group_with_truth(Group(Label(""), e.image.rgb, None, ()), e, style)
    model = clean(e.model_title)
    notes = (
        model,
        "scale attention of the encoder: a weight from 0 to 1 for each level, part and block",
        "parts: deformable convolutions of the next finer level, the own and the next coarser one",
        "in gray: the part's share in the block's sum, in all 100 %",
        *truth_notes(e, style),
    )
    words = (model, "scale attention of the encoder", "gray: share in the sum")
    with plain_settings():
        page = PageMetrics(page_format, e.image.rgb.shape[:2])
        layout = _laid_out(scales, page, e.image.rgb.shape[:2])
        foot = Foot((*words, *truth_words(e, style)), notes)
        layout = with_foot(layout, (group,), foot, style, page)
        fig = paint((group,), layout, style, page_format)
    about = f"{len(scales.strides)} levels, {scales.num_blocks} encoder blocks"
    describe(fig, e, "scale attention of the encoder", notes, about)
    warn_if_high(fig, page_format, way_out="make the page wider")
    return fig


def _laid_out(scales: ScaleAttention, page: PageMetrics, photo_hw: tuple[int, int]) -> PageLayout:
    """Photo at the left, tables beside it, as many in a line as there is room for."""
    names = [f"stride {stride}" for stride in scales.strides]
    wide = min(page.panel_limit, page.px(_PHOTO_PT))
    high = page.panel_height(wide)
    label = page.widest([TextLine(name, 0, 0, page.small_pt, GRAY) for name in names])
    first = page.margin + wide + page.px(_TABLE_GAP / 2)
    room = page.width - page.margin - first - label - page.px(AIR)
    gap, between = page.px(_CELL_GAP), page.px(_TABLE_GAP)
    cell = min(page.px(_CELL_PT), (room - 2 * gap) // 3)
    if cell < page.px(_LEAST_CELL_PT):
        inches = page.page_format.width_in
        raise FigureError(
            f"a figure {inches:g} in wide is too narrow for its tables: make it wider"
        )
    table = 3 * cell + 2 * gap
    across = max(1, (room + between) // (table + between))
    lines: list[TextLine] = []
    bars: list[Bar] = []
    top, end, bottom, right = page.margin, page.margin, page.margin + high, first
    for block in range(scales.num_blocks):
        column = block % across
        if block and not column:
            top = end + page.px(AIR * 2)
        left = first + label + page.px(AIR) + column * (table + between)
        end = _table(scales, block, (top, left, cell, gap), page, lines, bars)
        if not column:
            for row, name in enumerate(names):
                baseline = _row(top, row, page)
                lines.append(TextLine(name, first, baseline, page.small_pt, GRAY))
        right = max(right, left + table)
        bottom = max(bottom, end)
    return PageLayout(
        width=right + page.margin,
        height=bottom + page.px(AIR),
        panels=(Panel(0, PHOTO, 0, page.margin, page.margin, high, wide),),
        lines=tuple(lines),
        bars=tuple(bars),
        crops=(Crop.whole(photo_hw),),
    )


def _row(top: int, row: int, page: PageMetrics) -> int:
    """The baseline of a row's weights in a table that begins at `top`."""
    head = page.px(TEXT_PT * CAP + AIR) + page.px(SMALL_PT * CAP + AIR)
    each = page.px(2 * SMALL_PT * LINE + _BAR_PT + AIR)
    return top + head + page.px(SMALL_PT * CAP) + row * each


def _table(
    scales: ScaleAttention,
    block: int,
    place: tuple[int, int, int, int],
    page: PageMetrics,
    lines: list[TextLine],
    bars: list[Bar],
) -> int:
    """Add a block's table at (top, left, cell, gap); where it ends."""
    top, left, cell, gap = place
    pen, small = page.pen, page.small_pt
    baseline = top + page.px(TEXT_PT * CAP)
    lines.append(TextLine(f"block {block}", left, baseline, page.text_pt, INK))
    heads = baseline + page.px(AIR + SMALL_PT * CAP)
    for k, part in enumerate(PARTS):
        middle = left + k * (cell + gap) + cell / 2
        name = pen.shorten(part, cell + gap, small)
        lines.append(TextLine(name, middle, heads, small, GRAY, align="center"))
        for row in range(len(scales.strides)):
            weight, share = (float(x[block, row, k]) for x in (scales.weights, scales.shares))
            at = _row(top, row, page)
            if np.isnan(weight):
                lines.append(TextLine(DASH, middle, at, small, GRAY, align="center"))
                continue
            text = number(weight) if weight else "0"
            lines.append(TextLine(text, middle, at, small, INK, align="center"))
            under = at + page.px(SMALL_PT * 0.3)
            edge, high = left + k * (cell + gap), page.px(_BAR_PT)
            bars.append(Bar(weight, edge, under, cell, high, _BARS[part]))
            below = under + high + page.px(SMALL_PT * CAP + SMALL_PT * 0.3)
            lines.append(TextLine(percent(share), middle, below, small, GRAY, align="center"))
    return _row(top, len(scales.strides), page)
