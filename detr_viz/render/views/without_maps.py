"""Views of one model that draw no maps of queries, but what the explanation itself knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.views.base import Needs, View, Watch

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class ResultWithoutMaps:
    """shown: of one model, without maps."""

    shown: tuple[StoredExplanation, ...]


class ViewWithoutMaps(View):
    """required: what must be captured. A subclass compares and draws."""

    required: Needs

    def needs(self, recipe: Recipe) -> Needs:
        return self.required

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> ResultWithoutMaps:
        return ResultWithoutMaps((without_maps(explanations),))


def without_maps(explanations: Sequence[Explanation]) -> StoredExplanation:
    """The explanation of the only model, with its last layer's detections."""
    (e,) = explanations
    return store(e, (), (), layers=[e.num_layers - 1])
