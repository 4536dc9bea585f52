"""Where each encoder block takes the finer, the own and the coarser level: a map for each part.

fig = scale_maps_figure(e)                      # e.scales is of a model with scale attention
figures.save(fig, "scales_maps.png")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.explanation.scales import PARTS, ScaleAttention
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import Group, Label, MapRow, number, percent
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.layout import check_size
from detr_viz.figures.page.paint import paint
from detr_viz.figures.page.scale import colors
from detr_viz.figures.page.shown import LinearScale
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.salience_layout import Tile, salience_layout
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

_ACROSS = 4  # panels in a line


def scale_maps_figure(
    e: ExplanationBase,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """The photo, and for each block, level and part a map: the part's share in each cell's sum.

    style  its name (overlay or heat), cmap and interpolation count; cells are drawn as they are
    In a cell the shares of the parts sum to 1; below 0 they are drawn as 0, above 1 as 1. Under a
    panel the scale weight, and the share in the whole level. FigureError for a model without scale
    attention.
    """
    scales = e.scales
    if scales is None:
        raise FigureError(f"{e.model_title} has no scale attention in its encoder")
    if style.name not in ("overlay", "heat"):
        raise FigureError(f"scale attention has no {style.name}: take style overlay or heat")
    colors(style)  # an unknown colour map is an error before anything is laid out
    style = replace(
        style, norm="figure", heads=None, interpolation=style.interpolation or "nearest"
    )
    scale = LinearScale("share in a cell", "0", "1")
    blocks = [list(_parts(scales, block)) for block in range(scales.num_blocks)]
    rows = [
        MapRow(_tones(scales, *place)[None], scales.grids[place[1]], linear=scale)
        for places in blocks
        for place in places
    ]
    tiles = [[_tile(scales, *place) for place in places] for places in blocks]
    tiles[0].insert(0, Tile("photo", ""))
    group = group_with_truth(Group(Label(""), e.image.rgb, None, tuple(rows)), e, style)
    model = clean(e.model_title)
    notes = (
        model,
        "a panel: how much of a cell of the level is from the next finer level, the own or the "
        "next coarser one; in each cell they are 1 in all, below 0 drawn as 0, above 1 as 1",
        "below: the scale weight, and the share in the level, which is the mean of its cells, "
        "weighted by the square of what a cell has",
        *truth_notes(e, style),
    )
    words = (model, "finer + own + coarser = 1", "below: weight, share in the level")
    words += truth_words(e, style)
    with plain_settings():
        layout = salience_layout(group, tiles, Foot(words, notes), style, page_format, _ACROSS)
        check_size(layout.width, layout.height, len({panel.top for panel in layout.panels}))
        fig = paint((group,), layout, style, page_format)
    about = f"{len(scales.strides)} levels, {scales.num_blocks} encoder blocks"
    describe(fig, e, "where the encoder takes which level", notes, about)
    warn_if_high(fig, page_format, way_out="make the page wider")
    return fig


def _parts(scales: ScaleAttention, block: int) -> Iterator[tuple[int, int, int]]:
    """(block, level, part) of all parts that there are."""
    for level, part in np.argwhere(np.isfinite(scales.weights[block])).tolist():
        yield block, level, part


def _tones(scales: ScaleAttention, block: int, level: int, part: int) -> np.ndarray:
    """(h, w) in [0, 1]; a cell without anything has no shares, and is drawn as 0."""
    return np.clip(np.nan_to_num(scales.maps[level][block, part]), 0, 1).astype(np.float32)


def _tile(scales: ScaleAttention, block: int, level: int, part: int) -> Tile:
    weight, share = (float(x[block, level, part]) for x in (scales.weights, scales.shares))
    text = f"{number(weight) if weight else '0'}, {percent(share)}"
    if scales.num_blocks > 1:
        text = f"block {block}: {text}"
    return Tile(f"stride {scales.strides[level]}: {PARTS[part]}", text)
