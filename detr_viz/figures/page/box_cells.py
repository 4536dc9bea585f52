"""The signed shares of the cells of a box as tones of a panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.shown import BoxCells


def cell_tones(
    cells: BoxCells, heads: Sequence[int], crop: Crop, hw: tuple[int, int]
) -> np.ndarray:
    """Tones (N, H, W) of these panels: one half is a share of 0, and what is outside the box."""
    return np.stack([_tones(cells, head, crop, hw) for head in heads])


def _tones(cells: BoxCells, head: int, crop: Crop, hw: tuple[int, int]) -> np.ndarray:
    box, share = cells.boxes_xyxy_px[head].astype(np.float64), cells.shares[head]
    if not np.isfinite(box).all():
        return np.full(hw, 0.5)
    count = share.shape[-1]
    index, inside = [], []
    for axis, (first, last) in enumerate(((box[1], box[3]), (box[0], box[2]))):
        at = (crop.pixels(hw[axis], axis) - first) / max(float(last - first), 1e-6) * count
        index.append(np.clip(at, 0, count - 1).astype(np.intp))
        inside.append((at >= 0) & (at < count))
    value = np.nan_to_num(np.clip(share / cells.reach, -1, 1))
    return 0.5 + 0.5 * value[index[0]][:, index[1]] * (inside[0][:, None] & inside[1][None])
