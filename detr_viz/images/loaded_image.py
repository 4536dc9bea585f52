"""One picture in memory, what is known of it without its pixels, and the error for a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detr_viz.common.errors import UserError

MAX_PIXELS = 178_956_970  # where Pillow's default warning about a bomb turns into an error


class ImageError(UserError):
    """A picture that cannot be used; one line says which and what to do."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One picture, upright (EXIF applied), opaque, in the pixels that boxes are measured in.

    rgb: uint8 (H0, W0, 3), read-only.  path: as given, None for arrays and PIL images.
    sha256: hex, of the file's bytes; of the RGB pixels where there is no file.
    notes: what had to be decided about it, one short line each.
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
        """All but the pixels."""
        return ImageFacts(self.hw, self.path, self.sha256, self.notes)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a picture without its pixels; fields as in LoadedImage."""

    hw: tuple[int, int]
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()
