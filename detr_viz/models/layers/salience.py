"""Salience of tokens and the encoder that refines the salient ones (Hou et al., CVPR 2024).

Each token of the backbone's levels gets a score: how likely it shows an object. The best ones of
each level are taken, then the best of these by each encoder layer, fewer from layer to layer.
Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.layers.deformable import DeformableEncoderLayer, SampledInputs
from detr_viz.models.layers.deformable_transformer import Levels, taken
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import LearnedPositions, grid_positions
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention
from detr_viz.models.salience_config import SalienceConfig


class Choices(NamedTuple):
    """Discrete choices made elsewhere; None: the network's own.

    selected      (B, n) tokens for the encoder, best first
    pre_attended  of each encoder layer, (B, n) places in its part of `selected`
    proposals     (B, Q) tokens that become queries, in this order

    Rounding may turn a choice between nearly equal scores, and all that follows from it.
    """

    selected: Tensor | None = None
    pre_attended: Sequence[Tensor] | None = None
    proposals: Tensor | None = None

    __repr__ = brief_tuple


OWN_CHOICES = Choices()


class Selection(NamedTuple):
    """Which tokens the encoder refines.

    salience  (B, S) score of each token, a logit; no token is left out, padding has one too
    tokens    (B, n) the tokens that are taken, best first; images of a batch share n
    counts    of each encoder layer: it refines the first so many of them
    own       (B,) how many of them are an image's own; what is refined beyond is dropped
    """

    salience: Tensor
    tokens: Tensor
    counts: tuple[int, ...]
    own: Tensor

    __repr__ = brief_tuple


def gathered(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens (B or 1, S, N), indices (B, Q) -> (B, Q, N)."""
    return taken(tokens.expand(len(index), -1, -1), index)


def by_level(tokens: Tensor, shapes: Shapes) -> list[Tensor]:
    """Tokens (B, S, C) -> the maps of all levels, each (B, C, h, w)."""
    parts = tokens.split([h * w for h, w in shapes], 1)
    return [x.transpose(1, 2).unflatten(-1, hw) for x, hw in zip(parts, shapes, strict=True)]


