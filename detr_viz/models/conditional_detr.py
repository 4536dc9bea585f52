"""Conditional DETR (Meng et al., ICCV 2021): parameter names and outputs of
Atten4Vis/ConditionalDETR.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import DetrConfig, read_config
from detr_viz.models.layers import (
    MLP,
    Backbone,
    ConcatAttention,
    Encoder,
    SumAttention,
    feed_forward,
    tokens,
)
from detr_viz.models.positions import sine_points
from detr_viz.models.resnet import FrozenBatchNorm2d, NormLayer
from detr_viz.models.spec import ModelSpec
from detr_viz.terms import MODES


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(x / (1 - x)) with numerator and denominator at least eps."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class DecoderLayer(nn.Module):
    """Additive self-attention, concatenating cross-attention, FFN (post-norm).

    Only layer 0 has `ca_qpos_proj`: there position also enters the content half of query and key.
    """

    def __init__(self, config: DetrConfig, is_first: bool) -> None:
        super().__init__()
        width = config.d_model
        names = ["sa_qcontent", "sa_qpos", "sa_kcontent", "sa_kpos", "sa_v"]
        names += ["ca_qcontent", "ca_kcontent", "ca_kpos", "ca_v", "ca_qpos_sine"]
        for name in [*names, "ca_qpos"] if is_first else names:
            self.add_module(f"{name}_proj", nn.Linear(width, width))
        self.is_first = is_first
        self.self_attn = SumAttention(width, config.nheads)
        self.cross_attn = ConcatAttention(width, config.nheads)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        tgt: Tensor,
        query_pos: Tensor,
        query_sine_embed: Tensor,
        memory: Tensor,
        pos: Tensor,
        padding: Tensor | None,
    ) -> Tensor:
        attended = self.self_attn(
            self.sa_qcontent_proj(tgt),
            self.sa_qpos_proj(query_pos),
            self.sa_kcontent_proj(tgt),
            self.sa_kpos_proj(query_pos),
            self.sa_v_proj(tgt),
        )
        tgt = self.norm1(tgt + attended)
        attended = self.cross_attn(
            self.ca_qcontent_proj(tgt),
            self.ca_qpos_sine_proj(query_sine_embed),
            self.ca_kcontent_proj(memory),
            self.ca_kpos_proj(pos),
            self.ca_v_proj(memory),
            padding,
            self.ca_qpos_proj(query_pos) if self.is_first else None,
        )
        tgt = self.norm2(tgt + attended)
        return self.norm3(tgt + feed_forward(self, tgt))


class Decoder(nn.Module):
    """query_pos (1, Q, C), memory and pos (B, K, C) -> normed layer outputs (B, Q, C),
    reference (1, Q, 2).
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        width = config.d_model
        self.layers = nn.ModuleList(DecoderLayer(config, i == 0) for i in range(config.dec_layers))
        self.norm = nn.LayerNorm(width)
        self.query_scale = MLP(width, width, width, 2)
        self.ref_point_head = MLP(width, width, 2, 2)

    def forward(
        self, query_pos: Tensor, memory: Tensor, pos: Tensor, padding: Tensor | None, aux: bool
    ) -> tuple[list[Tensor], Tensor]:
        reference_points = self.ref_point_head(query_pos).sigmoid()
        sine = sine_points(reference_points, query_pos.shape[-1])
        tgt = query_pos.new_zeros(memory.shape[0], *query_pos.shape[1:])
        outputs = []
        for i, layer in enumerate(self.layers):
            # the previous layer's output before decoder.norm says how far the box reaches
            query_sine_embed = sine if i == 0 else sine * self.query_scale(tgt)
            tgt = layer(tgt, query_pos, query_sine_embed, memory, pos, padding)
            if aux or i == len(self.layers) - 1:
                outputs.append(self.norm(tgt))
        return outputs, reference_points


class Transformer(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class ConditionalDETR(nn.Module):
    """The detector. forward(images, mask, aux) -> dict of

    pred_logits  (B, Q, classes), one sigmoid each
    pred_boxes   (B, Q, 4) cx, cy, w, h in [0, 1] of the valid image
    memory_hw    (h, w) of the memory grid
    aux_outputs  with aux=True: the first two of every earlier decoder layer

    images (B, 3, H, W) normalised RGB; mask (B, H, W) True = padding, or None.
    """

    def __init__(self, config: DetrConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.transformer = Transformer(config)
        self.class_embed = nn.Linear(width, config.num_logits)
        self.bbox_embed = MLP(width, width, 4, 3)
        self.query_embed = nn.Embedding(config.num_queries, width)
        self.input_proj = nn.Conv2d(config.backbone.out_channels, width, 1)
        self.backbone = nn.ModuleList([Backbone(config, norm_layer)])

    def forward(
        self, images: Tensor, mask: Tensor | None = None, *, aux: bool = False
    ) -> dict[str, object]:
        features = self.input_proj(self.backbone[0](images))
        src, pos, padding = tokens(features, mask, self.config.d_model)
        memory = self.transformer.encoder(src, pos, padding)
        query_pos = self.query_embed.weight[None]
        hs, reference = self.transformer.decoder(query_pos, memory, pos, padding, aux)
        # boxes are offsets of the reference point, added before the sigmoid
        anchor = F.pad(inverse_sigmoid(reference), (0, 2))
        outputs = [
            {
                "pred_logits": self.class_embed(h),
                "pred_boxes": (self.bbox_embed(h) + anchor).sigmoid(),
            }
            for h in hs
        ]
        result = {**outputs[-1], "memory_hw": tuple(features.shape[-2:])}
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> the module that attends; kinds "cross",
        "self" (decoder) and "encoder".
        """
        sites: dict[tuple[str, int], nn.Module] = {}
        for i, layer in enumerate(self.transformer.encoder.layers):
            sites["encoder", i] = layer.self_attn
        for i, layer in enumerate(self.transformer.decoder.layers):
            sites["self", i] = layer.self_attn
            sites["cross", i] = layer.cross_attn
        return sites

    def fold_batch_norm(self) -> None:
        """For inference, after loading: see Backbone.fold_batch_norm."""
        self.backbone[0].fold_batch_norm()


def matches(keys: Collection[str]) -> bool:
    """Projections of content and position apart, and the reference point head, are its marks."""
    return (
        "transformer.decoder.layers.0.ca_qcontent_proj.weight" in keys
        and "transformer.decoder.ref_point_head.layers.0.weight" in keys
    )


def class_probabilities(pred_logits: Tensor) -> Tensor:
    """A sigmoid a class: (..., classes) -> (..., classes)."""
    return pred_logits.to(torch.promote_types(pred_logits.dtype, torch.float32)).sigmoid()


SPEC = ModelSpec(
    name="cd_detr",
    title="Conditional DETR",
    modes=tuple(MODES),
    matches=matches,
    read_config=read_config,
    build=ConditionalDETR,
    class_probabilities=class_probabilities,
    num_classes=lambda config: config.num_logits,
    pairwise=True,
)
