"""DETR the plain way, for comparison: what most code bases run.

torchvision's ResNet with frozen batch norm as modules and the contiguous layout,
nn.MultiheadAttention with default arguments everywhere (it returns averaged weights that nobody
reads), padding masks always.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.positions import downsample_padding, sine_positions
from detr_viz.models.layers.transformer import MLP


class EncoderLayer(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = nn.MultiheadAttention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, src: Tensor, pos: Tensor, padding: Tensor) -> Tensor:
        q = k = src + pos
        src = self.norm1(src + self.self_attn(q, k, value=src, key_padding_mask=padding)[0])
        return self.norm2(src + self.linear2(F.relu(self.linear1(src))))


class DecoderLayer(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = nn.MultiheadAttention(width, config.nheads)
        self.multihead_attn = nn.MultiheadAttention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, tgt, query_pos, memory, pos, padding) -> Tensor:
        q = k = tgt + query_pos
        tgt = self.norm1(tgt + self.self_attn(q, k, value=tgt)[0])
        cross = self.multihead_attn(
            tgt + query_pos, memory + pos, value=memory, key_padding_mask=padding
        )
        tgt = self.norm2(tgt + cross[0])
        return self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))


def stack(layers: list[nn.Module], norm: nn.Module | None = None) -> nn.Module:
    stack = nn.Module()
    stack.layers = nn.ModuleList(layers)
    if norm is not None:
        stack.norm = norm
    return stack


class PlainDETR(nn.Module):
    """The same parameters, names and results as detr_viz.models.detr (ResNet-50)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        body = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)
        backbone = nn.Module()
        backbone.body = IntermediateLayerGetter(body, {"layer4": "0"})
        self.backbone = nn.ModuleList([backbone])
        self.transformer = nn.Module()
        self.transformer.encoder = stack([EncoderLayer(config) for _ in range(config.enc_layers)])
        self.transformer.decoder = stack(
            [DecoderLayer(config) for _ in range(config.dec_layers)], nn.LayerNorm(width)
        )
        self.class_embed = nn.Linear(width, config.num_logits)
        self.bbox_embed = MLP(width, width, 4, 3)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.input_proj = nn.Conv2d(2048, width, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        mask = torch.zeros(images.shape[0], *images.shape[-2:], dtype=torch.bool)
        features = self.input_proj(self.backbone[0].body(images)["0"])
        padding = downsample_padding(mask, features.shape[-2:])
        pos = sine_positions(padding, features.shape[1], features.dtype).transpose(0, 1)
        src, padding = features.flatten(2).permute(2, 0, 1), padding.flatten(1)
        for layer in self.transformer.encoder.layers:
            src = layer(src, pos, padding)
        query_pos = self.query_embed.weight[:, None].repeat(1, images.shape[0], 1)
        hs, before = self.decode(query_pos, src, pos, padding)  # heads run on every layer's output
        logits, found = self.class_embed(hs), (self.bbox_embed(hs) + before).sigmoid()
        return {"pred_logits": logits[-1], "pred_boxes": found[-1]}

    def decode(self, query_pos, src, pos, padding) -> tuple[Tensor, Tensor | float]:
        """(layers, B, Q, C) and what is added to the boxes before the sigmoid."""
        tgt, outputs = torch.zeros_like(query_pos), []
        for layer in self.transformer.decoder.layers:
            tgt = layer(tgt, query_pos, src, pos, padding)
            outputs.append(self.transformer.decoder.norm(tgt))
        return torch.stack(outputs).transpose(1, 2), 0.0
