"""What the process with the network and those that read and draw say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import in_a_line
from detr_viz.common.files import OutputError
from detr_viz.render.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from detr_viz.images.loaded_image import ImageFacts
    from detr_viz.render.paths import OutputPaths
    from detr_viz.render.run import MeasuredImage


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
    name: str  # what its files are called after
    measured: MeasuredImage
    paths: OutputPaths


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


def failure(error: BaseException) -> Failure:
    """An error as the reason why an image failed."""
    if isinstance(error, OutputError) and error.of_the_disk:
        return Failure(error.problem, fatal=True)
    return Failure(in_a_line(error)[0])
