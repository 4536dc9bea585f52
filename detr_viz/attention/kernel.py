"""Heads split and merged, and attention as the networks run it, by the fused kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, nheads: int) -> Tensor:
    """(B, N, M * D) -> (B, M, N, D), a view."""
    return x.unflatten(-1, (nheads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """(B, M, N, D) -> (B, N, M * D)."""
    return x.transpose(-2, -3).flatten(-2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    key_padding_mask: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """softmax(q . k * scale) v by the fused kernel.

    q (B, M, Q, E), k (B, M, K, E), v (B, M, K, D) -> (B, M, Q, D); key_padding_mask (B, K) is True
    on padding, whose weight is exactly 0. hidden (B or 1, Q, K) is True where a query must not
    attend; a query without any key left gets 0.
    """
    keep = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
    if hidden is not None:
        seen = ~hidden[:, None] if keep is None else ~hidden[:, None] & keep
        blind = ~seen.any(-1, keepdim=True)
        return _fused(q, k, v, scale, seen | blind).masked_fill(blind, 0)
    return _fused(q, k, v, scale, keep)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, keep: Tensor | None) -> Tensor:
    """`attend` with a mask: True for keys that get a weight, at least one in each row."""
    # Fast kernels of a CPU need equal widths, and mps returns q's (torch up to 2.11).
    width, more = v.shape[-1], q.shape[-1] - v.shape[-1]
    if more:
        v = F.pad(v, (0, more))
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, scale=scale)
    return context[..., :width]
