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
    weights: Callable[[Sequence[int]], Tensor],
    even: Tensor,
    value: Tensor,
    out: Tensor,
    project_out: Callable[[Tensor], Tensor],
) -> float:
    """The same of at most 512 rows of many, evenly taken.

    weights: rows -> (M, q, S); even (M, 1, S); value (M, S, D); out (num_rows, C). For a batch they
    all begin with B.
    """
    if not all_finite(out):
        return float("inf")
    num_rows = out.shape[-2]
    step = -(-num_rows // _MOST_CHECKED)
    rows = range(0, num_rows, step)
    chunk = max(1, _MOST_WEIGHTS // value[..., 0].numel())
    parts = [
        weights(rows[start : start + chunk]).to(value.dtype) @ value
        for start in range(0, len(rows), chunk)
    ]
    return residual_of(torch.cat(parts, -2), even @ value, out[..., ::step, :], project_out)
