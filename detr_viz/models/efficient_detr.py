"""Efficient DETR (Yao et al., arXiv 2104.01318), a reconstruction: no code was published.

Of the paper, by reviews and tables that quote it: a dense part (a class-specific head on every
token of a deformable encoder) and a sparse part (decoder) share one head; the best K tokens by
score give 4-d boxes as references and their features as queries; K falls from 300 to 100 in
training; three encoder layers and one decoder layer, 32 M parameters with a ResNet-50.

Decided here: the head reads the memory itself, so the token that is scored is the query; a token's
anchor is a square of .05 of the image, doubled from level to level, as in two-stage Deformable
DETR; tokens on padding or with an anchor on the edge are not taken; a query's position is an
encoding of its box (layer pos_trans); the reference trains by the dense loss alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.attention.terms import MODES
from detr_viz.models.conditional_detr import class_probabilities
from detr_viz.models.config import ConfigError, read_shape
from detr_viz.models.deformable_config import DeformableConfig, read_levels
from detr_viz.models.layers.deformable_transformer import (
    Decoder,
    Encoder,
    Levels,
    anchors_of,
    check_count,
    taken,
)
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import inverse_sigmoid, sine_boxes
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.layers.transformer import MLP
from detr_viz.models.sampled_network import Queries, SampledNetwork
from detr_viz.models.spec import ModelSpec

PROPOSALS = 100  # at test, by the paper; 300 falling to 100 in training
ANCHOR_SIZE = 0.05  # side of the finest level's anchors; twice on each next level


@dataclass(frozen=True, repr=False)
class EfficientConfig(DeformableConfig):
    """Sizes of an Efficient DETR; num_queries: proposals that become queries.

    anchor_size: side of the finest level's anchors in [0, 1] of the image.
    """

    num_queries: int = PROPOSALS
    anchor_size: float = ANCHOR_SIZE
    refine: bool = True


class Transformer(nn.Module):
    """Encoder, decoder, and the encoding of a chosen box, by the names of Deformable DETR."""

    def __init__(self, config: EfficientConfig) -> None:
        super().__init__()
        width = config.d_model
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.level_embed = nn.Parameter(torch.zeros(config.levels, width))
        self.pos_trans = Linear(2 * width, width)
        self.pos_trans_norm = nn.LayerNorm(width)


class EfficientNetwork(SampledNetwork):
    """One head serves the encoder's tokens and all decoder layers.

    proposals: how many tokens become queries; a training begins with more.
    """

    def __init__(self, config: EfficientConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__(config, norm_layer)
        self.transformer = Transformer(config)
        self.class_embed = Linear(config.d_model, config.num_logits)
        self.bbox_embed = MLP(config.d_model, config.d_model, 4, 3)
        self.proposals = config.num_queries

    def queries(self, memory: Tensor, levels: Levels) -> Queries:
        anchors, invalid = anchors_of(levels, self.config.anchor_size)
        logits = self.class_embed(memory)
        boxes = (inverse_sigmoid(anchors) + self.bbox_embed(memory)).sigmoid()
        scores = logits.amax(-1).masked_fill(invalid, float("-inf"))
        check_count(int((scores > float("-inf")).sum(-1).min()), self.proposals)
        chosen = scores.topk(self.proposals, 1).indices
        reference = taken(boxes, chosen).detach()  # a decoder trains on its own step alone
        encoded = self.transformer.pos_trans(sine_boxes(reference, memory.shape[-1]))
        return Queries(
            query_pos=self.transformer.pos_trans_norm(encoded),
            tgt=taken(memory, chosen),
            reference=reference,
            proposals=chosen,
            scores=scores,
            invalid=invalid,
            dense_logits=logits,
            dense_boxes=boxes,
        )

    def class_head(self, layer: int) -> nn.Module:
        return self.class_embed

    def box_head(self, layer: int) -> nn.Module:
        return self.bbox_embed


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> EfficientConfig:
    """Sizes of a state dict; heads, dilation, proposals and anchors leave no trace in it.

    ConfigError if the shapes fit no network, or heads do not divide what they must.
    """
    sizes = read_levels(state_dict, nheads, dilation)
    width = sizes["d_model"]
    shape = read_shape(state_dict, "transformer.pos_trans.weight", 2)
    if shape != (width, 2 * width):
        raise ConfigError(
            f"transformer.pos_trans.weight has shape {shape}, not ({width}, {2 * width})"
        )
    return EfficientConfig(num_logits=read_shape(state_dict, "class_embed.weight", 2)[0], **sizes)


def with_hints(
    config: EfficientConfig, hints: Mapping[str, Any]
) -> tuple[EfficientConfig, tuple[str, ...]]:
    """Proposals and the size of anchors, which leave no trace, and notes on what is assumed."""
    notes = []
    count, size = hints.get("num_queries"), hints.get("anchor_size")
    if isinstance(count, int) and count > 0:
        config = replace(config, num_queries=count)
    else:
        notes.append(f"assumed {config.num_queries} proposals: the file does not say")
    if isinstance(size, float) and 0 < size < 1:
        config = replace(config, anchor_size=size)
    else:
        notes.append(f"assumed anchors of {config.anchor_size:g}: the file does not say")
    return config, tuple(notes)


def build(config: EfficientConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> EfficientNetwork:
    """An Efficient DETR of these sizes; one sigmoid for each class."""
    return EfficientNetwork(config, norm_layer)


def matches(keys: Collection[str]) -> bool:
    """Boxes are encoded, but the tokens have no layer of their own before the head."""
    return (
        "transformer.level_embed" in keys
        and "transformer.pos_trans.weight" in keys
        and "transformer.enc_output.weight" not in keys
    )


SPEC = ModelSpec(
    name="efficient_detr",
    title="Efficient DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
    cell_rule="centered",
    with_hints=with_hints,
    proposal_scores=lambda config: "sigmoid of the dense head's best class logit",
    notes=("Efficient DETR is a reconstruction: no code or weights of its authors are published",),
)
