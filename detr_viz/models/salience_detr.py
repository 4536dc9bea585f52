"""Salience DETR (Hou et al., CVPR 2024): names and outputs of xiuqhou/Salience-DETR.

A two-stage Deformable DETR whose encoder refines only the salient tokens. Any number of levels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.attention.terms import MODES
from detr_viz.common.short_repr import brief_tuple
from detr_viz.images.preprocessing import TRUNCATED, Preprocessing
from detr_viz.models.conditional_detr import class_probabilities
from detr_viz.models.layers.batches import image_of, repeated
from detr_viz.models.layers.deformable_transformer import levels_of
from detr_viz.models.layers.narrow import NarrowBackbone
from detr_viz.models.layers.positions import inverse_sigmoid, sine_boxes
from detr_viz.models.layers.resnet import (
    FrozenBatchNorm2d,
    NormLayer,
    ResNetBody,
    fold_batch_norm,
)
from detr_viz.models.layers.salience import OWN_CHOICES, Choices, by_level
from detr_viz.models.layers.salience_transformer import Neck, SalienceTransformer
from detr_viz.models.salience_config import SalienceConfig, own_tensors, read_config
from detr_viz.models.spec import ModelSpec

EPS = 1e-3  # of inverse_sigmoid, as its authors have it


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, S, C); padding (B, S) or None; ratios as in Levels; tgt (1 or B, Q, C); reference
    (B, Q, 4) of the queries in [0, 1] of the image; shapes of the levels; input_hw pixels of the
    images, valid_hw those without padding (None: all); proposals (B, Q) the tokens that became
    queries; scores (B, S) of all tokens, logits; invalid (1 or B, S): padding, or a box on the
    edge; salience (B, S); kept (B, n), kept_counts and own are tokens, counts and own of the
    Selection; pre_attended, of each encoder layer, (B, m) places in its part of `kept`;
    proposal_logits (B, Q, num_logits).
    """

    memory: Tensor
    padding: Tensor | None
    ratios: Tensor
    tgt: Tensor
    reference: Tensor
    shapes: Shapes
    input_hw: tuple[int, int]
    proposals: Tensor
    scores: Tensor
    invalid: Tensor
    proposal_logits: Tensor
    salience: Tensor
    kept: Tensor
    kept_counts: tuple[int, ...]
    own: Tensor
    pre_attended: tuple[Tensor, ...]
    valid_hw: tuple[int, int] | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        pre_attended = tuple(best[i : i + 1] for best in self.pre_attended)
        return image_of(self, i)._replace(pre_attended=pre_attended)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch, as far as the decoder reads it."""
        return repeated(self, times)

    def kept_by(self, layer: int) -> Tensor:
        """(B, n) the tokens that an encoder layer refined, best first; images of one size."""
        return self.kept[:, : min(self.kept_counts[layer], int(self.own.max()))]


class SalienceNetwork(NarrowBackbone):
    """forward(images, mask, aux) -> dict of

    pred_logits       (B, Q, num_logits)
    pred_boxes        (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    levels            ((h, w), stride) of each level of the memory, finest first
    reference_points  (B, Q, 2) x, y in [0, 1], before the decoder
    references        of each layer (B, Q, 4), as it entered
    encoded           what the decoder was given: decode(encoded, aux) gives the same again
    salience          (B, h, w) of each level, logits, to be trained
    enc_outputs       pred_logits, pred_boxes of the proposals, to be trained
    aux_outputs       with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None. The authors pad
    images to multiples of 32. The losses stand in demo/salience_training.py.
    """

    def __init__(self, config: SalienceConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNetBody(config.backbone, norm_layer)
        self.neck = Neck(config)
        self.transformer = SalienceTransformer(config, norm_layer)

    def forward(
        self,
        images: Tensor,
        mask: Tensor | None = None,
        *,
        aux: bool = False,
        choices: Choices = OWN_CHOICES,
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask, choices), aux=aux)

    def encode(
        self, images: Tensor, mask: Tensor | None = None, choices: Choices = OWN_CHOICES
    ) -> Encoded:
        """Backbone, encoder and proposals."""
        transformer = self.transformer
        wide = transformer.level_embeds.dtype  # the backbone may be in a narrower one
        features = [x.to(wide) for x in self.backbone.features(images, self.config.stages)]
        if mask is not None and not mask.any():
            mask = None
        sources = self.neck(features)
        # its position encoding keeps the wavelengths as float32 buffers
        levels = levels_of(sources, transformer.level_embeds, mask, torch.float32)
        memory, selection, pre_attended = transformer.refine(levels, choices)
        proposals = transformer.propose(memory, levels, choices.proposals)
        return Encoded(
            memory=memory,
            padding=levels.padding,
            ratios=levels.ratios,
            tgt=transformer.tgt_embed.weight[None],
            reference=proposals.boxes,
            shapes=levels.shapes,
            input_hw=tuple(images.shape[-2:]),
            proposals=proposals.tokens,
            scores=proposals.scores,
            invalid=proposals.invalid,
            proposal_logits=proposals.logits,
            salience=selection.salience,
            kept=selection.tokens,
            kept_counts=selection.counts,
            own=selection.own,
            pre_attended=pre_attended,
        )

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """Decoder and heads; the result as of `forward`."""
        outputs, references = [], []
        for reference, output in self._layers(encoded, aux):
            references.append(reference.expand(len(encoded.memory), -1, -1))
            outputs.append(output)
        salience = by_level(encoded.salience[..., None], encoded.shapes)
        result = {
            **outputs[-1],
            "levels": tuple(zip(encoded.shapes, self.config.strides, strict=True)),
            "encoded": encoded,
            "reference_points": encoded.reference[..., :2],
            "references": references,
            "salience": tuple(x[:, 0] for x in salience),
            "enc_outputs": {
                "pred_logits": encoded.proposal_logits,
                "pred_boxes": encoded.reference,
            },
        }
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def _layers(self, encoded: Encoded, aux: bool) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """(references as they enter, outputs, {} unless needed) of each decoder layer."""
        decoder, memory = self.transformer.decoder, encoded.memory
        tgt = encoded.tgt.expand(len(memory), -1, -1)
        reference, last = encoded.reference.detach(), len(decoder.layers) - 1
        ratios = encoded.ratios.repeat(1, 1, 2)[:, None]
        start = (
            reference  # with a gradient from layer 1 on: each layer's boxes train the one before
        )
        for i, layer in enumerate(decoder.layers):
            entering = reference[:, :, None] * ratios
            at = entering[:, :, 0, [1, 0, 2, 3]]  # y, x, w, h
            query_pos = decoder.ref_point_head(sine_boxes(at, tgt.shape[-1]))
            tgt = layer(tgt, query_pos, entering, memory, encoded.padding, encoded.shapes)
            before, output = reference, {}
            if aux or i == last:
                normed = decoder.norm(tgt)
                boxes = decoder.bbox_head[i](normed) + inverse_sigmoid(start, EPS)
                output["pred_boxes"] = boxes.sigmoid()
                output["pred_logits"] = decoder.class_head[i](normed)
            if i < last:  # refined by the query before the norm
                moved = decoder.bbox_head[i](tgt) + inverse_sigmoid(reference, EPS)
                start = moved.sigmoid()
                reference = start.detach()
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
        for part in (self.backbone, self.transformer.neck):
            fold_batch_norm(part)
            part.to(memory_format=torch.channels_last)


def build(config: SalienceConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> SalienceNetwork:
    """A Salience DETR of these sizes; one sigmoid for each class."""
    return SalienceNetwork(config, norm_layer)


def matches(keys: Collection[str]) -> bool:
    """What predicts salience, and embeds what is not salient; Sparse DETR has only the first."""
    return (
        "transformer.enc_mask_predictor.layer1.0.weight" in keys
        and "transformer.encoder.background_embedding.row_embed.weight" in keys
        and "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight" in keys
    )


SPEC = ModelSpec(
    name="salience_detr",
    title="Salience DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
    cell_rule="centered",
    own_tensors=own_tensors,
    salience=True,
    proposal_scores=lambda config: "sigmoid of the encoder head's best class logit",
    preprocessing=Preprocessing(rule=TRUNCATED, on_floats=True, multiple=32),
)
