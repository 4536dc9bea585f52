"""Which part of the photo a panel shows: all of it, or a view around a small box.

crop = crop_of(box, photo_hw, grid, "auto")
crop.x0, crop.x1            # edges in pixels of the photo
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detr_viz.attention.grids import Grid

_AROUND = 0.9  # of the box's size, on each of its sides
_LEAST_CELLS = 10  # of a map, in the width of a view
_LARGEST = 0.5  # of the photo's width: what is wider is shown whole


@dataclass(frozen=True)
class Crop:
    """Edges of a view in pixels of the photo, and whether it is less than the photo."""

    x0: float
    y0: float
    x1: float
    y1: float
    is_part: bool = False

    @classmethod
    def whole(cls, photo_hw: tuple[int, int]) -> Crop:
        return cls(0.0, 0.0, float(photo_hw[1]), float(photo_hw[0]))

    @property
    def size_hw(self) -> tuple[float, float]:
        return self.y1 - self.y0, self.x1 - self.x0

    def pixels(self, out_px: int, axis: int, beyond: int = 0) -> np.ndarray:
        """Centres of a panel's pixels along an axis (0: y), pixels of the photo; as many beyond."""
        low, high = ((self.y0, self.y1), (self.x0, self.x1))[axis]
        at = (np.arange(-beyond, out_px + beyond) + 0.5) / out_px
        return low + at * (high - low)

    def on_panel(self, xy: np.ndarray, left: float, top: float, hw: tuple[int, int]) -> np.ndarray:
        """Points (..., 2), x before y, of the photo as points of the page, for a panel there."""
        size, first = np.array(self.size_hw[::-1]), np.array([self.x0, self.y0])
        return (np.asarray(xy, np.float64) - first) / size * np.array(hw[::-1]) + (left, top)


def crop_of(
    box_xyxy_px: np.ndarray | None,
    photo_hw: tuple[int, int],
    grid: Grid | None,
    zoom: str | float,
    around: float = _AROUND,
    largest: float = _LARGEST,
) -> Crop:
    """The view of a box: the box and .9 of its size on each side, in the photo's own shape.

    zoom  "none": the whole photo. "auto": a view that is at least ten cells of the map wide, where
          this is less than half of the photo. A factor: the photo's size divided by it, around the
          middle of the box.
    around  of the box's size, on each of its sides
    largest  share of the photo's width from which on the whole photo is shown
    """
    whole = Crop.whole(photo_hw)
    if zoom == "none" or box_xyxy_px is None or not np.isfinite(box_xyxy_px).all():
        return whole
    size = np.array(photo_hw[::-1], np.float64)
    box = np.clip(np.asarray(box_xyxy_px, np.float64), 0, [*size, *size])
    if zoom == "auto":
        share = float(((box[2:] - box[:2]) * (1 + 2 * around) / size).max())
        if grid is not None:
            cell = abs(float(np.diff(grid.centers(photo_hw[1], 1)[:2])[0])) if grid.hw[1] > 1 else 0
            share = max(share, _LEAST_CELLS * cell / size[0])
        if share >= largest or share <= 0:
            return whole
    else:
        share = 1 / float(zoom)
        if share >= 1:
            return whole
    half = size * share / 2
    middle = np.clip((box[:2] + box[2:]) / 2, half, size - half)
    (x0, y0), (x1, y1) = middle - half, middle + half
    return Crop(float(x0), float(y0), float(x1), float(y1), is_part=True)
