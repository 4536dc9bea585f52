"""The proposals of Salience DETR: the best tokens of which none are neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detr_viz.attention.bilinear import Shapes
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.layers.deformable_transformer import check_count
from detr_viz.models.layers.suppression import suppressed

CANDIDATES = 4  # tokens looked at for each proposal
OVERLAP = 0.3  # of the 2 x 2 cells around two tokens; beside one another they have 1/3


class Proposals(NamedTuple):
    """The tokens that become queries.

    tokens (B, Q), in the order of the queries; scores (B, S) of all tokens, the largest class
    logit; invalid (1 or B, S) tokens on padding, or whose box is on the edge; logits
    (B, Q, num_logits); boxes (B, Q, 4) cx, cy, w, h in [0, 1] of the image.
    """

    tokens: Tensor
    scores: Tensor
    invalid: Tensor
    logits: Tensor
    boxes: Tensor

    __repr__ = brief_tuple


def choose(scores: Tensor, shapes: Shapes, count: int) -> Tensor:
    """The tokens (B, count) that become queries, of scores (B, S).

    The best 4 * count tokens; of those that touch on one level only the better one stays. If too
    few stay (the authors' code then fails), the best of the others follow.
    """
    total = scores.shape[1]
    check_count(total, count)
    best = scores.detach().topk(min(CANDIDATES * count, total), 1)
    boxes, level = _cells(shapes, scores.device)
    chosen = []
    for score, tokens in zip(*best, strict=True):
        kept = suppressed(boxes[tokens], score, OVERLAP, level[tokens])[:count]
        if len(kept) < count:
            left = torch.ones_like(tokens, dtype=torch.bool)
            left[kept] = False
            kept = torch.cat([kept, left.nonzero()[: count - len(kept), 0]])
        chosen.append(tokens[kept])
    return torch.stack(chosen)


def _cells(shapes: Shapes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of all tokens: the 2 x 2 cells around each on its level (S, 4), and its level (S,)."""
    boxes, level = [], []
    for i, (h, w) in enumerate(shapes):
        y, x = torch.meshgrid(
            torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij"
        )
        boxes.append(torch.stack([x - 1, y - 1, x + 1, y + 1], -1).flatten(0, 1).float())
        level.append(torch.full((h * w,), i, device=device))
    return torch.cat(boxes), torch.cat(level)
