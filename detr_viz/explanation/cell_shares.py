"""What each cell of the box of a query adds to what a stage puts out, in numpy alone.

e.cells(queries=[3], layer=5)                   # CellShares, or None: the attention reads no cells
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detr_viz.attention.grids import Grid


@dataclass(frozen=True, eq=False, repr=False)
class CellShares(ShortRepr):
    """Of q queries at one stage; the shares of a query and its bias share sum to 1.

    share          (q, n, n) float32, signed: of the cell's part in the stage's pre-norm output
    boxes_xyxy_px  (q, 4) float32: the boxes that enter the stage, pixels of the original image;
                   row 0 of the cells is the top of a box
    bias_share     (q,) float32
    """

    share: NDArray[np.float32]
    boxes_xyxy_px: NDArray[np.float32]
    bias_share: NDArray[np.float32]

    def of(self, places: Sequence[int]) -> CellShares:
        """The same of some of the queries, by their places."""
        chosen = list(places)
        return CellShares(self.share[chosen], self.boxes_xyxy_px[chosen], self.bias_share[chosen])


def image_boxes(
    boxes: NDArray[np.float32], grid: Grid, image_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes (q, 4) in [0, 1] of the network's input, padding included, in pixels of the image."""
    scale = [image_hw[axis] * grid.input_hw[axis] / grid.shown_hw[axis] for axis in (1, 0, 1, 0)]
    return (np.asarray(boxes, np.float64) * scale).astype(np.float32)
