"""Attention rollout: the share of each cell in a query, through all layers. An approximation.

e = explain(model, "photo.jpg", layers="all", sites=["encoder", "decoder"])
rollout = of_queries(e, [3])                    # rollout.decoder, rollout.both (1, K)
of_cells(e, [120])                              # (1, K): the same for cells, through the encoder

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: a layer's output is one
half the token itself and one half the tokens that it attends to. A is the mean of the heads:

    R <- (0.5 A + 0.5 I) R        A (N, N), every row sums to 1

The content of the values, FFNs and layer norms are left out, and the half is a convention. In a
decoder the tokens are Q queries and K cells. R_qq is the share of queries in queries, R_qi that of
cells in queries. Self-attention S mixes both. Cross-attention C adds R_m, the share of input cells
in the memory's cells (the identity, or the encoder's rollout):

    R_qq <- S' R_qq, R_qi <- S' R_qi with S' = 0.5 S + 0.5 I      at first R_qq = I, R_qi = 0
    R_qq <- 0.5 R_qq, R_qi <- 0.5 R_qi + 0.5 C R_m

A row of [R_qi, R_qq] sums to 1. The part of R_qi in that sum is 1 - 2^-layers for every query,
whatever the weights are. So it carries no information, and R_qi is divided by it. R_qi is linear in
R_m, so the encoder is applied at the end to the rows of the chosen queries, without any (K, K)
matrix.

Sampled attention is linear in the values of all levels' cells too: it reads splat @ value
(attention/sampled.py). So A is the splat, and the same products hold, in an encoder as well. A row
of A sums to 1 less what falls off the map, and what is left of a rollout is divided by its sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_viz.attention.base import Attention
from detr_viz.attention.grids import Grid, by_level, finest, on_finest
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation

_MOST_WEIGHTS = 1 << 24  # computed at once, of all heads: 64 MB of float32


@dataclass(frozen=True, eq=False, repr=False)
class Rollout(ShortRepr):
    """Maps of q queries over the K cells of the finest grid, float32 (q, K); every row sums to 1.

    last     the last layer's cross-attention, mean of the heads
    decoder  shares of the memory's cells in a query, through the decoder's layers
    both     shares of the encoder's input cells, through the encoder's and the decoder's layers
    """

    last: NDArray[np.float32]  # (q, K)
    decoder: NDArray[np.float32]  # (q, K)
    both: NDArray[np.float32]  # (q, K)


def head_mean(attention: Attention, rows: Sequence[int] | None = None) -> Tensor:
    """A layer's weights, mean of the heads, (rows, K); computed a few rows at a time."""
    chosen = range(attention.num_rows) if rows is None else rows
    return torch.cat([part for _, part in _parts(attention, chosen)])


