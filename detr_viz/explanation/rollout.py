"""Attention rollout: what a query has of each cell, through all layers. An approximation.

e = explain(model, "photo.jpg", layers="all", sites=["encoder", "decoder"])
found = of_queries(e, [3])                      # found.decoder, found.both (1, K): rows sum to 1
of_cells(e, [120])                              # (1, K): the same of cells, through the encoder

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: a layer hands on half of
what a token was and half of what it attends to, the weights being the mean of the heads',

    R <- (0.5 A + 0.5 I) R        A (N, N), every row sums to 1

What the values hold, FFNs and layer norms is left out, and the half is a convention. In a decoder
the tokens are Q queries and K cells. Self-attention S mixes what queries have of queries, R_qq, and
of cells, R_qi; cross-attention C adds what the cells are made of, R_m (themselves, or what the
encoder has made them of):

    R_qq <- S' R_qq, R_qi <- S' R_qi with S' = 0.5 S + 0.5 I      at first R_qq = I, R_qi = 0
    R_qq <- 0.5 R_qq, R_qi <- 0.5 R_qi + 0.5 C R_m

A row of [R_qi, R_qq] sums to 1. The part of it that has come from cells is 1 - 2^-layers for every
query, whatever the weights are: it tells nothing, and R_qi is shown divided by it. R_qi is linear
in R_m, so the encoder is applied to the rows of some queries at the end, and no (K, K) is held.
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

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation

_MOST_WEIGHTS = 1 << 24  # of all heads at a time: 64 MB of float32


@dataclass(frozen=True, eq=False)
class Rollout:
    """Of q queries over the K cells of the finest grid, float32 (q, K); every row sums to 1.

    last     the last layer's cross-attention, mean of the heads
    decoder  what the decoder's layers have taken from the memory's cells, as a share of all cells
    both     the same of what the encoder was given: the decoder's and the encoder's layers
    """

    last: NDArray[np.float32]
    decoder: NDArray[np.float32]
    both: NDArray[np.float32]


def head_mean(attention: Attention, rows: Sequence[int] | None = None) -> Tensor:
    """A layer's own weights, mean of the heads, (rows, K); a few rows of all heads at a time."""
    chosen = range(attention.num_rows) if rows is None else rows
    return torch.cat([part for _, part in _parts(attention, chosen)])


def _parts(attention: Attention, rows: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """(places in `rows`, mean weights) of so many rows at a time as there is room for."""
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

    between, across: layer by layer the weights S (Q, Q) of self-attention and C (Q, K) of
    cross-attention.
    """
    queries = torch.eye(len(across[0]), dtype=across[0].dtype, device=across[0].device)
    cells = torch.zeros_like(across[0])
    for own, looked in zip(between, across, strict=True):
        queries, cells = (0.5 * own @ r + 0.5 * r for r in (queries, cells))
        queries, cells = 0.5 * queries, 0.5 * cells + 0.5 * looked
    return cells, queries


def of_queries(e: Explanation, queries: Sequence[int]) -> Rollout:
    """The rollout of some queries; UserError where a layer's attention was not captured."""
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
    with torch.inference_mode():
        crossed = [head_mean(attention) for attention in across]
        cells, _ = through_decoder([head_mean(attention) for attention in between], crossed)
        chosen = cells[ids]
        found = crossed[-1][ids], chosen, through_encoder(chosen, encoder)
        grids = across[-1].grids
        return Rollout(*(_normalised(part, grids) for part in found))


def of_cells(e: Explanation, cells: Sequence[int], stays: bool = True) -> NDArray[np.float32]:
    """What cells of the memory are made of by the encoder's rollout, (n, K); rows sum to 1.

    stays=False: without the 2^-layers that a cell has of itself by the identities alone, which
    outshines the rest where layers are few.
    """
    encoder = _all_of(e, "encoder", e.model.info.num_encoder_layers)
    grids = encoder[0].grids
    before = sum(grid.cells for grid in grids[: finest(grids)])
    with torch.inference_mode():
        rows = torch.zeros_like(encoder[0].even([0])[0, :1]).repeat(len(cells), 1)
        rows[range(len(cells)), [before + cell for cell in cells]] = 1
        rolled = through_encoder(rows, encoder)
        return _normalised(rolled if stays else rolled - rows * 0.5 ** len(encoder), grids)


def _all_of(e: Explanation, kind: str, count: int) -> list[Attention]:
    if missing := [n for n in range(count) if (kind, n) not in e.sites]:
        raise UserError(
            f"rollout needs every layer, and {kind} {missing[0]} was not captured: explain with "
            'layers="all" and sites=["encoder", "decoder"]'
        )
    return [e.attention_at((kind, n)) for n in range(count)]


def _normalised(rows: Tensor, grids: tuple[Grid, ...]) -> NDArray[np.float32]:
    """Rows (n, S) over the cells of all levels -> (n, K) over those of the finest."""
    shares = (rows / rows.sum(-1, keepdim=True)).to("cpu", torch.float32).numpy()
    return on_finest(by_level(shares, grids), grids).reshape(len(shares), -1)
