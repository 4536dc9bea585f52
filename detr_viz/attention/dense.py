"""Dense attention: softmax over all keys of sums of content, position and bias.

attention = ...                                 # DenseAttention, captured at one site
attention.weights("position", rows=[3])         # (M, 1, K), every row sums to 1
four_terms(attention, queries=[3])              # the parts that content and position add to logits

Only tensor maths: no model, no image, no file. Shapes are those of one image; in a call with a
batch they all begin with B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detr_viz.attention.base import Rows, one_of
from detr_viz.attention.grids import Grid
from detr_viz.attention.onednn import by_head
from detr_viz.attention.self_check import mixed, residual_of_rows
from detr_viz.attention.terms import (
    MODES,
    SCALES,
    SEPARATE_COMBINE,
    TERMS,
    Mode,
    check_mode,
    is_sum,
    parse_terms,
)

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal

# The limit of the self-check, by the precision of the layer.
RESIDUAL_LIMITS = {
    torch.float64: 1e-4,
    torch.float32: 1e-4,
    torch.bfloat16: 3e-2,
    torch.float16: 3e-2,
}
TF32_RESIDUAL_LIMIT = 5e-3


@dataclass(frozen=True, eq=False)
class DenseAttention:
    """Queries, keys and values of one site, projected and split into heads (an `Attention`).

    c_q, p_q  (M, Q, E)       content and position part of the queries
    c_k, p_k  (M, K, E)       the same of the keys
    b_q, b_k  (M, 1, E)       shared bias, or None if each part includes its own
    value     (M, K, D)
    scale                     the layer's own factor
    mode_scales               mode -> factor if only that mode's q and k attend
    key_padding_mask          (K,) True = padding, or None
    grids                     of the keys; () if these are queries
    Parts that a model concatenates lie in orthogonal halves of E: the formula is the same.
    """

    c_q: Tensor
    p_q: Tensor
    c_k: Tensor
    p_k: Tensor
    b_q: Tensor | None
    b_k: Tensor | None
    value: Tensor
    scale: float
    mode_scales: Mapping[str, float]
    key_padding_mask: Tensor | None = None
    grids: tuple[Grid, ...] = ()

    kind = "dense"
    term_names = tuple(TERMS)

    def __repr__(self) -> str:
        sizes = f"{self.num_heads} heads, {self.num_rows} rows, {self.c_k.shape[-2]} keys"
        return f"{type(self).__name__}({sizes}, scale {self.scale:.3g})"

    def of_image(self, i: int) -> DenseAttention:
        """One image of a batch. All fields of a batch begin with B, but not the shared bias."""
        names = ("c_q", "p_q", "c_k", "p_k", "value", "key_padding_mask")
        return one_of(self, i, names)

    @property
    def num_heads(self) -> int:
        return self.c_q.shape[-3]

    @property
    def num_rows(self) -> int:
        return self.c_q.shape[-2]

    @cached_property
    def separate(self) -> bool:
        """Whether no content meets a position; see the function of that name."""
        return separate(self)

    @property
    def modes(self) -> dict[str, str]:
        """Mode -> formula."""
        formulas = {mode: parts.formula for mode, parts in MODES.items()}
        return formulas | {"combine": SEPARATE_COMBINE} if self.separate else formulas

    def scale_of(self, mode: str | Mode, rule: str = "mode") -> float:
        """Factor of the logits of `mode`: its own, or the layer's (always for sums and a Mode)."""
        if rule not in SCALES:
            raise ValueError(f"scale {rule!r} is not one of {', '.join(SCALES)}")
        own = rule == "mode" and isinstance(mode, str) and not is_sum(mode)
        return self.mode_scales[mode] if own else self.scale

    def weights(
        self, mode: str | Mode = "combine", rows: Rows = None, scale: str = "mode"
    ) -> Tensor:
        """(M, q, K), every row sums to 1; mode and scale as in the function `weights`."""
        return weights(self, mode, scale=scale, queries=rows)

    def even(self, rows: Rows = None) -> Tensor:
        """(M, 1, K): the same weight on every key that is not padding."""
        return normalize(torch.zeros_like(logits(self, queries=[0])), self.key_padding_mask)

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, K) of one of `term_names`, at the layer's own factor, padding not masked."""
        return logits(self, *TERMS[name], queries=rows)

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check; see the function `residual`."""
        return residual(self, project_out, out)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, K), context (M, Q, D)) without a part.

        The terms of the logits are added one by one, so that the removal of a term that is zero
        does not change a single bit. hidden: (Q, K) True where a query must not attend. The weights
        of a removed head are 0, and also those of a query without any key left.
        """
        kept = [logits(self, *parts) for name, parts in TERMS.items() if name not in removal.terms]
        scores = kept[0]
        for part in kept[1:]:
            scores = scores + part
        mask = torch.zeros_like(scores[..., :1, :1, :], dtype=torch.bool)
        if self.key_padding_mask is not None:
            mask = mask | self.key_padding_mask[..., None, None, :]
        if hidden is not None:
            mask = mask | hidden[..., None, :, :]
        blind = mask.all(-1, keepdim=True)
        scores = scores.masked_fill(mask & ~blind, float("-inf"))
        remaining = scores.softmax(-1).masked_fill(blind, 0)
        if removal.head is not None:
            remaining = remaining.clone()
            remaining[..., removal.head, :, :] = 0
        return remaining, remaining.to(self.value.dtype) @ self.value


