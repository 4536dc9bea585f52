"""The photo of a page, and its small copy in an index, as data: addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, features

LONGEST_PX = 1600
THUMBNAIL_PX = 144
_QUALITY = 80


def photo_url(rgb: np.ndarray, longest: int = LONGEST_PX, quality: int = _QUALITY) -> str:
    """uint8 (H, W, 3) as an address; the longer side has at most `longest` pixels.

    WebP, or JPEG where Pillow was built without it.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    side = max(image.size)
    if side > longest:
        size = tuple(max(round(x * longest / side), 1) for x in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if features.check("webp"):
        image.save(file, "webp", quality=quality, method=4)
        kind = "webp"
    else:
        image.save(file, "jpeg", quality=quality)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
