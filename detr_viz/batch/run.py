"""Many images by one recipe: figures and maps of all, an index, the failures, resumed at will.

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

from detr_viz.batch.engine import Engine, Result
from detr_viz.batch.index import Done, read_index
from detr_viz.batch.journal import Counts, Journal
from detr_viz.batch.scheduler import Item, Outcome
from detr_viz.batch.tasks import Drawn, Earlier, Failure, Skipped
from detr_viz.common import files
from detr_viz.common.errors import EXIT_INTERRUPTED, UserError
from detr_viz.common.files import OutputError
from detr_viz.common.progress import Progress
from detr_viz.images.collect import Input
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe

EXIT_FAILURES = 1  # some images failed
_MOST_NOTES, _MOST_FAILURES = 50, 20  # that are said during the run


@dataclass(frozen=True)
class Summary:
    """How a run ended. drawn: images that got their files now; skipped: images of which an earlier
    run had made all; stopped: by Ctrl-C, before all images were through.
    """

    counts: Counts
    drawn: int
    skipped: int
    files: int
    index: Path | None
    failures: Path | None
    stopped: bool

    def lines(self) -> Iterator[str]:
        """The end of a run in words."""
        if self.stopped:
            done = counted(self.counts.done, "image")
            yield f"stopped with {done} done: the same command with --resume goes on"
            return
        wrote = f"{counted(self.files, 'file')} for {counted(self.drawn, 'image')}"
        yield f"wrote {wrote}; {self.index} lists what there is"
        if self.skipped:
            yield f"{counted(self.skipped, 'image')} done by an earlier run"
        if self.counts.empty:
            yield f"{counted(self.counts.empty, 'image')} without a query that was asked for"


def counted(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number} {word}{'s' * (number != 1)}"


def run_batch(
    engine: Engine,
    recipe: Recipe,
    inputs: Sequence[Input],
    paths: OutputPaths,
    *,
    resume: bool = False,
    quiet: bool = True,
) -> Summary:
    """Draw all images; what fails is recorded and the run goes on.

    resume: what an earlier run made by the same recipe is skipped. quiet: no progress on stderr.
    OutputError where the disk is full or cannot be written: what was finished stays, and a run
    with `resume` goes on from there. UserError where another run writes there.
    """
    names = [image.path for image in inputs]
    with (
        Journal(paths.folder, names, tag=paths.tag, resume=resume) as journal,
        Progress(len(inputs), quiet=quiet) as progress,
    ):
        books = RunRecord(recipe, inputs, paths, journal, progress)
        with stoppable(engine, progress.note) as stopped:
            for result in engine.run(books.items(resume), journal.temporary, progress.note):
                books.enter(result)
        left = len(inputs) - journal.counts.done - journal.counts.failed
        if left and stopped:
            return books.summary(None, None, stopped=True)
        if left:
            raise UserError(f"{counted(left, 'image')} got lost on the way: go on with --resume")
        return books.summary(*journal.finish(), stopped=False)


class RunRecord:
    """What is asked of a run, and what became of it."""

    def __init__(
        self,
        recipe: Recipe,
        inputs: Sequence[Input],
        paths: OutputPaths,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._recipe, self._inputs, self._paths = recipe, inputs, paths
        self._journal, self._progress = journal, progress
        self._lock = threading.Lock()  # an engine may take its items in another thread
        self._noted: set[str] = set()
        self._files = self._drawn = self._skipped = 0

    def items(self, resume: bool) -> Iterator[Item]:
        for i, image in enumerate(self._inputs):
            yield Item(i, image.path, image.name, self._earlier(i) if resume else None)

    def _earlier(self, i: int) -> Earlier | None:
        """What an earlier run made of an image, if it is all that this one would make."""
        with self._lock:
            done = self._journal.earlier(self._inputs[i].path)
        if done is None:
            return None
        recipe, name = self._recipe, self._inputs[i].name
        stems = [recipe.stem(name, view) for view in recipe.views]
        there = [self._paths.folder / file for file in done.files]
        if done.rows and not self._paths.is_met_by(there, stems):
            return None
        return Earlier(done.recipe, tuple(there))

    def enter(self, result: Result) -> None:
        """Record what became of an image. OutputError where the next would fare no better."""
        with self._lock:
            self._enter(result.i, result.outcome, result.done)
        self._progress.advance(
            failed=isinstance(result.outcome, Failure), skipped=isinstance(result.outcome, Skipped)
        )

    def _enter(self, i: int, outcome: Outcome | None, done: Done | None) -> None:
        if isinstance(outcome, Failure):
            if outcome.fatal:
                raise OutputError(outcome.reason, "see to the disk, then go on with --resume")
            self._journal.failed(i, outcome.reason)
            self._say_failure(outcome.reason)
        elif isinstance(outcome, Skipped):
            earlier = self._journal.earlier(self._inputs[i].path)
            assert earlier is not None
            self._journal.done(i, earlier)
            self._skipped += 1
        else:
            assert done is not None
            written = outcome.files if isinstance(outcome, Drawn) else ()
            self._files += len(written)
            self._drawn += isinstance(outcome, Drawn)
            self._journal.done(i, replace(done, files=self._paths.named(written)))
            self._note(i, outcome)

    def _note(self, i: int, outcome: Drawn | None) -> None:
        """Say what had to be decided about an image, the first time that it had to."""
        for note in outcome.notes if outcome is not None else ():
            if note not in self._noted and len(self._noted) < _MOST_NOTES:
                self._progress.note(f"note: {self._inputs[i].path}: {note} (said once)")
                self._noted.add(note)

    def _say_failure(self, reason: str) -> None:
        failed = self._journal.counts.failed
        if failed <= _MOST_FAILURES:
            self._progress.note(f"error: {reason}")
        elif failed == _MOST_FAILURES + 1:
            self._progress.note("more failures: they are listed at the end")

    def summary(self, index: Path | None, failures: Path | None, stopped: bool) -> Summary:
        counts, made = self._journal.counts, (self._drawn, self._skipped, self._files)
        return Summary(counts, *made, index, failures, stopped)


@contextmanager
def stoppable(engine: Engine, say: Callable[[str], None]) -> Iterator[list[bool]]:
    """While the block runs, Ctrl-C stops the engine (and puts True into the list); a second one
    ends the process at once.
    """
    pressed: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def answer(*_: object) -> None:
        if pressed:
            engine.kill()
            files.discard_unfinished()
            os._exit(EXIT_INTERRUPTED)
        pressed.append(True)
        engine.stop()
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


def figures_of(paths: OutputPaths) -> Iterator[tuple[Path, str]]:
    """The PNGs of each image of a finished run, with the image's path, in order."""
    end = f"-{paths.tag}" if paths.tag else ""
    for done in read_index(paths.folder / f"index{end}.csv"):
        for name in done.files:
            if name.endswith(".png"):
                yield paths.folder / name, done.image
