"""Deletion and insertion curves beside the maps that rank the cells: a row a query.

found = faithfulness(e, [3], ["combine"])
fig = faithfulness_grid(e, found)
figures.save(fig, "faithful.png")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import is_sum
from detr_viz.explanation.curves import Faithfulness, area
from detr_viz.figures.head_maps import label_of
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    GRAY,
    INK,
    LINE,
    NOTE_GRAY,
    SMALL_PT,
    WIDE,
    Group,
    GroupPosition,
    Label,
    MapRow,
    PageLayout,
    PageMetrics,
    TextLine,
    number,
)
from detr_viz.figures.page.layout import label_lines
from detr_viz.figures.page.legend import with_legend, with_notes, with_numbers
from detr_viz.figures.page.paint import colors, paint
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.reading_rule import DASH, TIMES, listed, normalisation
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.view_contents import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.explanation.results import ExplanationBase

_INKS = {"position": "#0072B2", "content": "#D55E00"}  # any other mode: INK
_BAND, _MEAN, _SPINE = "#dedede", "#8c8c8c", "#9a9a9a"
_MEAN_INK = "#757575"  # of _MEAN as text, which needs more contrast
_PLOT_SHARE = 1.4  # width of a plot, in panels
_LEAST_PLOT_PT = 26.0  # its height
_LABEL_PT = 52.0  # a label may be so much wider than its photo: it holds "0.98 · query 123"
_ROW_GAP = 6.0
_CURVE_PT, _MEAN_PT, _SPINE_PT = 0.95, 0.7, 0.4  # lines
_LEAST_PANEL_PT = 14.0  # panels are not shrunk below, to make a figure less high
_SHOWN = {"deletion": "hidden", "insertion": "seen"}  # of the cells, along x
_WAYS = tuple(_SHOWN)

Box = tuple[int, int, int, int]  # left, top, width, height of a plot, pixels


def faithfulness_grid(
    e: ExplanationBase,
    found: Faithfulness,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Photo, maps, deletion and insertion of each query, with the areas under their curves.

    e         what `found` was made of
    look, page   as in figures.head_grid; the maps are means of heads
    The figure has `fig.facts`. FigureError where there is nothing to draw.
    """
    if not found.queries or not found.maps:
        raise FigureError("nothing to draw: name at least one query and one mode")
    colors(style)  # a mistake in it, before anything is laid out
    grid = e.grid()
    groups = []
    for i, query in enumerate(found.queries):
        label = _label(e, query)
        box = e.boxes_xyxy_px[query]
        maps = MapRow(np.stack([m[i] for m in found.maps.values()]), grid)
        shown = box if np.isfinite(box).all() else None
        groups.append(Group(label, e.image.rgb, shown, (maps,)))
    notes = _notes(e, found)
    with plain_settings():
        made, plots, unit = _fitted(groups, found, notes, style, page_format)
        fig = paint(groups, made, style, page_format)
        for i, pair in enumerate(plots):
            for way, box in zip(_WAYS, pair, strict=True):
                _add_plot(fig.axes[0], found, i, way, box, unit)
    title = f"deletion and insertion by {listed(list(found.maps))} attention"
    asked = f"Queries {', '.join(map(str, found.queries))}"
    describe(fig, e, title, [*notes, normalisation(style)], asked)
    warn_if_high(fig, page_format)
    return fig


def check_width(
    e: ExplanationBase, queries: Sequence[int], modes: int, page_format: PageFormat
) -> None:
    """FigureError where a page is too narrow for so many modes, before time is spent on curves."""
    with plain_settings():
        on = PageMetrics(page_format, e.image.hw)
        labels = [label_lines(_label(e, query), on.px(_LABEL_PT), on) for query in queries]
        _widths(labels, modes, on)


def _label(e: ExplanationBase, query: int) -> Label:
    return label_of(e, query, e.num_layers - 1, f"query {query}")


