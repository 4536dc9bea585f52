"""The photo under a map: pale and grey, so that colour means attention and nothing else.

Lightness is that of CIE L*: a dark, a light and a busy photo become the same pale ground.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_LIGHTNESS = (60.0, 97.0)  # L* of the ground
_PERCENTILES = (1, 50, 99)
_MIN_SPAN = 18.0  # L* between them at least: the tones of fog are spread no further
_GAMMAS = (0.5, 2.0)
_LOCAL, _LOCAL_WIDTH = 0.5, 0.06  # contrast added, and the width it is local to, of the photo's
LIFT = 0.35  # of the way to the lightest, outside the box


def _lightness_table() -> np.ndarray:
    """Luminance in 4096 steps -> L*."""
    y = np.arange(4097) / 4096
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def _linear_table() -> np.ndarray:
    """sRGB value 0..255 -> linear light in [0, 1]."""
    c = np.arange(256) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


_LINEAR, _LIGHT = _linear_table().astype(np.float32), _lightness_table().astype(np.float32)


def lightness(photo: np.ndarray) -> np.ndarray:
    """CIE L* of a photo (H, W, 3) uint8, (H, W) float32 in [0, 100]."""
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    y = sum(_LINEAR[photo[..., c]] * weights[c] for c in range(3))
    return _LIGHT[np.rint(y * 4096).astype(np.intp)]


def gray_of(lightness: np.ndarray) -> np.ndarray:
    """L* -> the sRGB value of a grey, float."""
    f = (np.asarray(lightness, np.float64) + 16) / 116
    y = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return 255 * np.where(y <= 0.0031308, 12.92 * y, 1.055 * np.maximum(y, 0) ** (1 / 2.4) - 0.055)


def tones(photo: np.ndarray) -> np.ndarray:
    """Tones of the ground in [0, 1] of a photo (H, W, 3) uint8, (H, W) float32.

    The tones between the 1st and 99th percentile fill the range, the median goes to its middle as
    far as a gamma between .5 and 2 takes it, and what differs from its surroundings is kept.
    """
    light = lightness(photo)
    small = light[:: max(light.shape[0] // 256, 1), :: max(light.shape[1] // 256, 1)]
    low, median, high = np.percentile(small, _PERCENTILES)
    span = max(high - low, _MIN_SPAN)
    low = (low + high - span) / 2
    middle = min(max((median - low) / span, 0.02), 0.98)
    gamma = min(max(np.log(0.5) / np.log(middle), _GAMMAS[0]), _GAMMAS[1])
    tone = np.clip((light - low) / span, 0, 1, dtype=np.float32) ** np.float32(gamma)
    return np.clip(tone + _LOCAL * (tone - _around(tone)), 0, 1)


def _around(tone: np.ndarray) -> np.ndarray:
    """Tones smoothed by a Gaussian of .06 of the width, on a smaller copy: nothing fine is left."""
    height, width = tone.shape
    factor = max(int(_LOCAL_WIDTH * width / 3), 1)
    small = Image.fromarray(tone).reduce(factor) if factor > 1 else Image.fromarray(tone)
    rows, columns = (_gaussian(side, _LOCAL_WIDTH * width / factor) for side in small.size[::-1])
    smooth = rows @ np.asarray(small, np.float64) @ columns.T
    back = Image.fromarray(smooth.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(back)


def _gaussian(side: int, sigma: float) -> np.ndarray:
    """(side, side): the Gaussian filter along an axis as a product; beyond its ends it goes on.

    scipy.ndimage has the same, and takes longer to import than a figure to draw.
    """
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    places = np.arange(side)[:, None] + np.arange(-reach, reach + 1)
    weights = np.zeros((side, side))
    np.add.at(
        weights, (np.arange(side)[:, None], np.clip(places, 0, side - 1)), kernel / kernel.sum()
    )
    return weights


def ground(tone: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Greys (H, W) uint8 of tones; lighter outside the box.

    inside: (H, W), 1 in the box and 0 outside of it, as box_mask gives it; None: no box
    """
    low, high = _LIGHTNESS
    levels = np.rint(tone * 255).astype(np.uint8)
    light = low + (high - low) * np.arange(256) / 255
    plain = gray_of(light)
    if inside is None:
        return np.rint(plain).astype(np.uint8)[levels]
    lifted = gray_of(light + LIFT * (high - light))
    out = lifted.astype(np.float32)[levels]
    out += (plain - lifted).astype(np.float32)[levels] * inside
    return np.rint(out).astype(np.uint8)


def box_mask(
    edges: tuple[float, float, float, float], hw: tuple[int, int], feather_px: float
) -> np.ndarray:
    """(H, W) float32: 1 in a box (left, top, right, bottom in pixels), falling to 0 around it.

    A sharp step would look like an edge of the picture on a smooth photo.
    """
    left, top, right, bottom = edges
    sides = []
    for low, high, side in ((top, bottom, hw[0]), (left, right, hw[1])):
        at = np.arange(side) + 0.5
        near = np.minimum(at - low, high - at) / max(feather_px, 1e-6)
        sides.append(np.clip(1 + near, 0, 1).astype(np.float32))
    return sides[0][:, None] * sides[1][None]


def luminance(color: str) -> float:
    """Relative luminance in [0, 1] of an sRGB colour "#rrggbb" (WCAG 2)."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
