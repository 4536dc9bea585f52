"""Trainings of sampled attention: Deformable DETR and Efficient DETR."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes, splat
from detr_viz.demo.losses import set_loss
from detr_viz.demo.recipe import Recipe, TrainingConfig
from detr_viz.models.config import DetrConfig
from detr_viz.models.deformable_config import DeformableConfig
from detr_viz.models.efficient_detr import EfficientConfig
from detr_viz.models.layers.deformable import DeformableAttention

ANCHOR_SIZE = 0.2  # of Efficient DETR: objects of the scenes are large


def sampled_by_splat(value: Tensor, xy: Tensor, weight: Tensor, shapes: Shapes) -> Tensor:
    """`bilinear.sampled` as splat @ value.

    On grids of a few hundred cells, forward and backward take half the CPU time of grid_sample and
    a third of that of embedding_bag. On the grids of a photo the splat would not fit in memory.
    """
    on_cells = splat(xy, weight, shapes).transpose(1, 2)  # (B, M, Q, S)
    return (on_cells @ value.transpose(1, 2)).transpose(1, 2)


def initialise_sampling(model: nn.Module) -> None:
    """First values of the sampling, as in the authors' code, and its form for a training."""
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            start_as_star(module)
            nn.init.zeros_(module.value_proj.bias)
            nn.init.zeros_(module.output_proj.bias)


def start_as_star(site: DeformableAttention) -> None:
    """At first the points of head m lie on ray m of a star, all with the same weight.

    Point p is p + 1 cells from the reference (Zhu et al. 2021, appendix A.4).
    """
    site.sample = sampled_by_splat
    nn.init.zeros_(site.sampling_offsets.weight)
    site.sampling_offsets.bias.data.copy_(star_of(site).reshape(-1))
    nn.init.zeros_(site.attention_weights.weight)
    nn.init.zeros_(site.attention_weights.bias)


def star_of(site: DeformableAttention) -> Tensor:
    """The offsets (M, L, P, 2) that a training starts with."""
    angle = torch.arange(site.nheads) * (2 * math.pi / site.nheads)
    ray = torch.stack([angle.cos(), angle.sin()], -1)
    ray = ray / ray.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, site.points + 1)[:, None]
    return (ray[:, None, None] * steps).expand(-1, site.levels, -1, -1)


class DeformableRecipe(Recipe):
    """Deformable DETR with refinement; the last stages of the body are its levels."""

    slow = ("sampling_offsets", "reference_points")

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        levels = {"stages": training.levels, "levels": training.levels}
        return DeformableConfig(**self.sizes(training, focal, groups), **levels, refine=True)

    def initialise(self, model: nn.Module, focal: bool) -> None:
        super().initialise(model, focal)
        initialise_sampling(model)
        nn.init.normal_(model.transformer.level_embed)
        for projection in model.input_proj:
            nn.init.xavier_uniform_(projection[0].weight)
            nn.init.zeros_(projection[0].bias)

    def finest(self, model: nn.Module) -> nn.Module:
        return model.input_proj[0]


class EfficientRecipe(DeformableRecipe):
    """Efficient DETR: the dense head is trained on all tokens as the decoder is on its queries."""

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        levels = {"stages": training.levels, "levels": training.levels}
        sizes = self.sizes(training, focal, groups)
        return EfficientConfig(**sizes, **levels, anchor_size=ANCHOR_SIZE)

    def begin_step(self, model: nn.Module, training: TrainingConfig, progress: float) -> None:
        """The number of proposals falls in a line, as in the paper."""
        share = min(1.0, progress / training.mixed_until)
        first, last = training.queries_at_first, training.queries
        model.proposals = round(first + share * (last - first))

    def losses(
        self, out: dict[str, Any], labels: Tensor, boxes: Tensor, focal: bool
    ) -> dict[str, Tensor]:
        encoded = out["encoded"]
        dense = (encoded.dense_logits[None, :, None], encoded.dense_boxes[None, :, None])
        losses = set_loss(*dense, labels, boxes, focal)
        return {f"dense_{name}": value for name, value in losses.items()}

    def meta(self) -> dict[str, Any]:
        return {"anchor_size": ANCHOR_SIZE}