def _notes(e: ExplanationBase, found: Faithfulness) -> list[str]:
    layers, (h, w) = found.layers, e.grid_hw
    where = f"layers 0{DASH}{layers[-1]}" if len(layers) == e.num_layers > 1 else listed(layers)
    where = where if where.startswith("layers") else f"layer{'s' * (len(layers) > 1)} {where}"
    notes = [clean(e.model_title), "score of the query's class over the share of cells"]
    notes += ["deletion: those of most weight are hidden", "insertion: they alone are seen"]
    notes.append(f"by this query alone, in the cross-attention of decoder {where}")
    notes.append("maps that rank the cells: last layer, mean of heads")
    notes += [
        f"{'' if is_sum(mode) else f'{mode}  '}${e.formula(mode, e.num_layers - 1)}$"
        for mode in found.maps
    ]
    notes += ["logits at the layer's own scale"] * (found.scale == "layer")
    orders = found.random.shape[1]
    notes.append("area: under each curve")
    notes.append(f"gray: {orders} random orders, their range and mean" * bool(orders))
    notes.append("after RISE (Petsiuk et al., BMVC 2018), which hides pixels")
    notes.append(f"map of {w} {TIMES} {h} cells, {number(1 / (h * w))} each if even")
    return [note for note in notes if note]


# ---- layout -------------------------------------------------------------------------------------


def _fitted(
    groups: Sequence[Group],
    found: Faithfulness,
    notes: Sequence[str],
    style: Style,
    page_format: PageFormat,
) -> tuple[PageLayout, list[tuple[Box, Box]], float]:
    """The page, its plots, and pixels of a point; panels shrink where a figure is too high."""
    limit, most = None, page_format.height_in * page_format.dpi
    first = None
    for _ in range(8):
        page = PageMetrics(page_format, groups[0].photo.shape[:2], limit)
        made, plots = _laid_out(groups, found, page)
        made = with_numbers(made, groups, style, page)
        made = with_legend(made, groups, style, page)
        made = with_notes(made, notes, style, page)
        laid = made, plots, page_format.type_size * page_format.dpi / 72
        first = first or laid
        if made.height <= most:
            return laid
        limit = made.panel_hw[1] * (1 - (made.height - most) / len(plots) / made.panel_hw[0])
        limit = min(limit, made.panel_hw[1] - 1)
        if limit < page.px(_LEAST_PANEL_PT):
            break
    return first


def _widths(
    labels: Sequence[Sequence[TextLine]], count: int, page: PageMetrics
) -> tuple[int, int, int]:
    """Of the column of photos and labels, of a panel, and of what stands beside an axis."""
    widest = page.widest([line for label in labels for line in label])
    tick = math.ceil(page.pen.width("1", page.small_pt)) + page.px(1.5)
    beside = page.px(WIDE) + (count - 1) * page.gap + len(_WAYS) * (page.pad + tick)
    room = page.width - 2 * page.margin - beside
    panels = count + len(_WAYS) * _PLOT_SHARE
    width = page.panel_width(room, 1 + panels)
    if widest <= width:
        return width, width, tick
    column = min(widest, page.px(_LABEL_PT))  # wider than the photo
    width = min(width, page.panel_width(room - column, panels))
    return max(column, width), width, tick


