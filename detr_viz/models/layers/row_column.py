"""Row-column decoupled attention and the layers around it (Anchor DETR, AAAI 2022), official names.

A site is called with content and position apart. It adds them, so a plain forward pass costs no
more, and it reads a call as FactoredAttention when asked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.factored import FactoredAttention, masked_product
from detr_viz.attention.kernel import merge_heads, split_heads
from detr_viz.attention.onednn import linear
from detr_viz.attention.terms import MODES
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.anchor_config import AnchorConfig
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention
from detr_viz.models.layers.transformer import once

_CHUNK = 1024  # queries at a time: each reads a whole row or column of values first


class FactoredInputs(NamedTuple):
    """What a site is called with, batch first; a batch of 1 stands for all images.

    content                      (B, Q, C) of the queries
    row_position, column_position  (B, Q, C) of the queries, along x and along y
    memory                       (B, S, C) of the cells, row-major, S = h * w
    row_places, column_places    (B, w, C), (B, h, C) positions of the grid's columns and rows
    padding                      (B, S) True = padding, or None
    """

    content: Tensor
    row_position: Tensor
    column_position: Tensor
    memory: Tensor
    row_places: Tensor
    column_places: Tensor
    padding: Tensor | None = None

    __repr__ = brief_tuple

    @property
    def hw(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.column_places.shape[1], self.row_places.shape[1]

    def of_image(self, i: int) -> FactoredInputs:
        """As if image i had been alone."""
        return image_of(self, i)

    def paddings(self) -> tuple[Tensor | None, Tensor | None]:
        """Columns (B, w) and rows (B, h) that are padding: the first row and column say it."""
        if self.padding is None:
            return None, None
        grid = self.padding.unflatten(-1, self.hw)
        return grid[:, 0, :], grid[:, :, 0]


class RowColumnAttention(nn.Module):
    """Weights along x times weights along y: FactoredInputs -> (B, Q, C).

    Rows of the packed projection: queries along x, along y, keys along x, along y, values. The key
    of a place is the mean over its whole column or row of cells, padding included.
    """

    def __init__(self, d_model: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.in_proj_weight = nn.Parameter(torch.empty(5 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(5 * d_model))
        self.out_proj = Linear(d_model, d_model)
        nn.init.xavier_uniform_(self.in_proj_weight)

    @property
    def scale(self) -> float:
        return (self.out_proj.in_features // self.nheads) ** -0.5

    def _projected(self, inputs: FactoredInputs) -> tuple[tuple[Tensor, ...], Tensor]:
        """((q_row, q_column, k_row, k_column), value), each (B or 1, M, n, D)."""
        memory, hw = once(inputs.memory), inputs.hw
        grid = memory.unflatten(1, hw)
        sources = (
            inputs.content + inputs.row_position,
            inputs.content + inputs.column_position,
            grid.mean(1) + inputs.row_places,
            grid.mean(2) + inputs.column_places,
            memory,
        )
        parts = zip(sources, self.in_proj_weight.chunk(5), self.in_proj_bias.chunk(5), strict=True)
        *both, value = (split_heads(linear(x, w, b), self.nheads) for x, w, b in parts)
        return tuple(both), value

    def axis_logits(self, inputs: FactoredInputs) -> tuple[Tensor, Tensor]:
        """Logits (B, M, Q, w) and (B, M, Q, h) as the layer attends, padding not masked."""
        return self._logits(self._projected(inputs)[0])

    def _logits(self, projected: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        q_row, q_column, k_row, k_column = projected
        row = (q_row * self.scale) @ k_row.transpose(-1, -2)
        return row, (q_column * self.scale) @ k_column.transpose(-1, -2)

    def forward(self, inputs: FactoredInputs, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B or 1, Q, S) True where a query must not look."""
        projected, value = self._projected(inputs)
        row, column = self._logits(projected)
        if hidden is not None:
            context = _hidden_context(row, column, value, inputs.padding, hidden)
            return self.out_proj(merge_heads(context))
        weights = []
        for logits, mask in zip((row, column), inputs.paddings(), strict=True):
            if mask is not None:
                logits = logits.masked_fill(mask[:, None, None], float("-inf"))
            weights.append(logits.softmax(-1).split(_CHUNK, 2))
        grid = value.unflatten(2, inputs.hw)
        parts = [_context(*pair, grid) for pair in zip(*weights, strict=True)]
        return self.out_proj(merge_heads(torch.cat(parts, 2)))

    def read(self, inputs: FactoredInputs) -> FactoredAttention:
        """What a call with these inputs attended with; everything begins with B."""
        batch, hw = len(inputs.content), inputs.hw
        grid = inputs.memory.unflatten(1, hw)
        weights, biases = self.in_proj_weight.chunk(5), self.in_proj_bias.chunk(5)

        def heads(x: Tensor, part: int, bias: Tensor | None = None) -> Tensor:
            split = split_heads(linear(x, weights[part], bias), self.nheads)
            return split.expand(batch, -1, -1, -1)

        value = heads(inputs.memory, 4, biases[4])
        means = value.unflatten(2, hw)
        row_padding, column_padding = inputs.paddings()

        def axis(
            part: int, q_position: Tensor, c_k: Tensor, p_k: Tensor, mean: Tensor, mask: Tensor
        ) -> DenseAttention:
            return DenseAttention(
                c_q=heads(inputs.content, part),
                p_q=heads(q_position, part),
                c_k=heads(c_k, part + 2),
                p_k=heads(p_k, part + 2),
                b_q=biases[part].view(self.nheads, 1, -1),
                b_k=biases[part + 2].view(self.nheads, 1, -1),
                value=mean,
                scale=self.scale,
                mode_scales=dict.fromkeys(MODES, self.scale),
                key_padding_mask=None if mask is None else mask.expand(batch, -1),
            )

        places = inputs.row_places, inputs.column_places
        return FactoredAttention(
            row=axis(0, inputs.row_position, grid.mean(1), places[0], means.mean(2), row_padding),
            column=axis(
                1, inputs.column_position, grid.mean(2), places[1], means.mean(3), column_padding
            ),
            value=value,
            padding=None if inputs.padding is None else inputs.padding.expand(batch, -1),
        )


