"""--plot salience: how salient each token of the image is, and what each encoder layer refines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import SALIENCE
from detr_viz.render.numbers import Arrays
from detr_viz.render.views.base import Drawn, Needs
from detr_viz.render.views.without_maps import ResultWithoutMaps, ViewWithoutMaps

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.render.recipe import Recipe


class SalienceView(ViewWithoutMaps):
    name = SALIENCE
    what = "salience of tokens"
    required = Needs(salience=True)

    def deviation(
        self, result: ResultWithoutMaps, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        pairs = zip(exact[0].salience.scores, result.shown[0].salience.scores, strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    def draw(self, result: ResultWithoutMaps, recipe: Recipe) -> Drawn:
        from detr_viz.figures.salience import salience_figure

        (e,) = result.shown
        return Drawn(
            {"": lambda: salience_figure(e, style=recipe.style, page_format=recipe.page_format)},
            {"": lambda: _numbers(e)},
        )


def _numbers(e: StoredExplanation) -> Arrays:
    """Of each level the scores, of each encoder layer the tokens that it refines."""
    salience = e.salience
    arrays = {
        "strides": np.asarray([grid.stride for grid in salience.grids], np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }
    for level, scores in enumerate(salience.scores):
        arrays[f"salience_level{level}"] = scores
    for layer, tokens in enumerate(salience.kept):
        arrays[f"kept_layer{layer}"] = tokens
        for level, mask in enumerate(salience.masks(layer)):
            arrays[f"kept_layer{layer}_level{level}"] = mask
    return Arrays(arrays, {**e.meta, "view": SALIENCE})


VIEW = SalienceView()
