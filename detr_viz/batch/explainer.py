"""Images through all models of a run, in batches that shrink where they fail.

explainer = BatchExplainer(models, recipe, needs, use)
made = explainer(batch)                         # a Pipeline's network: what `use` gives, or Failure
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

    use        what becomes of an image that was read, and of what each model has found in it; what
               it raises, and what a model fails with, is that image's Failure
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
            found = self._explained(self.models, batch)
        except Exception as error:
            failed = failure(error)  # the error itself would hold the memory of the batch
        else:
            return [self._used(ready, each) for ready, each in zip(batch, found, strict=True)]
        if len(batch) == 1:
            return [failed]
        _give_back_memory()  # one of them may be at fault, or they are too many for it
        return [made for ready in batch for made in self([ready])]

    def exact(self, ready: Ready) -> list[Explanation] | None:
        """What the models find in float32, of the first image that this is asked of; then None."""
        from detr_viz.render.run import sound

        reference, self._reference = self._reference, None
        if reference is None:
            return None
        (found,) = self._explained(reference, [ready])
        return sound(found, self._recipe)

    def _explained(
        self, models: Sequence[Detector], batch: Sequence[Ready]
    ) -> list[tuple[Explanation | Exception, ...]]:
        """What each model finds in each image."""
        from detr_viz.render.run import explained

        facts = [ready.pixels.facts for ready in batch]
        pixels = [stacked(batch, k) for k in range(len(models))]
        return explained(models, facts, pixels, self._recipe, self._needs)

    def _used(self, ready: Ready, found: Sequence[Explanation | Exception]) -> T | Failure:
        from detr_viz.render.run import sound

        try:
            return self._use(ready, sound(found, self._recipe))
        except Exception as error:
            return failure(error)


def _give_back_memory() -> None:
    """Let go of what a GPU keeps for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
