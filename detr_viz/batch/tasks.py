"""The messages between the process with the network and the workers: tasks and their results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import in_a_line
from detr_viz.common.files import OutputError
from detr_viz.render.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from detr_viz.images.annotated import Annotated
    from detr_viz.images.loaded_image import ImageFacts
    from detr_viz.render.paths import OutputPaths
    from detr_viz.render.run import MeasuredImage


@dataclass(frozen=True)
class Setup:
    """Start a run with what all its images share.

    temporary: the folder for unfinished files. helpers: that share one budget of pixels.
    """

    recipe: Recipe
    temporary: Path
    helpers: int = 1


@dataclass(frozen=True)
class Earlier:
    """The result of an image in an earlier run: the digest of its recipe, and the files (none where
    there was nothing to draw).
    """

    recipe: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Read:
    """Read image i and resize it for each model; skip it where `earlier` needs no change.

    annotated: its objects, as a file states them.
    """

    i: int
    path: str
    earlier: Earlier | None = None
    annotated: Annotated | None = None


@dataclass(frozen=True)
class Draw:
    """Write the files of image i."""

    i: int
    path: str
    name: str  # the start of the names of its files
    measured: MeasuredImage
    paths: OutputPaths
    annotated: Annotated | None = None  # as of Read


@dataclass(frozen=True)
class Drop:
    """Forget the pixels of image i: it will not be drawn."""

    i: int


Task = Setup | Read | Draw | Drop


@dataclass(frozen=True)
class Pixels:
    """An image that was read: its facts, and the input of each model, uint8 (h, w, 3)."""

    facts: ImageFacts
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Skipped:
    """The files of an earlier run are the ones that this run would write."""


@dataclass(frozen=True)
class Drawn:
    """The files that were written for an image, and notes for the user.

    replaced: how many files were there before, drawn with other settings.
    beyond: whether the models know drawn shapes only and the image is no drawn scene.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    replaced: int = 0
    beyond: bool = False


@dataclass(frozen=True)
class Failure:
    """Why an image failed. fatal: the disk is full or broken, so the next image would fail too."""

    reason: str
    fatal: bool = False


TaskResult = Pixels | Skipped | Drawn | Failure | None


def failure(error: BaseException) -> Failure:
    """An error as the reason why an image failed."""
    if isinstance(error, OutputError) and error.of_the_disk:
        return Failure(error.problem, fatal=True)
    return Failure(in_a_line(error)[0])
