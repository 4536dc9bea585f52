"""What a helper process does: it reads images and draws figures, by orders; replies go back.

It keeps the pixels of the images it has read until it has drawn them, so that of a photo only the
resized input goes to the main process, and only maps come back. What a broken file does to the
process that reads it stays there too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import in_a_line
from detr_viz.common.files import OutputError
from detr_viz.render.recipe import Recipe, carries

if TYPE_CHECKING:
    import numpy as np

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.images.read import ImageFacts, LoadedImage
    from detr_viz.render.paths import Target


@dataclass(frozen=True)
class Setup:
    """What is the same for all images of a run. temporary: the folder for unfinished files."""

    recipe: Recipe
    temporary: Path


@dataclass(frozen=True)
class Earlier:
    """What an earlier run made of an image: its recipe's digest, and the files (none where there
    was nothing to draw).
    """

    recipe: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Read:
    """Read image i and resize it for each model; skip it where what is there is what would be."""

    i: int
    path: str
    earlier: Earlier | None = None


@dataclass(frozen=True)
class Draw:
    """Write the files of image i."""

    i: int
    path: str
    found: tuple[StoredExplanation, ...]
    objects: tuple[SharedObject, ...]
    target: Target


@dataclass(frozen=True)
class Drop:
    """Image i will not be drawn."""

    i: int


Task = Setup | Read | Draw | Drop


@dataclass(frozen=True)
class Pixels:
    """An image that was read: what is known of it, and the input of each size, uint8 (h, w, 3)."""

    facts: ImageFacts
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Skipped:
    """The files that are there are the ones that would be made."""


@dataclass(frozen=True)
class Drawn:
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why an image came to nothing. fatal: so would the next, for the disk is full or broken."""

    reason: str
    fatal: bool = False


TaskResult = Pixels | Skipped | Drawn | Failure | None


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
        from detr_viz.images.read import load_image, resized

        if order.earlier is not None and self._is_done(order.path, order.earlier):
            return Skipped()
        picture = load_image(order.path)
        made = {size: resized(picture, *size) for size in dict.fromkeys(self._recipe.sizes)}
        self._held[order.i] = picture
        return Pixels(picture.facts, tuple(made[size] for size in self._recipe.sizes))

    def _is_done(self, path: str, earlier: Earlier) -> bool:
        from detr_viz.images.read import sha256

        with suppress(OSError), open(path, "rb") as file:
            wanted = self._recipe.digest_of(sha256(file), path)
            return earlier.recipe == wanted[: len(earlier.recipe) or None] and all(
                carries(f, wanted) for f in earlier.files
            )
        return False

    def _draw(self, order: Draw) -> Drawn:
        from detr_viz.images.read import load_image
        from detr_viz.render import write

        picture = self._held.pop(order.i, None)
        if picture is None:  # it was read by a helper that is no more
            picture = load_image(order.path)
            if any(snapshot.image.sha256 != picture.sha256 for snapshot in order.found):
                return Failure(f"{order.path} was changed while it was drawn: go on with --resume")
        found = [replace(snapshot, image=picture) for snapshot in order.found]
        order.target.check()
        written = write.write(found, order.objects, self._recipe, order.target)
        return Drawn(written.files, (*picture.notes, *written.notes))


def failure(error: BaseException) -> Failure:
    """An error as the reason why an image failed."""
    if isinstance(error, OutputError) and error.of_the_disk:
        return Failure(error.problem, fatal=True)
    return Failure(in_a_line(error)[0])