def _parts(attention: Attention, rows: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """(positions in `rows`, mean weights) of at most _MOST_WEIGHTS weights at a time."""
    keys = attention.even([0]).shape[-1]
    step = max(1, _MOST_WEIGHTS // (attention.num_heads * keys))
    for start in range(0, len(rows), step):
        some = list(rows[start : start + step])
        weights = attention.weights("combine", some, "layer").mean(0)
        yield slice(start, start + len(some)), weights


def through_encoder(rows: Tensor, layers: Sequence[Attention]) -> Tensor:
    """rows (n, K) times the rollout of these encoder layers, first to last: (n, K)."""
    for attention in reversed(layers):
        mixed = torch.zeros_like(rows)
        for place, part in _parts(attention, range(rows.shape[1])):
            mixed += rows[:, place] @ part
        rows = 0.5 * mixed + 0.5 * rows
    return rows


def through_decoder(between: Sequence[Tensor], across: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """R_qi (Q, K) with R_m = I, and R_qq (Q, Q).

    between, across: for each layer the weights S (Q, Q) of self-attention and C (Q, K) of
    cross-attention.
    """
    queries = torch.eye(len(across[0]), dtype=across[0].dtype, device=across[0].device)
    cells = torch.zeros_like(across[0])
    for self_weights, cross_weights in zip(between, across, strict=True):
        queries, cells = (0.5 * self_weights @ r + 0.5 * r for r in (queries, cells))
        queries, cells = 0.5 * queries, 0.5 * cells + 0.5 * cross_weights
    return cells, queries


def of_queries(e: Explanation, queries: Sequence[int]) -> Rollout:
    """The rollout of some queries; UserError if a layer's attention was not captured."""
    info = e.model.info
    between, across, encoder = (
        _all_of(e, kind, count)
        for kind, count in (
            ("decoder", info.num_layers),
            ("cross", info.num_layers),
            ("encoder", info.num_encoder_layers),
        )
    )
    ids = list(queries)
    with e.arithmetic():
        crossed = [head_mean(attention) for attention in across]
        cells, _ = through_decoder([head_mean(attention) for attention in between], crossed)
        chosen = cells[ids]
        parts = crossed[-1][ids], chosen, through_encoder(chosen, encoder)
        grids = across[-1].grids
        return Rollout(*(_normalised(part, grids) for part in parts))


def of_cells(e: Explanation, cells: Sequence[int], stays: bool = True) -> NDArray[np.float32]:
    """Shares of the encoder's input cells in cells of the memory, (n, K); rows sum to 1.

    stays=False: without the share 2^-layers of a cell in itself that comes from the identities
    alone. With few layers it would be much larger than all other shares.
    """
    encoder = _all_of(e, "encoder", e.model.info.num_encoder_layers)
    grids = encoder[0].grids
    with e.arithmetic():
        rows = torch.zeros_like(encoder[0].even([0])[0, :1]).repeat(len(cells), 1)
        rows[range(len(cells)), _tokens(cells, grids)] = 1
        rolled = through_encoder(rows, encoder)
        return _normalised(rolled if stays else rolled - rows * 0.5 ** len(encoder), grids)


def last_of_cells(e: Explanation, cells: Sequence[int]) -> NDArray[np.float32]:
    """What cells read in the last encoder layer, mean of the heads, (n, K); rows sum to 1."""
    last = e.attention_at(("encoder", e.model.info.num_encoder_layers - 1))
    with e.arithmetic():
        return _normalised(head_mean(last, _tokens(cells, last.grids)), last.grids)


def _tokens(cells: Sequence[int], grids: tuple[Grid, ...]) -> list[int]:
    """Cells of the finest grid -> their places among the tokens of all levels."""
    before = sum(grid.cells for grid in grids[: finest(grids)])
    return [before + cell for cell in cells]


def _all_of(e: Explanation, kind: str, count: int) -> list[Attention]:
    if e.salience is not None:
        raise UserError(
            f"there is no rollout of {e.model_title}: each encoder layer reads the backbone's "
            "cells and refines only some, so its layers do not multiply"
        )
    if e.scales is not None and kind == "encoder":
        raise UserError(
            f"there is no rollout of {e.model_title} through its encoder, which convolves: each "
            "tap has a matrix of its own, so its layers do not multiply"
        )
    if e.kind() == "joint":
        raise UserError(
            f"there is no rollout of {e.model_title}: its queries and cells attend in one "
            "sequence, so no encoder comes before a decoder"
        )
    if missing := [n for n in range(count) if (kind, n) not in e.sites]:
        raise UserError(
            f"rollout needs every layer, and {kind} {missing[0]} was not captured: explain with "
            'layers="all" and sites=["encoder", "decoder"]'
        )
    found = [e.attention_at((kind, n)) for n in range(count)]
    if kind == "encoder" and any(a.num_rows != a.even([0]).shape[-1] for a in found):
        raise UserError(
            f"there is no rollout of {e.model_title}: its encoder attends within one level alone, "
            "so its layers do not multiply"
        )
    return found


def _normalised(rows: Tensor, grids: tuple[Grid, ...]) -> NDArray[np.float32]:
    """Rows (n, S) over the cells of all levels -> (n, K) over those of the finest."""
    total = rows.sum(-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)  # 0: all off the map
    shares = (rows / total).to("cpu", torch.float32).numpy()
    return on_finest(by_level(shares, grids), grids).reshape(len(shares), -1)
