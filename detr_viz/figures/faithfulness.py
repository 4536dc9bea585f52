"""Deletion and insertion curves beside the maps that rank the cells: a row for each query.

curves = faithfulness(e, [3], ["combine"])
fig = faithfulness_grid(e, curves)
figures.save(fig, "faithful.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.common.words import listed
from detr_viz.explanation.curves import Faithfulness
from detr_viz.figures.faithfulness_layout import WAYS, Box, fitted_layout, ink_of, label_widths
from detr_viz.figures.labels import finite, label_of
from detr_viz.figures.level_words import grid_note
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import Group, Label, MapRow
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.label_lines import with_letter
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.paint import paint
from detr_viz.figures.page.scale import colors
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.reading_rule import (
    DASH,
    LAYER_SCALE,
    formula_note,
    normalisation,
    numbered,
)
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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.explanation.results import ExplanationBase

_BAND, _MEAN, _SPINE = "#dedede", "#8c8c8c", "#9a9a9a"
_CURVE_PT, _MEAN_PT, _SPINE_PT = 0.95, 0.7, 0.4  # lines


def faithfulness_grid(
    e: ExplanationBase,
    curves: Faithfulness,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Photo, maps, deletion and insertion of each query, with the areas under their curves.

    e         the explanation that `curves` was computed from
    style, page_format   as in figures.head_grid; the maps are means of heads
    The figure has `fig.facts`. FigureError where there is nothing to draw.
    """
    if not curves.queries or not curves.maps:
        raise FigureError("nothing to draw: name at least one query and one mode")
    colors(style)  # an unknown colour map is an error before anything is laid out
    grid = e.grid()
    groups = []
    for i, query in enumerate(curves.queries):
        label = _label(e, query)
        if page_format.letters:
            label = with_letter(label, i)
        box = finite(e.boxes_xyxy_px[query])
        maps = MapRow(np.stack([m[i] for m in curves.maps.values()]), grid)
        groups.append(group_with_truth(Group(label, e.image.rgb, box, (maps,)), e, style))
    notes = [*_notes(e, curves), *truth_notes(e, style)]
    words = (clean(e.model_title), "score of the class over the share of cells")
    if curves.random.shape[1]:
        words += (f"gray: {curves.random.shape[1]} random orders",)
    foot = Foot((*words, *truth_words(e, style)), tuple(notes), e.grid_hw)
    with plain_settings():
        layout, plots, unit = fitted_layout(groups, curves, foot, style, page_format)
        fig = paint(groups, layout, style, page_format)
        for i, pair in enumerate(plots):
            for way, box in zip(WAYS, pair, strict=True):
                _add_plot(fig.axes[0], curves, i, way, box, unit)
    title = f"deletion and insertion by {listed(list(curves.maps))} attention"
    about = f"Queries {', '.join(map(str, curves.queries))}"
    describe(fig, e, title, [*notes, normalisation(style)], about)
    warn_if_high(fig, page_format)
    return fig


def check_width(
    e: ExplanationBase, queries: Sequence[int], modes: int, page_format: PageFormat
) -> None:
    """FigureError where a page is too narrow for so many modes, before time is spent on curves."""
    with plain_settings():
        page = PageMetrics(page_format, e.image.hw)
        label_widths([_label(e, query) for query in queries], modes, page)


def _label(e: ExplanationBase, query: int) -> Label:
    return label_of(e, query, e.num_layers - 1, f"query {query}")


def _notes(e: ExplanationBase, curves: Faithfulness) -> list[str]:
    layers, orders = curves.layers, curves.random.shape[1]
    where = numbered(e.layer_word, layers)
    if len(layers) == e.num_layers > 1:
        where = f"{e.layer_word}s 0{DASH}{layers[-1]}"
    notes = [clean(e.model_title), "score of the query's class over the share of cells"]
    notes += ["deletion: those of most weight are hidden", "insertion: they alone are seen"]
    notes.append(f"by this query alone, in {'' if e.stages else 'the cross-attention of '}{where}")
    ranks = "shares of the last stage" if e.stages else "last layer, mean of heads"
    notes.append(f"maps that rank the cells: {ranks}")
    notes += [formula_note(mode, e.formula(mode, e.num_layers - 1)) for mode in curves.maps]
    if curves.scale == "layer":
        notes.append(LAYER_SCALE)
    notes.append("area: under each curve")
    if orders:
        notes.append(f"gray: {orders} random orders, their range and mean")
    notes.append("after RISE (Petsiuk et al., BMVC 2018), which hides pixels")
    notes.append(grid_note(e.grid_hw))
    return [note for note in notes if note]


def _add_plot(ax: Axes, curves: Faithfulness, i: int, way: str, box: Box, unit: float) -> None:
    """Spines, range and mean of random orders, a curve for each mode; in the page's pixels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon

    left, top, width, height = box
    point = unit * 72 / ax.figure.dpi

    def at(curve: NDArray[np.float64]) -> np.ndarray:
        return np.stack([left + curves.shares * width, top + (1 - curve) * height], -1)

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
    random = curves.random[i][:, ::-1] if way == "insertion" else curves.random[i]
    if len(random):
        band = np.concatenate([at(random.min(0)), at(random.max(0))[::-1]])
        ax.add_patch(Polygon(band, closed=True, facecolor=_BAND, edgecolor="none", zorder=2.5))
        add(at(random.mean(0)), _MEAN, _MEAN_PT, 3.5)
    for mode, rows in getattr(curves, way).items():
        add(at(rows[i]), ink_of(mode), _CURVE_PT, 4)
