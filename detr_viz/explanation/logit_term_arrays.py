"""The terms of attention logits as plain arrays, for processes without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class LogitTerms(ShortRepr):
    """The logits of q queries as a sum of products of query parts and key parts (logit_terms.py).

    terms     name of terms.TERMS -> logits at the layer's own scale, float32 (q, heads, h, w);
              their mean over the cells is subtracted
    total     their sum, (q, heads, h, w)
    weights   softmax of the sum, (q, heads, h, w)
    shares    name -> cov(term, total) / var(total) over the cells, (q, heads); they sum to 1, and
              are NaN where the total is flat
    residual  largest difference between the sum and the logits that the network itself computes
    axes      of attention that is a column times a row: name -> row (q, heads, w), column
              (q, heads, h), the mean of each subtracted; their sum at a cell is the term there.
              {} for other attention
    """

    terms: Mapping[str, NDArray[np.float32]]  # (q, M, h, w)
    total: NDArray[np.float32]  # (q, M, h, w)
    weights: NDArray[np.float32]  # (q, M, h, w)
    shares: Mapping[str, NDArray[np.float32]]  # (q, M)
    residual: float
    # (q, M, w), (q, M, h)
    axes: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(
        default_factory=dict
    )

    @property
    def axes_total(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:  # (q, M, w), (q, M, h)
        """The sum of all terms on each axis, (q, heads, w) and (q, heads, h)."""
        if not self.axes:
            return None
        row, column = (sum(parts[1:], parts[0]) for parts in zip(*self.axes.values(), strict=True))
        return row, column

    def of(self, rows: Sequence[int]) -> LogitTerms:
        """The terms of some of the queries, given by their positions."""
        chosen = list(rows)
        return LogitTerms(
            {name: part[chosen] for name, part in self.terms.items()},
            self.total[chosen],
            self.weights[chosen],
            {name: share[chosen] for name, share in self.shares.items()},
            self.residual,
            {name: (row[chosen], column[chosen]) for name, (row, column) in self.axes.items()},
        )
