"""What DETR and Conditional DETR share: encoder, FFN, MLP, backbone, the whole around a decoder.

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import DetrConfig
from detr_viz.models.positions import downsample_padding, sine_positions
from detr_viz.models.resnet import FrozenBatchNorm2d, NormLayer, ResNetBody, fold_batch_norm
from detr_viz.models.sites import PackedAttention, Parts, Site


class MLP(nn.Module):
    """Linear layers with ReLU between them: (..., d_in) -> (..., d_out)."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int, num_layers: int) -> None:
        super().__init__()
        sizes = [d_in, *[d_hidden] * (num_layers - 1), d_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForwardLayer(nn.Module):
    """What every encoder and decoder layer has: linear1, linear2 and `norms` layer norms."""

    def __init__(self, config: DetrConfig, norms: int) -> None:
        super().__init__()
        width = config.d_model
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        for i in range(norms):
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width))

    def feed_forward(self, x: Tensor) -> Tensor:
        """linear2(relu(linear1(x)))."""
        return self.linear2(F.relu(self.linear1(x)))


class EncoderLayer(FeedForwardLayer):
    """Self-attention over the cells, then FFN, each added and normed (post-norm)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, norms=2)
        self.self_attn = PackedAttention(config.d_model, config.nheads)

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        src = self.norm1(src + self.self_attn(Parts(src, pos, src, pos, src, padding)))
        return self.norm2(src + self.feed_forward(src))


class Encoder(nn.Module):
    """src, pos (B, K, C) -> memory (B, K, C)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.enc_layers))

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor | None) -> Tensor:
        for layer in self.layers:
            src = layer(src, pos, padding)
        return src


class Transformer(nn.Module):
    """Holds encoder and decoder under their official names."""

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder


class Backbone(nn.Module):
    """Holds the body under its official name (backbone.0.body)."""

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.body = ResNetBody(config.backbone, norm_layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def tokens(
    features: Tensor, mask: Tensor | None, d_model: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (B, C, h, w), mask (B, H, W) or None -> src (B, K, C), pos (1 or B, K, C), padding.

    dtype: of pos.
    padding is (B, K), or None where nothing is padded: attention then takes its quickest path.
    """
    hw = features.shape[-2:]
    if mask is not None and not mask.any():
        mask = None
    if mask is None:
        padding = torch.zeros((1, *hw), dtype=torch.bool, device=features.device)
    else:
        padding = downsample_padding(mask, hw)
    pos = sine_positions(padding, d_model, dtype)
    src = features.flatten(2).transpose(1, 2)
    return src, pos, None if mask is None else padding.flatten(1)


class Encoded(NamedTuple):
    """What the decoder is given of images.

    memory (B, K, C), pos (1 or B, K, C), padding (B, K) True = padding, or None, hw of the grid.
    """

    memory: Tensor
    pos: Tensor
    padding: Tensor | None
    hw: tuple[int, int]

    def of_image(self, i: int) -> Encoded:
        """As if image i had been alone."""
        pos = self.pos if len(self.pos) == 1 else self.pos[i : i + 1]
        padding = None if self.padding is None else self.padding[i : i + 1]
        return Encoded(self.memory[i : i + 1], pos, padding, self.hw)

    def repeated(self, times: int) -> Encoded:
        """A single image as a batch."""
        padding = None if self.padding is None else self.padding.expand(times, -1)
        return Encoded(self.memory.expand(times, -1, -1), self.pos, padding, self.hw)


def once(memory: Tensor) -> Tensor:
    """(1, K, C) of a single image that was repeated: its keys are projected once for all."""
    return memory[:1] if memory.stride(0) == 0 else memory


class Detector(nn.Module):
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
        self.class_embed = nn.Linear(width, config.num_logits)
        self.bbox_embed = MLP(width, width, 4, 3)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.input_proj = nn.Conv2d(config.backbone.out_channels, width, 1)
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone and encoder."""
        features = self.input_proj(self.backbone[0](images))
        wide = self.query_embed.weight.dtype  # the decoder's; these may be in a narrower one
        src, pos, padding = tokens(features, mask, self.config.d_model, wide)
        memory = self.transformer.encoder(src, pos.to(src.dtype), padding).to(wide)
        return Encoded(memory, pos, padding, tuple(features.shape[-2:]))

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
        for part in (self.backbone, self.input_proj, self.transformer.encoder):
            part.to(dtype)

    def attention_sites(self) -> dict[tuple[str, int], Site]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES."""
        sites: dict[tuple[str, int], Site] = {}
        for i, layer in enumerate(self.transformer.encoder.layers):
            sites["encoder", i] = layer.self_attn
        for i, layer in enumerate(self.transformer.decoder.layers):
            sites["decoder", i] = layer.self_attn
            sites["cross", i] = layer.cross_site
        return sites

    def fold_batch_norm(self) -> None:
        """For inference, after loading: batch norm into the convolutions, which go channels last.

        That is what makes a CPU quick; the state dict is no longer the official one.
        """
        body = self.backbone[0].body
        fold_batch_norm(body)
        body.to(memory_format=torch.channels_last)
