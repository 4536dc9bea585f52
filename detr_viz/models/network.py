"""What DETR and Conditional DETR share: the whole around a decoder.

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.batches import repeated
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import LearnedPositions, sine_positions
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, fold_batch_norm
from detr_viz.models.layers.split_attention import SplitAttention
from detr_viz.models.layers.transformer import MLP, Backbone, Encoder, Transformer, tokens


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, K, C), pos (1 or B, K, C), padding (B, K) True = padding, or None, hw of the grid,
    input_hw pixels of the images, valid_hw those without padding (None: all).
    """

    memory: Tensor
    pos: Tensor
    padding: Tensor | None
    hw: tuple[int, int]
    input_hw: tuple[int, int]
    valid_hw: tuple[int, int] | None = None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        pos = self.pos if len(self.pos) == 1 else self.pos[i : i + 1]
        padding = None if self.padding is None else self.padding[i : i + 1]
        return self._replace(memory=self.memory[i : i + 1], pos=pos, padding=padding)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        return repeated(self, times)


class DetrNetwork(nn.Module):
    """Backbone, encoder, a model's own decoder, heads. forward(images, mask, aux) -> dict of

    pred_logits  (B, Q, num_logits)
    pred_boxes   (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    memory_hw    (h, w) of the memory grid
    reference_points  (Q, 2) x, y in [0, 1], of a model whose queries have them
    encoded      what the decoder was given: decode(encoded, aux) gives the same again
    aux_outputs  with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.

    decoder(query_pos, memory, pos, padding, aux) gives normed layer outputs (B, Q, C) (all of them
    with aux, else the last alone) and what is added to the boxes before the sigmoid, or None.
    """

    def __init__(
        self, config: DetrConfig, decoder: nn.Module, norm_layer: NormLayer = FrozenBatchNorm2d
    ) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.transformer = Transformer(Encoder(config), decoder)
        self.class_embed = Linear(width, config.num_logits)
        self.bbox_embed = MLP(width, width, 4, 3)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.input_proj = Conv2d(config.backbone.out_channels, width, 1)
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])
        if config.learned_positions:
            self.backbone.append(LearnedPositions(config.learned_positions, width))

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone and encoder."""
        features = self.input_proj(self.backbone[0](images))
        wide = self.query_embed.weight.dtype  # the decoder's; these may be in a narrower one
        src, pos, padding = tokens(features, mask, self.positions)
        memory = self.transformer.encoder(src, pos.to(src.dtype), padding).to(wide)
        hw, input_hw = features.shape[-2:], images.shape[-2:]
        return Encoded(memory, pos, padding, tuple(hw), tuple(input_hw))

    def positions(self, padding: Tensor) -> Tensor:
        """Position encodings of a grid: padding (1 or B, h, w) -> (1 or B, h * w, C)."""
        if self.config.learned_positions:
            return self.backbone[1](padding)
        return sine_positions(padding, self.config.d_model, self.query_embed.weight.dtype)

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """Decoder and heads; the result as of `forward`."""
        query_pos = self.query_embed.weight[None]
        hs, anchor = self.transformer.decoder(query_pos, *encoded[:3], aux)
        outputs = [self._heads(h, anchor) for h in hs]
        result = {**outputs[-1], "memory_hw": encoded.hw, "encoded": encoded}
        if anchor is not None:
            result["reference_points"] = anchor[0, :, :2].sigmoid()
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def _heads(self, h: Tensor, anchor: Tensor | None) -> dict[str, Tensor]:
        boxes = self.bbox_embed(h)
        if anchor is not None:
            boxes = boxes + anchor
        return {"pred_logits": self.class_embed(h), "pred_boxes": boxes.sigmoid()}

    @property
    def input_dtype(self) -> torch.dtype:
        """What images must come in."""
        return self.input_proj.weight.dtype

    def narrow(self, dtype: torch.dtype) -> None:
        """Backbone and encoder in another dtype; decoder and heads stay as they are."""
        for part in (self.backbone[0], self.input_proj, self.transformer.encoder):
            part.to(dtype)

    def attention_sites(self) -> dict[tuple[str, int], SplitAttention]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES."""
        return sites_of(self.transformer)

    def fold_batch_norm(self) -> None:
        """For inference, after loading: batch norm into the convolutions, which go channels last.

        That is what makes a CPU quick; the state dict is no longer the official one.
        """
        body = self.backbone[0].body
        fold_batch_norm(body)
        body.to(memory_format=torch.channels_last)


def sites_of(transformer: Transformer) -> dict[tuple[str, int], SplitAttention]:
    """(kind, layer) -> attention site of an encoder and a decoder."""
    sites: dict[tuple[str, int], SplitAttention] = {}
    for i, layer in enumerate(transformer.encoder.layers):
        sites["encoder", i] = layer.self_attn
    for i, layer in enumerate(transformer.decoder.layers):
        sites["decoder", i] = layer.self_attn
        sites["cross", i] = layer.cross_site
    return sites
