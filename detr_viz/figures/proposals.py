"""Which tokens of the image became queries: a map of scores for each level, and the boxes.

fig = proposal_figure(e, e.proposals, [3, 17])
figures.save(fig, "proposals.png")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.grids import shown_cells
from detr_viz.figures.labels import label_of
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import BOX_BLUE, INK, WHITE, Group, Label, MapRow, number
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.layout import check_size
from detr_viz.figures.page.paint import paint
from detr_viz.figures.page.scale import colors
from detr_viz.figures.page.shown import LinearScale
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.proposal_marks import DARK, add_marks
from detr_viz.figures.proposals_layout import Tile, fitted_layout
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

    from detr_viz.attention.grids import Grid
    from detr_viz.explanation.proposals import Proposals
    from detr_viz.explanation.results import ExplanationBase


def proposal_figure(
    e: ExplanationBase,
    proposals: Proposals,
    queries: Sequence[int],
    *,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """The photo with boxes of some queries, and the scores of all tokens, a panel for each level.

    proposals  of the same image, Explanation.proposals
    queries    whose proposals and last boxes are drawn, and whose tokens are marked in blue
    style      its name (overlay or heat), cmap and interpolation count; cells are drawn as they are
    Every chosen token has a dot. Numbers are ranks by score, from 1. Tokens that were not meant to
    be chosen are hatched; padding is cut off. FigureError where there is nothing to draw.
    """
    if not queries:
        raise FigureError("nothing to draw: name at least one query")
    if style.name not in ("overlay", "heat"):
        raise FigureError(f"scores of tokens have no {style.name}: take style overlay or heat")
    colors(style)  # an unknown colour map is an error before anything is laid out
    style = replace(
        style, norm="figure", heads=None, interpolation=style.interpolation or "nearest"
    )
    ids = list(dict.fromkeys(queries))
    low, high = _ends(proposals)
    scale = LinearScale(
        "token's score", number(low), number(high), _signs(proposals, ids, low, high)
    )
    group = Group(Label(""), e.image.rgb, None, tuple(_rows(proposals, low, high, scale)))
    group = group_with_truth(group, e, style)
    listed = [(str(proposals.ranks[q]), _label(e, proposals, q)) for q in ids]
    count, model = len(proposals.tokens), clean(e.model_title)
    chosen = f"{count} of {proposals.num_tokens:,} tokens become queries"
    words = (model, f"score: {proposals.rule}", chosen, *truth_words(e, style))
    notes = [
        model,
        chosen,
        f"score: {proposals.rule}, whatever class a query finds in the end",
        "dots: the chosen tokens; numbers: their ranks by score",
        "photo: white, the boxes that enter the decoder; blue, those of its last layer",
    ]
    if any(level.any() for level in _seen_invalid(proposals)):
        notes.append("hatched: tokens that the model leaves out of the choice")
    notes += truth_notes(e, style)
    with plain_settings():
        layout, named = fitted_layout(
            group,
            list(_tiles(proposals)),
            listed,
            Foot(words, tuple(notes)),
            style,
            page_format,
        )
        check_size(layout.width, layout.height, len({panel.top for panel in layout.panels}))
        fig = paint((group,), layout, style, page_format)
        add_marks(fig, group, e.boxes_xyxy_px, proposals, ids, named, page_format)
    colours = f"colour: a token's score, from {number(low)} to {number(high)}, linear"
    about = f"Queries {', '.join(map(str, ids))}"
    title = "the tokens of the image that became queries"
    describe(fig, e, title, [*notes, colours], about)
    warn_if_high(fig, page_format, way_out="choose fewer queries")
    return fig


def _ends(proposals: Proposals) -> tuple[float, float]:
    """The lowest and the highest score of the tokens that could be chosen."""
    scores = np.concatenate(
        [
            scores[~invalid]
            for scores, invalid in zip(proposals.scores, proposals.invalid, strict=True)
        ]
    )
    if not scores.size:
        raise FigureError("nothing to draw: the model leaves out every token of this image")
    return float(scores.min()), float(scores.max())


def _rows(proposals: Proposals, low: float, high: float, scale: LinearScale) -> Iterator[MapRow]:
    """Tones of the scores of each level; none where a token is left out."""
    for scores, invalid, grid in zip(
        proposals.scores, proposals.invalid, proposals.grids, strict=True
    ):
        tones = (scores - low) / (high - low or 1)
        yield MapRow(np.where(invalid, 0, tones)[None].astype(np.float32), grid, linear=scale)


def _signs(
    proposals: Proposals, queries: Sequence[int], low: float, high: float
) -> tuple[tuple[str, str, str], ...]:
    """The signs of the key: those that the figure has."""
    signs = [("dot", BOX_BLUE, "shown, with its rank")]
    others = [
        float(proposals.token_scores[query])
        for query, (level, row, column) in enumerate(proposals.cells)
        if query not in queries and _is_seen(proposals.grids[level], row, column)
    ]
    if others:  # white where all of them lie on dark colours
        is_dark = (min(others) - low) / (high - low or 1) >= DARK
        signs.insert(0, ("dot", WHITE if is_dark else INK, "chosen"))
    if any(level.any() for level in _seen_invalid(proposals)):
        signs.append(("hatch", INK, "left out"))
    return tuple(signs)


def _seen_invalid(proposals: Proposals) -> Iterator[NDArray[np.bool_]]:
    """Tokens of each level that are left out and are not padding alone."""
    for invalid, grid in zip(proposals.invalid, proposals.grids, strict=True):
        h, w = shown_cells(grid)
        yield invalid[:h, :w]


def _is_seen(grid: Grid, row: int, column: int) -> bool:
    """Whether the middle of a cell, where its dot stands, lies on the image."""
    return all(grid.centers(1, axis)[i] + 0.5 <= 1 for axis, i in enumerate((row, column)))


def _label(e: ExplanationBase, proposals: Proposals, query: int) -> Label:
    score = number(float(proposals.token_scores[query]))
    where = f"level {proposals.cells[query, 0]}, " if len(proposals.grids) > 1 else ""
    return label_of(e, query, e.num_layers - 1, f"query {query}", f"{where}score {score}")


def _tiles(proposals: Proposals) -> Iterator[Tile]:
    yield Tile("from proposal to box", "white: proposal, blue: box")
    count, best = len(proposals.tokens), proposals.token_scores
    for level, (taken, grid) in enumerate(zip(proposals.counts(), proposals.grids, strict=True)):
        name = grid.name or f"all tokens, stride {grid.stride}"
        words = f"{taken} of {count}"
        if taken:
            words += f", best {number(float(best[proposals.cells[:, 0] == level].max()))}"
        yield Tile(name, words)
