"""Attention sites: small modules that are called with their four parts apart.

A site takes Parts, attends with the fused kernel, and gives the Terms of the same Parts when asked:
a forward hook that keeps the Parts is all that capture needs, a plain forward pass costs no more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.kernel import attend, merge_heads, split_heads
from detr_viz.attention.onednn import linear
from detr_viz.attention.terms import MODES
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.linear import Linear


class AttentionInputs(NamedTuple):
    """What a site is called with, batch first; a batch of 1 stands for all images.

    c_q, p_q          (B, Q, C) content and position of the queries
    c_k, p_k          (B, K, C) the same of the keys
    value             (B, K, C)
    key_padding_mask  (B, K) True = padding, or None
    shared_p_q        (B, Q, C) Conditional DETR's first layer: query position in the content half
    """

    c_q: Tensor
    p_q: Tensor
    c_k: Tensor
    p_k: Tensor
    value: Tensor
    key_padding_mask: Tensor | None = None
    shared_p_q: Tensor | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> AttentionInputs:
        """As if image i had been alone."""
        return image_of(self, i)


class SplitAttention(nn.Module):
    """softmax(q . k * scale) v, heads merged and projected: AttentionInputs -> (B, Q, C).

    A kind of it says how q, k and v come of the inputs (`qkv`), and reads a call as DenseAttention.
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.out_proj = Linear(d_model, d_model)

    @property
    def head_width(self) -> int:
        """D, channels of a head's value."""
        return self.out_proj.in_features // self.nheads

    @property
    def scale(self) -> float:
        return self.head_width**-0.5

    def qkv(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, M, Q, E), key (B, M, K, E) and value (B, M, K, D) as the layer attends."""
        raise NotImplementedError

    def read(self, inputs: AttentionInputs) -> DenseAttention:
        """What a call with these inputs attended with; everything begins with B."""
        raise NotImplementedError

    def forward(self, inputs: AttentionInputs, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B or 1, Q, K) True where a query must not look."""
        context = attend(*self.qkv(inputs), self.scale, inputs.key_padding_mask, hidden)
        return self.out_proj(merge_heads(context))

    def _heads(self, batch: int, *tensors: Tensor) -> list[Tensor]:
        """Each (1 or B, N, C) as (B, M, N, D)."""
        return [split_heads(x, self.nheads).expand(batch, -1, -1, -1) for x in tensors]


class PackedAttention(SplitAttention):
    """One packed projection for content + position, as nn.MultiheadAttention names it.

    All of DETR's attention and every encoder's. The projection's bias stands apart in the Terms.
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__(d_model, nheads)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        nn.init.xavier_uniform_(self.in_proj_weight)

    def qkv(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        c_q, p_q, c_k, p_k, value = inputs[:5]
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.out_proj.in_features
        if c_q is c_k and p_q is p_k:  # self-attention: one product for q and k
            both = linear(c_q + p_q, weight[: 2 * width], bias[: 2 * width])
            q, k = both.chunk(2, -1)
        else:
            q = linear(c_q + p_q, weight[:width], bias[:width])
            k = linear(c_k + p_k, weight[width : 2 * width], bias[width : 2 * width])
        v = linear(value, weight[2 * width :], bias[2 * width :])
        return tuple(self._heads(len(c_q), q, k, v))

    def read(self, inputs: AttentionInputs) -> DenseAttention:
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, b_k, b_v = self.in_proj_bias.chunk(3)
        c_q, p_q, c_k, p_k, value = self._heads(
            inputs.c_q.shape[0],
            linear(inputs.c_q, w_q),
            linear(inputs.p_q, w_q),
            linear(inputs.c_k, w_k),
            linear(inputs.p_k, w_k),
            linear(inputs.value, w_v, b_v),
        )
        return DenseAttention(
            c_q=c_q,
            p_q=p_q,
            c_k=c_k,
            p_k=p_k,
            b_q=b_q.view(self.nheads, 1, -1),
            b_k=b_k.view(self.nheads, 1, -1),
            value=value,
            scale=self.scale,
            mode_scales=dict.fromkeys(MODES, self.scale),
            key_padding_mask=inputs.key_padding_mask,
        )


class SumAttention(SplitAttention):
    """Parts come projected, each with its own bias; content and position are added.

    Conditional DETR's decoder self-attention.
    """

    def qkv(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        c_q, p_q, c_k, p_k, value = inputs[:5]
        return tuple(split_heads(x, self.nheads) for x in (c_q + p_q, c_k + p_k, value))

    def read(self, inputs: AttentionInputs) -> DenseAttention:
        c_q, p_q, c_k, p_k, value = self._heads(inputs.c_q.shape[0], *inputs[:5])
        return DenseAttention(
            c_q=c_q,
            p_q=p_q,
            c_k=c_k,
            p_k=p_k,
            b_q=None,
            b_k=None,
            value=value,
            scale=self.scale,
            mode_scales=dict.fromkeys(MODES, self.scale),
            key_padding_mask=inputs.key_padding_mask,
        )


class ConcatAttention(SplitAttention):
    """Projected parts laid side by side in each head: [content | position].

    Conditional DETR's cross-attention (section 3.3). In its first layer position also enters the
    content half: of the query as `shared_p_q`, of the key as p_k itself. In the Terms the parts lie
    in orthogonal halves of width 2 D.
    """

    @property
    def scale(self) -> float:
        return (2 * self.head_width) ** -0.5

    def qkv(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        c_q, p_q, c_k, p_k, value = inputs[:5]
        if inputs.shared_p_q is not None:
            c_q, c_k = c_q + inputs.shared_p_q, c_k + p_k
        c_q, p_q, c_k, p_k, value = self._heads(c_q.shape[0], c_q, p_q, c_k, p_k, value)
        return torch.cat((c_q, p_q), -1), torch.cat((c_k, p_k), -1), value

    def read(self, inputs: AttentionInputs) -> DenseAttention:
        c_q, p_q, c_k, p_k, value = self._heads(inputs.c_q.shape[0], *inputs[:5])
        own = self.head_width**-0.5
        scales = {"combine": self.scale, "position": own, "content": own}
        shared_p_q, shared_p_k = torch.zeros_like(c_q), torch.zeros_like(c_k)
        if inputs.shared_p_q is not None:  # position fills both halves, and so does its own scale
            (shared_p_q,) = self._heads(c_q.shape[0], inputs.shared_p_q)
            shared_p_k, scales["position"] = p_k, self.scale
        return DenseAttention(
            c_q=torch.cat((c_q, torch.zeros_like(c_q)), -1),
            p_q=torch.cat((shared_p_q, p_q), -1),
            c_k=torch.cat((c_k, torch.zeros_like(c_k)), -1),
            p_k=torch.cat((shared_p_k, p_k), -1),
            b_q=None,
            b_k=None,
            value=value,
            scale=self.scale,
            mode_scales=scales,
            key_padding_mask=inputs.key_padding_mask,
        )
