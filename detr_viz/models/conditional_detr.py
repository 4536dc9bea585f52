"""Conditional DETR (Meng et al., ICCV 2021): names and outputs of Atten4Vis/ConditionalDETR."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.terms import MODES
from detr_viz.models.config import ConfigError, DetrConfig, read_config
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import inverse_sigmoid, sine_points
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.layers.split_attention import (
    AttentionInputs,
    ConcatAttention,
    SplitAttention,
    SumAttention,
)
from detr_viz.models.layers.transformer import MLP, FeedForwardLayer, once
from detr_viz.models.network import DetrNetwork
from detr_viz.models.spec import ModelSpec


class DecoderLayer(FeedForwardLayer):
    """Additive self-attention, concatenating cross-attention, FFN (post-norm).

    Only layer 0 has `ca_qpos_proj`: there position also enters the content half of query and key.
    """

    def __init__(self, config: DetrConfig, is_first: bool) -> None:
        super().__init__(config, norms=3)
        width = config.d_model
        names = ["sa_qcontent", "sa_qpos", "sa_kcontent", "sa_kpos", "sa_v"]
        names += ["ca_qcontent", "ca_kcontent", "ca_kpos", "ca_v", "ca_qpos_sine"]
        for name in [*names, "ca_qpos"] if is_first else names:
            self.add_module(f"{name}_proj", Linear(width, width))
        self.is_first = is_first
        self.self_attn = SumAttention(width, config.nheads)
        self.cross_attn = ConcatAttention(width, config.nheads)

    @property
    def cross_site(self) -> SplitAttention:
        return self.cross_attn

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        query_sine_embed: Tensor,
        memory: Tensor,
        pos: Tensor,
        padding: Tensor | None,
    ) -> Tensor:
        between = AttentionInputs(
            c_q=self.sa_qcontent_proj(tgt),
            p_q=self.sa_qpos_proj(query_pos),
            c_k=self.sa_kcontent_proj(tgt),
            p_k=self.sa_kpos_proj(query_pos),
            value=self.sa_v_proj(tgt),
        )
        tgt = self.norm1(tgt + self.self_attn(between))
        across = AttentionInputs(
            c_q=self.ca_qcontent_proj(tgt),
            p_q=self.ca_qpos_sine_proj(query_sine_embed),
            c_k=self.ca_kcontent_proj(memory),
            p_k=self.ca_kpos_proj(pos),
            value=self.ca_v_proj(memory),
            key_padding_mask=padding,
            shared_p_q=self.ca_qpos_proj(query_pos) if self.is_first else None,
        )
        tgt = self.norm2(tgt + self.cross_attn(across))
        return self.norm3(tgt + self.feed_forward(tgt))


class Decoder(nn.Module):
    """query_pos (1, Q, C), memory and pos (B, K, C) -> normed layer outputs (B, Q, C), anchor.

    The anchor (1, Q, 4) is the inverse sigmoid of the reference point, 0 for width and height.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.layers = nn.ModuleList(DecoderLayer(config, i == 0) for i in range(config.dec_layers))
        self.norm = nn.LayerNorm(width)
        self.query_scale = MLP(width, width, width, 2)
        self.ref_point_head = MLP(width, width, 2, 2)

    def forward(
        self, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None, aux: bool
    ) -> tuple[list[Tensor], Tensor]:
        reference_points = self.ref_point_head(query_pos).sigmoid()
        sine = sine_points(reference_points, query_pos.shape[-1])
        tgt = query_pos.new_zeros(memory.shape[0], *query_pos.shape[1:])
        memory = once(memory)
        outputs = []
        for i, layer in enumerate(self.layers):
            # the previous layer's output before decoder.norm says how far the box reaches
            query_sine_embed = sine if i == 0 else sine * self.query_scale(tgt)
            tgt = layer(tgt, query_pos, query_sine_embed, memory, pos, padding)
            if aux or i == len(self.layers) - 1:
                outputs.append(self.norm(tgt))
        return outputs, F.pad(inverse_sigmoid(reference_points), (0, 2))


def build(config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> DetrNetwork:
    """A Conditional DETR of these sizes; one sigmoid a class."""
    return DetrNetwork(config, Decoder(config), norm_layer)


def matches(keys: Collection[str]) -> bool:
    """Projections of content and position apart, and the reference point head, are its marks."""
    return (
        "transformer.decoder.layers.0.ca_qcontent_proj.weight" in keys
        and "transformer.decoder.ref_point_head.layers.0.weight" in keys
    )


def read_post_norm(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> DetrConfig:
    """Sizes as of `read_config`; ConfigError for pre-norm, which the authors' decoder has not."""
    config = read_config(state_dict, nheads, dilation)
    if config.pre_norm:
        raise ConfigError(
            "it is pre-norm (transformer.encoder.norm), which the authors' Conditional DETR does "
            "not have: give a post-norm one"
        )
    return config


def class_probabilities(pred_logits: Tensor) -> Tensor:
    """A sigmoid a class: (..., classes) -> (..., classes)."""
    return pred_logits.to(torch.promote_types(pred_logits.dtype, torch.float32)).sigmoid()


SPEC = ModelSpec(
    name="cd_detr",
    title="Conditional DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_post_norm,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
)
