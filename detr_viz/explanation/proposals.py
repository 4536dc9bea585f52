"""Proposals: the tokens of the memory that became queries, of detectors that choose them so.

e.proposals                                     # Proposals, or None: the queries are learned
e.proposals.scores[0]                           # (h, w) of level 0, each token's score in [0, 1]
e.proposals.tokens[3], e.proposals.ranks[3]     # the token of query 3, and its place by score
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Grid, by_level
from detr_viz.common.short_repr import ShortRepr, brief_tuple
from detr_viz.detections.boxes import cxcywh_to_xyxy, to_pixels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Proposals(ShortRepr):
    """Which tokens of the memory became queries, and by which scores.

    rule           what a score is, in words: "sigmoid of ..."
    tokens         (Q,) int64 of each query, in the order of queries: tokens count from 0 through
                   the levels, row by row, padding included
    scores         of each level (h, w) float32 in [0, 1], of all tokens
    invalid        of each level (h, w) bool: tokens that were not meant to be chosen, padding too
    boxes_xyxy_px  (Q, 4) float32: each query's box as it entered the decoder, pixels of the image
    grids          of the levels
    """

    rule: str
    tokens: NDArray[np.int64]  # (Q,)
    scores: tuple[NDArray[np.float32], ...]  # (h, w)
    invalid: tuple[NDArray[np.bool_], ...]  # (h, w)
    boxes_xyxy_px: NDArray[np.float32]  # (Q, 4)
    grids: tuple[Grid, ...]

    @cached_property
    def token_scores(self) -> NDArray[np.float32]:  # (Q,)
        """(Q,): the score of each query's token."""
        return np.concatenate([level.ravel() for level in self.scores])[self.tokens]

    @cached_property
    def ranks(self) -> NDArray[np.int64]:  # (Q,)
        """(Q,): the place of each query's token by score among the chosen ones, from 1.

        Equal scores in the order of queries.
        """
        ranks = np.empty(len(self.tokens), np.int64)
        ranks[np.argsort(-self.token_scores, kind="stable")] = np.arange(1, len(ranks) + 1)
        return ranks

    @cached_property
    def cells(self) -> NDArray[np.int64]:  # (Q, 3)
        """(Q, 3): level, row and column of each query's token."""
        ends = np.cumsum([grid.cells for grid in self.grids])
        level = np.searchsorted(ends, self.tokens, side="right")
        within = self.tokens - np.concatenate([[0], ends])[level]
        wide = np.asarray([grid.hw[1] for grid in self.grids])[level]
        return np.stack([level, within // wide, within % wide], -1)

    @property
    def num_tokens(self) -> int:
        """How many tokens could be chosen."""
        return sum(int((~level).sum()) for level in self.invalid)

    def counts(self) -> list[int]:
        """How many queries each level gave."""
        return np.bincount(self.cells[:, 0], minlength=len(self.grids)).tolist()


class Proposed(NamedTuple):
    """The same of a batch of images, in the network's own numbers.

    tokens   (B, Q), in the order of queries
    logits   (B, S) of all tokens; their sigmoid is the score
    invalid  (1 or B, S) True = not meant to be chosen, or padding
    boxes    (B, Q, 4) cx, cy, w, h in [0, 1] of the image, as they entered the decoder
    """

    tokens: Tensor
    logits: Tensor
    invalid: Tensor
    boxes: Tensor

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Proposed:
        """As if image i had been alone."""
        return Proposed(*(part[i : i + 1] if len(part) > 1 else part for part in self))

    def values(self, rule: str, grids: tuple[Grid, ...], image_hw: tuple[int, int]) -> Proposals:
        """Of the only image as plain values; image_hw: its pixels."""
        scores = self.logits[0].cpu().double().sigmoid().float().numpy()
        boxes = self.boxes[0].float().cpu().numpy()
        return Proposals(
            rule=rule,
            tokens=self.tokens[0].cpu().numpy().astype(np.int64),
            scores=by_level(scores, grids),
            invalid=by_level(self.invalid[0].cpu().numpy(), grids),
            boxes_xyxy_px=to_pixels(cxcywh_to_xyxy(boxes), image_hw),
            grids=grids,
        )
