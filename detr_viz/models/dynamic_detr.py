"""Dynamic DETR (Dai et al., ICCV 2021), a reconstruction: no code was published.

Of the paper, by reviews and tables that quote it: a pyramid of five levels; an encoder of six
blocks, in each a deformable convolution of the own and both neighbouring levels, with offsets that
the own level predicts, scale attention, and a dynamic ReLU; 300 queries, four self-attention heads,
six decoder stages; a stage pools the pyramid by its box encoding, filters what it pools by a
filter made of the query, and hands on query and box; boxes begin as the whole image.

After the first author's later code (DyHead): names and forms of the encoder's layers, the hard
sigmoids. Decided here: levels p2 to p6; offsets keep their unit, cells, on other levels; a mean
over the parts; one dynamic layer, an eighth of the width wide; level rule, towers and names of the
decoder are Sparse R-CNN's; softmax with no-object; boxes train by their own stage alone. A batch
shares one size: padding that all its images have is cut off before the backbone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.attention.bilinear import Shapes
from detr_viz.attention.roi import WHY
from detr_viz.attention.roi_align import Pyramid as RoIPyramid
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.detr import class_probabilities
from detr_viz.models.dynamic_config import DynamicConfig, read_config, with_hints
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.dynamic_encoder import DynamicEncoder, Pyramid
from detr_viz.models.layers.dynamic_head import DynamicHead
from detr_viz.models.layers.narrow import NarrowBackbone
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, fold_batch_norm
from detr_viz.models.layers.transformer import Backbone
from detr_viz.models.spec import ModelSpec

WHOLE_IMAGE = (0.5, 0.5, 1.0, 1.0)  # cx, cy, w, h


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, S, C) of all levels; tgt (1 or B, Q, C); reference (1 or B, Q, 4) cx, cy, w, h of the
    first boxes, in [0, 1] of the image; shapes of the levels; input_hw, valid_hw pixels of the
    images; scale_weights, scale_shares (B, blocks, L, 3) and scale_maps (B, blocks, 3, S) as of
    `ScaleNumbers`.
    """

    memory: Tensor
    tgt: Tensor
    reference: Tensor
    shapes: Shapes
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None
    scale_weights: Tensor
    scale_shares: Tensor
    scale_maps: Tensor

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        return image_of(self, i)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        return self._replace(memory=self.memory.expand(times, -1, -1))


class DynamicNetwork(NarrowBackbone):
    """forward(images, mask, aux) -> dict of

    pred_logits  (B, Q, classes + 1), no-object last
    pred_boxes   (B, Q, 4) cx, cy, w, h in [0, 1] of the image
    levels       ((h, w), stride) of each level of the memory, finest first
    references   of each stage (B, Q, 4), the boxes that enter it
    encoded      what the decoder was given: decode(encoded, aux) gives the same again
    aux_outputs  with aux=True: the first two of every earlier stage

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.
    """

    def __init__(self, config: DynamicConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        width, body = config.d_model, config.backbone
        expansion = 4 if body.block == "bottleneck" else 1
        channels = [expansion * planes for planes in body.widths[-config.stages :]]
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])
        self.pyramid = Pyramid(channels, width, config.levels, config.first_level)
        self.encoder = DynamicEncoder(width, config.enc_layers, config.masked)
        self.init_proposal_features = nn.Embedding(config.num_queries, width)
        self.init_proposal_boxes = nn.Embedding(config.num_queries, 4)
        self.head = DynamicHead(config)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone, pyramid and encoder. ValueError for images of several sizes."""
        valid_hw = (images.shape[-2], images.shape[-1])
        if mask is not None and mask.any():
            valid_hw = _valid_hw(mask)
            images = images[..., : valid_hw[0], : valid_hw[1]]
        wide = self.init_proposal_boxes.weight.dtype  # the backbone may be in a narrower one
        features = self.backbone[0].body.features(images, self.config.stages)
        maps, numbers = self.encoder(self.pyramid([x.to(wide) for x in features]))
        return Encoded(
            memory=torch.cat([x.flatten(2) for x in maps], -1).transpose(1, 2),
            tgt=self.init_proposal_features.weight[None],
            reference=self.init_proposal_boxes.weight[None],
            shapes=tuple((x.shape[-2], x.shape[-1]) for x in maps),
            input_hw=valid_hw,
            valid_hw=valid_hw,
            scale_weights=numbers.weights,
            scale_shares=numbers.shares,
            scale_maps=numbers.maps,
        )

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """The stages; the result as of `forward`."""
        height, width = encoded.input_hw
        sides = encoded.reference.new_tensor([width, height, width, height])
        pyramid = RoIPyramid(encoded.shapes, self.config.strides)
        given = encoded.tgt, encoded.reference, sides, encoded.memory
        return {**self.head.decoded(*given, pyramid, encoded.input_hw, aux), "encoded": encoded}

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> site; stages are decoder layers."""
        sites = {("encoder", i): block.DyConv for i, block in enumerate(self.encoder.layers)}
        return {**sites, **self.head.attention_sites()}

    def fold_batch_norm(self) -> None:
        """For inference, after loading: batch norm into the convolutions, which go channels last.

        The state dict is no longer the one of files.
        """
        body = self.backbone[0].body
        fold_batch_norm(body)
        body.to(memory_format=torch.channels_last)


def _valid_hw(mask: Tensor) -> tuple[int, int]:
    """Pixels that show the images of a batch, (h, w); ValueError if they differ."""
    shown = ~mask
    rows, columns = shown.any(2).sum(1), shown.any(1).sum(1)
    h, w = int(rows[0]), int(columns[0])
    if bool((rows != h).any() or (columns != w).any()) or not bool(shown[:, :h, :w].all()):
        raise ValueError("images of several sizes in a batch: give one size at a time")
    return h, w


def build(config: DynamicConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> DynamicNetwork:
    """A Dynamic DETR of these sizes; pred_logits has no-object last."""
    return DynamicNetwork(config, norm_layer)


def matches(keys: Collection[str]) -> bool:
    """An encoder of deformable convolutions, and stages of dynamic ones."""
    return (
        "encoder.layers.0.DyConv.1.conv.weight" in keys
        and "head.head_series.0.inst_interact.dynamic_layer.weight" in keys
    )


SPEC = ModelSpec(
    name="dynamic_detr",
    title="Dynamic DETR",
    modes=("combine",),
    matches=matches,
    read_config=read_config,
    build=build,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits - 1,
    pairwise=False,
    cell_rule="strided",
    why_undivided=WHY,
    with_hints=with_hints,
    scales=True,
    nheads=4,
    notes=("Dynamic DETR is a reconstruction: no code or weights of its authors are published",),
)
