"""Factored attention: the map of each head is a column of weights times a row of weights.

attention = ...                                 # FactoredAttention, captured at one site
attention.axes("position", rows=[3])            # row (M, 1, w), column (M, 1, h)
attention.weights("position", rows=[3])         # their outer product, (M, 1, h * w)

Each axis is dense attention with keys of its own (Anchor DETR, section 3.3: RCDA):

    row    = softmax over w of (c_q + p_q + b_q) . (c_k + p_k + b_k) * scale      the same: column
    weight of cell (y, x) = column[y] * row[x]

so it is also the softmax over all cells of the sum of both axes' logits, and every mode, sum of
terms and removal means what it means for dense attention. Only tensor maths: no model, no image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detr_viz.attention.base import AXES, Rows, one_of
from detr_viz.attention.dense import DenseAttention, normalize
from detr_viz.attention.grids import Grid
from detr_viz.attention.self_check import mixed, residual_of_rows
from detr_viz.attention.terms import MODES, TERMS, Mode

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal


@dataclass(frozen=True, eq=False)
class FactoredAttention:
    """Both axes of one site, projected and split into heads (an `Attention`).

    row      dense attention over the w columns of the grid; its value is the mean of each column's
    column   dense attention over the h rows of the grid; its value is the mean of each row's
    value    (M, S, D) of the cells, S = h * w
    padding  (S,) True = padding, or None
    grids    of the cells; () while they are not known
    """

    row: DenseAttention
    column: DenseAttention
    value: Tensor
    padding: Tensor | None = None
    grids: tuple[Grid, ...] = ()

    kind = "factored"
    term_names = tuple(TERMS)
    separate = False

    def __repr__(self) -> str:
        h, w = self.hw
        sizes = f"{self.num_heads} heads, {self.num_rows} rows, {h} x {w} cells"
        return f"FactoredAttention({sizes}, scale {self.row.scale:.3g})"

    def of_image(self, i: int) -> FactoredAttention:
        """One image of a batch. All fields of a batch begin with B."""
        one = one_of(self, i, ("value", "padding"))
        return replace(one, row=self.row.of_image(i), column=self.column.of_image(i))

    @property
    def num_heads(self) -> int:
        return self.row.num_heads

    @property
    def num_rows(self) -> int:
        return self.row.num_rows

    @property
    def key_padding_mask(self) -> Tensor | None:
        """The padding, under its name in dense attention."""
        return self.padding

    @property
    def hw(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.column.c_k.shape[-2], self.row.c_k.shape[-2]

    @property
    def modes(self) -> dict[str, str]:
        """Mode -> formula, which holds for both axes."""
        return {mode: parts.formula for mode, parts in MODES.items()}

    def scale_of(self, mode: str | Mode, rule: str = "mode") -> float:
        """Factor of the logits; the same for both axes."""
        return self.row.scale_of(mode, rule)

    def axes(
        self, mode: str | Mode = "combine", rows: Rows = None, scale: str = "mode"
    ) -> tuple[Tensor, Tensor]:
        """row (M, q, w), column (M, q, h); each sums to 1."""
        return self.row.weights(mode, rows, scale), self.column.weights(mode, rows, scale)

    def weights(
        self, mode: str | Mode = "combine", rows: Rows = None, scale: str = "mode"
    ) -> Tensor:
        """(M, q, S): column times row; every row sums to 1."""
        row, column = self.axes(mode, rows, scale)
        return _outer(row, column)

    def even(self, rows: Rows = None) -> Tensor:
        """(M, 1, S): the same weight on every cell that is not padding."""
        flat = self.value.new_zeros(self.num_heads, 1, self.value.shape[-2])
        return normalize(flat, self.padding)

    def axis_logits(self, name: str, rows: Rows = None) -> tuple[Tensor, Tensor]:
        """One of `term_names` on each axis: (M, q, w), (M, q, h); padding not masked."""
        return self.row.term_logits(name, rows), self.column.term_logits(name, rows)

    def axes_kept(self) -> tuple[Tensor, Tensor]:
        """True at the columns (w,) and rows (h,) of the grid that are not padding alone."""
        if self.padding is None:
            shown = torch.ones(self.hw, dtype=torch.bool, device=self.value.device)
        else:
            shown = ~self.padding.view(self.hw)
        return shown.any(0), shown.any(1)

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, S) of one of `term_names`: the sum of both axes, whose softmax is the map."""
        return _sum(*self.axis_logits(name, rows))

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check of the outer product; see self_check.py."""
        context = partial(mixed, partial(self.weights, "combine", scale="layer"), self.value)
        return residual_of_rows(context, self.even() @ self.value, out, project_out)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, S), context (M, Q, D)) without a part.

        Terms are removed on both axes; without an axis all its places get the same weight. hidden:
        (Q, S) True where a query must not attend; the other cells share the weight, as if theirs
        were the only logits. The weights of a removed head are 0, and also those of a query without
        any cell left.
        """
        kept = [name for name in TERMS if name not in removal.terms]
        logits = [self.axis_logits(name) for name in kept]
        row, column = (sum(parts[1:], parts[0]) for parts in zip(*logits, strict=True))
        if removal.axis is not None:
            row, column = (
                torch.zeros_like(x) if axis == removal.axis else x
                for axis, x in zip(AXES, (row, column), strict=True)
            )
        weights = masked_product(row, column, self.padding, hidden)
        if removal.head is not None:
            weights = weights.clone()
            weights[removal.head] = 0
        return weights, weights.to(self.value.dtype) @ self.value


def masked_product(
    row: Tensor, column: Tensor, padding: Tensor | None, hidden: Tensor | None
) -> Tensor:
    """Softmax over the cells of the sum of both axes' logits, (..., M, Q, S).

    row (..., M, Q, w), column (..., M, Q, h); padding (..., S) and hidden (..., Q, S) are True on
    cells that get no weight. Without any cell left a query's weights are 0.
    """
    scores = _sum(row, column)
    mask = torch.zeros_like(scores[..., :1, :1, :], dtype=torch.bool)
    if padding is not None:
        mask = mask | padding[..., None, None, :]
    if hidden is not None:
        mask = mask | hidden[..., None, :, :]
    blind = mask.all(-1, keepdim=True)
    return scores.masked_fill(mask & ~blind, float("-inf")).softmax(-1).masked_fill(blind, 0)


def _sum(row: Tensor, column: Tensor) -> Tensor:
    """(..., w) and (..., h) -> (..., h * w), row-major."""
    return (column[..., :, None] + row[..., None, :]).flatten(-2)


def _outer(row: Tensor, column: Tensor) -> Tensor:
    """(..., w) and (..., h) -> (..., h * w), row-major."""
    return (column[..., :, None] * row[..., None, :]).flatten(-2)
