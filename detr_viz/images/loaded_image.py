"""A picture in memory, the facts of a picture without its pixels, and the error for a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detr_viz.common.errors import UserError

MAX_PIXELS = 178_956_970  # Pillow's default limit, above which it raises DecompressionBombError


class ImageError(UserError):
    """A picture that cannot be used; one line says which and what to do."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One picture, upright (EXIF applied) and opaque. Boxes are measured in its pixels.

    rgb: uint8 (H0, W0, 3), read-only.  path: as given, None for arrays and PIL images.
    sha256: hex, of the file's bytes, or of the RGB pixels if there is no file.
    notes: decisions that were made in reading it, one short line each.
    """

    rgb: np.ndarray = field(repr=False)
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def hw(self) -> tuple[int, int]:
        """(H0, W0) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def facts(self) -> ImageFacts:
        """Everything but the pixels."""
        return ImageFacts(self.hw, self.path, self.sha256, self.notes)


@dataclass(frozen=True)
class ImageFacts:
    """A LoadedImage without its pixels; fields as there."""

    hw: tuple[int, int]
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()
