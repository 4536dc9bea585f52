"""Photo and maps to pixels: every cell in its place, every panel at the size of the page.

    photo  = tiles.resize_photo(rgb, (114, 152), crop)
    field  = tiles.resample(maps, grid, (114, 152), crop)          (N, 114, 152) float32
    panels = tiles.colorize(tone, ground, table)                   (N, 114, 152, 4) uint8

Letters: N panels, h w cells of a map, H W pixels of a panel, H0 W0 pixels of the photo. A panel
shows the part of the photo that its crop says. numpy and Pillow only: what a colour means is
decided by the caller.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from detr_viz.attention.grids import Grid
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.styles import INTERPOLATIONS
from detr_viz.images import large

SMOOTH_CELLS = 0.6  # sigma of "smooth", in cells
SMOOTH_PT = 0.6  # and in points at least: one cell is never a speck
_SIGMAS = 4.0  # where the Gaussian ends


@lru_cache(maxsize=256)
def interpolation_weights(
    out_px: int,
    grid: Grid,
    axis: int,
    interpolation: str,
    crop: Crop,
    photo_px: int,
    beyond: int = 0,
    least_px: float = 0.0,
) -> np.ndarray:
    """Matrix from cells to panel pixels along an axis, (out_px + 2 * beyond, cells) float32.

    photo_px  pixels of the whole photo along the axis
    beyond    pixels on either side of the panel
    least_px  of "smooth": sigma in pixels at least
    An even map gives one value everywhere. smooth: each cell is spread by a Gaussian, and what
    would leave the map is folded back, so that its sum is kept. The others interpolate between
    cell centres, and are flat beyond the outermost; where a panel has fewer pixels than the map
    cells, a row averages over its pixel's extent, so that no cell is skipped.
    """
    cells = grid.hw[axis]
    shown_px = (crop.y1 - crop.y0, crop.x1 - crop.x0)[axis]
    centers = grid.centers(photo_px, axis) + 0.5
    pitch = float(centers[1] - centers[0]) if cells > 1 else float(photo_px)
    cell_px = pitch * out_px / shown_px
    if interpolation == "smooth":
        u = (crop.pixels(out_px, axis, beyond) - centers[0]) / pitch
        # half a pixel at least: in a narrower Gaussian a cell may lie between all pixels' centres
        weights = _gaussian(u, cells, max(SMOOTH_CELLS, max(least_px, 0.5) / cell_px))
    else:
        finer = max(math.ceil(1 / cell_px), 1)
        low, high = ((crop.y0, crop.y1), (crop.x0, crop.x1))[axis]
        step = (high - low) / out_px
        count = (out_px + 2 * beyond) * finer
        at = low - beyond * step + (np.arange(count) + 0.5) * step / finer
        u = np.clip((at - centers[0]) / pitch, 0, cells - 1)
        weights = weights_at(u, cells, interpolation)
        weights = weights.reshape(out_px + 2 * beyond, finer, cells).mean(1)
    weights = weights.astype(np.float32)
    weights.setflags(write=False)  # rows of one figure share it
    return weights


def _gaussian(u: np.ndarray, cells: int, sigma: float) -> np.ndarray:
    """Gaussians around the cells at positions u, (u.size, cells); folded at the map's borders.

    Beyond the borders they go on as they would without: a peak at the border fades there.
    """
    weights = np.zeros((u.size, cells))
    centers = np.arange(cells)
    # at a position beyond a border the pixel shows what is folded as well: it is clamped
    inside = np.clip(u, -0.5, cells - 0.5)
    for mirrored in (centers, -1 - centers, 2 * cells - 1 - centers):
        apart = (inside[:, None] - mirrored) / sigma
        weights += np.where(np.abs(apart) < _SIGMAS, np.exp(-0.5 * apart * apart), 0)
    weights /= sigma * math.sqrt(2 * math.pi)
    # the sum over cells ripples around 1: an even map must be even
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)


def weights_at(u: np.ndarray, cells: int, interpolation: str) -> np.ndarray:
    """Matrix from cells to positions u in cells, (u.size, cells) float64; rows sum to 1.

    At a whole u the row is that cell alone, exactly.
    """
    if interpolation not in INTERPOLATIONS[1:]:
        have = ", ".join(INTERPOLATIONS[1:])
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
    maps: np.ndarray,
    grid: Grid,
    out_hw: tuple[int, int],
    crop: Crop,
    photo_hw: tuple[int, int],
    interpolation: str = "linear",
    beyond: int = 0,
    least_px: float = 0.0,
) -> np.ndarray:
    """Maps (..., h, w) to panels (..., H, W) float32: two small products for all maps at once.

    Arguments as of interpolation_weights. cubic may pass the cells' values a little.
    """
    rows, columns = (
        interpolation_weights(
            out_hw[axis], grid, axis, interpolation, crop, photo_hw[axis], beyond, least_px
        )
        for axis in (0, 1)
    )
    maps = np.asarray(maps, np.float32)
    # as two products of matrices: a product for each map waits for threads each time
    across = maps.reshape(-1, maps.shape[-1]) @ columns.T
    across = across.reshape(-1, maps.shape[-2], len(columns)).transpose(1, 0, 2)
    down = rows @ across.reshape(maps.shape[-2], -1)
    panels = down.reshape(len(rows), -1, len(columns)).transpose(1, 0, 2)
    return panels.reshape(*maps.shape[:-2], len(rows), len(columns))


def resize_photo(rgb: np.ndarray, out_hw: tuple[int, int], crop: Crop | None = None) -> np.ndarray:
    """Photo (H0, W0, 3) uint8, or a part of it, to a panel's size, (H, W, 3) uint8, antialiased."""
    crop = crop or Crop.whole(rgb.shape[:2])
    high, wide = crop.size_hw
    grows = out_hw[0] >= high and out_hw[1] >= wide
    method = Image.Resampling.BICUBIC if grows else Image.Resampling.LANCZOS
    size, box = (out_hw[1], out_hw[0]), (crop.x0, crop.y0, crop.x1, crop.y1)
    # reducing_gap: large photos shrink by whole factors first, much faster, to the same picture
    return large.resized(rgb, size, method, box, reducing_gap=3.0)


