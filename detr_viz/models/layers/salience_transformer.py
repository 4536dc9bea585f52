"""Neck, encoder, proposals and decoder of Salience DETR, by the official names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_viz.models.deformable_config import GROUPS
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.deformable import DeformableDecoderLayer
from detr_viz.models.layers.deformable_transformer import PROPOSAL_SIZE, Levels, anchors_of
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.repvgg import RepVGGPluXNetwork
from detr_viz.models.layers.resnet import NormLayer
from detr_viz.models.layers.salience import (
    Choices,
    MaskPredictor,
    SalienceEncoder,
    Selection,
    by_level,
    gathered,
    salience_of,
    select,
)
from detr_viz.models.layers.salience_proposals import Proposals, choose
from detr_viz.models.layers.transformer import MLP
from detr_viz.models.salience_config import SalienceConfig


class SalienceDecoder(nn.Module):
    """The layers, and heads of each, under their official names."""

    def __init__(self, config: SalienceConfig) -> None:
        super().__init__()
        width, layers = config.d_model, range(config.dec_layers)
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(config, config.levels, config.dec_points) for _ in layers
        )
        self.ref_point_head = MLP(2 * width, width, width, 2)
        self.class_head = nn.ModuleList(Linear(width, config.num_logits) for _ in layers)
        self.bbox_head = nn.ModuleList(MLP(width, width, 4, 3) for _ in layers)
        self.norm = nn.LayerNorm(width)


class SalienceTransformer(nn.Module):
    """Salience, encoder, neck, proposals and decoder, by their official names."""

    def __init__(self, config: SalienceConfig, norm_layer: NormLayer) -> None:
        super().__init__()
        width = config.d_model
        self.register_buffer("level_filter_ratio", torch.tensor(config.level_ratios))
        self.register_buffer("layer_filter_ratio", torch.tensor(config.layer_ratios))
        self.level_embeds = nn.Parameter(torch.zeros(config.levels, width))
        self.alpha = nn.Parameter(torch.zeros(config.levels - 1))
        self.enc_output = Linear(width, width)
        self.enc_output_norm = nn.LayerNorm(width)
        self.enc_mask_predictor = MaskPredictor(width)
        self.encoder_class_head = Linear(width, config.num_logits)
        self.encoder_bbox_head = MLP(width, width, 4, 3)
        self.encoder = SalienceEncoder(config, self.encoder_class_head)
        self.neck = RepVGGPluXNetwork(width, config.levels, norm_layer)
        self.decoder = SalienceDecoder(config)
        self.tgt_embed = nn.Embedding(config.num_queries, width)

    def refine(
        self, levels: Levels, choices: Choices
    ) -> tuple[Tensor, Selection, tuple[Tensor, ...]]:
        """The memory (B, S, C), what the encoder has refined for it, and who was pre-attended."""
        _, invalid = anchors_of(levels, PROPOSAL_SIZE)
        seen = self._outputs(levels.src + levels.pos, invalid)
        salience = salience_of(seen, levels.shapes, self.enc_mask_predictor, self.alpha)
        ratios = self.level_filter_ratio, self.layer_filter_ratio
        selection = select(salience, levels, *ratios, choices.selected)
        refined, pre_attended = self.encoder(levels, selection, choices.pre_attended)
        mixed = self.neck(by_level(refined, levels.shapes))
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in mixed], 1)
        return memory, selection, pre_attended

    def _outputs(self, tokens: Tensor, invalid: Tensor) -> Tensor:
        """Tokens (B, S, C) as the heads read them; those that make no proposal are 0 before."""
        return self.enc_output_norm(self.enc_output(tokens.masked_fill(invalid[..., None], 0)))

    def propose(self, memory: Tensor, levels: Levels, tokens: Tensor | None) -> Proposals:
        """The best tokens without their neighbours; tokens (B, Q): made elsewhere."""
        boxes, invalid = anchors_of(levels, PROPOSAL_SIZE)
        outputs = self._outputs(memory, invalid)
        logits = self.encoder_class_head(outputs)
        scores = logits.amax(-1)
        if tokens is None:
            tokens = choose(scores, levels.shapes, self.tgt_embed.num_embeddings)
        start = torch.log(boxes / (1 - boxes)).masked_fill(invalid[..., None], float("inf"))
        moved = self.encoder_bbox_head(gathered(outputs, tokens)) + gathered(start, tokens)
        return Proposals(tokens, scores, invalid, gathered(logits, tokens), moved.sigmoid())


class Neck(nn.Module):
    """Convolution and group norm of each level: outputs of the backbone -> (B, C, h, w) each."""

    def __init__(self, config: SalienceConfig) -> None:
        super().__init__()
        backbone, width = config.backbone, config.d_model
        outputs = backbone.out_channels
        channels = [n * (outputs // backbone.widths[-1]) for n in backbone.widths]
        channels = channels[-config.stages :]
        convs = [Conv2d(n, width, 1, bias=False) for n in channels]
        for i in range(config.levels - config.stages):
            convs.append(Conv2d(width if i else outputs, width, 3, 2, 1, bias=False))
        self.convs = nn.ModuleList(
            nn.Sequential(conv, nn.GroupNorm(GROUPS, width)) for conv in convs
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels: list[Tensor] = []
        for i, conv in enumerate(self.convs):
            further = i > len(features)  # made of the level before
            levels.append(conv(levels[-1] if further else features[min(i, len(features) - 1)]))
        return levels
