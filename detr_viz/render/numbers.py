"""The numbers of a view as a file: arrays (.npz), a table (.csv), or saved maps (heatmaps/)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from detr_viz.common.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.heatmaps.npz import Heatmaps
    from detr_viz.images.loaded_image import LoadedImage
    from detr_viz.render.recipe import Recipe


class Numbers(Protocol):
    """Numbers that can be saved. suffix: of their file."""

    suffix: str

    def write(self, path: Path, digest: str) -> None:
        """Write them, with the digest of the recipe. OutputError where the disk refuses."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Named plain arrays and how they were computed; np.load reads them without pickles.

    meta: plain values, which become one JSON string, the array "meta".
    """

    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    suffix = ".npz"

    def write(self, path: Path, digest: str) -> None:
        import numpy as np

        meta = {**self.meta, "recipe_sha256": digest}
        words = np.asarray(json.dumps(meta, ensure_ascii=False, sort_keys=True))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self.arrays, meta=words)


def with_truth(numbers: Numbers, picture: LoadedImage, recipe: Recipe) -> Numbers:
    """Arrays of a view of one model with the annotated objects of the image, where asked for."""
    shown = recipe.style.truth and picture.annotated is not None
    if not (shown and isinstance(numbers, Arrays)) or "truth_labels" in numbers.arrays:
        return numbers
    from detr_viz.detections.mistakes import Truth
    from detr_viz.heatmaps.truth_arrays import truth_arrays

    truth = Truth.of(picture.annotated, recipe.models[0].class_names)
    return replace(numbers, arrays={**numbers.arrays, **truth_arrays(truth)})


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers under the names of their columns; a last column has the digest."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    suffix = ".csv"

    def write(self, path: Path, digest: str) -> None:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            add = csv.writer(file, lineterminator="\n").writerow
            add([*self.columns, "recipe"])
            for row in self.rows:
                add([*row, digest])


@dataclass(frozen=True, eq=False)
class Maps:
    """Cross-attention maps in the format of heatmaps/, which the compare command reads."""

    heatmaps: Heatmaps
    suffix = ".npz"

    def write(self, path: Path, digest: str) -> None:
        from detr_viz.heatmaps.npz import write

        meta = {**self.heatmaps.meta, "recipe_sha256": digest}
        write(path, replace(self.heatmaps, meta=meta))
