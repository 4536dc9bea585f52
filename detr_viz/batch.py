"""Many images by one recipe: figures and maps of all, an index, the failures, resumed at will.

    run(models, recipe, inputs, Outputs(Path("figures"), (".png", ".npz")))

What became of each image is in index.csv and failures.csv of the output folder.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz import files, helpers
from detr_viz.comparison import choose, queries_of
from detr_viz.errors import EXIT_INTERRUPTED
from detr_viz.files import OutputError
from detr_viz.helpers import Draw, Drawn, Earlier, Failure, Helper, Setup, Skipped, failure
from detr_viz.inputs import Input
from detr_viz.journal import Counts, Done, Journal, read_index
from detr_viz.pipeline import Item, Outcome, Pipeline, Ready, stacked
from detr_viz.progress import Progress
from detr_viz.queries import NoQueryError
from detr_viz.recipe import Recipe
from detr_viz.rendering import deviation, modes_of, rows
from detr_viz.targets import MAPS, Target

if TYPE_CHECKING:
    from detr_viz.explanation import Explanation
    from detr_viz.loading import LoadedModel
    from detr_viz.matching import SharedObject

EXIT_FAILURES = 1
_MOST_NOTES = 50  # of different words


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

    def target(self, image: Input, recipe: Recipe) -> Target:
        return Target(self.folder / f"{image.name}_{recipe.label}", self.suffixes, self.caption)

    def named(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Paths as an index names them."""
        return tuple(path.relative_to(self.folder).as_posix() for path in files)


@dataclass(frozen=True)
class Summary:
    """How a run ended. skipped: images whose files were there already; stopped: by Ctrl-C."""

    counts: Counts
    skipped: int
    files: int
    index: Path | None
    failures: Path | None
    stopped: bool

    def lines(self) -> Iterator[str]:
        """The end of a run in words."""
        done, failed, empty = self.counts
        drawn = done - empty - self.skipped
        if self.stopped:
            yield f"stopped with {done} images done: the same command with --resume goes on"
            return
        yield f"wrote {self.files} files for {drawn} images; {self.index} lists them"
        if self.skipped:
            yield f"{self.skipped} images were done already"
        if empty:
            yield f"{empty} images have no query that was asked for"
        if failed:
            yield f"{failed} images failed: {self.failures} says why"


