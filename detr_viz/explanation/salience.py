"""Salience of tokens, and which of them each encoder layer refines, of detectors that choose so.

e.salience                                      # Salience, or None: all tokens are refined
e.salience.scores[0]                            # (h, w) of level 0, each token's score in [0, 1]
e.salience.kept[2]                              # what encoder layer 2 refines, best first
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Grid, by_level
from detr_viz.common.short_repr import ShortRepr, brief_tuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Salience(ShortRepr):
    """How salient each token is, and which tokens each encoder layer refines.

    scores  of each level (h, w) float32 in [0, 1], of all tokens, padding included
    kept    of each encoder layer (n,) int64, most salient first: tokens count from 0 through the
            levels, row by row, padding included
    grids   of the levels
    """

    scores: tuple[NDArray[np.float32], ...]  # (h, w)
    kept: tuple[NDArray[np.int64], ...]  # (n,)
    grids: tuple[Grid, ...]

    @property
    def num_tokens(self) -> int:
        """Of all levels, but not those whose centres lie on padding."""
        return sum(int(np.prod([n.sum() for n in _seen(grid)])) for grid in self.grids)

    def masks(self, layer: int) -> tuple[NDArray[np.bool_], ...]:  # (h, w)
        """Of each level (h, w): True for the tokens that an encoder layer refines."""
        flat = np.zeros(sum(grid.cells for grid in self.grids), bool)
        flat[self.kept[layer]] = True
        return by_level(flat, self.grids)

    def shares(self, layer: int) -> tuple[float, ...]:
        """Of each level: the share of its tokens that an encoder layer refines."""
        parts = zip(self.masks(layer), self.grids, strict=True)
        return tuple(
            float(mask.sum() / np.prod([n.sum() for n in _seen(grid)])) for mask, grid in parts
        )

    def kept_by_all(self, layers: Iterable[int]) -> NDArray[np.int64]:  # (n,)
        """The tokens that all of these encoder layers refine, most salient first."""
        return min((self.kept[layer] for layer in layers), key=len)  # they are nested


def _seen(grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows and columns whose pixels, as padding is downsampled, show the image."""
    return tuple(
        np.arange(n) * side // n < shown
        for n, side, shown in zip(grid.hw, grid.input_hw, grid.shown_hw, strict=True)
    )


class Selected(NamedTuple):
    """The same of a batch of images, in the network's own numbers.

    logits  (B, S) of all tokens; their sigmoid is the score
    tokens  (B, n) that are refined, most salient first
    counts  of each encoder layer: it refines the first so many
    own     (B,) how many of them are an image's own
    """

    logits: Tensor
    tokens: Tensor
    counts: tuple[int, ...]
    own: Tensor

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Selected:
        """As if image i had been alone."""
        some = slice(i, i + 1)
        return Selected(self.logits[some], self.tokens[some], self.counts, self.own[some])

    def values(self, grids: tuple[Grid, ...]) -> Salience:
        """Of the only image as plain values."""
        scores = self.logits[0].cpu().double().sigmoid().float().numpy()
        tokens = self.tokens[0].cpu().numpy().astype(np.int64)[: int(self.own[0])]
        kept = tuple(tokens[:count] for count in self.counts)
        return Salience(by_level(scores, grids), kept, grids)
