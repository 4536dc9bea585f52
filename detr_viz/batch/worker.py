"""The work of a worker process: it reads images and draws figures; each task has a result.

A worker keeps the pixels of an image from reading to drawing. So only the resized input goes to the
main process, and only the measured values come back. A broken file can crash only the worker.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from detr_viz.batch.budget import PixelBudget
from detr_viz.batch.tasks import (
    Draw,
    Drawn,
    Earlier,
    Failure,
    Pixels,
    Read,
    Setup,
    Skipped,
    Task,
    TaskResult,
    failure,
)
from detr_viz.common.regular import open_regular
from detr_viz.render.file_digests import carries
from detr_viz.render.recipe import Recipe

if TYPE_CHECKING:
    from detr_viz.images.loaded_image import LoadedImage


class ImageWorker:
    """Does the tasks of one worker; usually in a process of its own, but any caller may use it."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._held: dict[int, LoadedImage] = {}

    def answer(self, task: Task) -> TaskResult:
        """Do a task; an error comes back as a Failure."""
        try:
            if isinstance(task, Setup):
                self._start(task)
                return None
            if isinstance(task, Read):
                return self._read(task)
            if isinstance(task, Draw):
                return self._draw(task)
            self._held.pop(task.i, None)
            return None
        except Exception as error:
            self._held.pop(getattr(task, "i", -1), None)
            return failure(error)

    def _start(self, task: Setup) -> None:
        from detr_viz.common import files

        self._setup = task
        self._budget = PixelBudget(task.temporary, task.helpers)
        files.put_temporaries_in(task.temporary)

    @property
    def _recipe(self) -> Recipe:
        assert self._setup is not None
        return self._setup.recipe

    def _read(self, task: Read) -> TaskResult:
        from detr_viz.images.onto_picture import load_annotated
        from detr_viz.render.run import inputs_of

        if task.earlier is not None and self._is_done(task, task.earlier):
            return Skipped()
        with self._budget.room():
            picture = load_annotated(task.path, task.annotated)
            inputs = inputs_of(picture, self._recipe)
            held = sum(_pixels(one) for one in self._held.values())
            if held + _pixels(picture) <= self._budget.held_most:  # else it is read again
                self._held[task.i] = picture
            facts = picture.facts
            del picture
        return Pixels(facts, inputs)

    def _is_done(self, task: Read, earlier: Earlier) -> bool:
        from detr_viz.images.read import sha256

        with suppress(OSError), open_regular(task.path) as file:
            annotated = task.annotated.digest if task.annotated is not None else ""
            recipe, about = self._recipe, (sha256(file), task.path, annotated)
            wanted = recipe.digest_of(*about)
            of_views = [recipe.of_view(name).digest_of(*about) for name in recipe.views]
            return earlier.recipe == wanted[: len(earlier.recipe) or None] and all(
                any(carries(f, digest) for digest in of_views) for f in earlier.files
            )
        return False

    def _draw(self, task: Draw) -> TaskResult:
        held = self._held.get(task.i)
        with self._budget.room(0 if held is None else _pixels(held)):
            return self._drawn(task)

    def _drawn(self, task: Draw) -> TaskResult:
        from detr_viz.images.onto_picture import load_annotated
        from detr_viz.render import run
        from detr_viz.render.notes import is_beyond_models

        picture = self._held.pop(task.i, None)
        if picture is None:  # it is large, or was read by a worker that has died
            picture = load_annotated(task.path, task.annotated)
            known = {e.image.sha256 for r in task.measured.results.values() for e in r.shown}
            if known - {picture.sha256}:
                return Failure(f"{task.path} was changed while it was drawn: go on with --resume")
        views = run.draw(task.measured, picture, self._recipe, task.paths, task.name)
        files = tuple(path for view in views for path in view.files)
        notes = [*picture.notes, *(note for view in views for note in view.notes)]
        replaced = sum(len(view.replaced) for view in views)
        beyond = is_beyond_models(self._recipe, picture)
        return Drawn(files, tuple(dict.fromkeys(notes)), replaced, beyond)


def _pixels(picture: LoadedImage) -> int:
    return picture.hw[0] * picture.hw[1]
