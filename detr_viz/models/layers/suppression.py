"""Non-maximum suppression of boxes, without torchvision: greedy, best score first.

Written here because importing torchvision costs a run more than a second; a test holds it against
torchvision.ops.nms and batched_nms.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1024  # boxes compared with all others at a time: 16 MB of float32 for 4000 boxes


def suppressed(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor) -> Tensor:
    """Indices of the boxes that are kept, best first.

    boxes (n, 4) x1, y1, x2, y2; scores (n,); groups (n,) integers: only boxes of one group compete.
    A box goes if its intersection over union with a better box that is kept is above threshold; of
    equal scores the first is the better one.
    """
    order = scores.sort(descending=True, stable=True).indices
    better, worse = _overlapping(boxes[order], groups[order], threshold)
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:  # round k settles every box whose chain of better neighbours is at most k long
        hit = torch.zeros_like(kept)
        hit[worse[kept[better]]] = True
        if torch.equal(kept, ~hit):
            return order[kept]
        kept = ~hit


def _overlapping(boxes: Tensor, groups: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs (i, j), i < j, of one group whose intersection over union is above threshold."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    place = torch.arange(len(boxes), device=boxes.device)
    first, second = [], []
    for start in range(0, len(boxes), _CHUNK):
        some = slice(start, start + _CHUNK)
        low = torch.maximum(boxes[some, None, :2], boxes[None, :, :2])
        high = torch.minimum(boxes[some, None, 2:], boxes[None, :, 2:])
        common = (high - low).clamp(min=0).prod(-1)
        above = common / (area[some, None] + area[None] - common) > threshold
        above &= groups[some, None] == groups[None]
        above &= place[some, None] < place[None]
        i, j = above.nonzero(as_tuple=True)
        first.append(i + start)
        second.append(j)
    if not first:
        return place, place
    return torch.cat(first), torch.cat(second)
