"""Attention of which the logits are known, and not what they were computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detr_viz.attention.base import Rows
from detr_viz.attention.grids import Grid
from detr_viz.attention.self_check import all_finite, residual_of
from detr_viz.attention.terms import UNDIVIDED_FORMULA

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal


@dataclass(frozen=True, eq=False)
class GivenLogits:
    """softmax(logits) @ value (an `Attention`): combine is all there is.

    logits  (M, Q, K), -inf where a key is hidden;  value (M, K, D)
    why     a clause that says why queries and keys have no parts
    """

    logits: Tensor
    value: Tensor
    why: str
    grids: tuple[Grid, ...] = ()

    kind = "dense"
    term_names = ()

    def __repr__(self) -> str:
        keys = self.logits.shape[-1]
        return f"GivenLogits({self.num_heads} heads, {self.num_rows} rows, {keys} keys)"

    @property
    def num_heads(self) -> int:
        return self.logits.shape[-3]

    @property
    def num_rows(self) -> int:
        return self.logits.shape[-2]

    @property
    def modes(self) -> Mapping[str, str]:
        return {"combine": UNDIVIDED_FORMULA}

    def weights(self, mode: Any = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, K); ValueError for any mode but combine."""
        if mode != "combine":
            raise ValueError(f"mode {mode!r} does not exist: {self.why}")
        return self._logits(rows).softmax(-1)

    def even(self, rows: Rows = None) -> Tensor:
        """(M, q, K): the same weight on every key that is not hidden."""
        logits = self._logits(rows)
        return torch.zeros_like(logits).masked_fill(logits.isneginf(), float("-inf")).softmax(-1)

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check, as in dense.py."""
        if not all_finite(out):
            return float("inf")
        value = self.value
        context, even = (w.to(value.dtype) @ value for w in (self.weights(), self.even()))
        return residual_of(context, even, out, project_out)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in DenseAttention, for heads and boxes; ValueError for content, position and terms."""
        if removal.terms:
            raise ValueError(f"{removal.name!r} cannot be removed: {self.why}")
        mask = self.logits.isneginf()
        if hidden is not None:
            mask = mask | hidden
        blind = mask.all(-1, keepdim=True)
        scores = self._logits(None).masked_fill(mask & ~blind, float("-inf"))
        remaining = scores.softmax(-1).masked_fill(blind, 0)
        if removal.head is not None:
            remaining = remaining.clone()
            remaining[removal.head] = 0
        return remaining, remaining.to(self.value.dtype) @ self.value

    def _logits(self, rows: Rows) -> Tensor:
        logits = self.logits if rows is None else self.logits[:, list(rows)]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
