"""The self-check of every kind of attention: its weights must give the site's own output.

    rec = project_out(weights @ value)     uni = the same with the same weight on every cell
    residual = |rec - out| / |out - uni|   (Frobenius)

Near 0 for right maps (2e-6 in float32), at least 0.17 for wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detr_viz.attention.kernel import merge_heads
from detr_viz.attention.onednn import by_head

# Weights that are almost even change the output by less than a hundredth. There the rounding of the
# network's own float32 sums, up to 6e-7 of the output, is as large as the limit of the residual,
# and is left out of it. Wrong weights are at least 1.7e-4 of the output off.
_NEAR_EVEN = 1e-2
_ROUNDING = 8 * torch.finfo(torch.float32).eps
_MOST_CHECKED = 512  # rows of a self-check: an encoder has as many rows as cells
# Weights computed at once, of all heads: 16 MB of float32. More of them leave the caches, and their
# memory comes anew from the system, which takes twice the time.
_MOST_WEIGHTS = 1 << 22


def all_finite(x: Tensor) -> bool:
    """Whether no number is infinite or NaN. The sum tells, in one pass over the memory.

    A sum that is not finite may have become so by adding large numbers, so each is looked at then.
    """
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def residual_of(
    context: Tensor, even: Tensor, out: Tensor, project_out: Callable[[Tensor], Tensor]
) -> float:
    """How far the recomputed context (M, q, D) is from what the site gave.

    even (M, 1, D), the context of even weights; out (q, C), the output of the site; project_out
    (q, C) -> (q, C). NaN if it cannot be tested, because the output does not depend on the weights
    (|out - uni| < 1e-3 |out|). inf if the output is not finite.
    """
    if not all_finite(out):
        return float("inf")
    # float64 on the CPU: some devices do not have it, and the norms must not add rounding errors
    rec, uni = (project_out(merge_heads(x)).cpu().double() for x in (context, even))
    if not all_finite(rec):
        return float("inf")
    rounded = out.dtype == torch.float32
    out = out.cpu().double()
    size, spread = (torch.linalg.vector_norm(x) for x in (out, out - uni))
    if spread < 1e-3 * size:
        return float("nan")
    error = torch.linalg.vector_norm(rec - out)
    if rounded and spread < _NEAR_EVEN * size:
        error = (error - _ROUNDING * size).clamp(min=0)
    return float(error / spread)


def residual_of_rows(
    context: Callable[[Sequence[int]], Tensor],
    even: Tensor,
    out: Tensor,
    project_out: Callable[[Tensor], Tensor],
) -> float:
    """The same of at most 512 rows of many, evenly taken.

    context: rows -> (M, q, D); even (M, 1, D); out (num_rows, C). For a batch each begins with B.
    """
    if not all_finite(out):
        return float("inf")
    step = -(-out.shape[-2] // _MOST_CHECKED)
    rows = range(0, out.shape[-2], step)
    return residual_of(context(rows), even, out[..., ::step, :], project_out)


def mixed(weights: Callable[[Sequence[int]], Tensor], value: Tensor, rows: Sequence[int]) -> Tensor:
    """weights(rows) @ value, some rows at a time.

    weights: rows -> (M, q, S); value (M, S, D) -> (M, q, D).
    """
    at_once, mixing = rows_at_once(value), value.transpose(-1, -2).contiguous()
    pieces = (rows[start : start + at_once] for start in range(0, len(rows), at_once))
    return torch.cat([by_head(weights(piece).to(value.dtype), mixing) for piece in pieces], -2)


def rows_at_once(value: Tensor) -> int:
    """Of how many rows `mixed` holds the weights at a time."""
    return max(1, _MOST_WEIGHTS // value[..., 0].numel())
