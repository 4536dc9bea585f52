"""Captured attention -> LogitTerms: what each product of query and key parts adds to the logits.

A softmax does not see what is the same for every key, so logits are centred over the keys. A term's
share is cov(term, sum) / var(sum): the covariance decomposition of the sum's variance, whose shares
sum to 1; one is negative where the term works against the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.dense import logits, normalize
from detr_viz.attention.terms import TERMS
from detr_viz.explanation.capture import AttentionCall
from detr_viz.explanation.results import LogitTerms


def ledger(recorded: AttentionCall, rows: Sequence[int], keys: tuple[int, ...]) -> LogitTerms:
    """The ledger of a captured call's first image.

    rows: of what attends. keys: the shape of the keys, (h, w) of the cells or (Q,). Padded keys
    have logits of 0 and take no part in means and shares.
    """
    with torch.inference_mode():
        return _ledger(recorded, rows, keys)


def _ledger(recorded: AttentionCall, rows: Sequence[int], keys: tuple[int, ...]) -> LogitTerms:
    terms, mask = recorded.terms, recorded.terms.key_padding_mask
    made = {name: logits(terms, *parts, queries=rows)[0] for name, parts in TERMS.items()}
    whole = torch.stack([*made.values()]).sum(0)  # (M, q, K)
    keep = torch.ones_like(whole[0, 0], dtype=torch.bool) if mask is None else ~mask[0]

    def centred(x: Tensor) -> Tensor:
        return (x - x[..., keep].mean(-1, keepdim=True)).masked_fill(~keep, 0)

    def shaped(x: Tensor) -> NDArray[np.float32]:
        return x.transpose(0, 1).unflatten(-1, keys).to("cpu", torch.float32).numpy()

    parts = {name: centred(part) for name, part in made.items()}
    total = centred(whole)
    spread = (total * total).sum(-1)
    shares = {name: (part * total).sum(-1) / spread for name, part in parts.items()}
    return LogitTerms(
        terms={name: shaped(part) for name, part in parts.items()},
        total=shaped(total),
        weights=shaped(normalize(whole[None], mask)[0]),
        shares={name: share.T.to("cpu", torch.float32).numpy() for name, share in shares.items()},
        residual=_residual(recorded, rows, whole),
    )


def _residual(recorded: AttentionCall, rows: Sequence[int], whole: Tensor) -> float:
    """Against q . k as the layer has them: one projection of sums, or the parts side by side."""
    query, key, _ = recorded.site.qkv(recorded.parts)
    chosen = torch.as_tensor(rows, dtype=torch.long, device=query.device)
    used = (query[:, :, chosen] * recorded.site.scale) @ key.transpose(-1, -2)
    return float((used[0] - whole).abs().max())
