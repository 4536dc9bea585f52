"""How much of the attention lies on each level, by the size of the object.

shares = LevelShares(heads=8, levels=4)
shares.add(level_weights(e, "combine", queries, layer), sizes_of(e.boxes_xyxy_px[queries]))
shares.means("small")                           # (M, L)

Small, medium and large are those of COCO: areas below 32^2, below 96^2, and from there on, in
pixels of the original image; here areas of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detr_viz.explanation.results import ExplanationBase

SIZES = ("small", "medium", "large")
_LEAST = (32**2, 96**2)  # area of a medium, of a large object


def sizes_of(boxes_xyxy_px: NDArray) -> NDArray[np.intp]:
    """(q,) places in SIZES."""
    sides = np.maximum(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], 0).astype(np.float64)
    return np.searchsorted(_LEAST, sides.prod(-1), side="right")


def level_weights(
    e: ExplanationBase, mode: str, queries: Sequence[int], layer: int
) -> NDArray[np.float64] | None:
    """The weight of each level, (q, M, L); None where there is one level.

    Of samples all count, those that fall off the map too; so a row sums to 1.
    """
    if len(e.grids(layer)) < 2:
        return None
    samples = e.samples(mode, queries, layer)
    if samples is not None:
        return samples[1].sum(-1, dtype=np.float64)
    levels = e.level_maps(mode, queries, layer)
    return np.stack([maps.sum((-2, -1), dtype=np.float64) for maps in levels], -1)


class LevelShares:
    """Sums over objects of each size. counts: how many, by their place in SIZES."""

    def __init__(self, heads: int, levels: int) -> None:
        self.counts = np.zeros(len(SIZES), int)
        self._sums = np.zeros((len(SIZES), heads, levels))

    def add(self, weights: NDArray, sizes: NDArray[np.intp]) -> None:
        """Add weights (q, M, L) of objects of these sizes (q,)."""
        self.counts += np.bincount(sizes, minlength=len(SIZES))
        np.add.at(self._sums, sizes, weights)

    def means(self, size: str = "") -> NDArray[np.float64]:
        """(M, L): mean share of each level, over objects of a size, or over all; NaN if none."""
        chosen = slice(None) if not size else [SIZES.index(size)]
        return self._sums[chosen].sum(0) / (self.counts[chosen].sum() or np.nan)
