"""Images through all models of a run, in batches that shrink where they fail.

explainer = BatchExplainer(models, recipe, needs, use)
results = explainer(batch)         # for each image what `use` returns, or a Failure
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from detr_viz.batch.scheduler import Ready, stacked
from detr_viz.batch.tasks import Failure, failure

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector
    from detr_viz.render.recipe import Recipe
    from detr_viz.render.views.base import Needs

T = TypeVar("T")


class BatchExplainer(Generic[T]):
    """The part of a run that has the models.

    use        is called with an image that was read and with the explanation of each model; an
               error of it, or of a model, becomes the Failure of that image
    reference  the same models in float32, where `models` are of another precision
    """

    def __init__(
        self,
        models: Sequence[Detector],
        recipe: Recipe,
        needs: Needs,
        use: Callable[[Ready, list[Explanation]], T],
        reference: Sequence[Detector] | None = None,
    ) -> None:
        self.models, self._recipe, self._needs, self._use = models, recipe, needs, use
        self._reference = reference

    def __call__(self, batch: Sequence[Ready]) -> list[T | Failure]:
        try:
            explanations = self._explain(self.models, batch)
        except Exception as error:
            failed = failure(error)  # the error itself would hold the memory of the batch
        else:
            return [self._result(*pair) for pair in zip(batch, explanations, strict=True)]
        if len(batch) == 1:
            return [failed]
        _free_gpu_memory()  # one image may be the cause, or the batch is too large
        return [result for ready in batch for result in self([ready])]

    def exact(self, ready: Ready) -> list[Explanation] | None:
        """The explanations in float32 for the first image that this is called with; then None."""
        from detr_viz.render.run import all_or_raise

        reference, self._reference = self._reference, None
        if reference is None:
            return None
        (explanations,) = self._explain(reference, [ready])
        return all_or_raise(explanations, self._recipe)

    def _explain(
        self, models: Sequence[Detector], batch: Sequence[Ready]
    ) -> list[tuple[Explanation | Exception, ...]]:
        """For each image the explanation of each model, or the error."""
        from detr_viz.render.run import explain_all

        facts = [ready.pixels.facts for ready in batch]
        pixels = [stacked(batch, k) for k in range(len(models))]
        return explain_all(models, facts, pixels, self._recipe, self._needs)

    def _result(self, ready: Ready, explanations: Sequence[Explanation | Exception]) -> T | Failure:
        from detr_viz.render.run import all_or_raise

        try:
            return self._use(ready, all_or_raise(explanations, self._recipe))
        except Exception as error:
            return failure(error)


def _free_gpu_memory() -> None:
    """Give back the memory that torch keeps reserved on a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
