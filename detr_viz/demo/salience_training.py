"""What a training of Salience DETR needs beside the set losses: targets of salience, first values.

The losses of its authors (xiuqhou/Salience-DETR, models/detectors/salience_detr.py,
models/bricks/losses.py and set_criterion.py, configs/salience_detr_resnet50_800_1333.py):

    salience   weight 2: focal loss (alpha 0.25, gamma 2) of the scores of all tokens against soft
               targets (`salience_targets`), summed and divided by the number of targets above 0
    outputs    of each decoder layer (`aux_outputs`, weights alike) and of the proposals
               (`enc_outputs`), Hungarian matching (2 class, 5 L1, 2 GIoU): class 1, L1 5, GIoU 2,
               divided by the number of objects. Class is a varifocal loss: a matched query's target
               is the IoU of its box, its weight that IoU; all others weigh .75 p^2
    denoising  the same losses of noised labels and boxes as further queries (100 of them); the
               network here has no such queries

    out = model(images, None, aux=True)
    targets = salience_targets(labels, boxes, [s.shape[-2:] for s in out["salience"]], images_hw)
    loss = 2 * salience_loss(out["salience"], targets)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.demo.losses import ALPHA, GAMMA, corners
from detr_viz.demo.sampled_recipes import start_as_star
from detr_viz.models.layers.deformable import DeformableAttention
from detr_viz.models.salience_detr import SalienceNetwork

WEIGHT = 2.0
# Of each level: how far the farthest side of a box may be from a cell, pixels; the authors' images
# have a shorter side of 800.
RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, math.inf))


def salience_targets(
    target_labels: Tensor,
    target_boxes: Tensor,
    shapes: Sequence[tuple[int, int]],
    input_hw: tuple[int, int],
    ranges: Sequence[tuple[float, float]] = RANGES,
) -> list[Tensor]:
    """How salient each cell should be, (B, h, w) of each level, in [0, 1].

    target_labels (B, T), -1 in empty slots; target_boxes (B, T, 4) cx, cy, w, h in [0, 1]. A cell
    counts on a level if it lies in a box whose farthest side is in that level's range. Its target
    is 1 in the middle of a box, and .5 at a side's middle, 1 - sqrt(.5) in a corner; of all boxes
    that it lies in, the largest.
    """
    size = target_boxes.new_tensor([*input_hw[::-1], *input_hw[::-1]])
    x0, y0, x1, y1 = (v[:, None, None] for v in (corners(target_boxes) * size).unbind(-1))
    real = (target_labels >= 0)[:, None, None]
    targets = []
    for (h, w), (low, high) in zip(shapes, ranges, strict=True):
        y = (torch.arange(h, device=size.device) + 0.5) * (input_hw[0] / h)
        x = (torch.arange(w, device=size.device) + 0.5) * (input_hw[1] / w)
        sides = torch.stack(
            torch.broadcast_tensors(
                x[None, :, None] - x0,
                y[:, None, None] - y0,
                x1 - x[None, :, None],
                y1 - y[:, None, None],
            )
        )  # (4, B, h, w, T)
        inside = (sides.amin(0) > 0) & real
        farthest = sides.amax(0)
        off_x = (sides[0] - sides[2]) / (sides[0] + sides[2]).clamp(min=1e-6)
        off_y = (sides[1] - sides[3]) / (sides[1] + sides[3]).clamp(min=1e-6)
        confidence = (1 - torch.hypot(off_x, off_y) / 2).masked_fill(~inside, 0).amax(-1)
        counts = (inside & (farthest > low) & (farthest <= high)).any(-1)
        targets.append(confidence.masked_fill(~counts, 0))
    return targets


def salience_loss(scores: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Focal loss of the scores (B, h, w) of each level, logits, without its weight."""
    score, target = (torch.cat([x.flatten(1) for x in each], 1) for each in (scores, targets))
    p = score.sigmoid()
    weight = (1 - ALPHA) * p**GAMMA * (1 - target) + ALPHA * (1 - p) ** GAMMA * target
    cross = F.binary_cross_entropy_with_logits(score, target, reduction="none")
    return (weight * cross).sum() / (target > 0).sum().clamp(min=1)


def initialise_salience(model: SalienceNetwork) -> None:
    """The authors' first values: Xavier, boxes at their reference, a star of samples."""
    transformer = model.transformer
    for name, p in transformer.named_parameters():
        if p.dim() == 2 and "embed" not in name:
            nn.init.xavier_uniform_(p)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
        if isinstance(module, DeformableAttention):
            start_as_star(module)
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(transformer.level_embeds)
    nn.init.normal_(transformer.tgt_embed.weight)
    nn.init.uniform_(transformer.alpha, -0.3, 0.3)
    for embedding in transformer.encoder.background_embedding.children():
        nn.init.uniform_(embedding.weight)
    for head in (transformer.encoder_class_head, *transformer.decoder.class_head):
        nn.init.constant_(head.bias, -math.log(99))
    for head in (transformer.encoder_bbox_head, *transformer.decoder.bbox_head):
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
