"""Attention of modules that nothing is known of but the function that they attend with."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_viz.adapters.positions import Given
from detr_viz.adapters.recorder import RawCall
from detr_viz.adapters.tensors import full
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.given import GivenLogits
from detr_viz.attention.terms import MODES
from detr_viz.attention.undivided import UndividedAttention

WHY = "its queries and keys are no plain projections of content + position"


def watched_rows(call: RawCall) -> tuple[int, int]:
    """(queries, keys) of a call."""
    event = call.event
    return event.num_rows, event.value.shape[-2]


def read_watched(
    call: RawCall, image: int, given: Given | None
) -> tuple[Iterator[UndividedAttention | GivenLogits], list[None]]:
    """(its one reading, no positions). Undivided: nothing tells content from position."""
    event = call.event
    value = full(event.values)
    if event.q is None or event.causal or event.mask is not None:
        return iter([GivenLogits(event.scores(), value, WHY)]), []
    q, k = full(event.queries), full(event.keys)
    scale = event.scale or q.shape[-1] ** -0.5
    zero_q, zero_k = torch.zeros_like(q), torch.zeros_like(k)
    dense = DenseAttention(
        q, zero_q, k, zero_k, None, None, value, scale, dict.fromkeys(MODES, scale)
    )
    return iter([UndividedAttention.of(dense, WHY)]), []
