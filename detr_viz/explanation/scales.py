"""Scale attention of an encoder: how much of each level a block puts into each level.

e.scales                                        # ScaleAttention, or None: there is none
e.scales.weights[0, 1]                          # block 0, level 1: of finer, own, coarser
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr, brief_tuple

if TYPE_CHECKING:
    from torch import Tensor

    from detr_viz.attention.grids import Grid

PARTS = ("finer", "own", "coarser")


@dataclass(frozen=True, eq=False, repr=False)
class ScaleAttention(ShortRepr):
    """Numbers of each encoder block, level and part, (blocks, levels, 3) float32.

    weights  in [0, 1]; NaN where there is no such level
    shares   of the part in the block's sum, signed; they sum to 1 over the parts
    strides  of the levels, pixels of the network's input
    """

    weights: NDArray[np.float32]  # (blocks, levels, 3)
    shares: NDArray[np.float32]  # (blocks, levels, 3)
    strides: tuple[int, ...]

    @property
    def num_blocks(self) -> int:
        return len(self.weights)


class Scaled(NamedTuple):
    """The same of a batch of images, in the network's own numbers: (B, blocks, levels, 3)."""

    weights: Tensor
    shares: Tensor

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Scaled:
        """As if image i had been alone."""
        return Scaled(self.weights[i : i + 1], self.shares[i : i + 1])

    def values(self, grids: tuple[Grid, ...]) -> ScaleAttention:
        """Of the only image as plain values."""
        weights, shares = (x[0].cpu().float().numpy() for x in self)
        return ScaleAttention(weights, shares, tuple(grid.stride for grid in grids))