class Network:
    """The part of a run that has the models: images that were read -> what is to be drawn.

    reference: the same models in float32, where `models` are quicker and less exact; the first
    image goes through both, and `say` is told how far its maps are apart.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        recipe: Recipe,
        target: Callable[[int], Target],
        reference: Sequence[LoadedModel] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._models, self._recipe, self._target = models, recipe, target
        self._reference, self._say = reference, say
        self.made: dict[int, Done] = {}  # what will have become of the images in flight

    def __call__(self, batch: Sequence[Ready]) -> list[Draw | Failure | None]:
        try:
            found = self._explain(self._models, batch)
        except Exception as error:
            if len(batch) > 1:  # one of them may be at fault, or they are too many for the memory
                return [made for ready in batch for made in self([ready])]
            return [failure(error)]
        return [self._order(ready, each) for ready, each in zip(batch, found, strict=True)]

    def _explain(
        self, models: Sequence[LoadedModel], batch: Sequence[Ready]
    ) -> list[tuple[Explanation | Exception, ...]]:
        """What each model finds in each image."""
        from detr_viz.explanation import explain_batch

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
        from detr_viz.findings import snapshot

        recipe, i = self._recipe, ready.item.i
        done = Done(ready.item.path, (), (), recipe.digest(ready.pixels.facts)[:_DIGITS])
        try:
            for e in found:
                if isinstance(e, Exception):
                    raise e
            objects = choose(found, recipe.queries)
            modes = modes_of(found, recipe)
            if self._reference is not None:
                self._compare(ready, found, objects)
            kept = tuple(
                snapshot(e, queries_of(objects, k), modes, recipe.scale)
                for k, e in enumerate(found)
            )
        except NoQueryError:
            self.made[i] = done
            return None
        except Exception as error:
            return failure(error)
        self.made[i] = replace(done, rows=rows(found, objects))
        return Draw(i, ready.item.path, kept, tuple(objects), self._target(i))

    def _compare(
        self, ready: Ready, found: Sequence[Explanation], objects: Sequence[SharedObject]
    ) -> None:
        reference, self._reference = self._reference, None
        assert reference is not None
        (exact,) = self._explain(reference, [ready])
        apart = deviation(exact, found, objects, self._recipe)
        self._say(
            f"note: {self._recipe.precision} moves the weights of {ready.item.path} "
            f"by up to {apart:.2g} from float32's"
        )


def run(
    models: Sequence[LoadedModel],
    recipe: Recipe,
    inputs: Sequence[Input],
    outputs: Outputs,
    *,
    resume: bool = False,
    batch_size: int = 1,
    workers: Sequence[Helper] | None = None,
    reference: Sequence[LoadedModel] | None = None,
    quiet: bool = True,
) -> Summary:
    """Draw all images; what fails is recorded and the run goes on.

    workers     helper processes, which are stopped at the end (None: one)
    reference   see Network
    quiet       no progress on stderr
    OutputError where the disk is full or cannot be written: what was finished stays, and a run
    with `resume` goes on from there. UserError where another run writes there.
    """
    team = list(workers) if workers is not None else list(helpers.start(1))
    try:
        with (
            Journal(
                outputs.folder, [x.path for x in inputs], tag=outputs.tag, resume=resume
            ) as journal,
            Progress(len(inputs), quiet=quiet) as progress,
        ):
            return _run(
                _Run(models, recipe, inputs, outputs, journal, progress, reference),
                team,
                batch_size,
                resume,
            )
    finally:
        for helper in team:
            helper.stop()


def _run(work: _Run, team: Sequence[Helper], batch_size: int, resume: bool) -> Summary:
    for helper in team:
        helper.ask(Setup(work.recipe, work.journal.temporary.absolute()))
    pipeline = Pipeline(team, batch_size)
    with stoppable(pipeline.stop, team, work.progress.note) as stopped:
        for item, outcome in pipeline.run(work.items(resume), work.network):
            work.record(item.i, outcome)
    if stopped:
        return work.summary(None, None, stopped=True)
    return work.summary(*work.journal.finish(), stopped=False)


class _Run:
    """A run's books: what is asked for, and what became of it."""

    def __init__(
        self,
        models: Sequence[LoadedModel],
        recipe: Recipe,
        inputs: Sequence[Input],
        outputs: Outputs,
        journal: Journal,
        progress: Progress,
        reference: Sequence[LoadedModel] | None,
    ) -> None:
        self.recipe, self.inputs, self.outputs = recipe, inputs, outputs
        self.journal, self.progress = journal, progress
        self.network = Network(models, recipe, self.target, reference, progress.note)
        self._noted: set[str] = set()
        self._files = self._skipped = 0

    def target(self, i: int) -> Target:
        return self.outputs.target(self.inputs[i], self.recipe)

    def items(self, resume: bool) -> Iterator[Item]:
        for i, image in enumerate(self.inputs):
            yield Item(i, image.path, self._earlier(i) if resume else None)

    def _earlier(self, i: int) -> Earlier | None:
        """What an earlier run made of an image, if it is all that this one would make."""
        done = self.journal.earlier(self.inputs[i].path)
        if done is None:
            return None
        target, folder = self.target(i), self.outputs.folder
        there = [folder / name for name in done.files]
        wanted = [*target.figures]
        wanted += [target.figures[0].with_suffix(".tex")] * target.caption
        maps = [path for path in there if path.suffix == MAPS]
        if done.rows and (set(wanted) - set(there) or (target.saves_maps and not maps)):
            return None
        return Earlier(done.recipe, tuple(there))

    def record(self, i: int, outcome: Outcome | None) -> None:
        """Enter what became of an image. OutputError where the next would fare no better."""
        made = self.network.made.pop(i, None)
        if isinstance(outcome, Failure):
            if outcome.fatal:
                raise OutputError(f"{outcome.reason}; then go on with --resume")
            self.journal.failed(i, outcome.reason)
        elif isinstance(outcome, Skipped):
            earlier = self.journal.earlier(self.inputs[i].path)
            assert earlier is not None
            self.journal.done(i, earlier)
            self._skipped += 1
        else:
            assert made is not None
            written = outcome.files if isinstance(outcome, Drawn) else ()
            self._files += len(written)
            self.journal.done(i, replace(made, files=self.outputs.named(written)))
            self._note(i, outcome)
        self.progress.advance(
            failed=isinstance(outcome, Failure), skipped=isinstance(outcome, Skipped)
        )

    def _note(self, i: int, outcome: Drawn | None) -> None:
        """Say what had to be decided about an image, the first time that it had to."""
        for note in outcome.notes if outcome is not None else ():
            if note not in self._noted and len(self._noted) < _MOST_NOTES:
                self.progress.note(f"note: {self.inputs[i].path}: {note} (said once)")
                self._noted.add(note)

    def summary(self, index: Path | None, failures: Path | None, stopped: bool) -> Summary:
        counts = self.journal.counts
        return Summary(counts, self._skipped, self._files, index, failures, stopped)


@contextmanager
def stoppable(
    stop: Callable[[], None], team: Sequence[Helper], say: Callable[[str], None]
) -> Iterator[list[bool]]:
    """While the block runs, Ctrl-C calls `stop` (and puts True into the list); a second one ends
    the process at once.
    """
    pressed: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def answer(*_: object) -> None:
        if pressed:
            for helper in team:
                helper.kill()
            files.discard_unfinished()
            os._exit(EXIT_INTERRUPTED)
        pressed.append(True)
        stop()
        say("stopping: what is being drawn is finished (Ctrl-C again: at once)")

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):  # told to live on, as by nohup
        yield pressed
        return
    signal.signal(signal.SIGINT, answer)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def figures_of(outputs: Outputs) -> Iterator[tuple[Path, str]]:
    """The first PNG of each image of a finished run, with the image's path, in order."""
    end = f"-{outputs.tag}" if outputs.tag else ""
    for done in read_index(outputs.folder / f"index{end}.csv"):
        pngs = [name for name in done.files if name.endswith(".png")]
        if pngs:
            yield outputs.folder / pngs[0], done.image