class MaskPredictor(nn.Module):
    """The score of each token of a level, beside what the whole level shows: (B, n, C) -> (B, n).

    Half of the features are averaged over the level, padding included.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half = width // 2
        self.layer1 = nn.Sequential(nn.LayerNorm(width), Linear(width, width), nn.GELU())
        self.layer2 = nn.Sequential(
            Linear(width, width // 2),
            nn.GELU(),
            Linear(width // 2, width // 4),
            nn.GELU(),
            Linear(width // 4, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        local, whole = self.layer1(tokens).split(self.half, -1)
        whole = whole.mean(1, keepdim=True).expand_as(local)
        return self.layer2(torch.cat([local, whole], -1))[..., 0]


def salience_of(tokens: Tensor, shapes: Shapes, predictor: MaskPredictor, alpha: Tensor) -> Tensor:
    """Scores (B, S) of tokens (B, S, C), from the coarsest level to the finest.

    The scores of a level, resized bilinearly corner to corner, scale the tokens of the next finer
    one by 1 + alpha * score.
    """
    parts = list(tokens.split([h * w for h, w in shapes], 1))
    scores: list[Tensor] = []
    for level in reversed(range(len(shapes))):
        part = parts[level]
        if scores:
            coarse = scores[0].unflatten(1, shapes[level + 1])[:, None]
            above = F.interpolate(coarse, shapes[level], mode="bilinear", align_corners=True)
            part = part + part * above.flatten(1)[..., None] * alpha[level]
        scores.insert(0, predictor(part))
    return torch.cat(scores, 1)


def lowest_on_padding(scores: Tensor, padding: Tensor | None) -> Tensor:
    """Scores (B, S) with their minimum over the batch on padding."""
    return scores if padding is None else scores.masked_fill(padding, scores.min())


def _image_first(scores: Tensor, padding: Tensor) -> Tensor:
    """lowest_on_padding, but a lowest score of the image's own is still above it.

    The authors' code leaves such a tie to chance, and may take padding in place of a token. Only
    for images of one size: of others the smaller ones take padding anyhow, as the authors' do.
    """
    lowest = scores.min()
    above = torch.nextafter(lowest, torch.full_like(lowest, float("inf")))
    return scores.maximum(above).masked_fill(padding, lowest)


def select(
    salience: Tensor,
    levels: Levels,
    level_ratios: Tensor,
    layer_ratios: Tensor,
    tokens: Tensor | None = None,
) -> Selection:
    """The tokens for the encoder: a share of each level's, sorted by score.

    Ratios (L,) and (layers,). tokens: the choice, if it has been made elsewhere.
    """
    sizes = [h * w for h, w in levels.shapes]
    padding = levels.padding
    if padding is None:
        valid = torch.tensor(sizes, device=salience.device).expand(len(salience), -1)
    else:
        valid = torch.stack([(~part).sum(1) for part in padding.split(sizes, 1)], -1)
    taken = (valid * level_ratios).int()
    if tokens is None:
        scores, index, start = [], [], 0
        for level, part in enumerate(salience.split(sizes, 1)):
            end = start + sizes[level]
            shown = part
            if padding is not None:
                alike = bool((taken[:, level] == taken[0, level]).all())
                shown = (_image_first if alike else lowest_on_padding)(part, padding[:, start:end])
            best = shown.topk(int(taken[:, level].max()), 1)
            scores.append(best.values)
            index.append(best.indices + start)
            start = end
        order = torch.cat(scores, 1).sort(1, descending=True).indices
        tokens = torch.cat(index, 1).gather(1, order)
    if not tokens.shape[1]:
        raise UserError("the image is too small for any token of its levels: give a larger --size")
    counts = [max(1, int(n)) for n in (tokens.shape[1] * layer_ratios).long()]
    return Selection(salience, tokens, tuple(counts), taken.sum(-1))


class SalienceEncoderLayer(DeformableEncoderLayer):
    """Attention among the most promising tokens, then points of the levels, then FFN (post-norm).

    What is read are the features of the backbone, in all layers.
    """

    def __init__(self, config: SalienceConfig) -> None:
        super().__init__(config, config.levels, config.enc_points)
        self.pre_attention = PackedAttention(config.d_model, config.nheads)
        self.pre_norm = nn.LayerNorm(config.d_model)  # (elsewhere a flag has this name)

    def forward(
        self,
        query: Tensor,
        pos: Tensor,
        best: Tensor,
        reference: Tensor,
        levels: Levels,
        tokens: Tensor,
    ) -> Tensor:
        """query, pos (B, n, C) of tokens (B, n); best (B, m): places in them, who take part in the
        first attention."""
        some, place = gathered(query, best), gathered(pos, best)
        some = self.pre_norm(
            some + self.pre_attention(AttentionInputs(some, place, some, place, some))
        )
        query = query.scatter(1, best[..., None].expand_as(some), some)
        read = self.self_attn(
            SampledInputs(query, pos, reference, levels.src, levels.padding, levels.shapes, tokens)
        )
        return self._rest(query, read)


class SalienceEncoder(nn.Module):
    """Levels and the selection -> refined tokens (B, S, C).

    scorer: class logits of tokens. Those whose best one, times the salience, is largest attend to
    each other before a layer; both are logits, so low times low is large.
    """

    def __init__(self, config: SalienceConfig, scorer: nn.Linear) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SalienceEncoderLayer(config) for _ in range(config.enc_layers))
        self.background_embedding = LearnedPositions(config.background_cells, config.d_model)
        self.enhance_mcsp = scorer
        self.pre_attended = config.pre_attended

    def forward(
        self, levels: Levels, selection: Selection, given: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Also returns who was pre-attended in each layer; given: the same, made elsewhere."""
        output, pre_attended = levels.src, []
        salience = lowest_on_padding(selection.salience, levels.padding)
        reference = levels.centers[:, :, None] * levels.ratios[:, None]
        own: Sequence[int] = selection.own.tolist()
        for i, (layer, count) in enumerate(zip(self.layers, selection.counts, strict=True)):
            index = selection.tokens[:, :count]
            query = gathered(output, index)
            if given is None:
                promise = self.enhance_mcsp(query).amax(-1) * salience.gather(1, index)
                best = promise.topk(min(self.pre_attended, count), 1).indices
            else:
                best = given[i]
            pre_attended.append(best)
            places = gathered(reference.flatten(2), index).unflatten(-1, reference.shape[-2:])
            query = layer(query, gathered(levels.pos, index), best, places, levels, index)
            output = torch.stack(
                [
                    one.index_copy(0, which[:n], refined[:n])
                    for one, which, refined, n in zip(output, index, query, own, strict=True)
                ]
            )
        return output + self._background(levels, index), tuple(pre_attended)

    def _background(self, levels: Levels, refined: Tensor) -> Tensor:
        """A learned embedding of every token but padding and these (B, n): (B, S, C)."""
        rows, columns = self.background_embedding.row_embed, self.background_embedding.col_embed
        grids = [grid_positions(rows.weight, columns.weight, hw) for hw in levels.shapes]
        rest = torch.ones_like(levels.src[..., 0], dtype=torch.bool)
        rest = rest.scatter(1, refined, False)
        if levels.padding is not None:
            rest = rest & ~levels.padding
        return torch.cat(grids, 1) * rest[..., None]
