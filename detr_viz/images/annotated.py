"""The annotated objects of an image, as its annotation file gives them: boxes and class names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class Annotated(ShortRepr):
    """Objects of one image; no detector is known here, so classes are names.

    boxes_xyxy_px  (n, 4) pixels of the upright image
    names          (n,) of the classes, as the file has them
    crowd          (n,) True for a group of objects in one box
    ids            (n,) the file's own numbers of the objects, or 0..n-1
    source         the file
    """

    boxes_xyxy_px: NDArray[np.float64]
    names: tuple[str, ...]
    crowd: NDArray[np.bool_]
    ids: tuple[int, ...]
    source: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """sha256 (hex) of what is annotated; the place of the file does not change it."""
        words = "\n".join(
            f"{name!r} {crowd:d} {' '.join(map(repr, map(float, box)))}"
            for name, crowd, box in zip(self.names, self.crowd, self.boxes_xyxy_px, strict=True)
        )
        return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()
