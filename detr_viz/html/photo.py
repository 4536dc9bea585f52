"""The photo of a page, and its small copy in an index, as data: addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, features

LONGEST_PX = 1600
PHOTO_BYTES = 330_000  # of the address of a photo
THUMBNAIL_PX = 144
_TRIES = ((1, 80), (1, 65), (1, 50), (0.75, 50), (0.5, 50))  # (of the size, quality)


def photo_url(rgb: np.ndarray) -> str:
    """The photo, uint8 (H, W, 3), as an address of at most PHOTO_BYTES where any quality allows it.

    The longer side has at most LONGEST_PX pixels.
    """
    url = ""
    for part, quality in _TRIES:
        url = _url(rgb, round(LONGEST_PX * part), quality)
        if len(url) <= PHOTO_BYTES:
            break
    return url


def thumbnail_url(rgb: np.ndarray) -> str:
    """A small copy for an index."""
    return _url(rgb, THUMBNAIL_PX, 60)


def _url(rgb: np.ndarray, longest: int, quality: int) -> str:
    """WebP, or JPEG where Pillow was built without it."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    side = max(image.size)
    if side > longest:
        size = tuple(max(round(x * longest / side), 1) for x in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    kind = "webp" if features.check("webp") else "jpeg"
    image.save(file, kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
