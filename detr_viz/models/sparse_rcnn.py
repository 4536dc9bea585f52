"""Sparse R-CNN (Sun et al., CVPR 2021): names and outputs of PeizeSun/SparseR-CNN (detectron2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.roi import WHY
from detr_viz.attention.roi_align import Pyramid
from detr_viz.common.short_repr import brief_tuple
from detr_viz.detections.known_classes import COCO_80_NAMES
from detr_viz.images.preprocessing import ROUNDED, Preprocessing
from detr_viz.models.conditional_detr import class_probabilities
from detr_viz.models.config import ConfigError
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.dynamic_head import DynamicHead
from detr_viz.models.layers.fpn import FeaturePyramid
from detr_viz.models.layers.narrow import NarrowBackbone
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.roi_config import RoIConfig, read_bottom_up, read_head, read_levels
from detr_viz.models.spec import ModelSpec

PREPROCESSING = Preprocessing(  # of the authors' configuration; RGB, values 0 to 255
    rule=ROUNDED,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    rescale=1.0,
    multiple=32,
)
_MOST_SAMPLES = 64


class Encoded(NamedTuple):
    """What the stages are given of images.

    memory (B, S, C), the pyramid level by level; tgt (1, Q, C) features and reference (1, Q, 4)
    boxes of the proposals, cx, cy, w, h in [0, 1] of the image; sides (1 or B, 2) w, h of the image
    in pixels of the input; input_hw pixels of the images, valid_hw those without padding (None:
    all).
    """

    memory: Tensor
    tgt: Tensor
    reference: Tensor
    sides: Tensor
    pyramid: Pyramid
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        return image_of(self, i)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        return self._replace(memory=self.memory.expand(times, -1, -1))


class SparseNetwork(NarrowBackbone):
    """forward(images, mask, aux) -> dict of

    pred_logits       (B, Q, num_logits)
    pred_boxes        (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    levels            ((h, w), stride) of each level of the pyramid, finest first
    references        of each stage (B, Q, 4), the boxes that enter it, as pred_boxes
    encoded           what the stages were given: decode(encoded, aux) gives the same again
    aux_outputs       with aux=True: the first two of every earlier stage

    images (B, 3, H, W) normalised; mask (B, H, W) True = padding, or None. Padding is not masked:
    it is zeros that boxes may read, as in the authors' code.
    """

    def __init__(self, config: RoIConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        self.backbone = FeaturePyramid(
            config.backbone, config.d_model, config.first_level, config.levels, norm_layer
        )
        self.init_proposal_features = nn.Embedding(config.num_queries, config.d_model)
        self.init_proposal_boxes = nn.Embedding(config.num_queries, 4)
        self.head = DynamicHead(config)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """The pyramid, and the proposals."""
        tgt = self.init_proposal_features.weight
        levels = [x.to(tgt.dtype) for x in self.backbone(images)]
        h, w = images.shape[-2:]
        sides = tgt.new_tensor([[w, h]])
        if mask is not None:
            shown = ~mask
            sides = torch.stack([shown.any(axis).sum(-1) for axis in (1, 2)], -1).to(tgt.dtype)
        return Encoded(
            memory=torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1),
            tgt=tgt[None],
            reference=self.init_proposal_boxes.weight[None],
            sides=sides,
            pyramid=Pyramid(tuple(tuple(x.shape[-2:]) for x in levels), self.config.strides),
            input_hw=(h, w),
        )

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """The stages and their heads; the result as of `forward`."""
        sides = encoded.sides.repeat(1, 2)[:, None]  # (1 or B, 1, 4)
        given = encoded.tgt, encoded.reference, sides, encoded.memory, encoded.pyramid
        return {**self.head.decoded(*given, encoded.input_hw, aux), "encoded": encoded}

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES. Stages are layers."""
        return self.head.attention_sites()

    def fold_batch_norm(self) -> None:
        """For inference, after loading; as in DetrNetwork."""
        self.backbone.fold_batch_norm()
        self.backbone.to(memory_format=torch.channels_last)


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> RoIConfig:
    """Sizes of an official-format state dict.

    Heads leave no trace in it. ConfigError if the shapes fit no network.
    """
    if dilation:
        raise ConfigError("Sparse R-CNN has no dilation (DC5): drop --dilation")
    config = RoIConfig(
        **read_head(state_dict, nheads),
        **read_levels(state_dict, "backbone."),
        backbone=read_bottom_up(state_dict, "backbone.bottom_up."),
    )
    stages = len(config.backbone.blocks)
    if config.first_level < 2 or config.first_level + config.levels - 2 > stages:
        raise ConfigError(f"its pyramid has levels that its {stages} stages do not make")
    return config


def with_hints(config: RoIConfig, hints: Mapping[str, Any]) -> tuple[RoIConfig, tuple[str, ...]]:
    """How boxes read the pyramid, where a file says it: it leaves no trace; else the authors'."""
    side, samples = hints.get("canonical_px"), hints.get("samples")
    if isinstance(side, float) and 0 < side < 1e6:
        config = replace(config, canonical_px=side)
    if isinstance(samples, int) and 0 < samples <= _MOST_SAMPLES:
        config = replace(config, samples=samples)
    return config, ()


def build(config: RoIConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> SparseNetwork:
    """A Sparse R-CNN of these sizes; one sigmoid for each class."""
    return SparseNetwork(config, norm_layer)


def matches(keys: Collection[str]) -> bool:
    """Learned proposals and a second dynamic layer are its marks."""
    own = {"init_proposal_boxes.weight", "head.head_series.0.inst_interact.norm2.weight"}
    return own <= {*keys}


SPEC = ModelSpec(
    name="sparse_rcnn",
    title="Sparse R-CNN",
    modes=("combine",),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
    cell_rule="centered",
    why_undivided=WHY,
    with_hints=with_hints,
    preprocessing=PREPROCESSING,
    class_names=COCO_80_NAMES,
)
