"""Training of Dynamic DETR: one encoder block, stages that begin with the whole image.

One helper more than others have, which serves training alone and is not saved: a group of queries
whose boxes begin as the objects' own with noise, or anywhere (Chen et al. 2023, DiffusionDet). Its
stages learn to move boxes and to name what is in them before those of the whole image find any.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.demo.recipe import Recipe, TrainingConfig
from detr_viz.demo.roi_recipe import start_stages
from detr_viz.demo.sampled_recipes import sampled_by_splat
from detr_viz.models.config import DetrConfig
from detr_viz.models.dynamic_config import DynamicConfig
from detr_viz.models.dynamic_detr import WHOLE_IMAGE
from detr_viz.models.layers.deformable_conv import DeformableConv

HEADS = 4
DYNAMIC_WIDTH = 12
LEVELS = 3  # all that the body has
CANONICAL_PX = 112.0  # side of a box that is read at stride 16
_MOST_SHIFT, _MOST_GROWTH = 0.4, 0.6  # of noisy boxes, in sizes and in logarithms of sizes
_ANYWHERE = (0.15, 0.65)  # sides of the boxes that begin anywhere


class DynamicRecipe(Recipe):
    """Groups of queries as elsewhere, and the last one of noisy boxes."""

    more_groups = 1

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        sizes = self.sizes(training, focal, groups) | {"nheads": HEADS}
        return DynamicConfig(
            **sizes,
            stages=LEVELS,
            levels=LEVELS,
            first_level=len(training.blocks) + 2 - LEVELS,
            dynamic_width=DYNAMIC_WIDTH,
            canonical_px=CANONICAL_PX,
            samples=1,
        )

    def initialise(self, model: nn.Module, focal: bool) -> None:
        """Xavier in the stages; boxes start as the whole image, and stay at first."""
        super().initialise(model, focal=False)
        start_stages(model.head, focal)
        nn.init.normal_(model.init_proposal_features.weight)
        with torch.no_grad():
            model.init_proposal_boxes.weight.copy_(torch.tensor(WHOLE_IMAGE))
        for module in model.pyramid.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        for module in model.encoder.modules():
            if isinstance(module, DeformableConv):
                nn.init.kaiming_normal_(module.weight)
                module.sample = sampled_by_splat

    def finest(self, model: nn.Module) -> nn.Module:
        return model.encoder

    def cells(self, out: Any) -> Tensor:
        return out[0][0]

    def outputs(
        self, model: nn.Module, images: Tensor, labels: Tensor, boxes: Tensor, groups: int
    ) -> dict[str, Any]:
        encoded, batch = model.encode(images), len(images)
        count = encoded.tgt.shape[1] // groups
        tgt = encoded.tgt[:, :count].expand(batch, -1, -1)
        first = encoded.reference.expand(batch, -1, -1)
        encoded = encoded._replace(
            tgt=torch.cat([encoded.tgt.expand(batch, -1, -1), tgt], 1),
            reference=torch.cat([first, noisy_boxes(labels, boxes, count)], 1),
        )
        return model.decode(encoded, aux=True)

    def first_group(self, state: dict[str, Tensor], groups: int) -> dict[str, Tensor]:
        names = ("init_proposal_features.weight", "init_proposal_boxes.weight")
        return {**state, **{name: state[name][: len(state[name]) // groups] for name in names}}

    def meta(self) -> dict[str, Any]:
        return {"nheads": HEADS, "levels": LEVELS, "canonical_px": CANONICAL_PX, "samples": 1}


def noisy_boxes(labels: Tensor, boxes: Tensor, count: int) -> Tensor:
    """(B, count, 4) boxes to begin with: each object's own with noise, then boxes anywhere.

    labels (B, T), -1 in empty slots; boxes (B, T, 4) cx, cy, w, h in [0, 1]; T at most count.
    """
    batch, slots = labels.shape
    low, high = _ANYWHERE
    anywhere = torch.rand(batch, count, 4, device=boxes.device)
    anywhere[..., 2:] = low + (high - low) * anywhere[..., 2:]
    noise = 2 * torch.rand(batch, slots, 4, device=boxes.device) - 1
    noise *= torch.rand(batch, slots, 1, device=boxes.device)
    size = boxes[..., 2:]
    moved = torch.cat(
        [
            boxes[..., :2] + _MOST_SHIFT * noise[..., :2] * size,
            size * (_MOST_GROWTH * noise[..., 2:]).exp(),
        ],
        -1,
    )
    own = torch.where((labels >= 0)[..., None], moved, anywhere[:, :slots])
    return torch.cat([own, anywhere[:, slots:]], 1)