def separate(attention: DenseAttention) -> bool:
    """Whether c_q . p_k and p_q . c_k are 0 for every input.

    They are if a model concatenates content and position in each head, not if it adds them.
    """
    if attention.b_q is not None or attention.b_k is not None:
        return False
    c_q, p_q, c_k, p_k = (
        (part != 0).any(-2).flatten(end_dim=-3).any(0) if part.ndim > 3 else (part != 0).any(-2)
        for part in (attention.c_q, attention.p_q, attention.c_k, attention.p_k)
    )
    return not bool(((c_q & p_k) | (p_q & c_k)).any())


def _sum_parts(attention: DenseAttention, side: str, parts: str) -> Tensor:
    """Sum of the named parts of one side ("q" or "k"): (M, N, E), half precision widened."""
    like = getattr(attention, f"c_{side}")
    wide = torch.promote_types(like.dtype, torch.float32)
    given = [getattr(attention, f"{part}_{side}") for part in parts]
    found = [part.to(wide) for part in given if part is not None]  # there may be no shared bias
    if not found:
        return torch.zeros_like(like, dtype=wide)
    total = found[0]
    for part in found[1:]:
        total = total + part
    return total.expand_as(like)


def pick_queries(
    attention: DenseAttention, queries: Sequence[int] | Tensor | None
) -> DenseAttention:
    """The same attention with only the named query rows, in that order."""
    if queries is None:
        return attention
    rising = isinstance(queries, range) and queries.step > 0
    if rising and queries.start >= 0 and queries.stop <= attention.num_rows:  # a view is enough
        index = slice(queries.start, queries.stop, queries.step)
    else:
        index = torch.as_tensor(queries, dtype=torch.long, device=attention.c_q.device)
    return replace(attention, c_q=attention.c_q[..., index, :], p_q=attention.p_q[..., index, :])


def logits(
    attention: DenseAttention,
    q_parts: str = "cpb",
    k_parts: str = "cpb",
    scale: float | None = None,
    queries: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """(sum of q_parts) . (sum of k_parts) * scale, padding not masked: (M, q, K).

    Parts are letters of "cpb" (content, position, bias); scale defaults to the layer's own.
    """
    attention = pick_queries(attention, queries)
    q = _sum_parts(attention, "q", q_parts) * (attention.scale if scale is None else scale)
    return by_head(q, _sum_parts(attention, "k", k_parts))


def normalize(scores: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """Softmax over the keys, padded ones exactly 0: (M, q, K) -> the same."""
    if key_padding_mask is not None:
        scores = scores.masked_fill(key_padding_mask[..., None, None, :], float("-inf"))
    return scores.softmax(-1)


def weights(
    attention: DenseAttention,
    mode: str | Mode = "combine",
    *,
    scale: str = "mode",
    queries: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Attention weights of one mode: (M, q, K), each row sums to 1.

    mode is a key of MODES, a sum of terms (Fig. 1 of the Conditional DETR paper shows "cq.pk+pq.pk"
    of DETR) or a Mode of your own; the last two use the layer's factor. scale "mode": the factor
    for the case that only that mode's q and k attend; "layer": the layer's own. Raises ValueError
    on an unknown mode or scale.
    """
    if isinstance(mode, str):
        check_mode(mode)
    factor = attention.scale_of(mode, scale)
    if is_sum(mode):
        scores = sum(logits(attention, *TERMS[name], factor, queries) for name in parse_terms(mode))
    else:
        parts = MODES[mode] if isinstance(mode, str) else mode
        scores = logits(attention, parts.q_parts, parts.k_parts, factor, queries)
    return normalize(scores, attention.key_padding_mask)


def four_terms(
    attention: DenseAttention, queries: Sequence[int] | Tensor | None = None
) -> dict[tuple[str, str], Tensor]:
    """Logits by (query part, key part); a bias counts as content. Their sum: combine's logits.

    Keys are pairs of "content" and "position", the query's part first; values (M, q, K) at the
    layer's scale, padding not masked.
    """
    sides = {"content": "cb", "position": "p"}
    return {
        (q, k): logits(attention, sides[q], sides[k], queries=queries)
        for q, k in product(sides, sides)
    }


def nine_terms(
    attention: DenseAttention, queries: Sequence[int] | Tensor | None = None
) -> dict[tuple[str, str], Tensor]:
    """Like `four_terms`, but with the shared biases as a part of their own, "bias"."""
    sides = {"content": "c", "position": "p", "bias": "b"}
    return {
        (q, k): logits(attention, sides[q], sides[k], queries=queries)
        for q, k in product(sides, sides)
    }


def residual(
    attention: DenseAttention, project_out: Callable[[Tensor], Tensor], out: Tensor
) -> float:
    """How far the recomputed weights are from those that the layer used.

        rec = project_out(weights @ value)     uni = the same with uniform weights
        residual = |rec - out| / |out - uni|   (Frobenius)

    project_out (Q, C) -> (Q, C); out (Q, C), the output of the site. Of more than 512 queries,
    as an encoder has, at most 512 are compared, evenly taken.
    Near 0 for right maps (2e-6 in float32), at least 0.17 for wrong ones. NaN if it cannot be
    tested, because the output does not depend on the weights (|out - uni| < 1e-3 |out|). inf if
    the output is not finite.
    """
    value = attention.value
    context = partial(mixed, lambda rows: attention.weights("combine", rows, "layer"), value)
    even = attention.even().to(value.dtype) @ value
    return residual_of_rows(context, even, out, project_out)
