"""Where the cells of a map lie in the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL_RULES = ("aligned", "centered")


@dataclass(frozen=True)
class Placement:
    """Where the cells of a map lie in the photo.

    input_hw  pixels of the resized network input
    stride    of the map, in those pixels
    rule      aligned: cell i is centred on pixel index stride * i of the resized image (a ResNet's
              windows are symmetric); centered: at (i + 0.5) / cells of it, as some models' own
              references say, whatever the stride
    """

    input_hw: tuple[int, int]
    stride: int
    rule: str = "aligned"

    def __post_init__(self) -> None:
        if self.rule not in CELL_RULES:
            raise ValueError(f"cell rule {self.rule!r} is not one of {', '.join(CELL_RULES)}")


def cell_centers(cells: int, image_px: int, place: Placement, axis: int) -> np.ndarray:
    """Centres of the cells along an axis (0: y, 1: x), pixel indices of the photo, (cells,).

    aligned: (stride * i + 0.5) * W0 / W - 0.5; centered: (i + 0.5) * W0 / w - 0.5.
    """
    i = np.arange(cells, dtype=np.float64)
    if place.rule == "centered":
        return (i + 0.5) * image_px / cells - 0.5
    return (place.stride * i + 0.5) * image_px / place.input_hw[axis] - 0.5


def cell_positions(out_px: int, cells: int, place: Placement, axis: int) -> np.ndarray:
    """Position of every panel pixel's centre, in cells, clamped to [0, cells - 1], (out_px,).

    Panel pixel j shows the fraction (j + 0.5) / out_px of the photo. The resized image has its
    pixel x = fraction * W - 0.5 there, whatever the photo's own size, and u = x / stride.
    """
    fraction = (np.arange(out_px) + 0.5) / out_px
    if place.rule == "centered":
        u = fraction * cells - 0.5
    else:
        u = (fraction * place.input_hw[axis] - 0.5) / place.stride
    return np.clip(u, 0, cells - 1)
