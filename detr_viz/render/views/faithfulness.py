"""--faithfulness: does the score of a query depend on the top cells of its map?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.detections.objects import queries_of
from detr_viz.explanation.curves import Faithfulness
from detr_viz.explanation.deviation import deviation
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Table
from detr_viz.render.tables import areas_table
from detr_viz.render.views.base import Drawn, Needs, View, Watch

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class FaithfulnessResult:
    """shown: of one model, with the maps of all heads, whose means rank the cells."""

    shown: tuple[StoredExplanation, ...]
    curves: Faithfulness


class FaithfulnessView(View):
    name = "faithfulness"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(redecode=True)

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> FaithfulnessResult:
        from detr_viz.explanation.faithfulness import faithfulness
        from detr_viz.figures.faithfulness import check_width

        (e,), ids = explanations, queries_of(objects, 0)
        shown = _stored(e, ids, recipe)
        modes = modes_of_plot(recipe.plot, e.modes)
        check_width(shown, ids, len(modes), recipe.page_format)
        curves = faithfulness(e, ids, modes, recipe.removed_in, recipe.scale, watch=watch)
        return FaithfulnessResult((shown,), curves)

    def deviation(
        self, result: FaithfulnessResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        return deviation([_stored(exact[0], result.curves.queries, recipe)], result.shown)

    def draw(self, result: FaithfulnessResult, recipe: Recipe) -> Drawn:
        from detr_viz.figures.faithfulness import faithfulness_grid

        (e,), curves = result.shown, result.curves
        return Drawn(
            {
                "": lambda: faithfulness_grid(
                    e, curves, style=recipe.style, page_format=recipe.page_format
                )
            },
            {"": lambda: Table(COLUMNS, tuple(_rows(e, curves)))},
            lines=[areas_table(e, curves)],
        )


def _stored(e: Explanation, queries: Sequence[int], recipe: Recipe) -> StoredExplanation:
    modes = modes_of_plot(recipe.plot, e.modes)
    return store(e, queries, modes, recipe.scale, layers=[e.num_layers - 1])


COLUMNS = ("query", "class", "curve", "cells by", "order", "share", "score")


def _rows(e: StoredExplanation, curves: Faithfulness) -> Iterator[tuple[object, ...]]:
    """One row per point of a curve. order: of the random curves, from 0; these have no mode."""
    for i, query in enumerate(curves.queries):
        lines = [
            (way, mode, "", rows[i])
            for way in ("deletion", "insertion")
            for mode, rows in getattr(curves, way).items()
        ]
        lines += [("deletion", "random", k, row) for k, row in enumerate(curves.random[i])]
        for way, mode, order, row in lines:
            for share, score in zip(curves.shares, row, strict=True):
                name = e.label_name(query)
                yield query, name, way, mode, order, f"{share:.6f}", f"{score:.6f}"


VIEW = FaithfulnessView()