def _context(row: Tensor, column: Tensor, value: Tensor) -> Tensor:
    """row (B, M, q, w), column (B, M, q, h), value (B or 1, M, h, w, D) -> (B, M, q, D).

    The longer axis first: what is held in between is of the shorter one.
    """
    h, w, width = value.shape[2:]
    if h < w:
        by_column = value.transpose(2, 3).flatten(3)  # (B, M, w, h * D)
        between = (row @ by_column).unflatten(-1, (h, width))
        return (column[..., None, :] @ between).squeeze(-2)
    between = (column @ value.flatten(3)).unflatten(-1, (w, width))
    return (row[..., None, :] @ between).squeeze(-2)


def _hidden_context(
    row: Tensor, column: Tensor, value: Tensor, padding: Tensor | None, hidden: Tensor
) -> Tensor:
    """The same with hidden cells, as FactoredAttention.without; padding (B, S)."""
    parts = zip(row.split(_CHUNK, 2), column.split(_CHUNK, 2), hidden.split(_CHUNK, 1), strict=True)
    return torch.cat([masked_product(r, c, padding, x) @ value for r, c, x in parts], 2)


class FeedForward(nn.Module):
    """norm2(x + linear2(relu(linear1(x)))), under the official names."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.linear1 = Linear(config.d_model, config.dim_feedforward)
        self.linear2 = Linear(config.dim_feedforward, config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class AnchorEncoderLayer(nn.Module):
    """Each cell looks along its own axes, then FFN (post-norm)."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.self_attn = RowColumnAttention(config.d_model, config.nheads)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config)

    def forward(self, src: Tensor, rows: Tensor, columns: Tensor, padding: Tensor | None) -> Tensor:
        """src (B, h * w, C); rows (1 or B, w, C) and columns (1 or B, h, C) positions of places."""
        h, w = columns.shape[1], rows.shape[1]
        along_x = rows[:, None].expand(-1, h, -1, -1).flatten(1, 2)
        along_y = columns[:, :, None].expand(-1, -1, w, -1).flatten(1, 2)
        inputs = FactoredInputs(src, along_x, along_y, src, rows, columns, padding)
        return self.ffn(self.norm1(src + self.self_attn(inputs)))


class AnchorDecoderLayer(nn.Module):
    """Self-attention between queries, then rows and columns of the memory, then FFN (post-norm).

    norm2 belongs to self-attention, norm1 to cross-attention.
    """

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.cross_attn = RowColumnAttention(config.d_model, config.nheads)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.self_attn = PackedAttention(config.d_model, config.nheads)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config)

    def forward(self, tgt: Tensor, query_pos: Tensor, across: FactoredInputs) -> Tensor:
        """across: its content is replaced by what self-attention gives."""
        between = AttentionInputs(tgt, query_pos, tgt, query_pos, tgt)
        tgt = self.norm2(tgt + self.self_attn(between))
        tgt = self.norm1(tgt + self.cross_attn(across._replace(content=tgt)))
        return self.ffn(tgt)
