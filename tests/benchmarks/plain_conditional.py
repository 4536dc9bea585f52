"""Conditional DETR the plain way, for comparison: what most code bases run.

Backbone, encoder and padding masks as in plain.py; the decoder's attention as products of batches
of matrices with a softmax between them, its weights averaged over the heads and returned, which
nobody reads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from plain import PlainDETR, stack
from torch import Tensor, nn

from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.transformer import MLP


class Attention(nn.Module):
    """Attention of projected q, k and v: (L, B, C) each; and the average of its weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None):
        length, batch, width = v.shape[0], q.shape[1], v.shape[2]

        def split(x: Tensor) -> Tensor:
            side = x.shape[2] // self.heads
            return x.contiguous().view(-1, batch * self.heads, side).transpose(0, 1)

        q = split(q) * (q.shape[2] // self.heads) ** -0.5
        logits = torch.bmm(q, split(k).transpose(1, 2))
        if padding is not None:
            logits = logits.view(batch, self.heads, -1, length)
            logits = logits.masked_fill(padding[:, None, None], float("-inf"))
            logits = logits.view(batch * self.heads, -1, length)
        weights = F.softmax(logits, dim=-1)
        out = torch.bmm(weights, split(v)).transpose(0, 1).contiguous().view(-1, batch, width)
        return self.out_proj(out), weights.view(batch, self.heads, -1, length).mean(1)


class DecoderLayer(nn.Module):
    def __init__(self, config: DetrConfig, first: bool) -> None:
        super().__init__()
        width = config.d_model
        for name in ("qcontent", "qpos", "kcontent", "kpos", "v"):
            self.add_module(f"sa_{name}_proj", nn.Linear(width, width))
        for name in ("qcontent", "qpos", "kcontent", "kpos", "v", "qpos_sine"):
            if name != "qpos" or first:
                self.add_module(f"ca_{name}_proj", nn.Linear(width, width))
        self.self_attn = Attention(width, config.nheads)
        self.cross_attn = Attention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.first, self.heads = first, config.nheads

    def forward(self, tgt, query_pos, sine, memory, pos, padding) -> Tensor:
        q = self.sa_qcontent_proj(tgt) + self.sa_qpos_proj(query_pos)
        k = self.sa_kcontent_proj(tgt) + self.sa_kpos_proj(query_pos)
        tgt = self.norm1(tgt + self.self_attn(q, k, self.sa_v_proj(tgt))[0])
        q, k, k_pos = (
            self.ca_qcontent_proj(tgt),
            self.ca_kcontent_proj(memory),
            self.ca_kpos_proj(pos),
        )
        if self.first:
            q, k = q + self.ca_qpos_proj(query_pos), k + k_pos
        q = self._beside(q, self.ca_qpos_sine_proj(sine))
        cross = self.cross_attn(q, self._beside(k, k_pos), self.ca_v_proj(memory), padding)
        tgt = self.norm2(tgt + cross[0])
        return self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))

    def _beside(self, content: Tensor, position: Tensor) -> Tensor:
        """Head by head, content then position: (L, B, 2 C)."""
        parts = [x.view(*x.shape[:2], self.heads, -1) for x in (content, position)]
        return torch.cat(parts, dim=3).flatten(2)


class PlainConditional(PlainDETR):
    """The same parameters, names and results as detr_viz.models.conditional_detr (ResNet-50)."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        width = config.d_model
        decoder = stack(
            [DecoderLayer(config, i == 0) for i in range(config.dec_layers)], nn.LayerNorm(width)
        )
        decoder.query_scale = MLP(width, width, width, 2)
        decoder.ref_point_head = MLP(width, width, 2, 2)
        self.transformer.decoder = decoder

    def decode(self, query_pos, src, pos, padding) -> tuple[Tensor, Tensor]:
        """(layers, B, Q, C) and what is added to the boxes before the sigmoid."""
        decoder = self.transformer.decoder
        points = decoder.ref_point_head(query_pos).sigmoid()
        sine = _sine(points, query_pos.shape[-1])
        tgt, outputs = torch.zeros_like(query_pos), []
        for i, layer in enumerate(decoder.layers):
            scale = 1 if i == 0 else decoder.query_scale(tgt)
            tgt = layer(tgt, query_pos, sine * scale, src, pos, padding)
            outputs.append(decoder.norm(tgt))
        before = torch.log(points.clamp(1e-5, 1 - 1e-5) / (1 - points.clamp(1e-5, 1 - 1e-5)))
        return torch.stack(outputs).transpose(1, 2), F.pad(before, (0, 2)).transpose(0, 1)


def _sine(points: Tensor, width: int) -> Tensor:
    """Points (Q, B, 2) x, y in [0, 1] -> (Q, B, width), y before x."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32)
    steps = 10_000 ** (2 * torch.div(steps, 2, rounding_mode="floor") / half)
    parts = []
    for axis in (1, 0):
        angles = points[..., axis, None] * 2 * math.pi / steps
        parts.append(
            torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), -1).flatten(-2)
        )
    return torch.cat(parts, -1)
