"""Dense attention whose content and position were added before it: combine is all there is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from torch import Tensor

from detr_viz.attention.base import Rows
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.terms import UNDIVIDED_FORMULA, Mode

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal


@dataclass(frozen=True, eq=False)
class UndividedAttention(DenseAttention):
    """softmax((q + b_q) . (k + b_k) * scale), with q and k as c_q and c_k, and p_q, p_k 0.

    why: a clause that says why q and k have no parts.
    """

    why: str = ""

    term_names = ()

    @classmethod
    def of(cls, attention: DenseAttention, why: str) -> UndividedAttention:
        """The same attention without parts; its position parts must be 0."""
        parts = {f.name: getattr(attention, f.name) for f in fields(DenseAttention)}
        return cls(**parts, why=why)

    @property
    def modes(self) -> dict[str, str]:
        return {"combine": UNDIVIDED_FORMULA}

    def weights(
        self, mode: str | Mode = "combine", rows: Rows = None, scale: str = "mode"
    ) -> Tensor:
        """(M, q, K); ValueError for any mode but combine."""
        if mode != "combine":
            raise ValueError(f"mode {mode!r} does not exist: {self.why}")
        return super().weights(mode, rows, scale)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in DenseAttention, for heads and boxes; ValueError for content, position and terms."""
        if removal.terms:
            raise ValueError(f"{removal.name!r} cannot be removed: {self.why}")
        return super().without(removal, hidden)
