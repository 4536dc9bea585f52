"""Cells of boxes in the atlas: what each of them adds on average, in coordinates of the box.

shares = CellShares(side=7)
shares.add(share, bias_share, positive, resolved)   # of each image
shares.signed(), shares.bias(), shares.density()    # (7, 7), a number, (7, 7)

The cells that a stage reads are coordinates of the box that enters it, so nothing is resampled and
nothing lies beyond the box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def positive_parts(share: NDArray) -> NDArray[np.float64]:
    """The positive ones of shares (q, 1, n, n) as parts of their sum; 0 without a positive one."""
    positive = np.maximum(share.astype(np.float64), 0)
    total = positive.sum((-2, -1), keepdims=True)
    return positive / np.where(total > 0, total, 1)


class CellShares:
    """Sums over objects, of a stage: of signed shares, the bias's, and positive parts.

    objects, resolved   how many were added; how many of them count for `density`
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.objects = self.resolved = 0
        self._signed, self._positive = np.zeros((2, side, side))
        self._bias = 0.0

    def add(
        self, share: NDArray, bias_share: NDArray, positive: NDArray, resolved: NDArray
    ) -> None:
        """Add shares (q, 1, n, n), bias shares (q,), positive parts and which are resolved (q,)."""
        self.objects += len(share)
        self.resolved += int(resolved.sum())
        self._signed += share.sum((0, 1), dtype=np.float64)
        self._bias += float(bias_share.sum(dtype=np.float64))
        self._positive += positive[resolved].sum((0, 1))

    def signed(self) -> NDArray[np.float64]:
        """Mean signed share of each cell (n, n), row 0 at the top; with `bias` they sum to 1."""
        return self._signed / (self.objects or np.nan)

    def bias(self) -> float:
        """Mean share of the bias."""
        return self._bias / (self.objects or np.nan)

    def density(self) -> NDArray[np.float64]:
        """(n, n): mean positive part per area of the box; 1 everywhere: even over the box."""
        return self._positive * self.side**2 / (self.resolved or np.nan)
