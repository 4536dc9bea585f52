"""How a detector is trained: all choices, and what depends on its kind. The base is dense DETR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from detr_viz.demo.shapes import CLASSES
from detr_viz.models.config import BackboneConfig, DetrConfig

SIZE = 128  # short side that ships; the longest keeps the official 800 : 1333
MAX_SIZE = 213
SHALLOW = {"blocks": (1, 2, 1, 1), "widths": (32, 64, 96, 128)}  # strides 8, 16 and 32 as levels
SLOW_RATE = 0.1  # of the learning rate, for layers that a recipe calls slow


@dataclass(frozen=True)
class TrainingConfig:
    """All choices of a training; lengths of phases are shares of its time."""

    enc_layers: int = 2
    dec_layers: int = 3
    blocks: tuple[int, ...] = (2, 3)
    widths: tuple[int, ...] = (32, 64)
    d_model: int = 128
    dim_feedforward: int = 256
    levels: int = 0  # of sampled attention, the body's last stages; 0: dense attention
    classes: tuple[str, ...] = CLASSES
    size: int = SIZE  # short side at the end, in pixels
    queries: int = 20
    queries_at_first: int = 0  # proposals of Efficient DETR, falling to `queries` by `mixed_until`
    groups: int = 3
    lr: float = 6e-4
    warmup_steps: int = 300
    weight_decay: float = 1e-4
    clip: float = 0.5
    batch: int = 8
    scenes: int = 24_000
    big_share: float = 0.25
    small_until: float = 0.55  # at 3/4 of `size`, then at 3/4, 7/8 or all of it
    mixed_until: float = 0.75  # then at all of it: accuracy is poor at another size than the last

    @property
    def stride(self) -> int:
        """Input pixels per cell of the map on which the class head of the cells stands."""
        return 4 * 2 ** (len(self.blocks) - max(1, self.levels))

    def size_px(self, progress: float, rng: np.random.Generator) -> int:
        """Of the next batch, at this finished share of the training."""
        small = self.size * 3 // 4
        if progress < self.small_until:
            return small
        if progress < self.mixed_until:
            return int(rng.choice((small, self.size * 7 // 8, self.size)))
        return self.size


class Recipe:
    """What a training does with one kind of model; this one trains DETR and Conditional DETR.

    slow: words in the names of parameters that learn at SLOW_RATE.
    more_groups: of queries, beyond those that `outputs` has of the network itself.
    """

    slow: tuple[str, ...] = ()
    more_groups: int = 0

    def sizes(self, training: TrainingConfig, focal: bool, groups: int) -> dict[str, Any]:
        """Arguments of a config that all kinds share; the softmax model has one more logit."""
        return {
            "num_queries": training.queries * groups,
            "num_logits": len(training.classes) + (0 if focal else 1),
            "d_model": training.d_model,
            "nheads": 8,
            "enc_layers": training.enc_layers,
            "dec_layers": training.dec_layers,
            "dim_feedforward": training.dim_feedforward,
            "backbone": BackboneConfig("basic", 32, training.widths, training.blocks),
        }

    def network(self, training: TrainingConfig, focal: bool, groups: int = 1) -> DetrConfig:
        """Sizes of the network; groups: of queries, 1 as it ships."""
        return DetrConfig(**self.sizes(training, focal, groups))

    def initialise(self, model: nn.Module, focal: bool) -> None:
        """The authors' first values: Xavier in the transformer, boxes start at their reference."""
        for name, p in model.named_parameters():
            if p.dim() > 1 and name.startswith("transformer."):
                nn.init.xavier_uniform_(p)
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if focal:
            start_heads(model.class_embed, model.bbox_embed)

    def finest(self, model: nn.Module) -> nn.Module:
        """The layer whose output, (B, C, h, w), the class head of the cells reads."""
        return model.input_proj

    def cells(self, out: Any) -> Tensor:
        """(B, C, h, w) of what that layer gave."""
        return out

    def outputs(
        self, model: nn.Module, images: Tensor, labels: Tensor, boxes: Tensor, groups: int
    ) -> dict[str, Any]:
        """A pass with the outputs of all layers; groups: of the network's own queries."""
        return model(images, None, aux=True)

    def begin_step(self, model: nn.Module, training: TrainingConfig, progress: float) -> None:
        """What depends on the finished share of the training."""

    def losses(
        self, out: dict[str, Any], labels: Tensor, boxes: Tensor, focal: bool
    ) -> dict[str, Tensor]:
        """Weighted losses beyond those of the decoder layers, of a pass's outputs."""
        return {}

    def first_group(self, state: dict[str, Tensor], groups: int) -> dict[str, Tensor]:
        """A state dict with the queries of the first group alone."""
        if "query_embed.weight" not in state:
            return state
        rows = state["query_embed.weight"]
        return {**state, "query_embed.weight": rows[: rows.shape[0] // groups]}

    def meta(self) -> dict[str, Any]:
        """Plain values that leave no trace in a state dict."""
        return {}


def start_heads(class_heads: nn.Module, box_heads: nn.Module) -> None:
    """First values of sigmoid models: each class at one percent, boxes at their reference."""
    for head in heads_of(class_heads):
        nn.init.constant_(head.bias, -math.log(99))
    for head in heads_of(box_heads):
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)


def heads_of(head: nn.Module) -> list[nn.Module]:
    """The heads of all layers; a single one serves them all."""
    return list(head) if isinstance(head, nn.ModuleList) else [head]
