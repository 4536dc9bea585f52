"""Photo and maps to pixels: every cell in its place, every panel at the size of the page.

    photo  = tiles.resize_photo(rgb, (114, 152))
    table  = tiles.blend_table(lut)                                  (256, 3) uint8 colours
    levels = tiles.resample(maps / maps.max((1, 2), keepdims=True), grid, (114, 152))
    tiles  = tiles.colorize(levels, tiles.backdrop(photo), table)  (N, 114, 152, 4) uint8

Letters: N panels, h w cells of a map, H W pixels of a panel, H0 W0 pixels of the photo. A panel
shows the whole photo. numpy and Pillow only: what a colour means is decided by the caller.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from detr_viz.attention.grids import Grid
from detr_viz.figures.styles import INTERPOLATIONS

# The photo under a map: its tones go to this range of grey, whatever light it was taken in.
_GRAY_RANGE = (44.0, 122.0)
MIDDLE_GRAY = 79  # what a photo's median becomes in it
_MEDIAN_TONE = 0.45  # where in the range the photo's median goes, as far as
_GAMMAS = (0.5, 1.7)  # a gamma in these limits can bring it
_MIN_SPAN = 50.0  # the tones of a foggy photo are spread no further: that would show noise
_HIGHLIGHTS = 1.15  # the brightest 2 % may pass the range by so much of it

_OPACITY = 0.94  # of the largest weight: the object stays visible under it


@lru_cache(maxsize=64)
def interpolation_weights(out_px: int, grid: Grid, axis: int, interpolation: str) -> np.ndarray:
    """Matrix from cells to panel pixels along an axis, (out_px, cells) float32; rows sum to 1.

    Where a panel has fewer pixels than the map cells, a row averages over its pixel's extent, so
    that no cell is skipped.
    """
    cells = grid.hw[axis]
    oversample = -(-cells // out_px)
    u = grid.positions(out_px * oversample, axis)
    weights = weights_at(u, cells, interpolation)
    weights = weights.reshape(out_px, oversample, cells).mean(1).astype(np.float32)
    weights.setflags(write=False)  # rows of one figure share it
    return weights


def weights_at(u: np.ndarray, cells: int, interpolation: str) -> np.ndarray:
    """Matrix from cells to positions u in cells, (u.size, cells) float64; rows sum to 1.

    At a whole u the row is that cell alone, exactly.
    """
    if interpolation not in INTERPOLATIONS:
        have = ", ".join(INTERPOLATIONS)
        raise ValueError(f"interpolation {interpolation!r} is not one of {have}")
    first = np.floor(u + 0.5 if interpolation == "nearest" else u).astype(np.intp)
    weights = np.zeros((u.size, cells))
    rows = np.arange(u.size)
    for step, share in _shares(u - first, interpolation):
        np.add.at(weights, (rows, np.clip(first + step, 0, cells - 1)), share)
    return weights


def _shares(f: np.ndarray, interpolation: str) -> list[tuple[int, np.ndarray]]:
    """(step from the first cell, its weight) for pixels that lie f beyond that cell's centre."""
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
    maps: np.ndarray, grid: Grid, out_hw: tuple[int, int], interpolation: str = "linear"
) -> np.ndarray:
    """Maps (..., h, w) to panels (..., H, W) float32: two small products for all maps at once.

    Every cell has its own value at its centre, and beyond the outermost centres a map is flat.
    linear: straight between centres; cubic: smooth, may pass the cells' values a little (so clip
    what must not be negative); nearest: shows the cells.
    """
    rows, columns = (
        interpolation_weights(out_hw[axis], grid, axis, interpolation) for axis in (0, 1)
    )
    return rows @ (np.asarray(maps, np.float32) @ columns.T)


def resize_photo(rgb: np.ndarray, out_hw: tuple[int, int]) -> np.ndarray:
    """Photo (H0, W0, 3) uint8 to a panel's size, (H, W, 3) uint8, antialiased."""
    grows = out_hw[0] >= rgb.shape[0] and out_hw[1] >= rgb.shape[1]
    method = Image.Resampling.BILINEAR if grows else Image.Resampling.LANCZOS
    size = (out_hw[1], out_hw[0])
    # reducing_gap: large photos shrink by whole factors first, much faster, to the same picture
    return np.asarray(Image.fromarray(rgb).resize(size, method, reducing_gap=3.0))


def backdrop(photo: np.ndarray) -> np.ndarray:
    """What lies under a map: the photo (H, W, 3) uint8 grey, dark, low in contrast, (H, W) uint8.

    Its tones between the 2nd and 98th percentile go to a fixed range, its median to one place in
    it: a night scene and an overexposed one give the same calm ground, darker than any bright map.
    """
    gray = np.asarray(Image.fromarray(photo).convert("L"), np.float64)
    low, median, high = np.percentile(gray, (2, 50, 98))
    span = max(high - low, _MIN_SPAN)
    low = (low + high - span) / 2
    middle = min(max((median - low) / span, 0.02), 0.98)
    gamma = min(max(np.log(_MEDIAN_TONE) / np.log(middle), _GAMMAS[0]), _GAMMAS[1])
    tone = np.minimum(np.maximum((gray - low) / span, 0) ** gamma, _HIGHLIGHTS)
    dark, light = _GRAY_RANGE
    return np.rint(dark + (light - dark) * tone).astype(np.uint8)


def blend_table(lut: np.ndarray) -> np.ndarray:
    """A map's colour laid over grey, every case: (256 levels, 256 greys, 4) uint8 RGBA.

    lut: (256, 3) uint8. Opacity follows the level, 0.94 * level / 255, so that level 0 is the bare
    ground. One look-up a pixel then replaces the arithmetic.
    """
    alpha = (_OPACITY * np.arange(256) / 255)[:, None, None]
    gray = np.arange(256, dtype=np.float64)[None, :, None]
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.rint(alpha * np.asarray(lut, np.float64)[:, None] + (1 - alpha) * gray)
    return table


def opaque_table(lut: np.ndarray) -> np.ndarray:
    """The same table for a map alone: its colour, whatever lies under it."""
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = lut[:, None]
    return table


def signed_table(lut: np.ndarray, opaque: bool = False) -> np.ndarray:
    """The same for values of both signs: level 127.5 is 0 and the bare ground, the ends opaque.

    opaque: the colour alone, whatever lies under it.
    """
    if opaque:
        return opaque_table(lut)
    alpha = (_OPACITY * np.abs(np.arange(256) / 127.5 - 1))[:, None, None]
    gray = np.arange(256, dtype=np.float64)[None, :, None]
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.rint(alpha * np.asarray(lut, np.float64)[:, None] + (1 - alpha) * gray)
    return table


def colorize(levels: np.ndarray, ground: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Panels (N, H, W, 4) uint8: levels (N, H, W) in [0, 1] over ground (H, W), by a table."""
    index = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint16)
    index <<= 8
    index |= ground
    return np.take(table.reshape(-1, 4), index, axis=0)


def blank_sheet(height: int, width: int) -> np.ndarray:
    """White page (height, width, 4) uint8 that panels are pasted on."""
    return np.full((height, width, 4), 255, np.uint8)


def paste(sheet: np.ndarray, tile: np.ndarray, top: int, left: int) -> None:
    """Put a tile (H, W, 3 or 4) on the sheet, in place."""
    height, width, channels = tile.shape
    sheet[top : top + height, left : left + width, :channels] = tile
