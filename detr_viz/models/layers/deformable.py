"""Deformable attention and the layers around it (Zhu et al., ICLR 2021), official names.

A site is called with content and position apart. It adds them, so a plain forward pass costs no
more, and it reads a call as SampledAttention when asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.attention.sampled import SampledAttention
from detr_viz.attention.sampling import CHUNK, Cells
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention
from detr_viz.models.layers.transformer import FeedForwardLayer, once


class SampledInputs(NamedTuple):
    """What a site is called with, batch first; a batch of 1 stands for all images.

    content, position  (B, Q, C) of the queries
    reference          (B, Q, L, 2) x, y, or (B, Q, L, 4) cx, cy, w, h; in [0, 1] of each level's
                       whole grid
    memory             (B, S, C), the cells of all levels
    padding            (B, S) True = padding, or None
    shapes             (h, w) of each level
    tokens             (B, Q) the cells that the queries are, where only some cells attend, or None
    """

    content: Tensor
    position: Tensor
    reference: Tensor
    memory: Tensor
    padding: Tensor | None
    shapes: Shapes
    tokens: Tensor | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> SampledInputs:
        """As if image i had been alone."""
        return image_of(self, i)


class DeformableAttention(nn.Module):
    """Points around a reference, read from every level: SampledInputs -> (B, Q, C)."""

    sample: Callable[..., Tensor] | None = None  # a training has a form whose backward is quicker

    def __init__(self, d_model: int, nheads: int, levels: int, points: int) -> None:
        super().__init__()
        self.nheads, self.levels, self.points = nheads, levels, points
        samples = nheads * levels * points
        self.sampling_offsets = Linear(d_model, 2 * samples)
        self.attention_weights = Linear(d_model, samples)
        self.value_proj = Linear(d_model, d_model)
        self.output_proj = Linear(d_model, d_model)

    @property
    def out_proj(self) -> nn.Linear:
        """The projection of the merged heads, under the name that all sites have."""
        return self.output_proj

    def value(self, inputs: SampledInputs) -> Tensor:
        """(B or 1, S, M, D), 0 on padding."""
        value = self.value_proj(once(inputs.memory))
        if inputs.padding is not None:
            value = value.masked_fill(inputs.padding[..., None], 0)
        return value.unflatten(-1, (self.nheads, -1))

    def forward(self, inputs: SampledInputs, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B or 1, Q, K) True where a query must not read; see SampledAttention."""
        if hidden is not None:
            return self._with_hidden(inputs, hidden)
        value, shapes = self.value(inputs), inputs.shapes
        cells = Cells.of(value, shapes) if self.sample is None else None
        parts = (inputs.content, inputs.position, inputs.reference)
        read = []
        for content, position, reference in zip(*(x.split(CHUNK, 1) for x in parts), strict=True):
            offsets, weight = self._products(content + position)
            if cells is not None:
                context = cells.read(_pixels(offsets, reference, shapes), weight)
            else:
                xy = _locations(offsets, reference, shapes)
                samples = xy, weight.unflatten(-1, (self.levels, self.points))
                context = self.sample(value, *samples, shapes)
            read.append(self.output_proj(context.flatten(-2)))
        return read[0] if len(read) == 1 else torch.cat(read, 1)

    def _products(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (B, q, M, L, P, 2) and weights (B, q, M, L * P) of some of the queries."""
        offsets = self.sampling_offsets(query)
        offsets = offsets.unflatten(-1, (self.nheads, self.levels, self.points, 2))
        weight = self.attention_weights(query).unflatten(-1, (self.nheads, -1))
        return offsets, weight.softmax(-1)

    def _with_hidden(self, inputs: SampledInputs, hidden: Tensor) -> Tensor:
        """The same, image by image, by the kernel of ablations."""
        attention, contexts = self.read(inputs), []
        for i in range(len(inputs.content)):
            mask = hidden[i if len(hidden) > 1 else 0]
            contexts.append(attention.of_image(i).context(mask).transpose(0, 1).flatten(-2))
        return self.output_proj(torch.stack(contexts))

    def read(self, inputs: SampledInputs) -> SampledAttention:
        """What a call with these inputs sampled; its fields begin with B."""
        split = (self.nheads, self.levels, self.points)
        parts = {}
        for what, layer, shape in (
            ("logits", self.attention_weights, split),
            ("offsets", self.sampling_offsets, (*split, 2)),
        ):
            for letter, x in (("c", inputs.content), ("p", inputs.position)):
                product = x @ layer.weight.T
                parts[f"{letter}_{what}"] = product.unflatten(-1, shape).transpose(1, 2)
            parts[f"b_{what}"] = layer.bias.view(shape)[:, None]
        batch = len(inputs.content)
        value = self.value(inputs).transpose(1, 2)
        return SampledAttention(
            **{
                name: x if name.startswith("b_") else x.expand(batch, *x.shape[1:])
                for name, x in parts.items()
            },
            reference=inputs.reference.expand(batch, -1, -1, -1),
            value=value.expand(batch, -1, -1, -1),
            shapes=inputs.shapes,
            padding=None if inputs.padding is None else inputs.padding.expand(batch, -1),
            tokens=inputs.tokens,
        )


def _locations(offsets: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
    """Offsets (B, Q, M, L, P, 2) -> x, y in [0, 1] of each level's grid.

    As SampledAttention.locations, in one pass over rows of L * P * 2 numbers.
    """
    split = offsets.shape[-3:]
    if reference.shape[-1] == 2:
        scale = _rows(1 / offsets.new_tensor(shapes).flip(-1), split[1])
    else:
        scale = _rows(reference[..., 2:] * (0.5 / split[1]), split[1])[:, :, None]
    base = _rows(reference[..., :2], split[1])[:, :, None].to(offsets.dtype)
    return torch.addcmul(base, offsets.flatten(-3), scale.to(offsets.dtype)).unflatten(-1, split)


def _pixels(offsets: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
    """The same places in cells, 0 in the middle of the first one: (B, Q, M, L * P, 2).

    Around a reference point offsets are in cells already.
    """
    points = offsets.shape[-2]
    sizes = reference.new_tensor(shapes).flip(-1)  # (L, 2) w, h
    base = _rows(reference[..., :2] * sizes - 0.5, points)[:, :, None].to(offsets.dtype)
    offsets = offsets.flatten(-3)
    if reference.shape[-1] == 2:
        return (base + offsets).unflatten(-1, (-1, 2))
    scale = _rows(reference[..., 2:] * sizes * (0.5 / points), points)[:, :, None]
    return torch.addcmul(base, offsets, scale.to(offsets.dtype)).unflatten(-1, (-1, 2))


def _rows(x: Tensor, points: int) -> Tensor:
    """(..., L, 2) of all points of a head: (..., L * P * 2)."""
    return x[..., None, :].expand(*x.shape[:-1], points, 2).flatten(-3)


class DeformableEncoderLayer(FeedForwardLayer):
    """Each cell reads points around itself, then FFN, each added and normed (post-norm)."""

    def __init__(self, config: DetrConfig, levels: int, points: int) -> None:
        super().__init__(config, norms=2)
        self.self_attn = DeformableAttention(config.d_model, config.nheads, levels, points)

    def forward(
        self, src: Tensor, pos: Tensor, reference: Tensor, padding: Tensor | None, shapes: Shapes
    ) -> Tensor:
        read = self.self_attn(SampledInputs(src, pos, reference, src, padding, shapes))
        parts = zip(src.split(CHUNK, 1), read.split(CHUNK, 1), strict=True)
        return torch.cat([self._rest(*part) for part in parts], 1)

    def _rest(self, src: Tensor, read: Tensor) -> Tensor:
        """What follows the attention, for some of the cells."""
        src = self.norm1(src + read)
        return self.norm2(src + self.feed_forward(src))


class DeformableDecoderLayer(FeedForwardLayer):
    """Self-attention between queries, then points of the memory, then FFN (post-norm).

    norm2 belongs to self-attention, norm1 to cross-attention.
    """

    def __init__(self, config: DetrConfig, levels: int, points: int) -> None:
        super().__init__(config, norms=3)
        self.cross_attn = DeformableAttention(config.d_model, config.nheads, levels, points)
        self.self_attn = PackedAttention(config.d_model, config.nheads)

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        memory: Tensor,
        padding: Tensor | None,
        shapes: Shapes,
    ) -> Tensor:
        between = AttentionInputs(tgt, query_pos, tgt, query_pos, tgt)
        tgt = self.norm2(tgt + self.self_attn(between))
        across = SampledInputs(tgt, query_pos, reference, memory, padding, shapes)
        tgt = self.norm1(tgt + self.cross_attn(across))
        return self.norm3(tgt + self.feed_forward(tgt))
