"""Which tokens of the image the encoder refines: a map of scores for each level, then its layers.

fig = salience_figure(e)                        # e.salience is of a model that chooses tokens
figures.save(fig, "salience.png")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.grids import finest, shown_cells
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import (
    Group,
    Label,
    MapRow,
    number,
    percent,
)
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
    from numpy.typing import NDArray

    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.explanation.salience import Salience

_KEPT_TONE = 0.6  # where all levels have a refined token: the photo is still seen
SCORE = "sigmoid of the score that filters tokens before the encoder"


def salience_figure(
    e: ExplanationBase,
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """The salience of all tokens, a panel for each level, and what each encoder layer refines.

    style  its name (overlay or heat), cmap and interpolation count; cells are drawn as they are
    In the panel of a layer a place is the darker, the more levels have a refined token there.
    Padding is cut off. FigureError for a model that refines all tokens.
    """
    salience = e.salience
    if salience is None:
        raise FigureError(f"{e.model_title} has no salience: its encoder refines all tokens")
    if style.name not in ("overlay", "heat"):
        raise FigureError(f"salience has no {style.name}: take style overlay or heat")
    colors(style)  # an unknown colour map is an error before anything is laid out
    style = replace(
        style, norm="figure", heads=None, interpolation=style.interpolation or "nearest"
    )
    low, high = _ends(salience)
    scale = LinearScale("salience", number(low), number(high))
    rows = [*_level_rows(salience, low, high, scale), *_layer_rows(salience, scale)]
    group = group_with_truth(Group(Label(""), e.image.rgb, None, tuple(rows)), e, style)
    model, layers = clean(e.model_title), len(salience.kept)
    refined = f"{len(salience.kept[0]):,} of {salience.num_tokens:,} tokens are refined"
    notes = (
        model,
        refined,
        f"salience: {SCORE}",
        "encoder layers: darker where more levels have a token that the layer refines",
        *truth_notes(e, style),
    )
    words = (model, refined, "layers: darker where on more levels", *truth_words(e, style))
    with plain_settings():
        layout = salience_layout(
            group,
            (list(_level_tiles(salience)), list(_layer_tiles(salience))),
            Foot(words, notes),
            style,
            page_format,
        )
        check_size(layout.width, layout.height, len({panel.top for panel in layout.panels}))
        fig = paint((group,), layout, style, page_format)
    colours = f"colour: salience from {number(low)} to {number(high)}, linear"
    about = f"{len(salience.grids)} levels, {layers} encoder layers"
    describe(fig, e, "the tokens of the image that the encoder refines", [*notes, colours], about)
    warn_if_high(fig, page_format, way_out="make the page wider")
    return fig


def levels_kept(salience: Salience, layer: int) -> NDArray[np.float32]:
    """(h, w) on the finest grid: of how many levels the cell there is refined, as a share."""
    masks, target = salience.masks(layer), salience.grids[finest(salience.grids)]
    total = np.zeros(target.hw, np.float32)
    for mask, grid in zip(masks, salience.grids, strict=True):
        rows, columns = (
            ((np.arange(target.hw[k]) + 0.5) / target.hw[k] * grid.hw[k]).astype(int)
            for k in (0, 1)
        )
        total += mask[rows[:, None], columns]
    return total / len(masks)


def _ends(salience: Salience) -> tuple[float, float]:
    """The lowest and the highest score of what lies on the image."""
    shown = []
    for scores, grid in zip(salience.scores, salience.grids, strict=True):
        h, w = shown_cells(grid)
        shown.append(scores[:h, :w].ravel())
    scores = np.concatenate(shown)
    return float(scores.min()), float(scores.max())


def _level_rows(
    salience: Salience, low: float, high: float, scale: LinearScale
) -> Iterator[MapRow]:
    for scores, grid in zip(salience.scores, salience.grids, strict=True):
        tones = np.clip((scores - low) / (high - low or 1), 0, 1)
        yield MapRow(tones[None].astype(np.float32), grid, linear=scale)


def _layer_rows(salience: Salience, scale: LinearScale) -> Iterator[MapRow]:
    grid = salience.grids[finest(salience.grids)]
    for layer in range(len(salience.kept)):
        yield MapRow(_KEPT_TONE * levels_kept(salience, layer)[None], grid, linear=scale)


def _level_tiles(salience: Salience) -> Iterator[Tile]:
    yield Tile("photo", "")
    shares = salience.shares(0)
    for grid, share in zip(salience.grids, shares, strict=True):
        yield Tile(f"stride {grid.stride}", f"{percent(share)} kept")


def _layer_tiles(salience: Salience) -> Iterator[Tile]:
    for layer, kept in enumerate(salience.kept):
        share = len(kept) / salience.num_tokens
        yield Tile(f"encoder layer {layer}", f"{len(kept):,} ({percent(share)})")
