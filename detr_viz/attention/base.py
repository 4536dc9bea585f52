"""What every kind of attention offers, and what some offer beyond it.

Of one call of one site, of one image, split into heads. For dense, sampled and factored attention
one identity holds, and is the self-check: weights (M, q, S) @ value (M, S, D) is the context that
the network itself computed (M, q, D). S counts the cells of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from detr_viz.attention.grids import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from detr_viz.explanation.removals import Removal

Rows = Sequence[int] | None  # of what attends; None: all
# Where there is attention: ("cross" | "decoder" | "encoder", layer), the kinds of terms.SITES.
Where = tuple[str, int]


class Attention(Protocol):
    """The weights with which M heads of `num_rows` tokens mix the values of S tokens.

    kind        "dense", "sampled", "factored" or "roi"
    grids       where the S tokens lie, level by level, finest first; () where keys are queries
    modes       mode -> the formula that a figure prints; only those that there are
    term_names  what the logits are a sum of; () where they are no sum
    value       (M, S, D), or None where the weights mix no values of tokens
    """

    @property
    def kind(self) -> str: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def grids(self) -> tuple[Grid, ...]: ...
    @property
    def modes(self) -> Mapping[str, str]: ...
    @property
    def term_names(self) -> tuple[str, ...]: ...
    @property
    def value(self) -> Tensor | None: ...

    def weights(self, mode: str = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S), at least 0; a row sums to 1, or less where a part falls off the map."""

    def even(self, rows: Rows = None) -> Tensor:
        """What weights that prefer nothing are, (M, q or 1, S)."""

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check against what the site put out, (num_rows, C); NaN: untestable."""


@runtime_checkable
class HasTerms(Protocol):
    """The logits are a sum of terms, each named."""

    term_names: tuple[str, ...]

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, n), n = S, or an axis' cells, or levels times points."""


@runtime_checkable
class HasSamples(Protocol):
    """The weights are those of P points on each of L levels."""

    def samples(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """xy (q, M, L, P, 2) in [0, 1] of each level's whole grid, weight (q, M, L, P)."""


@runtime_checkable
class HasAxes(Protocol):
    """The weights are a column times a row."""

    def axes(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """row (M, q, w), column (M, q, h)."""


@runtime_checkable
class HasCells(Protocol):
    """The output is a sum over the cells of a box."""

    def cells(self, rows: Rows = None) -> tuple[NDArray[np.float32], ...]:
        """share (q, 7, 7), signed, boxes (q, 4), bias_share (q,)."""


@runtime_checkable
class Removable(Protocol):
    """Parts can be taken out, and the rest attends."""

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, S), context (M, Q, D)); hidden (Q, S): True where a row must not look."""