def fading(out_hw: tuple[int, int], beyond: int) -> np.ndarray:
    """(H + 2 beyond, W + 2 beyond) float32: 1 on the panel, falling to 0 around it."""
    sides = []
    for side in out_hw:
        at = np.arange(-beyond, side + beyond) + 0.5
        out = np.maximum(np.maximum(-at, at - side), 0)
        sides.append(np.clip(1 - out / max(beyond, 1e-6), 0, 1))
    return (sides[0][:, None] * sides[1][None]).astype(np.float32)


def colorize(tone: np.ndarray, ground: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Panels (N, H, W, 4) uint8: tones (N, H, W) in [0, 1] over ground (H, W), by a table."""
    index = np.rint(np.clip(tone, 0, 1) * 255).astype(np.uint16)
    index <<= 8
    index |= ground
    return np.take(table.reshape(-1, 4), index, axis=0)


def blank_sheet(height: int, width: int) -> np.ndarray:
    """White page (height, width, 4) uint8 that panels are pasted on."""
    return np.full((height, width, 4), 255, np.uint8)


def paste(sheet: np.ndarray, tile: np.ndarray, top: int, left: int) -> None:
    """Put a tile (H, W, 3 or 4) on the sheet, in place; what would lie outside is left out."""
    up, before = max(-top, 0), max(-left, 0)
    tile = tile[up : sheet.shape[0] - top, before : sheet.shape[1] - left]
    height, width, channels = tile.shape
    top, left = top + up, left + before
    sheet[top : top + height, left : left + width, :channels] = tile
