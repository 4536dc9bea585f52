"""What the networks of sampled attention share: levels, encoder, decoder layers, outputs.

A network of its own makes the queries and has the heads: Deformable DETR, Efficient DETR.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.deformable_config import GROUPS, DeformableConfig
from detr_viz.models.layers.batches import image_of, repeated
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.deformable_transformer import Levels, levels_of
from detr_viz.models.layers.narrow import NarrowBackbone
from detr_viz.models.layers.positions import inverse_sigmoid
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, fold_batch_norm
from detr_viz.models.layers.transformer import Backbone


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, S, C); padding (B, S) or None; ratios as in Levels; query_pos, tgt (1 or B, Q, C);
    reference (1 or B, Q, 2 or 4) of the queries in [0, 1] of the image; shapes of the levels;
    input_hw pixels of the images, valid_hw those without padding (None: all). Of models whose
    queries are tokens of the encoder: which tokens (B, Q), the scores of all of them (B, S),
    logits, and which of these are invalid (1 or B, S): padding, or a box on the edge; of Efficient
    DETR all that its dense head says, logits (B, S, classes) and boxes (B, S, 4).
    """

    memory: Tensor
    padding: Tensor | None
    ratios: Tensor
    query_pos: Tensor
    tgt: Tensor
    reference: Tensor
    shapes: Shapes
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None = None
    proposals: Tensor | None = None
    scores: Tensor | None = None
    invalid: Tensor | None = None
    dense_logits: Tensor | None = None
    dense_boxes: Tensor | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        return image_of(self, i)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        return repeated(self, times)


class Queries(NamedTuple):
    """What a network makes of the encoder's tokens; fields as in `Encoded`."""

    query_pos: Tensor
    tgt: Tensor
    reference: Tensor
    proposals: Tensor | None = None
    scores: Tensor | None = None
    invalid: Tensor | None = None
    dense_logits: Tensor | None = None
    dense_boxes: Tensor | None = None

    __repr__ = brief_tuple


class SampledNetwork(NarrowBackbone):
    """forward(images, mask, aux) -> dict of

    pred_logits       (B, Q, num_logits)
    pred_boxes        (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    levels            ((h, w), stride) of each level of the memory, finest first
    reference_points  (Q, 2) or (B, Q, 2) x, y in [0, 1], before the decoder
    references        of each layer (B, Q, 2 or 4), as it entered; () without refinement
    encoded           what the decoder was given: decode(encoded, aux) gives the same again
    aux_outputs       with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.

    A subclass sets `transformer` (encoder, decoder, level_embed), and has `queries`, `class_head`
    and `box_head`.
    """

    transformer: nn.Module

    def __init__(self, config: DeformableConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])
        self.input_proj = nn.ModuleList(_projections(config))

    def queries(self, memory: Tensor, levels: Levels) -> Queries:
        """Of memory (B, S, C), the encoder's output on these levels."""
        raise NotImplementedError

    def class_head(self, layer: int) -> nn.Module:
        """(B, Q, C) -> (B, Q, num_logits), of a decoder layer."""
        raise NotImplementedError

    def box_head(self, layer: int) -> nn.Module:
        """(B, Q, C) -> (B, Q, 4), steps from the reference before the sigmoid."""
        raise NotImplementedError

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone and encoder, and the queries."""
        levels = self._levels(images, mask)
        memory = self.transformer.encoder(levels)
        return Encoded(
            memory=memory,
            padding=levels.padding,
            ratios=levels.ratios,
            shapes=levels.shapes,
            input_hw=tuple(images.shape[-2:]),
            **self.queries(memory, levels)._asdict(),
        )

    def _levels(self, images: Tensor, mask: Tensor | None) -> Levels:
        wide = self.transformer.level_embed.dtype  # the backbone may be in a narrower one
        features = self.backbone[0].body.features(images, self.config.stages)
        features = [x.to(wide) for x in features]
        sources: list[Tensor] = []
        for i, project in enumerate(self.input_proj):
            first = i <= self.config.stages  # further levels are made of the level before
            source = features[min(i, self.config.stages - 1)] if first else sources[-1]
            sources.append(project(source))
        if mask is not None and not mask.any():
            mask = None
        return levels_of(sources, self.transformer.level_embed, mask)

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """Decoder and heads; the result as of `forward`."""
        outputs, references = [], []
        for reference, output in self._layers(encoded, aux):
            references.append(reference.expand(len(encoded.memory), -1, -1))
            outputs.append(output)
        points = encoded.reference[..., :2]
        result = {
            **outputs[-1],
            "levels": tuple(zip(encoded.shapes, self.config.strides, strict=True)),
            "encoded": encoded,
            "reference_points": points[0] if encoded.proposals is None else points,
            "references": references if self.config.refine else (),
        }
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def _layers(self, encoded: Encoded, aux: bool) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """(references as they enter, outputs, {} unless needed) of each decoder layer."""
        reference, memory = encoded.reference, encoded.memory
        tgt = encoded.tgt.expand(len(memory), -1, -1)
        last = len(self.transformer.decoder.layers) - 1
        for i, layer in enumerate(self.transformer.decoder.layers):
            ratios = encoded.ratios.repeat(1, 1, reference.shape[-1] // 2)[:, None]
            entering = reference[:, :, None] * ratios
            tgt = layer(tgt, encoded.query_pos, entering, memory, encoded.padding, encoded.shapes)
            before, output = reference, {}
            if aux or self.config.refine or i == last:
                anchor = inverse_sigmoid(reference)
                boxes = self.box_head(i)(tgt) + F.pad(anchor, (0, 4 - anchor.shape[-1]))
                output["pred_boxes"] = boxes.sigmoid()
            if aux or i == last:
                output["pred_logits"] = self.class_head(i)(tgt)
            if self.config.refine:
                reference = output["pred_boxes"].detach()  # a layer trains on its own step alone
            yield before, output

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES."""
        sites: dict[tuple[str, int], nn.Module] = {}
        for i, layer in enumerate(self.transformer.encoder.layers):
            sites["encoder", i] = layer.self_attn
        for i, layer in enumerate(self.transformer.decoder.layers):
            sites["decoder", i] = layer.self_attn
            sites["cross", i] = layer.cross_attn
        return sites

    def fold_batch_norm(self) -> None:
        """For inference, after loading; as in DetrNetwork."""
        body = self.backbone[0].body
        fold_batch_norm(body)
        body.to(memory_format=torch.channels_last)


def _projections(config: DeformableConfig) -> Iterator[nn.Module]:
    """Convolution and group norm of each level, official name input_proj."""
    backbone = config.backbone
    outputs, planes = backbone.out_channels, backbone.widths[-config.stages :]
    channels = [width * (outputs // planes[-1]) for width in planes]
    for i in range(config.levels):
        if i < config.stages:
            conv = Conv2d(channels[i], config.d_model, 1)
        else:
            source = outputs if i == config.stages else config.d_model
            conv = Conv2d(source, config.d_model, 3, 2, 1)
        yield nn.Sequential(conv, nn.GroupNorm(GROUPS, config.d_model))
