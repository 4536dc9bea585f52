"""Attention of some tokens of a sequence to others of it: detection tokens to patches in YOLOS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detr_viz.attention.base import Rows
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.grids import Grid

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal


@dataclass(frozen=True, eq=False)
class JointAttention:
    """Rows and columns of the attention of N tokens to one another (an `Attention`).

    own       of all N tokens, whose self-check it has
    rows      the tokens that attend here;  columns: those they attend to
    A row sums to less than 1: the rest goes to the tokens that are no columns.
    """

    own: DenseAttention
    rows: range
    columns: range
    grids: tuple[Grid, ...] = ()

    kind = "joint"

    def __repr__(self) -> str:
        return f"JointAttention({self.num_heads} heads, {self.num_rows} rows of {self.own!r})"

    @property
    def num_heads(self) -> int:
        return self.own.num_heads

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def modes(self) -> Mapping[str, str]:
        return self.own.modes

    @property
    def term_names(self) -> tuple[str, ...]:
        return self.own.term_names

    @property
    def why(self) -> str:
        """Why there is only combine, or ""."""
        return getattr(self.own, "why", "")

    @property
    def value(self) -> Tensor:
        return self._columns(self.own.value.transpose(-1, -2)).transpose(-1, -2)

    def weights(self, mode: Any = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S) of the columns, not divided by their sum."""
        return self._columns(self.own.weights(mode, self._rows(rows), scale))

    def even(self, rows: Rows = None) -> Tensor:
        return self._columns(self.own.even(self._rows(rows)))

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, S); see DenseAttention."""
        return self._columns(self.own.term_logits(name, self._rows(rows)))

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check of all N tokens."""
        return self.own.residual(out, project_out)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, S), context (M, N, D) of all tokens) without a part of these rows.

        hidden: (Q, S) True where a row must not attend. Tokens of other rows stay as they are.
        """
        count = self.own.num_rows
        mask = torch.zeros(count, count, dtype=torch.bool, device=self.own.value.device)
        mine = slice(self.rows.start, self.rows.stop)
        if hidden is not None:
            mask[mine, self.columns.start : self.columns.stop] = hidden
        weights, context = self.own.without(removal, mask)
        others = replace(removal, terms=(), head=None)
        whole = self.own.without(others)[1].clone()
        whole[..., mine, :] = context[..., mine, :]
        return self._columns(weights[..., mine, :]), whole

    def _rows(self, rows: Rows) -> list[int]:
        return list(self.rows) if rows is None else [self.rows[int(row)] for row in rows]

    def _columns(self, x: Tensor) -> Tensor:
        return x[..., self.columns.start : self.columns.stop]
