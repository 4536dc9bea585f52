"""Captured calls of our own sites, read as attention and as the logits of a second way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.factored import FactoredAttention
from detr_viz.attention.grids import Grid
from detr_viz.attention.sampled import SampledAttention
from detr_viz.models.layers.deformable import DeformableAttention
from detr_viz.models.layers.row_column import RowColumnAttention
from detr_viz.models.layers.split_attention import SplitAttention


def read(
    module: SplitAttention | DeformableAttention | RowColumnAttention,
    kind: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Tensor,
    image: int,
    grids: tuple[Grid, ...],
) -> DenseAttention | SampledAttention | FactoredAttention:
    """What a call of a site attended with, for one image of its batch."""
    attention = module.read(args[0].of_image(image)).of_image(0)
    return replace(attention, grids=() if kind == "decoder" else grids)


def logits(
    module: SplitAttention,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    image: int,
    rows: Sequence[int],
) -> Tensor:
    """q . k of one projection of sums, or of the parts side by side: (M, q, K)."""
    query, key, _ = module.qkv(args[0].of_image(image))
    chosen = torch.as_tensor(rows, dtype=torch.long, device=query.device)
    return ((query[:, :, chosen] * module.scale) @ key.transpose(-1, -2))[0]


def axis_logits(
    module: RowColumnAttention,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    image: int,
    rows: Sequence[int],
) -> Tensor:
    """The sum of both axes' logits for each cell: (M, q, S)."""
    row, column = (x[0, :, list(rows)] for x in module.axis_logits(args[0].of_image(image)))
    return (column[..., :, None] + row[..., None, :]).flatten(-2)


def logits_of(module: nn.Module) -> Callable[..., Tensor] | None:
    """What gives the logits of a site of ours, or None."""
    if isinstance(module, SplitAttention):
        return partial(logits, module)
    return partial(axis_logits, module) if isinstance(module, RowColumnAttention) else None
