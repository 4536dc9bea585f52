"""Encoder, FFN, MLP and backbone: what the transformers of the family share.

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import downsample_padding
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, ResNetBody
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention


class MLP(nn.Module):
    """Linear layers with ReLU between them: (..., d_in) -> (..., d_out)."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, num_layers: int) -> None:
        super().__init__()
        sizes = [d_in, *[d_hidden] * (num_layers - 1), d_out]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForwardLayer(nn.Module):
    """What every encoder and decoder layer has: linear1, linear2 and `norms` layer norms.

    pre_norm: whether a norm stands before its sublayer rather than after the sum.
    """

    def __init__(self, config: DetrConfig, norms: int) -> None:
        super().__init__()
        width = config.d_model
        self.pre_norm = config.pre_norm
        self.linear1 = Linear(width, config.dim_feedforward)
        self.linear2 = Linear(config.dim_feedforward, width)
        for i in range(norms):
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width))

    def feed_forward(self, x: Tensor) -> Tensor:
        """linear2(relu(linear1(x)))."""
        return self.linear2(F.relu(self.linear1(x), inplace=True))


class EncoderLayer(FeedForwardLayer):
    """Self-attention over the cells, then FFN, each added and normed; pre-norm: normed and added.

    With pre_norm content is norm1's output, and it is also what values are projected from.
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, norms=2)
        self.self_attn = PackedAttention(config.d_model, config.nheads)

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        if self.pre_norm:
            normed = self.norm1(src)
            src = src + self.self_attn(AttentionInputs(normed, pos, normed, pos, normed, padding))
            return src + self.feed_forward(self.norm2(src))
        src = self.norm1(src + self.self_attn(AttentionInputs(src, pos, src, pos, src, padding)))
        return self.norm2(src + self.feed_forward(src))


class Encoder(nn.Module):
    """src, pos (B, K, C) -> memory (B, K, C), normed at the end if the layers are pre-norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.enc_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.pre_norm else None

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        for layer in self.layers:
            src = layer(src, pos, padding)
        return src if self.norm is None else self.norm(src)


class Transformer(nn.Module):
    """Holds encoder and decoder under their official names."""

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder


class Backbone(nn.Module):
    """Holds the body under its official name (backbone.0.body)."""

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.body = ResNetBody(config.backbone, norm_layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def tokens(
    features: Tensor, mask: Tensor | None, positions: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (B, C, h, w), mask (B, H, W) or None -> src (B, K, C), pos (1 or B, K, C), padding.

    positions: padding (1 or B, h, w) -> pos.
    padding is (B, K), or None where nothing is padded: attention then takes its quickest path.
    """
    hw = features.shape[-2:]
    if mask is not None and not mask.any():
        mask = None
    if mask is None:
        padding = torch.zeros((1, *hw), dtype=torch.bool, device=features.device)
    else:
        padding = downsample_padding(mask, hw)
    pos = positions(padding)
    src = features.flatten(2).transpose(1, 2)
    return src, pos, None if mask is None else padding.flatten(1)


def once(memory: Tensor) -> Tensor:
    """(1, K, C) of a single image that was repeated: its keys are projected once for all."""
    return memory[:1] if memory.stride(0) == 0 else memory