def _laid_out(
    groups: Sequence[Group], found: Faithfulness, page: PageMetrics
) -> tuple[PageLayout, list[tuple[Box, Box]]]:
    """photo over label | maps over their modes | plots over their areas."""
    count, pen, small = len(found.maps), page.pen, page.small_pt
    labels = [label_lines(g.label, page.px(_LABEL_PT), page) for g in groups]
    column, width, tick = _widths(labels, count, page)
    height, across = page.panel_height(width), int(_PLOT_SHARE * width)
    high = max(min(height, across), page.px(_LEAST_PLOT_PT))
    left = page.margin + column + page.px(WIDE)
    lefts = tuple(left + i * (width + page.gap) for i in range(count))
    right = lefts[-1] + width
    plot_lefts = [right + (i + 1) * (page.pad + tick) + i * across for i in range(len(_WAYS))]
    lines, spots, plots = [], [], []
    for name, x in zip(_WAYS, plot_lefts, strict=True):
        text = pen.shorten(name, across + tick, page.text_pt)
        middle, baseline = x + across / 2, page.header - page.px(AIR)
        lines.append(TextLine(text, middle, baseline, page.text_pt, INK, align="center"))
    top = page.header
    for i, label in enumerate(labels):
        under = top + height + page.px(AIR)
        lines += [replace(t, x=page.margin, baseline=under + t.baseline) for t in label]
        spots.append(GroupPosition(top, (top,)))
        plots.append(tuple((x, top, across, high) for x in plot_lefts))
        ends = [under + label[-1].baseline]
        for mode, x in zip(found.maps, lefts, strict=True):
            baseline = under
            for text in pen.fit(mode, width, small):
                baseline += page.px(SMALL_PT * (CAP if baseline == under else LINE))
                middle = x + width / 2
                lines.append(TextLine(text, middle, baseline, small, _ink(mode), align="center"))
            ends.append(baseline)
        for way, x in zip(_WAYS, plot_lefts, strict=True):
            written = _around(found, i, way, (x, top, across, high), tick, page)
            lines += written
            ends.append(written[-1].baseline)
        bottom = math.ceil(max(ends)) + page.px(SMALL_PT * 0.3)
        top = bottom + page.px(_ROW_GAP)
    made = PageLayout(
        width=plot_lefts[-1] + across + page.margin,
        height=bottom,
        panel_hw=(height, width),
        photo_hw=(height, width),
        panel_lefts=lefts,
        photo_left=page.margin,
        spots=tuple(spots),
        lines=tuple(lines),
    )
    return made, plots


def _ink(mode: str) -> str:
    return _INKS.get(mode, INK)


def _around(
    found: Faithfulness, i: int, way: str, box: Box, tick: int, page: PageMetrics
) -> list[TextLine]:
    """Ends of a plot's axes, and under them the areas: of each curve, and of random orders."""
    left, top, width, height = box
    small, cap, gap = page.small_pt, page.px(SMALL_PT * CAP), page.px(1.5)
    below = top + height + gap + cap
    lines = [
        TextLine("1", left - gap, top + cap, small, GRAY, align="right"),
        TextLine("0", left - gap, top + height, small, GRAY, align="right"),
        TextLine("0", left, below, small, GRAY),
        TextLine("1", left + width, below, small, GRAY, align="right"),
        TextLine(_SHOWN[way], left + width / 2, below, small, NOTE_GRAY, align="center"),
    ]
    said = [("area", NOTE_GRAY)]
    said += [
        (_two(area(rows[i], found.shares)), _ink(mode))
        for mode, rows in getattr(found, way).items()
    ]
    if found.random.shape[1]:
        said.append((_two(area(found.random[i], found.shares).mean()), _MEAN_INK))
    space = page.px(3)
    room, row, baseline = width + tick, [], below
    rows = [row]
    for text, ink in said:
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


# ---- curves -------------------------------------------------------------------------------------


def _add_plot(ax: Axes, found: Faithfulness, i: int, way: str, box: Box, unit: float) -> None:
    """Spines, the range and mean of random orders, a curve a mode; in the page's pixels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon

    left, top, width, height = box
    point = unit * 72 / ax.figure.dpi

    def at(curve: NDArray[np.float64]) -> np.ndarray:
        return np.stack([left + found.shares * width, top + (1 - curve) * height], -1)

    def add(corners: np.ndarray, ink: str, wide: float, order: float) -> None:
        line = Line2D(
            *corners.T,
            color=ink,
            linewidth=wide * point,
            linestyle="-",
            marker="",
            solid_joinstyle="round",
            solid_capstyle="butt",
            antialiased=True,
            zorder=order,
        )
        ax.add_line(line)

    corners = [(left, top), (left, top + height), (left + width, top + height)]
    add(np.array(corners, float), _SPINE, _SPINE_PT, 3)
    random = found.random[i][:, ::-1] if way == "insertion" else found.random[i]
    if len(random):
        band = np.concatenate([at(random.min(0)), at(random.max(0))[::-1]])
        ax.add_patch(Polygon(band, closed=True, facecolor=_BAND, edgecolor="none", zorder=2.5))
        add(at(random.mean(0)), _MEAN, _MEAN_PT, 3.5)
    for mode, rows in getattr(found, way).items():
        add(at(rows[i]), _ink(mode), _CURVE_PT, 4)
