"""--attention decoder: queries that look at queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import modes_of_plot
from detr_viz.detections.objects import queries_of
from detr_viz.explanation.deviation import deviation
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Arrays
from detr_viz.render.tables import table
from detr_viz.render.views import CROSS
from detr_viz.render.views.base import Drawn, Needs, View, Watch, layers_of, resolved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class DecoderResult:
    """shown: of one model, with the weights of the queries at each decoder layer."""

    shown: tuple[StoredExplanation, ...]
    queries: tuple[int, ...]


class DecoderView(View):
    name = "decoder"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(recipe.layer, tuple(("decoder", layer) for layer in layers_of(recipe)))

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> DecoderResult:
        queries = tuple(queries_of(objects, 0))
        return DecoderResult((_stored(explanations[0], queries, recipe),), queries)

    def deviation(
        self, result: DecoderResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        return deviation([_stored(exact[0], result.queries, recipe)], result.shown)

    def draw(self, result: DecoderResult, recipe: Recipe) -> Drawn:
        (e,), queries = result.shown, list(result.queries)
        modes = modes_of_plot(recipe.plot, e.modes)
        shared = {"scale": recipe.scale, "style": recipe.style, "page_format": recipe.page_format}

        def grid() -> Figure:
            from detr_viz.figures.decoder import decoder_grid

            return decoder_grid(e, queries, modes, **shared)

        def matrix() -> Figure:
            from detr_viz.figures.decoder_matrix import query_matrix

            return query_matrix(e, queries, modes, **shared)

        figures: dict[str, Callable[[], Figure]] = {}
        notes, lines = [], []
        if len(queries) > 1:
            figures["_matrix"] = matrix  # first: it answers who suppresses whom at a glance
        else:
            notes.append("a matrix of query against query needs two or more queries")
        figures[""] = grid
        if CROSS not in recipe.views:  # the cross view prints the table itself
            last = e.layers[-1]
            lines.append(table(e, queries, None if last == e.num_layers - 1 else last))
        return Drawn(figures, {"": lambda: _numbers(e, queries, modes, recipe)}, notes, lines)


def _stored(e: Explanation, queries: Sequence[int], recipe: Recipe) -> StoredExplanation:
    layers = resolved(recipe, e.num_layers)
    return store(
        e,
        (),
        modes_of_plot(recipe.plot, e.modes),
        recipe.scale,
        layers=layers,
        attention={("decoder", layer): queries for layer in layers},
    )


def _numbers(
    e: StoredExplanation, queries: Sequence[int], modes: Sequence[str], recipe: Recipe
) -> Arrays:
    layers = [layer for _, layer in e.rows]
    arrays = {
        "query_ids": np.asarray(queries, np.int64),
        "layers": np.asarray(layers, np.int64),
        # of each layer's own output, of all queries, since each is a key too
        "boxes_xyxy_px": np.stack([e.output(n).boxes_xyxy_px for n in layers]),
        "scores": np.stack([e.output(n).scores for n in layers]),
        "labels": np.stack([e.output(n).labels for n in layers]),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }
    for mode in modes:  # (layers, queries, heads, all queries)
        weights = [e.attention(("decoder", n), mode, queries, recipe.scale) for n in layers]
        arrays[f"weights_{mode}"] = np.stack(weights)
    meta = {**e.meta, "view": "decoder", "scale": recipe.scale, "modes": list(modes)}
    return Arrays(arrays, meta)


VIEW = DecoderView()
