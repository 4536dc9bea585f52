"""The annotated objects of an image, as its annotation file gives them: boxes and class names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr

WHOLE = (1.0, 1.0)  # the size of an image whose boxes are fractions of it


@dataclass(frozen=True, eq=False, repr=False)
class Annotated(ShortRepr):
    """Objects of one image; no detector is known here, so classes are names.

    boxes_xyxy_px  (n, 4) pixels of the upright image
    names          (n,) of the classes, as the file has them
    crowd          (n,) True for a group of objects in one box
    ids            (n,) the file's own numbers of the objects, or 0..n-1
    source         the file
    of_hw          height and width of the image that the boxes are measured in, as the file states
                   them, until a picture is known (onto_picture.py); None: those of the picture
    stated         the digest of what the file states, where boxes were moved onto a picture
    """

    boxes_xyxy_px: NDArray[np.float64]
    names: tuple[str, ...]
    crowd: NDArray[np.bool_]
    ids: tuple[int, ...]
    source: str
    of_hw: tuple[float, float] | None = None
    stated: str = field(default="", repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """sha256 (hex) of what the file states; the place of the file does not change it."""
        if self.stated:
            return self.stated
        words = "\n".join(
            f"{name!r} {crowd:d} {' '.join(map(repr, map(float, box)))}"
            for name, crowd, box in zip(self.names, self.crowd, self.boxes_xyxy_px, strict=True)
        )
        size = "" if self.of_hw is None else f"\n{self.of_hw[0]:g} x {self.of_hw[1]:g}"
        return hashlib.sha256((words + size).encode(errors="surrogateescape")).hexdigest()

    @classmethod
    def of_boxes(
        cls,
        boxes: Sequence[Sequence[float]],
        names: Sequence[str],
        crowd: Sequence[bool],
        source: str,
        of_hw: tuple[float, float] | None = None,
    ) -> Annotated:
        """From plain lists; objects are numbered from 0."""
        array = np.asarray(boxes, np.float64).reshape(-1, 4)
        ids = tuple(range(len(array)))
        return cls(array, tuple(names), np.asarray(crowd, bool), ids, source, of_hw)


def joined(parts: Sequence[Annotated]) -> Annotated:
    """The objects of several files, or of several entries of one, about the same image."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Annotated(
        np.concatenate([one.boxes_xyxy_px for one in parts]),
        tuple(name for one in parts for name in one.names),
        np.concatenate([one.crowd for one in parts]),
        tuple(number for one in parts for number in one.ids),
        first.source,
        first.of_hw,
    )
