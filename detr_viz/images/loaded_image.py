"""A picture in memory, the facts of a picture without its pixels, and the error for a bad one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np

from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import folded, one_line
from detr_viz.images.annotated import Annotated

_THUMBNAIL_PX = 320
MAX_PIXELS = 178_956_970  # Pillow's default limit, above which it raises DecompressionBombError


_before: ContextVar[Callable[[int], None] | None] = ContextVar("before_pixels", default=None)


@contextmanager
def before_pixels(ask: Callable[[int], None]) -> Iterator[None]:
    """In the block ask(pixels) is called before an image of so many pixels is unpacked."""
    token = _before.set(ask)
    try:
        yield
    finally:
        _before.reset(token)


def ask_for(pixels: int) -> None:
    """The size of an image is known, and its pixels are needed now."""
    if (ask := _before.get()) is not None:
        ask(pixels)


class ImageError(UserError):
    """A picture that cannot be used; one line says which and what to do."""


@dataclass(frozen=True, eq=False, repr=False)
class LoadedImage:
    """One picture, upright (EXIF applied) and opaque. Boxes are measured in its pixels.

    rgb: uint8 (H0, W0, 3), read-only.  path: as given, None for arrays and PIL images.
    sha256: hex, of the file's bytes, or of the RGB pixels if there is no file.
    notes: decisions that were made in reading it, one short line each.
    annotated: its annotated objects; None where no annotation file was given.
    unplaced: the digest of annotated objects that are of an image of another shape; "" for none.
    """

    rgb: np.ndarray
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()
    annotated: Annotated | None = None
    unplaced: str = ""

    def __repr__(self) -> str:
        return _about(self)

    def _repr_jpeg_(self) -> bytes | None:
        """A small picture of it, for a notebook; None where it has no pixels."""
        from PIL import Image

        try:
            small = Image.fromarray(self.rgb)
            small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), reducing_gap=2)
            file = BytesIO()
            small.save(file, "jpeg", quality=90)
        except Exception:  # a cell that only shows it must not fail: it has the text
            return None
        return file.getvalue()

    @property
    def hw(self) -> tuple[int, int]:
        """(H0, W0) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def facts(self) -> ImageFacts:
        """Everything but the pixels."""
        return ImageFacts(
            self.hw, self.path, self.sha256, self.notes, self.annotated, self.unplaced
        )


@dataclass(frozen=True, repr=False)
class ImageFacts:
    """A LoadedImage without its pixels; fields as there."""

    hw: tuple[int, int]
    path: str | None
    sha256: str
    notes: tuple[str, ...] = ()
    annotated: Annotated | None = field(default=None, compare=False)
    unplaced: str = ""

    def __repr__(self) -> str:
        return _about(self)


def _about(image: LoadedImage | ImageFacts) -> str:
    """What an image is, in three lines at most."""
    height, width = image.hw
    parts = [f"{width} x {height} px", f"sha256 {image.sha256[:8]}"]
    if image.annotated is not None:
        parts.append(f"{len(image.annotated)} annotated objects")
    path = "an array" if image.path is None else one_line(image.path, 60)
    return folded(f"{type(image).__name__} of {path} ({', '.join(parts)})", *image.notes)
