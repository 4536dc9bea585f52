"""--rollout with --attention encoder: the shares of cells in points, through the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.objects import queries_of
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Arrays
from detr_viz.render.views.base import Drawn, Needs, View, Watch
from detr_viz.render.views.encoder import EncoderPoints, point_arrays, points_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class EncoderRolloutResult:
    """maps: float32 (points, 2, K): the last layer's attention, mean of heads, and rollout."""

    shown: tuple[StoredExplanation, ...]
    points: EncoderPoints
    maps: NDArray[np.float32]


class EncoderRolloutView(View):
    name = "rollout_encoder"
    what = "rolled out weights"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(sites=(("encoder", "all"),))

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> EncoderRolloutResult:
        from detr_viz.explanation.rollout import last_of_cells, of_cells

        (e,) = explanations
        points = points_of(e, queries_of(objects, 0), recipe)
        attended = last_of_cells(e, points.cells)
        maps = np.stack([attended, of_cells(e, points.cells, stays=False)], 1)
        shown = store(e, (), (), layers=[e.num_layers - 1])
        return EncoderRolloutResult((shown,), points, maps)

    def deviation(
        self, result: EncoderRolloutResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        """Distance of the full rollouts; the part that a cell keeps of itself is equal in both."""
        from detr_viz.explanation.rollout import of_cells

        (e,) = exact
        rolled = of_cells(e, result.points.cells, stays=False)
        own = 0.5**e.num_encoder_layers
        return float(abs(rolled - result.maps[:, 1]).max() * (1 - own))

    def draw(self, result: EncoderRolloutResult, recipe: Recipe) -> Drawn:
        from detr_viz.figures.rollout import encoder_rollout_grid

        (e,) = result.shown
        return Drawn(
            {
                "": lambda: encoder_rollout_grid(
                    e,
                    result.points.xy,
                    maps=result.maps,
                    names=result.points.names,
                    style=recipe.style,
                    page_format=recipe.page_format,
                )
            },
            {"": lambda: _numbers(e, result)},
        )


def _numbers(e: StoredExplanation, result: EncoderRolloutResult) -> Arrays:
    maps = result.maps.reshape(len(result.maps), 2, *e.grid_hw)
    arrays = point_arrays(e, result.points) | {
        "maps_last": maps[:, 0],
        "maps_rollout": maps[:, 1],
    }
    names = result.points.names and list(result.points.names)
    return Arrays(arrays, {**e.meta, "view": "rollout_encoder", "names": names})


VIEW = EncoderRolloutView()
