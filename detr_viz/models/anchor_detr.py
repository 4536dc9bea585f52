"""Anchor DETR (Wang et al., AAAI 2022): names and outputs of megvii-research/AnchorDETR."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.terms import MODES
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.anchor_config import GROUPS, AnchorConfig, read_config, with_hints
from detr_viz.models.conditional_detr import class_probabilities
from detr_viz.models.layers.batches import image_of, repeated
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.narrow import NarrowBackbone
from detr_viz.models.layers.positions import downsample_padding, inverse_sigmoid, sine_numbers
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, fold_batch_norm
from detr_viz.models.layers.row_column import (
    AnchorDecoderLayer,
    AnchorEncoderLayer,
    FactoredInputs,
)
from detr_viz.models.layers.transformer import MLP, Backbone
from detr_viz.models.spec import ModelSpec


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, S, C), row-major; row_places (1 or B, w, C) and column_places (1 or B, h, C), the
    positions of the grid's columns and rows; padding (B, S) True = padding, or None; hw of the
    grid, input_hw pixels of the images, valid_hw those without padding (None: all).
    """

    memory: Tensor
    row_places: Tensor
    column_places: Tensor
    padding: Tensor | None
    hw: tuple[int, int]
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        return image_of(self, i)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        return repeated(self, times)


class Transformer(nn.Module):
    """Layers, patterns, anchors and heads under their official names."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        width = config.d_model
        self.encoder_layers = nn.ModuleList(
            AnchorEncoderLayer(config) for _ in range(config.enc_layers)
        )
        self.decoder_layers = nn.ModuleList(
            AnchorDecoderLayer(config) for _ in range(config.dec_layers)
        )
        self.pattern = nn.Embedding(config.patterns, width)
        if not config.grid_anchors:
            self.position = nn.Embedding(config.anchors, 2)
            nn.init.uniform_(self.position.weight)
        self.adapt_pos2d = _adapter(width)
        self.adapt_pos1d = _adapter(width)
        # every layer has the same heads, and the file has them once for each
        self.class_embed = nn.ModuleList([Linear(width, config.num_logits)] * config.dec_layers)
        self.bbox_embed = nn.ModuleList([MLP(width, width, 4, 3)] * config.dec_layers)


class AnchorNetwork(NarrowBackbone):
    """forward(images, mask, aux) -> dict of

    pred_logits       (B, Q, num_logits)
    pred_boxes        (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    memory_hw         (h, w) of the memory grid
    reference_points  (Q, 2) x, y in [0, 1]: the anchor of each query
    encoded           what the decoder was given: decode(encoded, aux) gives the same again
    aux_outputs       with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.
    """

    def __init__(self, config: AnchorConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.transformer = Transformer(config)
        self.input_proj = nn.ModuleList(
            [
                nn.Sequential(
                    Conv2d(config.backbone.out_channels, width, 1), nn.GroupNorm(GROUPS, width)
                )
            ]
        )
        self.backbone = Backbone(config, norm_layer)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone and encoder."""
        wide = self.transformer.pattern.weight.dtype  # the backbone may be in a narrower one
        features = self.input_proj[0](self.backbone(images).to(wide))
        hw = tuple(features.shape[-2:])
        if mask is None or not mask.any():
            padding = None
            valid = torch.ones((1, *hw), dtype=torch.bool, device=features.device)
        else:
            valid = ~downsample_padding(mask, hw)
            padding = ~valid.flatten(1)
        rows, columns = (
            self.transformer.adapt_pos1d(sine_numbers(_fractions(line, wide), self.config.d_model))
            for line in (valid[:, 0, :], valid[:, :, 0])
        )
        memory = features.flatten(2).transpose(1, 2)
        for layer in self.transformer.encoder_layers:
            memory = layer(memory, rows, columns, padding)
        return Encoded(memory, rows, columns, padding, hw, tuple(images.shape[-2:]))

    def anchors(self) -> Tensor:
        """x, y in [0, 1] of each anchor, (anchors, 2)."""
        weight = self.transformer.pattern.weight
        if not self.config.grid_anchors:
            return self.transformer.position.weight
        side = math.isqrt(self.config.anchors)
        line = (torch.arange(side, dtype=weight.dtype, device=weight.device) + 0.5) / side
        return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """Decoder and heads; the result as of `forward`."""
        points = self.anchors().repeat(self.config.patterns, 1)
        outputs = list(self._layers(points, encoded, aux))
        result = {
            **outputs[-1],
            "memory_hw": encoded.hw,
            "encoded": encoded,
            "reference_points": points,
        }
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def _layers(self, points: Tensor, encoded: Encoded, aux: bool) -> Iterator[dict[str, Tensor]]:
        """The outputs of every decoder layer with aux, else of the last alone."""
        inner, width = self.transformer, self.config.d_model
        x, y = points.unbind(-1)
        halves = [sine_numbers(number, width // 2) for number in (y, x)]
        query_pos = inner.adapt_pos2d(torch.cat(halves, -1))[None]
        along_x, along_y = (inner.adapt_pos1d(sine_numbers(n, width))[None] for n in (x, y))
        anchor = F.pad(inverse_sigmoid(points), (0, 2))
        tgt = inner.pattern.weight.repeat_interleave(self.config.anchors, 0)
        tgt = tgt.expand(len(encoded.memory), -1, -1)
        across = FactoredInputs(
            tgt,
            along_x,
            along_y,
            encoded.memory,
            encoded.row_places,
            encoded.column_places,
            encoded.padding,
        )
        last = len(inner.decoder_layers) - 1
        for i, layer in enumerate(inner.decoder_layers):
            tgt = layer(tgt, query_pos, across)
            if aux or i == last:
                boxes = (inner.bbox_embed[i](tgt) + anchor).sigmoid()
                yield {"pred_logits": inner.class_embed[i](tgt), "pred_boxes": boxes}

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES."""
        sites: dict[tuple[str, int], nn.Module] = {}
        for i, layer in enumerate(self.transformer.encoder_layers):
            sites["encoder", i] = layer.self_attn
        for i, layer in enumerate(self.transformer.decoder_layers):
            sites["decoder", i] = layer.self_attn
            sites["cross", i] = layer.cross_attn
        return sites

    def fold_batch_norm(self) -> None:
        """For inference, after loading; as in DetrNetwork."""
        fold_batch_norm(self.backbone.body)
        self.backbone.body.to(memory_format=torch.channels_last)


def _adapter(width: int) -> nn.Sequential:
    """What makes positions of sines: of points (2d), and of places and points on an axis (1d)."""
    return nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width))


def _fractions(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """valid (B, n) -> the middle of each place in [0, 1] of the valid ones, (B, n)."""
    place = valid.cumsum(1, dtype=dtype)
    return (place - 0.5) / place[:, -1:]


def build(config: AnchorConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> AnchorNetwork:
    """An Anchor DETR of these sizes; one sigmoid for each class."""
    return AnchorNetwork(config, norm_layer)


def matches(keys: Collection[str]) -> bool:
    """Patterns of anchors, and positions of one axis, are its marks."""
    return {"transformer.pattern.weight", "transformer.adapt_pos1d.0.weight"} <= {*keys}


SPEC = ModelSpec(
    name="anchor_detr",
    title="Anchor DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
    cell_rule="centered",
    with_hints=with_hints,
    anchors=lambda config: config.anchors,
)
