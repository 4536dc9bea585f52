"""A ninth model: DETR whose classes are told by sigmoids, under a title of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from detr_viz.models import detr
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer


def build(config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> nn.Module:
    network = detr.build(config, norm_layer)
    network.toy_mark = nn.Parameter(torch.zeros(1))  # what tells its checkpoints from DETR's
    return network


def matches(keys: Collection[str]) -> bool:
    return "toy_mark" in keys


def class_probabilities(pred_logits: Tensor) -> Tensor:
    return pred_logits.float().sigmoid()[..., :-1]


SPEC = replace(
    detr.SPEC,
    name="toy_detr",
    title="Toy DETR",
    matches=matches,
    build=build,
    class_probabilities=class_probabilities,
    pairwise=True,
)
