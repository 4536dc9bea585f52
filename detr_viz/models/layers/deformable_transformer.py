"""Encoder and decoder of Deformable DETR: levels of cells, and the queries made of an image.

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.deformable_config import DeformableConfig
from detr_viz.models.layers.deformable import DeformableDecoderLayer, DeformableEncoderLayer
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import downsample_padding, sine_boxes, sine_positions

PROPOSAL_SIZE = 0.05  # width and height of the finest level's proposals; twice on each next level
MARGIN = 0.01  # proposals this near to the image's edge, or so large, are not taken


class Levels(NamedTuple):
    """The cells of all levels, level by level.

    src      (B, S, C) projected features
    pos      (1 or B, S, C) sine position and level
    padding  (B, S) True = padding, or None
    ratios   (1 or B, L, 2) x, y: the part of each level's grid that shows the image
    centers  (1 or B, S, 2) x, y of the cells, in [0, 1] of the image
    shapes   (h, w) of each level
    """

    src: Tensor
    pos: Tensor
    padding: Tensor | None
    ratios: Tensor
    centers: Tensor
    shapes: Shapes

    __repr__ = brief_tuple


def levels_of(
    sources: Sequence[Tensor],
    level_embed: Tensor,
    mask: Tensor | None,
    wavelengths: torch.dtype | None = None,
) -> Levels:
    """Levels of projected features (B, C, h, w); mask (B, H, W) True = padding, or None.

    wavelengths: as of sine_positions.
    """
    wide, device = level_embed.dtype, level_embed.device
    paddings, positions, ratios, centers = [], [], [], []
    for source, level in zip(sources, level_embed, strict=True):
        hw = tuple(source.shape[-2:])
        if mask is None:
            padding = torch.zeros((1, *hw), dtype=torch.bool, device=device)
        else:
            padding = downsample_padding(mask, hw)
        paddings.append(padding.flatten(1))
        sine = sine_positions(padding, len(level), wide, True, wavelengths)
        positions.append(sine + level)
        valid = torch.stack([(~padding[:, 0]).sum(1), (~padding[:, :, 0]).sum(1)], -1)
        ratios.append(valid.to(wide) / valid.new_tensor(hw[::-1]))
        cells = (torch.arange(n, dtype=wide, device=device) + 0.5 for n in hw)
        y, x = torch.meshgrid(*cells, indexing="ij")
        centers.append(torch.stack([x, y], -1).flatten(0, 1) / valid[:, None])
    return Levels(
        src=torch.cat([source.flatten(2).transpose(1, 2) for source in sources], 1),
        pos=torch.cat(positions, 1),
        padding=None if mask is None else torch.cat(paddings, 1),
        ratios=torch.stack(ratios, 1),
        centers=torch.cat(centers, 1),
        shapes=tuple(tuple(source.shape[-2:]) for source in sources),
    )


class Encoder(nn.Module):
    """Levels -> memory (B, S, C)."""

    def __init__(self, config: DeformableConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(config, config.levels, config.enc_points)
            for _ in range(config.enc_layers)
        )

    def forward(self, levels: Levels) -> Tensor:
        reference = levels.centers[:, :, None] * levels.ratios[:, None]
        src = levels.src
        for layer in self.layers:
            src = layer(src, levels.pos, reference, levels.padding, levels.shapes)
        return src


class Decoder(nn.Module):
    """Holds the layers under their official names; heads are shared with the network's."""

    def __init__(self, config: DeformableConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(config, config.levels, config.dec_points)
            for _ in range(config.dec_layers)
        )


class Transformer(nn.Module):
    """Encoder, decoder, and what makes queries of an image, by their official names."""

    def __init__(self, config: DeformableConfig) -> None:
        super().__init__()
        width = config.d_model
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.level_embed = nn.Parameter(torch.zeros(config.levels, width))
        if config.two_stage:
            self.enc_output = Linear(width, width)
            self.enc_output_norm = nn.LayerNorm(width)
            self.pos_trans = Linear(2 * width, 2 * width)
            self.pos_trans_norm = nn.LayerNorm(2 * width)
        else:
            self.reference_points = Linear(width, 2)

    def propose(self, memory: Tensor, levels: Levels, count: int) -> tuple[Tensor, ...]:
        """The best tokens as queries: boxes (B, Q, 4), queries (B, Q, 2 C), tokens (B, Q).

        Then the scores of all tokens (B, S), and which of them are invalid (1 or B, S).
        """
        check_count(memory.shape[1], count)
        boxes, invalid = anchors_of(levels, PROPOSAL_SIZE)
        tokens = memory.masked_fill(invalid[..., None], 0)
        tokens = self.enc_output_norm(self.enc_output(tokens))
        scores = self.decoder.class_embed[-1](tokens)[..., 0]
        chosen = scores.topk(count, 1).indices
        start = torch.log(boxes / (1 - boxes)).masked_fill(invalid[..., None], float("inf"))
        start = start.expand(len(memory), -1, -1)
        moved = self.decoder.bbox_embed[-1](taken(tokens, chosen)) + taken(start, chosen)
        reference = moved.sigmoid()
        embedded = self.pos_trans(sine_boxes(reference, memory.shape[-1]))
        return reference, self.pos_trans_norm(embedded), chosen, scores, invalid


def anchors_of(levels: Levels, size: float) -> tuple[Tensor, Tensor]:
    """The box that each token starts from, and whether it is none of the image's.

    Boxes (1 or B, S, 4) as cx, cy, w, h: the token's centre, and `size` doubled from level to
    level. Invalid (1 or B, S): padding, and boxes with a number outside (MARGIN, 1 - MARGIN).
    """
    sizes = torch.cat(
        [
            levels.centers.new_full((h * w, 2), size * 2.0**level)
            for level, (h, w) in enumerate(levels.shapes)
        ]
    )
    boxes = torch.cat([levels.centers, sizes.expand(len(levels.centers), -1, -1)], -1)
    invalid = ((boxes <= MARGIN) | (boxes >= 1 - MARGIN)).any(-1)
    return boxes, invalid if levels.padding is None else invalid | levels.padding


def check_count(tokens: int, count: int) -> None:
    """UserError where an image has not `count` tokens."""
    if tokens < count:
        raise UserError(
            f"the image makes {tokens} tokens, too few for {count} proposals: give a larger --size"
        )


def taken(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Tokens (B, S, N), indices (B, Q) -> (B, Q, N)."""
    return tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[-1]))
