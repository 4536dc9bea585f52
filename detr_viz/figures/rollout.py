"""Attention rollout beside the last layer's attention: a row for each query or point.

fig = rollout_grid(e, [3])      # e of explain(..., layers="all", sites=["encoder", "decoder"])
fig = encoder_rollout_grid(e, [(300, 200)])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.encoder import MARK, attending_cells, points_note
from detr_viz.figures.labels import finite, label_of
from detr_viz.figures.level_words import grid_note
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import Group, MapRow, Section
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.text import clean
from detr_viz.figures.reading_rule import DASH, normalisation
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.truth_marks import truth_notes, truth_words, with_truth
from detr_viz.figures.view_contents import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.explanation.rollout import Rollout

_RULE = (
    "rollout is an approximation (Abnar and Zuidema, ACL 2020)",
    "it multiplies 0.5 A + 0.5 I of all layers, A the mean of heads",
    "values, FFNs and norms are left out",
)
_SAMPLED = "A is the splat of the samples on the cells of all levels, less what falls off the map"


def rollout_grid(
    e: Explanation | ExplanationBase,
    queries: Sequence[int],
    *,
    rollout: Rollout | None = None,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Of queries: the last cross-attention, rollout in the decoder, and with the encoder.

    rollout   of these queries, from rollout.of_queries; None: computed here, which needs an
              Explanation of all layers
    style, page_format   as in figures.head_grid
    The figure has `fig.facts`. FigureError where there is nothing to draw, UserError where a layer
    was not captured.
    """
    ids = list(queries)
    if not ids:
        raise FigureError("nothing to draw: name at least one query")
    if rollout is None:
        from detr_viz.explanation.rollout import of_queries

        rollout = of_queries(e, ids)
    maps = np.stack([rollout.last, rollout.decoder, rollout.both], 1).reshape(
        len(ids), 3, *e.grid_hw
    )
    groups = []
    for i, query in enumerate(ids):
        label = label_of(e, query, e.num_layers - 1, f"query {query}")
        box = finite(e.boxes_xyxy_px[query])
        groups.append(Group(label, e.image.rgb, box, (_row(e, maps[i]),)))
    notes = [
        "last layer: its cross-attention, mean of heads",
        f"rollout: decoder {_layers(e.num_layers - 1)}",
        f"with encoder: and encoder {_layers(e.num_encoder_layers - 1)}",
    ]
    columns = ("last layer", "rollout", "with encoder")
    title, about = "what queries have of the image", f"Queries {', '.join(map(str, ids))}"
    return _figure(e, groups, columns, notes, title, about, style, page_format)


def encoder_rollout_grid(
    e: Explanation | ExplanationBase,
    points: Sequence[tuple[float, float]],
    *,
    maps: np.ndarray | None = None,  # (points, 2, K)
    names: Sequence[str] | None = None,
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Of some points: the last encoder layer's self-attention, and rollout in the encoder.

    maps  float32 (points, 2, K) of the nearest cells: the last layer's weights, mean of heads, and
          rollout.of_cells without what a cell keeps of itself; None: computed here
    points, names as in encoder_grid; the rest as in rollout_grid.
    """
    if not points:
        raise FigureError("nothing to draw: name at least one point")
    cells, last = attending_cells(e, points, names), e.num_encoder_layers - 1
    if maps is None:
        from detr_viz.explanation import rollout

        ids = [one.cell for one in cells]
        rolled = rollout.of_cells(e, ids, stays=False)
        maps = np.stack([rollout.last_of_cells(e, ids), rolled], 1)
    maps = maps.reshape(len(points), 2, *e.grid_hw)
    groups = [
        Group(one.label, e.image.rgb, None, (_row(e, maps[i]),), "", one.mark)
        for i, one in enumerate(cells)
    ]
    notes = [
        "last layer: its self-attention, mean of heads",
        f"rollout: encoder {_layers(last)}, without what a cell keeps of itself",
        MARK,
    ]
    columns, title = ("last layer", "rollout"), "what cells are made of"
    return _figure(e, groups, columns, notes, title, points_note(points), style, page_format)


def _layers(last: int) -> str:
    return f"layers 0{DASH}{last}" if last else "layer 0"


def _row(e: ExplanationBase, maps: np.ndarray) -> MapRow:
    return MapRow(maps, e.grid())


def _figure(
    e: ExplanationBase,
    groups: Sequence[Group],
    columns: Sequence[str],
    notes: Sequence[str],
    title: str,
    about: str,
    style: Style,
    page_format: PageFormat,
) -> Figure:
    rule = [clean(e.model_title), *notes, *_RULE]
    if e.kind() == "sampled":
        rule.append(_SAMPLED)
    rule += [*truth_notes(e, style), grid_note(e.grid_hw)]
    foot = Foot(
        (clean(e.model_title), "attention rollout, an approximation", *truth_words(e, style)),
        tuple(rule),
        e.grid_hw,
    )
    sections = with_truth([Section((group,)) for group in groups], e, style)
    fig = draw(sections, columns, foot, style, page_format)
    describe(fig, e, f"attention rollout, {title}", [*rule, normalisation(style)], about)
    warn_if_high(fig, page_format, above=2)
    return fig
