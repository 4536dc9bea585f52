"""Many images by one recipe: figures and maps of all, an index and the failures; can be resumed.

index.csv and failures.csv of the output folder list the result of each image.
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
from detr_viz.images.drawn_scenes import ONLY_SHAPES
from detr_viz.images.locate import is_below
from detr_viz.render.notes import photo_weights
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe

EXIT_FAILURES = 1  # some images failed
_MOST_NOTES, _MOST_FAILURES = 50, 20  # printed during the run


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    drawn    images whose files this run wrote
    skipped  images whose files an earlier run wrote
    stopped  by Ctrl-C, before all images were done
    replaced files that were there, drawn with other settings
    beyond   images that are no drawn scenes, where the weights know nothing else
    for_photos  other weights to take for these, in words
    """

    counts: Counts
    drawn: int
    skipped: int
    files: int
    index: Path | None
    failures: Path | None
    stopped: bool
    replaced: int = 0
    beyond: int = 0
    for_photos: str = ""

    @property
    def last_line(self) -> str:
        """What stands at the very end of a run; "" for nothing."""
        if not self.beyond:
            return ""
        are = "is no drawn scene" if self.beyond == 1 else "are no drawn scenes"
        return f"note: {ONLY_SHAPES}, and {counted(self.beyond, 'image')} {are}: {self.for_photos}"

    def lines(self) -> Iterator[str]:
        """The lines to print at the end of a run."""
        if self.stopped:
            done = counted(self.counts.done, "image")
            yield f"stopped with {done} done: the same command with --resume goes on"
            return
        wrote = f"{counted(self.files, 'file')} for {counted(self.drawn, 'image')}"
        yield f"wrote {wrote}; {self.index} lists them"
        if self.replaced:
            were = "was" if self.replaced == 1 else "were"
            yield f"replaced {counted(self.replaced, 'file')} that {were} drawn with other settings"
        if self.skipped:
            yield f"{counted(self.skipped, 'image')} done by an earlier run"
        if self.counts.empty:
            yield f"{counted(self.counts.empty, 'image')} without a query that --queries chooses"


def counted(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def run_batch(
    engine: Engine,
    recipe: Recipe,
    inputs: Sequence[Input],
    paths: OutputPaths,
    *,
    resume: bool = False,
    quiet: bool = True,
) -> Summary:
    """Draw all images; a failure is recorded and the run continues.

    resume: skip images that an earlier run drew by the same recipe. quiet: no progress on stderr.
    OutputError where the disk is full or cannot be written: finished files stay, and a run with
    `resume` continues from there. UserError where another run writes to the same folder.
    """
    names = [image.path for image in inputs]
    with (
        Journal(paths.folder, names, tag=paths.tag, resume=resume) as journal,
        Progress(len(inputs), quiet=quiet) as progress,
    ):
        record = RunRecord(recipe, inputs, paths, journal, progress)
        with stoppable(engine, progress.note) as stopped:
            for result in engine.run(record.items(resume), journal.temporary, progress.note):
                record.enter(result)
        left = len(inputs) - journal.counts.done - journal.counts.failed
        if left and stopped:
            return record.summary(None, None, stopped=True)
        if left:
            verb = "has" if left == 1 else "have"
            raise UserError(f"{counted(left, 'image')} {verb} no result: go on with --resume")
        return record.summary(*journal.finish(), stopped=False)


class RunRecord:
    """The images of a run, and the results so far."""

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
        self._files = self._drawn = self._skipped = self._replaced = self._beyond = 0

    def items(self, resume: bool) -> Iterator[Item]:
        for i, image in enumerate(self._inputs):
            earlier = self._earlier(i) if resume else None
            yield Item(i, image.path, image.name, earlier, image.annotated)

    def _earlier(self, i: int) -> Earlier | None:
        """What an earlier run wrote for an image, if no file of this run is missing."""
        with self._lock:
            done = self._journal.earlier(self._inputs[i].path)
        if done is None or not all(map(is_below, done.files)):  # no run of ours wrote that
            return None
        recipe, name = self._recipe, self._inputs[i].name
        stems = [recipe.stem(name, view) for view in recipe.views]
        written = [self._paths.folder / file for file in done.files]
        if done.rows and not self._paths.is_complete(written, stems):
            return None
        return Earlier(done.recipe, tuple(written))

    def enter(self, result: Result) -> None:
        """Record the result of an image. OutputError where the disk is full or broken."""
        with self._lock:
            self._enter(result.i, result.outcome, result.done)
        self._progress.advance(
            failed=isinstance(result.outcome, Failure), skipped=isinstance(result.outcome, Skipped)
        )

    def _enter(self, i: int, outcome: Outcome | None, done: Done | None) -> None:
        if isinstance(outcome, Failure):
            if outcome.fatal:
                raise OutputError(outcome.reason, "check the disk, then go on with --resume")
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
            if isinstance(outcome, Drawn):
                self._drawn += 1
                self._replaced += outcome.replaced
                self._beyond += outcome.beyond
            self._journal.done(i, replace(done, files=self._paths.named(written)))
            self._note(i, outcome)

    def _note(self, i: int, outcome: Drawn | None) -> None:
        """Print each note about an image; a note that was printed before is left out."""
        for note in outcome.notes if outcome is not None else ():
            if note not in self._noted and len(self._noted) < _MOST_NOTES:
                self._progress.note(f"note: {self._inputs[i].path}: {note} (noted once)")
                self._noted.add(note)

    def _say_failure(self, reason: str) -> None:
        failed = self._journal.counts.failed
        if failed <= _MOST_FAILURES:
            self._progress.note(f"error: {reason}")
        elif failed == _MOST_FAILURES + 1:
            self._progress.note("more failures: they are listed at the end")

    def summary(self, index: Path | None, failures: Path | None, stopped: bool) -> Summary:
        totals = self._drawn, self._skipped, self._files
        for_photos = photo_weights(self._recipe) if self._beyond else ""
        more = stopped, self._replaced, self._beyond, for_photos
        return Summary(self._journal.counts, *totals, index, failures, *more)


@contextmanager
def stoppable(engine: Engine, say: Callable[[str], None]) -> Iterator[list[bool]]:
    """In the block, Ctrl-C stops the engine and puts True into the list that this yields.

    A second Ctrl-C ends the process at once.
    """
    pressed: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def on_interrupt(*_: object) -> None:
        if pressed:
            engine.kill()
            files.discard_unfinished()
            os._exit(EXIT_INTERRUPTED)
        pressed.append(True)
        engine.stop()
        say("stopping after the images that are being drawn (Ctrl-C again: at once)")

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):  # the process must survive it, as under nohup
        yield pressed
        return
    signal.signal(signal.SIGINT, on_interrupt)
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
