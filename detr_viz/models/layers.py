"""What the DETR family is built of: attention sites, FFN, MLP, encoder, backbone.

A site is called with its parts apart, site(c_q, p_q, c_k, p_k, value, key_padding_mask), batch
first. It attends with the fused kernel, and gives its Terms from the same arguments when asked: a
forward hook that keeps them is all that capture needs, and a plain forward pass costs no more.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention import attend, merge_heads, split_heads
from detr_viz.models.config import DetrConfig
from detr_viz.models.positions import downsample_padding, sine_positions
from detr_viz.models.resnet import FrozenBatchNorm2d, NormLayer, ResNetBody, fold_batch_norm
from detr_viz.terms import MODES, Terms


class PackedAttention(nn.Module):
    """Attention with one packed projection for content + position (nn.MultiheadAttention's names).

    c_q, p_q (B, Q, C); c_k, p_k, value (B, K, C); key_padding_mask (B, K) or None -> (B, Q, C).
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        self.out_proj = nn.Linear(d_model, d_model)
        nn.init.xavier_uniform_(self.in_proj_weight)

    @property
    def scale(self) -> float:
        return (self.out_proj.in_features // self.nheads) ** -0.5

    def forward(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        width = self.out_proj.in_features
        if c_q is c_k and p_q is p_k:  # self-attention: one product for q and k
            qk = F.linear(
                c_q + p_q, self.in_proj_weight[: 2 * width], self.in_proj_bias[: 2 * width]
            )
            q, k = qk.chunk(2, -1)
        else:
            weight, bias = self.in_proj_weight, self.in_proj_bias
            q = F.linear(c_q + p_q, weight[:width], bias[:width])
            k = F.linear(c_k + p_k, weight[width : 2 * width], bias[width : 2 * width])
        v = F.linear(value, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        q, k, v = (split_heads(x, self.nheads) for x in (q, k, v))
        return self.out_proj(merge_heads(attend(q, k, v, self.scale, key_padding_mask)))

    def terms(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Terms:
        """The Terms of a call with these arguments."""
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, b_k, b_v = self.in_proj_bias.chunk(3)
        heads = self.nheads
        return Terms(
            c_q=split_heads(F.linear(c_q, w_q), heads),
            p_q=split_heads(F.linear(p_q, w_q), heads).expand(c_q.shape[0], -1, -1, -1),
            c_k=split_heads(F.linear(c_k, w_k), heads),
            p_k=split_heads(F.linear(p_k, w_k), heads).expand(c_k.shape[0], -1, -1, -1),
            b_q=b_q.view(heads, 1, -1),
            b_k=b_k.view(heads, 1, -1),
            value=split_heads(F.linear(value, w_v, b_v), heads),
            scale=self.scale,
            mode_scales=dict.fromkeys(MODES, self.scale),
            key_padding_mask=key_padding_mask,
        )


class SumAttention(nn.Module):
    """Attention over parts that come projected, each with its own bias;
    content and position are added.

    Conditional DETR's decoder self-attention. Shapes as in PackedAttention; owns out_proj only.
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.out_proj = nn.Linear(d_model, d_model)

    @property
    def scale(self) -> float:
        return (self.out_proj.in_features // self.nheads) ** -0.5

    def forward(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        q, k, v = (split_heads(x, self.nheads) for x in (c_q + p_q, c_k + p_k, value))
        return self.out_proj(merge_heads(attend(q, k, v, self.scale, key_padding_mask)))

    def terms(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
    ) -> Terms:
        """The Terms of a call with these arguments."""
        batch = c_q.shape[0]
        c_q, p_q, c_k, p_k, value = (
            split_heads(x, self.nheads).expand(batch, -1, -1, -1)
            for x in (c_q, p_q, c_k, p_k, value)
        )
        scale = self.scale
        scales = dict.fromkeys(MODES, scale)
        return Terms(c_q, p_q, c_k, p_k, None, None, value, scale, scales, key_padding_mask)


class ConcatAttention(nn.Module):
    """Attention over projected parts laid side by side in each head: [content | position].

    Conditional DETR's cross-attention (section 3.3). In its first layer position also enters the
    content half: of the query as `shared_p_q` (ca_qpos_proj of the query embedding),
    of the key as p_k itself. Shapes as in PackedAttention; owns out_proj only.
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.out_proj = nn.Linear(d_model, d_model)

    @property
    def scale(self) -> float:
        return (2 * self.out_proj.in_features // self.nheads) ** -0.5

    def forward(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        shared_p_q: Tensor | None = None,
    ) -> Tensor:
        if shared_p_q is not None:
            c_q, c_k = c_q + shared_p_q, c_k + p_k
        c_q, p_q, c_k, p_k, v = (split_heads(x, self.nheads) for x in (c_q, p_q, c_k, p_k, value))
        q = torch.cat((c_q, p_q.expand_as(c_q)), -1)
        k = torch.cat((c_k, p_k.expand_as(c_k)), -1)
        return self.out_proj(merge_heads(attend(q, k, v, self.scale, key_padding_mask)))

    def terms(
        self,
        c_q: Tensor,
        p_q: Tensor,
        c_k: Tensor,
        p_k: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        shared_p_q: Tensor | None = None,
    ) -> Terms:
        """The Terms of a call with these arguments, parts in orthogonal halves of width 2 D."""
        batch = c_q.shape[0]
        c_q, p_q, c_k, p_k, value = (
            split_heads(x, self.nheads).expand(batch, -1, -1, -1)
            for x in (c_q, p_q, c_k, p_k, value)
        )
        half = (self.out_proj.in_features // self.nheads) ** -0.5
        scales = {"combine": self.scale, "position": half, "content": half}
        p_q_content, p_k_content = torch.zeros_like(c_q), torch.zeros_like(c_k)
        if shared_p_q is not None:  # position fills both halves, and so does its own scale
            p_q_content = split_heads(shared_p_q, self.nheads).expand_as(c_q)
            p_k_content = p_k
            scales["position"] = self.scale
        return Terms(
            c_q=torch.cat((c_q, torch.zeros_like(c_q)), -1),
            p_q=torch.cat((p_q_content, p_q), -1),
            c_k=torch.cat((c_k, torch.zeros_like(c_k)), -1),
            p_k=torch.cat((p_k_content, p_k), -1),
            b_q=None,
            b_k=None,
            value=value,
            scale=self.scale,
            mode_scales=scales,
            key_padding_mask=key_padding_mask,
        )


class MLP(nn.Module):
    """Linear layers with ReLU between them: (..., d_in) -> (..., d_out)."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, num_layers: int) -> None:
        super().__init__()
        sizes = [d_in, *[d_hidden] * (num_layers - 1), d_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def feed_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """linear2(relu(linear1(x))) of an encoder or decoder layer."""
    return layer.linear2(F.relu(layer.linear1(x)))


class EncoderLayer(nn.Module):
    """Self-attention over the cells, then FFN, each added and normed (post-norm)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = PackedAttention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        src = self.norm1(src + self.self_attn(src, pos, src, pos, src, padding))
        return self.norm2(src + feed_forward(self, src))


class Encoder(nn.Module):
    """src, pos (B, K, C) -> memory (B, K, C)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.enc_layers))

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        for layer in self.layers:
            src = layer(src, pos, padding)
        return src


class Backbone(nn.Module):
    """Holds the body under the name that official checkpoints use (backbone.0.body)."""

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.body = ResNetBody(config.backbone, norm_layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)

    def fold_batch_norm(self) -> None:
        """Fold batch norm and lay convolutions out channels last: what makes a CPU quick."""
        fold_batch_norm(self.body)
        self.body.to(memory_format=torch.channels_last)


def tokens(
    features: Tensor, mask: Tensor | None, d_model: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Feature map to tokens: (B, C, h, w), mask (B, H, W) -> src (B, K, C), pos (1 or B, K, C),
    padding.

    padding is (B, K) or None where nothing is padded, which lets attention take its quickest path.
    """
    hw = features.shape[-2:]
    if mask is not None and not mask.any():
        mask = None
    if mask is None:
        padding = torch.zeros((1, *hw), dtype=torch.bool, device=features.device)
    else:
        padding = downsample_padding(mask, hw)
    pos = sine_positions(padding, d_model, features.dtype)
    src = features.flatten(2).transpose(1, 2)
    return src, pos, None if mask is None else padding.flatten(1)
