"""Scale attention of an encoder: how much of each level a block puts into each level.

e.scales                                        # ScaleAttention, or None: there is none
e.scales.weights[0, 1]                          # block 0, level 1: of finer, own, coarser
e.scales.maps[1][0]                             # the same: shares in each cell, (3, h, w)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import by_level
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
    grids    of the levels
    maps     of each level (blocks, 3, h, w): the shares in each cell, which sum to 1 there; NaN
             where there is no such level
    """

    weights: NDArray[np.float32]  # (blocks, levels, 3)
    shares: NDArray[np.float32]  # (blocks, levels, 3)
    grids: tuple[Grid, ...]
    maps: tuple[NDArray[np.float32], ...]  # of each level (blocks, 3, h, w)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels, pixels of the network's input."""
        return tuple(grid.stride for grid in self.grids)

    @property
    def num_blocks(self) -> int:
        return len(self.weights)


class Scaled(NamedTuple):
    """The same of a batch of images, in the network's own numbers.

    weights, shares (B, blocks, levels, 3); maps (B, blocks, 3, S), level by level.
    """

    weights: Tensor
    shares: Tensor
    maps: Tensor

    __repr__ = brief_tuple

    @classmethod
    def of(cls, encoded: Any) -> Scaled:
        """Of what an encoder of such levels gave."""
        return cls(encoded.scale_weights, encoded.scale_shares, encoded.scale_maps)

    def of_image(self, i: int) -> Scaled:
        """As if image i had been alone."""
        return Scaled(*(x[i : i + 1] for x in self))

    def values(self, grids: tuple[Grid, ...]) -> ScaleAttention:
        """Of the only image as plain values."""
        weights, shares, maps = (x[0].cpu().float().numpy() for x in self)
        return ScaleAttention(weights, shares, grids, by_level(maps, grids))
