"""DETR (Carion et al., ECCV 2020): parameter names and outputs of facebookresearch/detr."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.terms import MODES
from detr_viz.models.config import DetrConfig, read_config
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention, SplitAttention
from detr_viz.models.layers.transformer import FeedForwardLayer, once
from detr_viz.models.network import DetrNetwork
from detr_viz.models.spec import ModelSpec


class DecoderLayer(FeedForwardLayer):
    """Self-attention between queries, cross-attention to the memory, FFN.

    Post-norm: the content of a cross-attention's query is norm1's output. Pre-norm: it is norm2's,
    and that of self-attention is norm1's; the sums themselves are never normed in a layer.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, norms=3)
        self.self_attn = PackedAttention(config.d_model, config.nheads)
        self.multihead_attn = PackedAttention(config.d_model, config.nheads)

    @property
    def cross_site(self) -> SplitAttention:
        return self.multihead_attn

    def forward(
        self, tgt: Tensor, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None
    ) -> Tensor:
        if self.pre_norm:
            c = self.norm1(tgt)
            tgt = tgt + self.self_attn(AttentionInputs(c, query_pos, c, query_pos, c))
            c = self.norm2(tgt)
            tgt = tgt + self.multihead_attn(
                AttentionInputs(c, query_pos, memory, pos, memory, padding)
            )
            return tgt + self.feed_forward(self.norm3(tgt))
        tgt = self.norm1(tgt + self.self_attn(AttentionInputs(tgt, query_pos, tgt, query_pos, tgt)))
        attended = self.multihead_attn(
            AttentionInputs(tgt, query_pos, memory, pos, memory, padding)
        )
        tgt = self.norm2(tgt + attended)
        return self.norm3(tgt + self.feed_forward(tgt))


class Decoder(nn.Module):
    """query_pos (1, Q, C), memory, pos (B, K, C) -> normed layer outputs (B, Q, C), no anchor."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.dec_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None, aux: bool
    ) -> tuple[list[Tensor], None]:
        tgt = query_pos.new_zeros(memory.shape[0], *query_pos.shape[1:])
        memory = once(memory)
        outputs = []
        for i, layer in enumerate(self.layers):
            tgt = layer(tgt, query_pos, memory, pos, padding)
            if aux or i == len(self.layers) - 1:
                outputs.append(self.norm(tgt))
        return outputs, None


def build(config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> DetrNetwork:
    """A DETR of these sizes; pred_logits has no-object last."""
    return DetrNetwork(config, Decoder(config), norm_layer)


def matches(keys: Collection[str]) -> bool:
    """Packed cross-attention in the decoder is DETR's, and the notebook's, which has query_pos."""
    packed = "transformer.decoder.layers.0.multihead_attn.in_proj_weight"
    return packed in keys and "query_pos" not in keys


def class_probabilities(pred_logits: Tensor) -> Tensor:
    """Softmax with no-object, which is then left out: (..., classes + 1) -> (..., classes)."""
    wide = pred_logits.to(torch.promote_types(pred_logits.dtype, torch.float32))
    return F.softmax(wide, -1)[..., :-1]


SPEC = ModelSpec(
    name="detr",
    title="DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits - 1,
    pairwise=False,
)
