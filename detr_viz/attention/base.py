"""The protocol of every kind of attention, and protocols of what only some kinds offer.

All of them describe one call of one site for one image, split into heads. For dense, sampled and
factored attention one identity holds, and is the self-check: weights (M, q, S) @ value (M, S, D)
is the context (M, q, D) that the network itself computed. S counts the cells of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from detr_viz.attention.grids import Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from detr_viz.explanation.removals import Removal

Rows = Sequence[int] | None  # indices of the tokens that attend; None: all
# Kinds of attention no part of which falls off the map: every query's weights sum to 1.
WHOLE = ("dense", "factored")
AXES = ("row", "column")  # of attention that is a product of both
# An attention site: ("cross" | "decoder" | "encoder", layer); the words are keys of terms.SITES.
Where = tuple[str, int]


def one_of(attention: Any, i: int, names: Sequence[str]) -> Any:
    """A dataclass of a batch as that of image i: these fields begin with B, or are None."""
    fields = {name: getattr(attention, name) for name in names}
    return replace(attention, **{name: x if x is None else x[i] for name, x in fields.items()})


class Attention(Protocol):
    """The weights with which M heads of `num_rows` tokens mix the values of S tokens.

    kind        "dense", "sampled", "factored", "roi" or "joint"
    grids       positions of the S tokens, level by level, finest first; () if keys are queries
    modes       mode -> the formula that a figure prints; only the modes that this kind has
    term_names  the terms whose sum the logits are; () if they are not a sum
    value       (M, S, D), or None if the weights do not mix values of tokens
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
        """(M, q, S), at least 0; a row sums to 1, or less if a part falls off the map."""

    def even(self, rows: Rows = None) -> Tensor:
        """The weights of attention that prefers no key, (M, q or 1, S)."""

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check against the site's output (num_rows, C); NaN: cannot be tested."""


@runtime_checkable
class HasTerms(Protocol):
    """Attention whose logits are a sum of named terms."""

    term_names: tuple[str, ...]

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, n): n is S, or the cells of an axis, or levels times points."""


@runtime_checkable
class HasSamples(Protocol):
    """Attention with one weight for each of P points on each of L levels."""

    def samples(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """xy (q, M, L, P, 2) in [0, 1] of each level's whole grid, weight (q, M, L, P)."""


@runtime_checkable
class HasPlaces(Protocol):
    """Attention whose samples can be hidden one by one: `Removable.without` takes such a mask."""

    def samples_in(self, boxes: Tensor) -> Tensor:
        """(M, Q, L, P), or (Q, N) of cells, True where a sample lies in its query's box.

        boxes (Q, 4): x0, y0, x1, y1 in [0, 1] of the levels' whole grids.
        """


@runtime_checkable
class HasAxes(Protocol):
    """Attention whose weights are the product of a column and a row."""

    def axes(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """row (M, q, w), column (M, q, h)."""

    def axis_logits(self, name: str, rows: Rows = None) -> tuple[Tensor, Tensor]:
        """One of `term_names` on each axis, (M, q, w) and (M, q, h); a cell's is their sum."""

    def axes_kept(self) -> tuple[Tensor, Tensor]:
        """True at the columns (w,) and rows (h,) of the grid that are not padding alone."""


@runtime_checkable
class HasCells(Protocol):
    """Attention whose output is a sum over the cells of a box."""

    def cells(self, rows: Rows = None) -> tuple[NDArray[np.float32], ...]:
        """share (q, 7, 7), signed, boxes (q, 4), bias_share (q,)."""


@runtime_checkable
class Removable(Protocol):
    """Attention that can be computed again without some of its parts."""

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, S), context (M, Q, D)) without a part.

        hidden: (Q, S) True where a query must not attend; see HasPlaces for samples.
        """
