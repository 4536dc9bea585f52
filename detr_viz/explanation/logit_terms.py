"""Captured attention -> LogitTerms: the part of each product of query and key parts in the logits.

A constant over all keys does not change a softmax, so the mean over the keys is subtracted. A
term's share is cov(term, sum) / var(sum), the covariance decomposition of the sum's variance. The
shares sum to 1; a share is negative if the term works against the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.base import HasAxes
from detr_viz.attention.dense import normalize
from detr_viz.explanation.capture import AttentionCall
from detr_viz.explanation.logit_term_arrays import LogitTerms


def logit_terms(call: AttentionCall, rows: Sequence[int], keys: tuple[int, ...]) -> LogitTerms:
    """The terms of a captured call of dense or factored attention.

    rows: indices of the queries. keys: the shape of the keys, (h, w) of the cells or (Q,). Padded
    keys have logits of 0 and are left out of means and shares.
    """
    with torch.inference_mode():
        return _logit_terms(call, rows, keys)


def _logit_terms(call: AttentionCall, rows: Sequence[int], keys: tuple[int, ...]) -> LogitTerms:
    attention, mask = call.attention, call.attention.key_padding_mask
    by_name = {name: attention.term_logits(name, rows) for name in attention.term_names}
    whole = torch.stack([*by_name.values()]).sum(0)  # (M, q, K)
    keep = torch.ones_like(whole[0, 0], dtype=torch.bool) if mask is None else ~mask

    def centred(x: Tensor) -> Tensor:
        return (x - x[..., keep].mean(-1, keepdim=True)).masked_fill(~keep, 0)

    def shaped(x: Tensor) -> NDArray[np.float32]:
        return x.transpose(0, 1).unflatten(-1, keys).to("cpu", torch.float32).numpy()

    parts = {name: centred(part) for name, part in by_name.items()}
    total = centred(whole)
    spread = (total * total).sum(-1)
    shares = {name: (part * total).sum(-1) / spread for name, part in parts.items()}
    return LogitTerms(
        terms={name: shaped(part) for name, part in parts.items()},
        total=shaped(total),
        weights=shaped(normalize(whole, mask)),
        shares={name: share.T.to("cpu", torch.float32).numpy() for name, share in shares.items()},
        residual=_residual(call, rows, whole),
        axes=_by_axis(attention, rows) if isinstance(attention, HasAxes) else {},
    )


def _by_axis(
    attention: HasAxes, rows: Sequence[int]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The terms on each axis, row and column, centred over its places that are not padding."""
    keep_row, keep_column = attention.axes_kept()
    return {
        name: (_of_axis(row, keep_row), _of_axis(column, keep_column))
        for name in attention.term_names
        for row, column in (attention.axis_logits(name, rows),)
    }


def _of_axis(logits: Tensor, keep: Tensor) -> NDArray[np.float32]:
    """Logits (M, q, n) of an axis, centred over its kept places (n,), as (q, M, n)."""
    centred = logits - logits[..., keep].mean(-1, keepdim=True)
    return centred.masked_fill(~keep, 0).transpose(0, 1).to("cpu", torch.float32).numpy()


def _residual(call: AttentionCall, rows: Sequence[int], whole: Tensor) -> float:
    """Largest difference from the network's own logits; NaN if these are not available."""
    if call.site.logits is None:
        return math.nan
    used = call.site.logits(call.args, call.kwargs, call.image, rows)
    return float((used - whole).abs().max())
