"""Pillow's resizing and conversion in parts, for pictures that would not fit several times.

resized(rgb, (640, 480), Image.Resampling.BILINEAR)     # to the bit what Pillow makes of the whole

Pillow holds a pixel of RGB in four bytes, and hands it over in three more, twice. A picture of
170 million pixels is 0.5 GB; through Pillow as a whole it takes 1.8 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_LARGE = 1 << 25  # pixels, from which a picture goes in parts
_STRIP = 1 << 22  # pixels of a strip
Box = tuple[float, float, float, float]


def is_large(width: int, height: int) -> bool:
    """Whether a picture of this size is worked on in parts."""
    return width * height > _LARGE


def strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """(top, bottom) of strips of rows."""
    step = max(1, _STRIP // max(width, 1))
    return ((top, min(top + step, height)) for top in range(0, height, step))


def resized(
    rgb: np.ndarray,
    size: tuple[int, int],
    method: Image.Resampling,
    box: Box | None = None,
    reducing_gap: float | None = None,
) -> np.ndarray:
    """`Image.resize` of a uint8 (H, W, 3) array: size is (w, h), the result (h, w, 3)."""
    high, wide = rgb.shape[:2]
    if not is_large(wide, high):
        image = Image.fromarray(np.ascontiguousarray(rgb))
        return np.asarray(image.resize(size, method, box, reducing_gap))
    sized = np.empty((size[1], size[0], 3), np.uint8)
    for k in range(3):  # Pillow takes a plane of bytes as it lies in memory
        plane = np.ascontiguousarray(rgb[..., k])
        image = Image.frombuffer("L", (wide, high), plane, "raw", "L", 0, 1)
        sized[..., k] = np.asarray(image.resize(size, method, box, reducing_gap))
    return sized
