"""The training losses of a DETR: Hungarian matching and set losses, for all layers at once.

Shape letters: L decoder layers, B images, G query groups, Q queries of a group, T target slots (an
image's objects first, then empty ones with label -1), K classes. Boxes: cx, cy, w, h in [0, 1].
Formulas: Carion et al. 2020, section 3; the focal form is that of Meng et al. 2021 (alpha 0.25,
gamma 2). Query groups: Chen et al. 2023, Group DETR: each is matched on its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

BOX_L1, BOX_GIOU = 5.0, 2.0
NO_OBJECT = 0.1
ALPHA, GAMMA = 0.25, 2.0


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h -> x0, y0, x1, y1, over the last dimension."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of xyxy boxes (..., 4), broadcast over the leading dimensions -> (...)."""
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared, around = overlap.clamp(0).prod(-1), hull.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return shared / (union + 1e-7) - (around - union) / (around + 1e-7)


@torch.no_grad()
def match(
    logits: Tensor, boxes: Tensor, target_labels: Tensor, target_boxes: Tensor, focal: bool
) -> Tensor:
    """Cheapest one-to-one assignment of targets to queries.

    logits (L, B, G, Q, K or K + 1), boxes (L, B, G, Q, 4), target_labels (B, T), target_boxes
    (B, T, 4). Returns int64 (L, B, G, T): the query of each target, -1 in empty slots.
    """
    labels = target_labels.clamp(min=0)
    if focal:
        p = logits.sigmoid()
        present = ALPHA * (1 - p) ** GAMMA * -(p + 1e-8).log()
        absent = (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-8).log()
        class_cost, weight = present - absent, 2.0
    else:
        class_cost, weight = -logits.softmax(-1), 1.0
    index = labels[None, :, None, None, :].expand(*logits.shape[:4], labels.shape[1])
    wanted = target_boxes[:, None, None]  # (B, 1, 1, T, 4)
    cost = weight * class_cost.gather(-1, index)
    cost += BOX_L1 * (boxes[..., None, :] - wanted).abs().sum(-1)
    cost -= BOX_GIOU * giou(corners(boxes)[..., None, :], corners(wanted))
    table = cost.double().cpu().numpy()
    counts = (target_labels >= 0).sum(-1).tolist()
    chosen = torch.full((*logits.shape[:3], labels.shape[1]), -1, dtype=torch.int64)
    queries_of_targets = chosen.numpy()  # shares its memory
    for layer in range(table.shape[0]):
        for image, count in enumerate(counts):
            for group in range(table.shape[2]):
                queries, targets = linear_sum_assignment(table[layer, image, group, :, :count])
                queries_of_targets[layer, image, group, targets] = queries
    return chosen.to(logits.device)


def set_loss(
    logits: Tensor, boxes: Tensor, target_labels: Tensor, target_boxes: Tensor, focal: bool
) -> dict[str, Tensor]:
    """Weighted class, L1 and GIoU losses, summed over layers and averaged over groups.

    Shapes as in `match`. Sigmoid focal loss per class (weight 2) when `focal`, else cross-entropy
    with a last no-object class of weight 0.1. Box losses are divided by the number of objects.
    """
    layers, _, groups = logits.shape[:3]
    queries = match(logits, boxes, target_labels, target_boxes, focal)
    layer, image, group, slot = (queries >= 0).nonzero(as_tuple=True)
    query = queries[layer, image, group, slot]
    label = target_labels[image, slot]
    count = max(1, int((target_labels >= 0).sum())) * groups
    if focal:
        wanted = torch.zeros_like(logits)
        wanted[layer, image, group, query, label] = 1.0
        p = logits.sigmoid()
        cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        p_wrong = p + wanted - 2 * p * wanted
        share = (1 - ALPHA) + (2 * ALPHA - 1) * wanted
        class_loss = 2.0 * (share * cross * p_wrong**GAMMA).sum() / count
    else:
        nothing = logits.shape[-1] - 1
        wanted = torch.full(logits.shape[:4], nothing, dtype=torch.int64, device=logits.device)
        wanted[layer, image, group, query] = label
        weight = torch.ones(nothing + 1, device=logits.device)
        weight[nothing] = NO_OBJECT
        class_loss = layers * F.cross_entropy(logits.flatten(0, 3), wanted.flatten(), weight)
    predicted, target = boxes[layer, image, group, query], target_boxes[image, slot]
    l1 = (predicted - target).abs().sum() / count
    overlap = (1 - giou(corners(predicted), corners(target))).sum() / count
    return {"class": class_loss, "l1": BOX_L1 * l1, "giou": BOX_GIOU * overlap}


def cell_targets(
    target_labels: Tensor,
    target_boxes: Tensor,
    grid_hw: tuple[int, int],
    stride: int,
    input_hw: tuple[int, int],
) -> Tensor:
    """Class of the object at each cell, (B, h, w) int64, -1 on the background.

    Cell i is centred on pixel index stride * i. A cell belongs to an object when its centre lies in
    the ellipse that fills the box; of several, to the one drawn last.
    """
    h, w = grid_hw
    y = (torch.arange(h, device=target_boxes.device) * stride + 0.5) / input_hw[0]
    x = (torch.arange(w, device=target_boxes.device) * stride + 0.5) / input_hw[1]
    cx, cy, bw, bh = (v[..., None, None] for v in target_boxes.unbind(-1))
    # an empty slot has no size, and is left out
    from_x, from_y = (x[None, :] - cx) / (bw / 2), (y[:, None] - cy) / (bh / 2)
    inside = (from_x**2 + from_y**2 <= 1) & (target_labels >= 0)[..., None, None]
    out = target_labels.new_full((target_labels.shape[0], h, w), -1)
    for slot in range(target_labels.shape[1]):
        out = torch.where(inside[:, slot], target_labels[:, slot, None, None], out)
    return out
