"""Training of Salience DETR: the set losses, those of its proposals, and the salience of tokens."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from detr_viz.demo.losses import set_loss
from detr_viz.demo.recipe import Recipe, TrainingConfig
from detr_viz.demo.salience_training import (
    WEIGHT,
    initialise_salience,
    salience_loss,
    salience_targets,
)
from detr_viz.models.config import DetrConfig
from detr_viz.models.salience_config import SalienceConfig

# Bounds of the levels, how far the farthest side of a box may be from a cell, in shares of the
# image's shorter side: a fifth and two fifths of the largest objects of the scenes.
_BOUNDS = (0.19, 0.38)
_LEVEL_RATIOS = (0.4, 0.8, 1.0)  # of a level's tokens that may be refined, finest first
_LAYER_RATIOS = (1.0, 0.6)  # of these, how many an encoder layer refines
_BACKGROUND_CELLS = 64
_OUTPUTS = ("pred_logits", "pred_boxes")


class SalienceRecipe(Recipe):
    """No query groups: a token becomes one query."""

    slow = ("sampling_offsets",)

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        return SalienceConfig(
            **self.sizes(training, focal, groups),
            stages=training.levels,
            levels=training.levels,
            level_ratios=_LEVEL_RATIOS,
            layer_ratios=_LAYER_RATIOS[: training.enc_layers],
            background_cells=_BACKGROUND_CELLS,
        )

    def initialise(self, model: nn.Module, focal: bool) -> None:
        initialise_salience(model)

    def finest(self, model: nn.Module) -> nn.Module:
        return model.neck.convs[0]

    def losses(
        self, out: dict[str, Any], labels: Tensor, boxes: Tensor, focal: bool
    ) -> dict[str, Tensor]:
        proposals = [out["enc_outputs"][name][None, :, None] for name in _OUTPUTS]
        losses = set_loss(*proposals, labels, boxes, focal)
        hw = out["encoded"].input_hw
        bounds = [-1.0, *(min(hw) * share for share in _BOUNDS), math.inf]
        targets = salience_targets(
            labels,
            boxes,
            [tuple(scores.shape[-2:]) for scores in out["salience"]],
            hw,
            list(pairwise(bounds)),
        )
        return {
            **{f"proposal_{name}": value for name, value in losses.items()},
            "salience": WEIGHT * salience_loss(out["salience"], targets),
        }
