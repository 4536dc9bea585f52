"""A batch with the models in this process and worker processes that read and draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.batch.engine import DIGITS, Result
from detr_viz.batch.explainer import BatchExplainer
from detr_viz.batch.index import Done
from detr_viz.batch.scheduler import Item, Pipeline, Ready
from detr_viz.batch.tasks import Draw, Setup
from detr_viz.batch.worker_process import WorkerProcess
from detr_viz.detections.queries import NoQueryError
from detr_viz.explanation.deviation import deviation_note
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe
from detr_viz.render.run import deviations, measure, needs_of

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.detector import Detector


class LocalEngine:
    """Runs the models in this process; worker processes read and draw.

    batch_size: images of equal shapes that share a forward pass. reference: the same models in
    float32, where `models` are of another precision; the first image goes through both, and `say`
    is called with the distance between their weights.
    """

    def __init__(
        self,
        models: Sequence[Detector],
        recipe: Recipe,
        paths: OutputPaths,
        workers: Sequence[WorkerProcess],
        batch_size: int = 1,
        reference: Sequence[Detector] | None = None,
    ) -> None:
        self._recipe, self._paths, self._workers = recipe, paths, workers
        self._batch_size = batch_size
        self.explainer = BatchExplainer(models, recipe, needs_of(recipe), self._task, reference)
        self.done: dict[int, Done] = {}  # entries of the images in flight
        self._say: Callable[[str], None] = lambda line: None
        self._pipeline: Pipeline | None = None
        self._stopped = False

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        for worker in self._workers:
            worker.set_up(Setup(self._recipe, temporary.absolute(), len(self._workers)))
        self._say = say
        self._pipeline = Pipeline(self._workers, self._batch_size)
        if self._stopped:
            self._pipeline.stop()
        for item, outcome in self._pipeline.run(items, self.explainer):
            yield Result(item.i, outcome, self.done.pop(item.i, None))

    def stop(self) -> None:
        self._stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _task(self, ready: Ready, explanations: list[Explanation]) -> Draw | None:
        """The task that draws an image; None where it has no query that the recipe chooses."""
        recipe, item = self._recipe, ready.item
        done = Done(item.path, (), (), recipe.digest(ready.pixels.facts)[:DIGITS])
        try:
            measured = measure(explanations, recipe)
        except NoQueryError:
            self.done[item.i] = done
            return None
        if (exact := self.explainer.exact(ready)) is not None:
            distances: dict[str, float] = {}
            for what, value in deviations(measured, exact, recipe).values():
                distances[what] = max(value, distances.get(what, 0.0))
            for what, value in distances.items():
                self._say(deviation_note(recipe.precision, value, f"the {what} of {item.path}"))
        self.done[item.i] = replace(done, rows=measured.rows)
        return Draw(item.i, item.path, item.name, measured, self._paths, item.annotated)
