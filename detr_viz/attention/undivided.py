"""Attention whose content and position were added before it: combine is all there is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from torch import Tensor

from detr_viz.attention.base import Rows
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.sampled import SampledAttention
from detr_viz.attention.terms import UNDIVIDED_FORMULA, Mode

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal

UNDIVIDED_SAMPLES_FORMULA = "W q + b"


@dataclass(frozen=True, eq=False, repr=False)
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


@dataclass(frozen=True, eq=False, repr=False)
class UndividedSamples(SampledAttention):
    """Sampled attention of queries whose content and position were added before it.

    c_logits and c_offsets are of the whole query, p_logits and p_offsets are 0. why: as above.
    """

    why: str = ""

    term_names = ()

    @classmethod
    def of(cls, attention: SampledAttention, why: str) -> UndividedSamples:
        """The same attention without parts; its position parts must be 0."""
        parts = {f.name: getattr(attention, f.name) for f in fields(SampledAttention)}
        return cls(**parts, why=why)

    @property
    def modes(self) -> dict[str, str]:
        return {"combine": UNDIVIDED_SAMPLES_FORMULA}

    def samples(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """As in SampledAttention; ValueError for any mode but combine."""
        self._check(mode)
        return super().samples(mode, rows)

    def weights(self, mode: str = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S); ValueError for any mode but combine."""
        self._check(mode)
        return super().weights(mode, rows, scale)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in SampledAttention; ValueError for content, position and terms."""
        if removal.terms:
            raise ValueError(f"{removal.name!r} cannot be removed: {self.why}")
        return super().without(removal, hidden)

    def _check(self, mode: str) -> None:
        if mode != "combine":
            raise ValueError(f"mode {mode!r} does not exist: {self.why}")
