"""What a worker process does: it reads images and draws figures, by tasks; results go back.

It keeps the pixels of the images it has read until it has drawn them, so that of a photo only the
resized input goes to the main process, and only what was measured comes back. What a broken file
does to the process that reads it stays there too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

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
from detr_viz.render.recipe import Recipe, carries

if TYPE_CHECKING:
    from detr_viz.images.loaded_image import LoadedImage


class ImageWorker:
    """What a helper does with its orders; a process of its own is only one way to run it."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._held: dict[int, LoadedImage] = {}

    def answer(self, order: Task) -> TaskResult:
        """Carry out an order; an error comes back as a Failure."""
        try:
            if isinstance(order, Setup):
                self._start(order)
                return None
            if isinstance(order, Read):
                return self._read(order)
            if isinstance(order, Draw):
                return self._draw(order)
            self._held.pop(order.i, None)
            return None
        except Exception as error:
            self._held.pop(getattr(order, "i", -1), None)
            return failure(error)

    def _start(self, order: Setup) -> None:
        from detr_viz.common import files

        self._setup = order
        files.put_temporaries_in(order.temporary)

    @property
    def _recipe(self) -> Recipe:
        assert self._setup is not None
        return self._setup.recipe

    def _read(self, order: Read) -> TaskResult:
        from detr_viz.images.read import load_image
        from detr_viz.render.run import inputs_of

        if order.earlier is not None and self._is_done(order.path, order.earlier):
            return Skipped()
        picture = load_image(order.path)
        inputs = inputs_of(picture, self._recipe)
        self._held[order.i] = picture
        return Pixels(picture.facts, inputs)

    def _is_done(self, path: str, earlier: Earlier) -> bool:
        from detr_viz.images.read import sha256

        with suppress(OSError), open(path, "rb") as file:
            recipe, image = self._recipe, sha256(file)
            wanted = recipe.digest_of(image, path)
            of_views = [recipe.of_view(name).digest_of(image, path) for name in recipe.views]
            return earlier.recipe == wanted[: len(earlier.recipe) or None] and all(
                any(carries(f, digest) for digest in of_views) for f in earlier.files
            )
        return False

    def _draw(self, order: Draw) -> Drawn:
        from detr_viz.images.read import load_image
        from detr_viz.render import run

        picture = self._held.pop(order.i, None)
        if picture is None:  # it was read by a helper that is no more
            picture = load_image(order.path)
            known = {e.image.sha256 for r in order.measured.results.values() for e in r.shown}
            if known - {picture.sha256}:
                return Failure(f"{order.path} was changed while it was drawn: go on with --resume")
        made = run.draw(order.measured, picture, self._recipe, order.paths, order.name)
        files = tuple(path for written in made for path in written.files)
        notes = [*picture.notes, *(note for written in made for note in written.notes)]
        return Drawn(files, tuple(dict.fromkeys(notes)))
