"""DETR (Carion et al., ECCV 2020): parameter names and outputs of facebookresearch/detr."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import DetrConfig, read_config
from detr_viz.models.layers import MLP, Backbone, Encoder, PackedAttention, feed_forward, tokens
from detr_viz.models.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.spec import ModelSpec
from detr_viz.terms import MODES


class DecoderLayer(nn.Module):
    """Self-attention between queries, cross-attention to the memory, FFN (post-norm)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = PackedAttention(width, config.nheads)
        self.multihead_attn = PackedAttention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self, tgt: Tensor, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None
    ) -> Tensor:
        tgt = self.norm1(tgt + self.self_attn(tgt, query_pos, tgt, query_pos, tgt))
        tgt = self.norm2(tgt + self.multihead_attn(tgt, query_pos, memory, pos, memory, padding))
        return self.norm3(tgt + feed_forward(self, tgt))


class Decoder(nn.Module):
    """query_pos (1, Q, C), memory and pos (B, K, C) -> normed output of every layer, each (B, Q,
    C).
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dec_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None, aux: bool
    ) -> list[Tensor]:
        tgt = query_pos.new_zeros(memory.shape[0], *query_pos.shape[1:])
        outputs = []
        for i, layer in enumerate(self.layers):
            tgt = layer(tgt, query_pos, memory, pos, padding)
            if aux or i == len(self.layers) - 1:
                outputs.append(self.norm(tgt))
        return outputs


class Transformer(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class DETR(nn.Module):
    """The detector. forward(images, mask, aux) -> dict of

    pred_logits  (B, Q, classes + 1), the last one no-object
    pred_boxes   (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    memory_hw    (h, w) of the memory grid
    aux_outputs  with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.
    """

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.transformer = Transformer(config)
        self.class_embed = nn.Linear(width, config.num_logits)
        self.bbox_embed = MLP(width, width, 4, 3)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.input_proj = nn.Conv2d(config.backbone.out_channels, width, 1)
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        features = self.input_proj(self.backbone[0](images))
        src, pos, padding = tokens(features, mask, self.config.d_model)
        memory = self.transformer.encoder(src, pos, padding)
        query_pos = self.query_embed.weight[None]
        hs = self.transformer.decoder(query_pos, memory, pos, padding, aux)
        outputs = [
            {"pred_logits": self.class_embed(h), "pred_boxes": self.bbox_embed(h).sigmoid()}
            for h in hs
        ]
        result = {**outputs[-1], "memory_hw": tuple(features.shape[-2:])}
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> the module that attends; kinds "cross",
        "self" (decoder) and "encoder".
        """
        sites: dict[tuple[str, int], nn.Module] = {}
        for i, layer in enumerate(self.transformer.encoder.layers):
            sites["encoder", i] = layer.self_attn
        for i, layer in enumerate(self.transformer.decoder.layers):
            sites["self", i] = layer.self_attn
            sites["cross", i] = layer.multihead_attn
        return sites

    def fold_batch_norm(self) -> None:
        """For inference, after loading: see Backbone.fold_batch_norm."""
        self.backbone[0].fold_batch_norm()


def matches(keys: Collection[str]) -> bool:
    """Packed cross-attention in the decoder is DETR's alone."""
    return "transformer.decoder.layers.0.multihead_attn.in_proj_weight" in keys


def class_probabilities(pred_logits: Tensor) -> Tensor:
    """Softmax with no-object, which is then left out: (..., classes + 1) -> (..., classes)."""
    return F.softmax(pred_logits.to(torch.promote_types(pred_logits.dtype, torch.float32)), -1)[
        ..., :-1
    ]


SPEC = ModelSpec(
    name="detr",
    title="DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=DETR,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits - 1,
    pairwise=False,
)
