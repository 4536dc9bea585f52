"""Training of Sparse R-CNN: stages of dynamic convolution on the cells of each query's box."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.attention.roi_align import pooled_by_matrices
from detr_viz.demo.recipe import Recipe, TrainingConfig
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.dynamic_head import DynamicHead
from detr_viz.models.roi_config import RoIConfig

CANONICAL_PX = 64.0  # of a box on stride 16: objects of the scenes have 23 to 96 px at the end
DYNAMIC_WIDTH = 12  # the output layer has 49 d_model^2 weights a stage: the width must be small
_LEARNED = ("init_proposal_features.weight", "init_proposal_boxes.weight")
_GRID = (4, 5)  # rows and columns of first boxes; as many queries as it has cells, or groups of it
_GRID_SIDE = 0.4  # of the image


class SparseRecipe(Recipe):
    """The last stages of the body are the pyramid; boxes start as an even grid."""

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        return RoIConfig(
            **{**self.sizes(training, focal, groups), "enc_layers": 0},
            dynamic_width=DYNAMIC_WIDTH,
            class_layers=1,
            box_layers=1,
            first_level=2 + len(training.blocks) - training.levels,
            levels=training.levels,
            canonical_px=CANONICAL_PX,
        )

    def initialise(self, model: nn.Module, focal: bool) -> None:
        """The authors' first values, but for the boxes."""
        for name, module in model.backbone.named_modules():
            if isinstance(module, nn.Conv2d) and "bottom_up" in name:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        start_stages(model.head, focal)
        boxes = model.init_proposal_boxes.weight
        boxes.data.copy_(grid_of(len(boxes)))

    def finest(self, model: nn.Module) -> nn.Module:
        backbone = model.backbone
        return getattr(backbone, f"fpn_output{backbone.numbers[0]}")

    def first_group(self, state: dict[str, Tensor], groups: int) -> dict[str, Tensor]:
        first = {name: state[name][: len(state[name]) // groups] for name in _LEARNED}
        return {**state, **first}

    def meta(self) -> dict[str, Any]:
        return {"canonical_px": CANONICAL_PX}


def start_stages(head: DynamicHead, focal: bool) -> None:
    """First values of the stages: boxes stay, each class at one percent; and the form of RoIAlign
    that trains quicker on small levels."""
    head.pool = pooled_by_matrices
    for p in head.parameters():
        if p.dim() > 1:
            nn.init.xavier_uniform_(p)
    for stage in head.head_series:
        nn.init.zeros_(stage.bboxes_delta.weight)
        nn.init.zeros_(stage.bboxes_delta.bias)
        if focal:
            nn.init.constant_(stage.class_logits.bias, -math.log(99))


def grid_of(count: int) -> Tensor:
    """Boxes (count, 4) cx, cy, w, h whose centres lie on a grid, row by row, again and again."""
    rows, columns = _GRID
    number = torch.arange(count)
    x = (number % columns + 0.5) / columns
    y = (torch.div(number, columns, rounding_mode="floor") % rows + 0.5) / rows
    side = torch.full((count,), _GRID_SIDE)
    return torch.stack([x, y, side, side], -1)
