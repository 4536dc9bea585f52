"""Pure tensor math: terms -> logits -> weights. Knows no model, no image, no file.

terms = ...                                     # Terms, captured at one attention site
weights(terms, "position", queries=[3])         # (B, M, 1, K), every row sums to 1
four_terms(terms, queries=[3])                  # what content and position add to the logits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.attention.terms import (
    MODES,
    TERMS,
    DenseAttention,
    Mode,
    check_mode,
    is_sum,
    parse_terms,
)

# The self-check's limit by the precision the layer ran in.
RESIDUAL_LIMITS = {
    torch.float64: 1e-4,
    torch.float32: 1e-4,
    torch.bfloat16: 3e-2,
    torch.float16: 3e-2,
}
TF32_RESIDUAL_LIMIT = 5e-3


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
    look; one that has no key left gets 0.
    """
    keep = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
    if hidden is not None:
        seen = ~hidden[:, None] if keep is None else ~hidden[:, None] & keep
        blind = ~seen.any(-1, keepdim=True)
        return _fused(q, k, v, scale, seen | blind).masked_fill(blind, 0)
    return _fused(q, k, v, scale, keep)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, keep: Tensor | None) -> Tensor:
    """`attend` with a mask that is True on what has weight, a key at least in each row."""
    # On mps torch up to 2.11 gives q's width, not v's; on a CPU it has its quick kernel for one
    # width alone. Without a mask nothing is padded: the plain network stays as it is, to the bit.
    width, more = v.shape[-1], q.shape[-1] - v.shape[-1]
    if more and (q.device.type == "mps" or keep is not None):
        v = F.pad(v, (0, more))
    made = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, scale=scale)
    return made[..., :width]


def separate(terms: DenseAttention) -> bool:
    """Whether no content meets a position: c_q . p_k and p_q . c_k are 0 for every input.

    So it is where a model lays the parts side by side in each head, not where it adds them.
    """
    if terms.b_q is not None or terms.b_k is not None:
        return False
    c_q, p_q, c_k, p_k = (
        (part != 0).any(0).any(1) for part in (terms.c_q, terms.p_q, terms.c_k, terms.p_k)
    )
    return not bool(((c_q & p_k) | (p_q & c_k)).any())


def _sum_parts(terms: DenseAttention, side: str, parts: str) -> Tensor:
    """Sum of the named parts of one side ("q" or "k"): (B, M, N, E), half precision widened."""
    like = getattr(terms, f"c_{side}")
    total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    for part in parts:
        value = getattr(terms, f"{part}_{side}")
        if value is not None:  # a bias asked for at a site that has none
            total = total + value
    return total


def pick_queries(terms: DenseAttention, queries: Sequence[int] | Tensor | None) -> DenseAttention:
    """The same terms with only the named query rows, in that order."""
    if queries is None:
        return terms
    index = torch.as_tensor(queries, dtype=torch.long, device=terms.c_q.device)
    return replace(terms, c_q=terms.c_q[:, :, index], p_q=terms.p_q[:, :, index])


def logits(
    terms: DenseAttention,
    q_parts: str = "cpb",
    k_parts: str = "cpb",
    scale: float | None = None,
    queries: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """(sum of q_parts) . (sum of k_parts) * scale, padding not masked: (B, M, q, K).

    Parts are letters of "cpb" (content, position, bias); scale defaults to the layer's own.
    """
    terms = pick_queries(terms, queries)
    q = _sum_parts(terms, "q", q_parts) * (terms.scale if scale is None else scale)
    return q @ _sum_parts(terms, "k", k_parts).transpose(-1, -2)


def normalize(scores: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """Softmax over the keys, padded ones exactly 0: (B, M, q, K) -> the same."""
    if key_padding_mask is not None:
        scores = scores.masked_fill(key_padding_mask[:, None, None, :], float("-inf"))
    return scores.softmax(-1)


def weights(
    terms: DenseAttention,
    mode: str | Mode = "combine",
    *,
    scale: str = "mode",
    queries: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Attention weights of one mode: (B, M, q, K), each row sums to 1.

    mode is a key of MODES, a sum of terms ("cq.pk+pq.pk" is what Fig. 1 of the Conditional DETR
    paper draws for DETR) or a Mode of your own, both at the layer's factor. scale "mode" uses the
    factor of that mode's q and k attended on their own, "layer" the layer's own. Raises ValueError
    on an unknown mode or scale.
    """
    if isinstance(mode, str):
        check_mode(mode)
    factor = terms.scale_of(mode, scale)
    if is_sum(mode):
        scores = sum(logits(terms, *TERMS[name], factor, queries) for name in parse_terms(mode))
    else:
        parts = MODES[mode] if isinstance(mode, str) else mode
        scores = logits(terms, parts.q_parts, parts.k_parts, factor, queries)
    return normalize(scores, terms.key_padding_mask)


def four_terms(
    terms: DenseAttention, queries: Sequence[int] | Tensor | None = None
) -> dict[tuple[str, str], Tensor]:
    """Logits by (query part, key part), biases counted with content: they sum to combine's logits.

    Keys are pairs of "content" and "position", the query's first; values (B, M, q, K) at the
    layer's scale, padding not masked.
    """
    sides = {"content": "cb", "position": "p"}
    return {
        (q, k): logits(terms, sides[q], sides[k], queries=queries) for q, k in product(sides, sides)
    }


def nine_terms(
    terms: DenseAttention, queries: Sequence[int] | Tensor | None = None
) -> dict[tuple[str, str], Tensor]:
    """Like `four_terms` with the shared biases apart: pairs of "content", "position", "bias"."""
    sides = {"content": "c", "position": "p", "bias": "b"}
    return {
        (q, k): logits(terms, sides[q], sides[k], queries=queries) for q, k in product(sides, sides)
    }


def residual(terms: DenseAttention, project_out: Callable[[Tensor], Tensor], out: Tensor) -> float:
    """How far the recomputed weights are from those the layer used; NaN where it cannot be tested.

        rec = project_out(weights @ value)     uni = the same with uniform weights
        residual = |rec - out| / |out - uni|   (Frobenius)

    terms of the site; project_out (B, Q, C) -> (B, Q, C); out (B, Q, C), what the site put out.
    Near 0 for right maps (2e-6 in float32), at least 0.17 for wrong ones. A site whose output does
    not depend on its weights (|out - uni| < 1e-3 |out|) says nothing about them: NaN. One that
    is not finite is wrong whatever the weights: inf.
    """
    if not out.isfinite().all():
        return float("inf")
    used = weights(terms, "combine", scale="layer")
    uniform = normalize(torch.zeros_like(used[:, :, :1]), terms.key_padding_mask)
    value = terms.value
    # float64 on the CPU: some devices have none, and the norms must not add errors of their own
    rec, uni = (
        project_out(merge_heads(w.to(value.dtype) @ value)).cpu().double() for w in (used, uniform)
    )
    if not rec.isfinite().all():
        return float("inf")
    out = out.cpu().double()
    spread = torch.linalg.vector_norm(out - uni)
    if spread < 1e-3 * torch.linalg.vector_norm(out):
        return float("nan")
    return float(torch.linalg.vector_norm(rec - out) / spread)
