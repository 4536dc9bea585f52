"""--rollout: the share of each cell of the image in queries, through all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.objects import queries_of
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Arrays
from detr_viz.render.views.base import Drawn, Needs, View, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class RolloutResult:
    """Of q queries over the K cells, float32 (q, K); the arrays are those of rollout.Rollout."""

    shown: tuple[StoredExplanation, ...]
    queries: tuple[int, ...]
    last: NDArray[np.float32]
    decoder: NDArray[np.float32]
    both: NDArray[np.float32]


class RolloutView(View):
    name = "rollout"
    what = "rolled out weights"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs("all", (("encoder", "all"), ("decoder", "all")))

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> RolloutResult:
        from detr_viz.explanation.rollout import of_queries

        (e,), queries = explanations, tuple(queries_of(objects, 0))
        rollout = of_queries(e, queries)
        shown = store(e, (), (), layers=[e.num_layers - 1])
        return RolloutResult((shown,), queries, rollout.last, rollout.decoder, rollout.both)

    def deviation(
        self, result: RolloutResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        from detr_viz.explanation.rollout import of_queries

        return float(abs(of_queries(exact[0], result.queries).both - result.both).max())

    def draw(self, result: RolloutResult, recipe: Recipe) -> Drawn:
        from detr_viz.figures.rollout import rollout_grid

        (e,) = result.shown
        return Drawn(
            {
                "": lambda: rollout_grid(
                    e,
                    result.queries,
                    rollout=result,
                    style=recipe.style,
                    page_format=recipe.page_format,
                )
            },
            {"": lambda: _numbers(e, result)},
        )


def _numbers(e: StoredExplanation, result: RolloutResult) -> Arrays:
    ids = list(result.queries)
    arrays = {
        "query_ids": np.asarray(ids, np.int64),
        "scores": e.scores[ids],
        "labels": e.labels[ids],
        "boxes_xyxy_px": e.boxes_xyxy_px[ids],
        "grid_hw": np.asarray(e.grid_hw, np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }
    for name in ("last", "decoder", "both"):  # (q, h, w)
        arrays[f"maps_{name}"] = getattr(result, name).reshape(len(ids), *e.grid_hw)
    return Arrays(arrays, {**e.meta, "view": "rollout"})


VIEW = RolloutView()
