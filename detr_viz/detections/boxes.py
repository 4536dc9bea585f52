"""Boxes as numpy arrays: cxcywh (normalised) <-> xyxy (pixels), overlap, containment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cxcywh_to_xyxy(boxes: NDArray) -> NDArray:
    """(..., 4) centre and size -> (..., 4) left, top, right, bottom, in the same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate((centre - half, centre + half), -1)


def to_pixels(boxes: NDArray, image_hw: tuple[int, int]) -> NDArray:
    """Boxes (..., 4) in [0, 1] -> pixels of an image of (height, width)."""
    height, width = image_hw
    return boxes * np.asarray([width, height, width, height], boxes.dtype)


def area(boxes_xyxy: NDArray) -> NDArray:
    """(..., 4) -> (...), 0 where a box is empty or inverted."""
    return np.prod(np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None), -1)


def iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Intersection over union of every pair: xyxy (N, 4), (M, 4) -> (N, M) float64.

    0 where a box is empty, inverted or NaN.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(bottom_right - top_left, 0, None), -1)
    union = area(a)[:, None] + area(b)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def contains(boxes_xyxy: NDArray, x: float, y: float) -> NDArray[np.bool_]:
    """Which boxes (N, 4) hold the point, edges included: (N,)."""
    return (
        (boxes_xyxy[:, 0] <= x)
        & (x <= boxes_xyxy[:, 2])
        & (boxes_xyxy[:, 1] <= y)
        & (y <= boxes_xyxy[:, 3])
    )


def corners_in(
    box_xyxy_px: NDArray,
    photo_hw: tuple[int, int],
    top: int,
    left: int,
    hw: tuple[int, int],
    line_px: float,
) -> list[tuple[float, float]]:
    """Corners of a photo's box in a panel (hw at top, left) that shows the photo.

    A line of line_px along these corners has its edges on whole pixels and stays inside the panel.
    A box that is thinner than two lines is made wider, so that its inside can be seen.
    """
    sides = []
    for low, high, side, photo_side in zip(
        box_xyxy_px[:2], box_xyxy_px[2:], hw[::-1], photo_hw[::-1], strict=True
    ):
        first, last = float(low) * side / photo_side, float(high) * side / photo_side
        short = max(2 * line_px - (last - first), 0) / 2
        half, odd = line_px / 2, line_px % 2 / 2
        whole = (round(end - odd) + odd for end in (first - short, last + short))
        sides.append([min(max(end, half), side - half) for end in whole])
    xs, ys = sides
    return [(left + xs[i], top + ys[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
