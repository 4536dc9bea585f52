"""The 50-line DETR of the paper's appendix and of the authors' notebook: names and outputs.

    memory = nn.Transformer's encoder(pos + 0.1 * conv(backbone(image)))
    output = nn.Transformer's decoder(query_pos, memory)

Positions are added once, to the input of the encoder and of the decoder, and in no layer again, so
that queries and keys have no parts of content and position: `combine` is the only mode. Positions
are learned, batch norm is torchvision's, layers are post-norm, and so is the encoder's end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from detr_viz.attention.undivided import UndividedAttention
from detr_viz.models import detr
from detr_viz.models.config import DetrConfig, read_layers, read_shape
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.positions import grid_positions
from detr_viz.models.layers.resnet import (
    FrozenBatchNorm2d,
    NormLayer,
    ResNetBody,
    fold_batch_norm,
)
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention, SplitAttention
from detr_viz.models.layers.transformer import FeedForwardLayer, Transformer, once, tokens
from detr_viz.models.network import Encoded, sites_of
from detr_viz.models.spec import ModelSpec

FEATURE_SCALE = 0.1  # of the notebook; the paper's listing has 1, see notebook_keys.py
ENTRIES = 50  # rows and columns that have a learned position, where no file says
WHY = "the notebook's DETR adds positions once, to its input, so content and position are one sum"


class WholeAttention(PackedAttention):
    """nn.MultiheadAttention of tokens that hold content and position in one."""

    def of_tokens(self, query: Tensor, key: Tensor, padding: Tensor | None = None) -> Tensor:
        """query (B, Q, C), key (B, K, C) -> (B, Q, C)."""
        zero_q = torch.zeros_like(query)
        zero_k = zero_q if key is query else torch.zeros_like(key)
        return self(AttentionInputs(query, zero_q, key, zero_k, key, padding))

    def read(self, inputs: AttentionInputs) -> UndividedAttention:
        return UndividedAttention.of(super().read(inputs), WHY)


class EncoderLayer(FeedForwardLayer):
    """nn.TransformerEncoderLayer."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, norms=2)
        self.self_attn = WholeAttention(config.d_model, config.nheads)

    def forward(self, src: Tensor, padding: Tensor | None) -> Tensor:
        src = self.norm1(src + self.self_attn.of_tokens(src, src, padding))
        return self.norm2(src + self.feed_forward(src))


class DecoderLayer(FeedForwardLayer):
    """nn.TransformerDecoderLayer."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, norms=3)
        self.self_attn = WholeAttention(config.d_model, config.nheads)
        self.multihead_attn = WholeAttention(config.d_model, config.nheads)

    @property
    def cross_site(self) -> SplitAttention:
        return self.multihead_attn

    def forward(self, tgt: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        tgt = self.norm1(tgt + self.self_attn.of_tokens(tgt, tgt))
        tgt = self.norm2(tgt + self.multihead_attn.of_tokens(tgt, memory, padding))
        return self.norm3(tgt + self.feed_forward(tgt))


class Stack(nn.Module):
    """Layers and the norm that nn.Transformer has after them."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)


class NotebookDetr(nn.Module):
    """What DetrNetwork is to DETR: the same methods and results, the notebook's names."""

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        width, entries = config.d_model, config.learned_positions or ENTRIES
        self.backbone = ResNetBody(config.backbone, norm_layer)
        self.conv = Conv2d(config.backbone.out_channels, width, 1)
        self.transformer = Transformer(
            Stack([EncoderLayer(config) for _ in range(config.enc_layers)], width),
            Stack([DecoderLayer(config) for _ in range(config.dec_layers)], width),
        )
        self.linear_class = Linear(width, config.num_logits)
        self.linear_bbox = Linear(width, 4)
        self.query_pos = nn.Parameter(torch.rand(config.num_queries, width))
        self.row_embed = nn.Parameter(torch.rand(entries, width // 2))
        self.col_embed = nn.Parameter(torch.rand(entries, width // 2))

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        return self.decode(self.encode(images, mask), aux=aux)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Encoded:
        """Backbone and encoder; UserError for a grid that is larger than the position table."""
        features = self.conv(self.backbone(images))
        src, pos, padding = tokens(features, mask, self.positions)
        src = pos.to(src.dtype) + FEATURE_SCALE * src
        for layer in self.transformer.encoder.layers:
            src = layer(src, padding)
        memory = self.transformer.encoder.norm(src).to(self.query_pos.dtype)
        hw, input_hw = features.shape[-2:], images.shape[-2:]
        return Encoded(memory, pos, padding, tuple(hw), tuple(input_hw))

    def positions(self, padding: Tensor) -> Tensor:
        """Learned positions of a grid: padding (1 or B, h, w) -> (1, h * w, C)."""
        return grid_positions(self.row_embed, self.col_embed, tuple(padding.shape[-2:]))

    def decode(self, encoded: Encoded, *, aux: bool = False) -> dict[str, object]:
        """Decoder and heads; the result as of DetrNetwork."""
        tgt = self.query_pos.expand(len(encoded.memory), -1, -1)
        memory, outputs = once(encoded.memory), []
        layers = self.transformer.decoder.layers
        for i, layer in enumerate(layers):
            tgt = layer(tgt, memory, encoded.padding)
            if not (aux or i == len(layers) - 1):
                continue
            h = self.transformer.decoder.norm(tgt)
            boxes = self.linear_bbox(h).sigmoid()
            outputs.append({"pred_logits": self.linear_class(h), "pred_boxes": boxes})
        result = {**outputs[-1], "memory_hw": encoded.hw, "encoded": encoded}
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    @property
    def input_dtype(self) -> torch.dtype:
        """What images must come in."""
        return self.conv.weight.dtype

    def narrow(self, dtype: torch.dtype) -> None:
        """Backbone and encoder in another dtype; decoder and heads stay as they are."""
        for part in (self.backbone, self.conv, self.transformer.encoder):
            part.to(dtype)

    def attention_sites(self) -> dict[tuple[str, int], SplitAttention]:
        """(kind, layer) -> site; the kinds are the keys of terms.SITES."""
        return sites_of(self.transformer)

    def fold_batch_norm(self) -> None:
        """For inference, after loading; see DetrNetwork."""
        fold_batch_norm(self.backbone)
        self.backbone.to(memory_format=torch.channels_last)


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> DetrConfig:
    """Sizes of a state dict with the notebook's names; ConfigError as of config.read_config."""
    num_queries, d_model = read_shape(state_dict, "query_pos", 2)
    return DetrConfig(
        num_queries=num_queries,
        num_logits=read_shape(state_dict, "linear_class.weight", 2)[0],
        d_model=d_model,
        learned_positions=read_shape(state_dict, "row_embed", 2)[0],
        **read_layers(state_dict, d_model, nheads, dilation, body="backbone."),
    )


def matches(keys: Collection[str]) -> bool:
    """Its heads and queries have names of their own."""
    return "query_pos" in keys and "linear_class.weight" in keys


SPEC = ModelSpec(
    name="notebook_detr",
    title="Notebook DETR",
    modes=("combine",),
    matches=matches,
    read_config=read_config,
    build=NotebookDetr,
    class_probabilities=detr.class_probabilities,
    num_classes=detr.SPEC.num_classes,
    pairwise=False,
    why_undivided=WHY,
    notes=(f"{WHY}: combine is its only mode",),
)
