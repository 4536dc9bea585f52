"""What runs a batch: images in, what became of them out; here with one process and its helpers.

Another engine (cluster/) has several such processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from detr_viz.attention.terms import ALL_TERMS
from detr_viz.batch.index import Done
from detr_viz.batch.scheduler import Item, Outcome, Pipeline, Ready, stacked
from detr_viz.batch.worker import Draw, Failure, Setup, failure
from detr_viz.batch.worker_process import WorkerProcess
from detr_viz.detections.objects import choose, queries_of
from detr_viz.detections.queries import NoQueryError
from detr_viz.render.paths import Target
from detr_viz.render.recipe import Recipe
from detr_viz.render.write import deviation, modes_of, moved, rows

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.models.detector import LoadedModel

DIGITS = 16  # of a recipe in an index


@dataclass(frozen=True)
class Outputs:
    """What is written, and where: <folder>/<name of the input>_<label of the recipe>.png.

    suffixes  of figures and of saved maps (.npz), in the order in which an index names them
    caption   whether each first figure gets a LaTeX file beside it
    tag       of a part of a run that is split (--shard): part of the names of its tables
    """

    folder: Path
    suffixes: tuple[str, ...] = (".png",)
    caption: bool = False
    tag: str = ""

    def target(self, name: str, recipe: Recipe) -> Target:
        return Target(self.folder / f"{name}_{recipe.label}", self.suffixes, self.caption)

    def named(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Paths as an index names them."""
        return tuple(path.relative_to(self.folder).as_posix() for path in files)


@dataclass(frozen=True)
class Result:
    """What became of image i. done: its entry in the index but for the files; None for a failure
    and for what an earlier run made.
    """

    i: int
    outcome: Outcome | None
    done: Done | None


class Engine(Protocol):
    """What batch.run drives."""

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        """Every item with its result, in any order. temporary: the folder for unfinished files."""

    def stop(self) -> None:
        """Begin nothing new; for a signal handler."""

    def kill(self) -> None:
        """End all helper processes at once; for a signal handler."""


class LocalEngine:
    """The models in this process, reading and drawing in helpers beside it.

    reference: see Network. batch_size: images of equal shapes that share a forward pass.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        recipe: Recipe,
        outputs: Outputs,
        team: Sequence[WorkerProcess],
        batch_size: int = 1,
        reference: Sequence[LoadedModel] | None = None,
    ) -> None:
        self._recipe, self._team, self._batch_size = recipe, team, batch_size
        self._network = Network(models, recipe, outputs, reference)
        self._pipeline: Pipeline | None = None
        self._stopped = False

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        for helper in self._team:
            helper.set_up(Setup(self._recipe, temporary.absolute()))
        self._network.say = say
        self._pipeline = Pipeline(self._team, self._batch_size)
        if self._stopped:
            self._pipeline.stop()
        for item, outcome in self._pipeline.run(items, self._network):
            yield Result(item.i, outcome, self._network.made.pop(item.i, None))

    def stop(self) -> None:
        self._stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    def kill(self) -> None:
        for helper in self._team:
            helper.kill()


class Network:
    """The part of a run that has the models: images that were read -> what is to be drawn.

    reference: the same models in float32, where `models` are quicker and less exact; the first
    image goes through both, and `say` is told how far its maps are apart.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        recipe: Recipe,
        outputs: Outputs,
        reference: Sequence[LoadedModel] | None = None,
    ) -> None:
        self._models, self._recipe, self._outputs = models, recipe, outputs
        self._reference = reference
        self.say: Callable[[str], None] = lambda line: None
        self.made: dict[int, Done] = {}  # what will have become of the images in flight

    def __call__(self, batch: Sequence[Ready]) -> list[Draw | Failure | None]:
        try:
            found = self._explain(self._models, batch)
        except Exception as error:
            failed = failure(error)  # the error itself would hold the memory of the batch
        else:
            return [self._order(ready, each) for ready, each in zip(batch, found, strict=True)]
        if len(batch) == 1:
            return [failed]
        _give_back_memory()  # one of them may be at fault, or they are too many for it
        return [made for ready in batch for made in self([ready])]

    def _explain(
        self, models: Sequence[LoadedModel], batch: Sequence[Ready]
    ) -> list[tuple[Explanation | Exception, ...]]:
        """What each model finds in each image."""
        from detr_viz.explanation.explain_image import explain_batch

        recipe, facts = self._recipe, [ready.pixels.facts for ready in batch]
        found = [
            explain_batch(
                model, facts, stacked(batch, k), recipe.layer, recipe.size, recipe.max_size
            )
            for k, model in enumerate(models)
        ]
        return list(zip(*found, strict=True))

    def _order(
        self, ready: Ready, found: tuple[Explanation | Exception, ...]
    ) -> Draw | Failure | None:
        from detr_viz.explanation.stored import store

        recipe, i = self._recipe, ready.item.i
        done = Done(ready.item.path, (), (), recipe.digest(ready.pixels.facts)[:DIGITS])
        try:
            for e in found:
                if isinstance(e, Exception):
                    raise e
            objects = choose(found, recipe.queries)
            modes = modes_of(found, recipe)
            if self._reference is not None:
                self._compare(ready, found, objects)
            kept = tuple(
                store(e, queries_of(objects, k), modes, recipe.scale, recipe.plot == ALL_TERMS)
                for k, e in enumerate(found)
            )
        except NoQueryError:
            self.made[i] = done
            return None
        except Exception as error:
            return failure(error)
        self.made[i] = replace(done, rows=rows(found, objects))
        target = self._outputs.target(ready.item.name, recipe)
        return Draw(i, ready.item.path, kept, tuple(objects), target)

    def _compare(
        self, ready: Ready, found: Sequence[Explanation], objects: Sequence[SharedObject]
    ) -> None:
        reference, self._reference = self._reference, None
        assert reference is not None
        (exact,) = self._explain(reference, [ready])
        apart = deviation(exact, found, objects, self._recipe)
        what = f"the attention weights of {ready.item.path}"
        self.say(moved(self._recipe.precision, apart, what))


def _give_back_memory() -> None:
    """Let go of what a GPU keeps for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
