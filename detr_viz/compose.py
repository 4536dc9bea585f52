"""Photo and maps to pixels: every cell where it lies, every panel at the size it is shown.

    photo  = compose.resize_photo(rgb, (114, 152))
    table  = compose.blend_table(lut_256x3)
    levels = compose.resample(maps / maps.max((1, 2), keepdims=True), place, (114, 152))
    tiles  = compose.overlay(levels, compose.backdrop(photo), table)         (N, 114, 152, 4) uint8

Letters: N panels, h w cells of a map, H W pixels of a panel, H0 W0 pixels of the photo. A panel shows the
whole photo. numpy and Pillow only: what a colour means is decided by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

INTERPOLATIONS = ("cubic", "linear", "nearest")
CELL_RULES = ("aligned", "centered")

# The photo under a map: its tones are squeezed into this range of grey, whatever light it was taken in.
_GRAY_RANGE = (44.0, 122.0)
_MEDIAN_TONE = 0.45
_GAMMAS = (0.5, 1.7)
_MIN_SPAN = 50.0  # tones of a foggy photo are not spread further: that would show noise
_OPACITY = 0.94  # of the largest weight: the object stays visible under it
_OPACITY_GAMMA = 0.9


@dataclass(frozen=True)
class Placement:
    """Where the cells of a map lie in the photo (SEMANTICS.md, Input).

    ``input_hw``: pixels of the resized network input. ``stride``: of the map, in those pixels. ``rule``:
    ``aligned``: cell i is centred on pixel index stride * i of the resized image (ResNets: every window is
    symmetric); ``centered``: at the fraction (i + 0.5) / cells of the image (models whose own references say so).
    """

    input_hw: tuple[int, int]
    stride: int
    rule: str = "aligned"

    def __post_init__(self) -> None:
        if self.rule not in CELL_RULES:
            raise ValueError(f"cell rule {self.rule!r}: expected one of {', '.join(CELL_RULES)}")


def cell_centers(cells: int, image_px: int, place: Placement, axis: int) -> np.ndarray:
    """Centre of every cell along one axis (0: y, 1: x), as pixel indices of the original photo, (cells,) float64.

    aligned: (stride * i + 0.5) * W0 / W - 0.5; centered: (i + 0.5) * W0 / w - 0.5.
    """
    i = np.arange(cells, dtype=np.float64)
    if place.rule == "centered":
        return (i + 0.5) * image_px / cells - 0.5
    return (place.stride * i + 0.5) * image_px / place.input_hw[axis] - 0.5


def cell_positions(out_px: int, cells: int, place: Placement, axis: int, oversample: int = 1) -> np.ndarray:
    """Position of every panel pixel's centre in units of cells, clamped to [0, cells - 1], float64.

    Panel pixel j lies at (j + 0.5) / out_px of the photo, so its place in the resized image does not depend on the
    photo's own size: x = (j + 0.5) * W / out_px - 0.5, and u = x / stride.
    """
    fraction = (np.arange(out_px * oversample) + 0.5) / (out_px * oversample)
    if place.rule == "centered":
        u = fraction * cells - 0.5
    else:
        u = (fraction * place.input_hw[axis] - 0.5) / place.stride
    return np.clip(u, 0, cells - 1)


def interpolation_weights(out_px: int, cells: int, place: Placement, axis: int, interpolation: str) -> np.ndarray:
    """Matrix that takes cells to panel pixels along one axis, (out_px, cells) float32; rows sum to 1.

    Where a panel has fewer pixels than cells, each row averages over its pixel's extent, so no cell is skipped.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation {interpolation!r}: expected one of {', '.join(INTERPOLATIONS)}")
    oversample = -(-cells // out_px)
    u = cell_positions(out_px, cells, place, axis, oversample)
    first = np.floor(u + 0.5 if interpolation == "nearest" else u).astype(np.intp)
    weights = np.zeros((u.size, cells), np.float32)
    rows = np.arange(u.size)
    for step, share in _shares(u - first, interpolation):
        np.add.at(weights, (rows, np.clip(first + step, 0, cells - 1)), share)
    return weights.reshape(out_px, oversample, cells).mean(1) if oversample > 1 else weights


def _shares(f: np.ndarray, interpolation: str) -> list[tuple[int, np.ndarray]]:
    """(step from the first cell, its weight) for a pixel that lies ``f`` beyond the first cell's centre."""
    if interpolation == "nearest":
        return [(0, np.ones_like(f))]
    if interpolation == "linear":
        return [(0, 1 - f), (1, f)]
    return [  # Keys (1981), a = -1/2
        (-1, ((-0.5 * f + 1) * f - 0.5) * f),
        (0, (1.5 * f - 2.5) * f * f + 1),
        (1, ((-1.5 * f + 2) * f + 0.5) * f),
        (2, (0.5 * f - 0.5) * f * f),
    ]


def resample(
    maps: np.ndarray, place: Placement, out_hw: tuple[int, int], interpolation: str = "linear"
) -> np.ndarray:
    """Maps (..., h, w) to panels (..., H, W) float32: separable, two small products for all maps at once.

    All give every cell its own value at its centre, and are flat beyond the outermost centres. ``linear`` is
    straight between them; ``cubic`` is smooth, and may pass the cells' values a little; ``nearest`` shows the cells.
    """
    rows = interpolation_weights(out_hw[0], maps.shape[-2], place, 0, interpolation)
    columns = interpolation_weights(out_hw[1], maps.shape[-1], place, 1, interpolation)
    return rows @ (np.asarray(maps, np.float32) @ columns.T)


def resize_photo(rgb: np.ndarray, out_hw: tuple[int, int]) -> np.ndarray:
    """Photo (H0, W0, 3) uint8 to panel size (H, W, 3) uint8, antialiased."""
    grows = out_hw[0] >= rgb.shape[0] and out_hw[1] >= rgb.shape[1]
    method = Image.Resampling.BILINEAR if grows else Image.Resampling.LANCZOS
    size = (out_hw[1], out_hw[0])
    # reducing_gap: a 24-megapixel photo is first shrunk by whole factors, many times faster, same picture
    return np.asarray(Image.fromarray(rgb).resize(size, method, reducing_gap=3.0))


def backdrop(photo: np.ndarray) -> np.ndarray:
    """What lies under a map: the photo (H, W, 3) uint8 without colour, dark and low in contrast, (H, W) uint8.

    The tones between the 2nd and 98th percentile go to a fixed range with the median at a fixed place in it, so a
    night scene and an overexposed one give the same calm ground, and the map is the brightest thing in the panel.
    """
    gray = np.asarray(Image.fromarray(photo).convert("L"), np.float32)
    low, median, high = np.percentile(gray, (2, 50, 98))
    span = max(float(high - low), _MIN_SPAN)
    low = (low + high - span) / 2
    middle = min(max((median - low) / span, 0.02), 0.98)
    gamma = min(max(np.log(_MEDIAN_TONE) / np.log(middle), _GAMMAS[0]), _GAMMAS[1])
    tone = np.clip((gray - low) / span, 0, 1.15) ** gamma
    dark, light = _GRAY_RANGE
    return np.rint(dark + (light - dark) * np.minimum(tone, 1.15)).astype(np.uint8)


def blend_table(lut: np.ndarray) -> np.ndarray:
    """All results of laying a map's colour over grey: (256 levels, 256 greys, 4) uint8 RGBA from a 256 x 3 uint8 LUT.

    Opacity follows the level, alpha = 0.94 * (level / 255) ** 0.9, so level 0 is the bare photo. One look-up a
    pixel replaces the arithmetic.
    """
    alpha = (_OPACITY * (np.arange(256) / 255) ** _OPACITY_GAMMA)[:, None, None]
    gray = np.arange(256, dtype=np.float64)[None, :, None]
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.rint(alpha * np.asarray(lut, np.float64)[:, None, :] + (1 - alpha) * gray)
    return table


def overlay(levels: np.ndarray, ground: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Panels (N, H, W, 4) uint8: ``levels`` (N, H, W) in [0, 1] over ``ground`` (H, W) uint8, by ``blend_table``."""
    index = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint16)
    index <<= 8
    index |= ground
    return np.take(table.reshape(-1, 4), index, axis=0)


def corner_mask(panel_hw: tuple[int, int], size_hw: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """1 in a corner of a panel, falling softly to 0, (H, W) float32: the ground for a number.

    ``size_hw``: pixels that are fully 1; it fades out over half as much again. ``corner``: (0 top | 1 bottom, 0 left | 1 right).
    """
    ramps = []
    for length, size, far in zip(panel_hw, size_hw, corner, strict=True):
        distance = np.arange(length) + 0.5
        fade = np.clip((1.5 * size - distance) / (0.5 * size), 0, 1)
        ramp = fade * fade * (3 - 2 * fade)
        ramps.append(ramp[::-1] if far else ramp)
    return np.outer(*ramps).astype(np.float32)


def blank_sheet(height: int, width: int) -> np.ndarray:
    """White RGBA page (height, width, 4) uint8 that panels are pasted on."""
    return np.full((height, width, 4), 255, np.uint8)


def paste(sheet: np.ndarray, tile: np.ndarray, top: int, left: int) -> None:
    """Put a tile (H, W, 3 or 4) on the sheet, in place."""
    height, width, channels = tile.shape
    sheet[top : top + height, left : left + width, :channels] = tile
