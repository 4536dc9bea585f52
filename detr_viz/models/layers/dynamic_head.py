"""Stages of dynamic convolution on RoI cells (Sparse R-CNN, CVPR 2021), official names.

    tgt   <- norm1(tgt + self-attention(tgt))
    RoI   = RoIAlign of the box that enters, (49, C)
    x     = relu(norm2(relu(norm1(RoI F1)) F2))         F1 (C, E), F2 (E, C) = dynamic_layer(tgt)
    tgt   <- norm2(tgt + relu(norm3(out_layer(x))))      all cells of x in one row
    tgt   <- norm3(tgt + linear2(relu(linear1(tgt))))
    box   <- centre + step / 2 * size, size * exp(step)

With one dynamic layer (Dynamic DETR), x = relu(norm1(RoI F1)) with E channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.roi import RoIAttention
from detr_viz.attention.roi_align import Pyramid, RoIRule, levels_of, pooled
from detr_viz.attention.undivided import UndividedAttention
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.layers.batches import image_of
from detr_viz.models.layers.linear import Linear
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention
from detr_viz.models.roi_config import RoIConfig

BOX_WEIGHTS = (2.0, 2.0, 1.0, 1.0)  # steps are divided by these
MOST_GROWTH = math.log(100_000 / 16)  # of a box's logarithmic size in one stage
_WHY_PROPOSALS = "proposals have no position beside their features"


class RoIInputs(NamedTuple):
    """What the output layer of a dynamic convolution is called with; fields as in RoIAttention.

    features (B, Q, N, E), boxes (B, Q, 4) pixels of the input, levels (B, Q).
    """

    features: Tensor
    boxes: Tensor
    levels: Tensor
    pyramid: Pyramid
    rule: RoIRule
    input_hw: tuple[int, int]

    __repr__ = brief_tuple

    def of_image(self, i: int) -> RoIInputs:
        """As if image i had been alone."""
        return image_of(self, i)


class CellSum(Linear):
    """A sum over the cells of each box, the site of RoIAttention: RoIInputs -> (B, Q, C).

    levels: of the pyramid.
    """

    nheads = 1

    def __init__(self, c_in: int, c_out: int, levels: int) -> None:
        super().__init__(c_in, c_out)
        self.levels = levels

    def forward(self, inputs: RoIInputs, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B or 1, Q, N) True for cells whose part of the sum is left out."""
        x = inputs.features
        if hidden is not None:
            x = x.masked_fill(hidden[..., None], 0)
        return super().forward(x.flatten(2))

    def read(self, inputs: RoIInputs) -> RoIAttention:
        """What a call with these inputs attended with; everything begins with B."""
        cells = inputs.features.shape[2]
        weight = self.weight.unflatten(1, (cells, -1)).transpose(0, 1)
        return RoIAttention(inputs.features, weight, self.bias, *inputs[1:3], *inputs[3:])

    @property
    def out_proj(self) -> Callable[[Tensor], Tensor]:
        """Its context is its output."""
        return nn.Identity()


class ProposalAttention(PackedAttention):
    """Self-attention of proposals, whose features are all they have."""

    def read(self, inputs: AttentionInputs) -> UndividedAttention:
        return UndividedAttention.of(super().read(inputs), _WHY_PROPOSALS)


class DynamicConv(nn.Module):
    """Filters made of a query, applied to the cells of its box, and their sum."""

    def __init__(self, config: RoIConfig) -> None:
        super().__init__()
        width, inner = config.d_model, config.dynamic_width
        self.filters = [(width, inner), (inner, width)][: config.dynamic_layers]
        self.dynamic_layer = Linear(width, config.dynamic_layers * width * inner)
        self.norm1 = nn.LayerNorm(inner)
        if config.dynamic_layers == 2:
            self.norm2 = nn.LayerNorm(width)
        self.out_layer = CellSum(config.side**2 * self.filters[-1][1], width, config.levels)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, tgt: Tensor, roi: Tensor, inputs: RoIInputs) -> Tensor:
        """tgt (B, Q, C), roi (B, Q, N, C) -> (B, Q, C); inputs: its features are set here."""
        filters = self.dynamic_layer(tgt).chunk(len(self.filters), -1)
        x = roi
        for i, (flat, shape) in enumerate(zip(filters, self.filters, strict=True)):
            x = F.relu(getattr(self, f"norm{i + 1}")(x @ flat.unflatten(-1, shape)))
        return F.relu(self.norm3(self.out_layer(inputs._replace(features=x))))


class Stage(nn.Module):
    """One stage: tgt (B, Q, C) and boxes (B, Q, 4) -> tgt; `classes` and `moved` are its heads."""

    def __init__(self, config: RoIConfig) -> None:
        super().__init__()
        width = config.d_model
        self.rule = config.rule
        self.self_attn = ProposalAttention(width, config.nheads)
        self.inst_interact = DynamicConv(config)
        self.linear1 = Linear(width, config.dim_feedforward)
        self.linear2 = Linear(config.dim_feedforward, width)
        for i in range(3):
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width))
        self.cls_module = _tower(width, config.class_layers)
        self.reg_module = _tower(width, config.box_layers)
        self.class_logits = Linear(width, config.num_logits)
        self.bboxes_delta = Linear(width, 4)

    def forward(
        self,
        tgt: Tensor,
        boxes: Tensor,
        memory: Tensor,
        pyramid: Pyramid,
        input_hw: tuple[int, int],
        pool: Callable[..., Tensor] = pooled,
    ) -> Tensor:
        """memory (B or 1, S, C) of the pyramid's cells; boxes xyxy, pixels of the input."""
        zero = torch.zeros_like(tgt)
        between = AttentionInputs(tgt, zero, tgt, zero, tgt)
        tgt = self.norm1(tgt + self.self_attn(between))
        boxes = boxes.float().to(boxes.dtype)  # detectron2's Boxes are float32 in any network
        levels = levels_of(boxes, pyramid.strides, self.rule)
        roi = pool(memory, boxes, levels, pyramid, self.rule)
        inputs = RoIInputs(roi, boxes, levels, pyramid, self.rule, input_hw)
        tgt = self.norm2(tgt + self.inst_interact(tgt, roi, inputs))
        return self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))

    def classes(self, tgt: Tensor) -> Tensor:
        """(B, Q, C) -> logits (B, Q, num_logits)."""
        return self.class_logits(_through(self.cls_module, tgt))

    def moved(self, tgt: Tensor, boxes: Tensor) -> Tensor:
        """The boxes (B, Q, 4) xyxy after this stage's step."""
        step = self.bboxes_delta(_through(self.reg_module, tgt))
        step = step / step.new_tensor(BOX_WEIGHTS)
        size = boxes[..., 2:] - boxes[..., :2]
        centre = boxes[..., :2] + 0.5 * size
        centre = step[..., :2] * size + centre
        half = 0.5 * step[..., 2:].clamp(max=MOST_GROWTH).exp() * size
        return torch.cat([centre - half, centre + half], -1)


class DynamicHead(nn.Module):
    """The stages under their official name, head.head_series.

    pool  how boxes read the memory: `pooled`, or another form of it (roi_align.py)
    """

    def __init__(self, config: RoIConfig) -> None:
        super().__init__()
        self.head_series = nn.ModuleList(Stage(config) for _ in range(config.dec_layers))
        self.pool: Callable[..., Tensor] = pooled

    def forward(
        self,
        tgt: Tensor,
        boxes: Tensor,
        memory: Tensor,
        pyramid: Pyramid,
        input_hw: tuple[int, int],
        aux: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """(boxes that enter, boxes, logits) of each stage; logits None unless aux or last.

        tgt (B, Q, C), boxes (B, Q, 4) xyxy, pixels of the input, which covers padding too.
        """
        last = len(self.head_series) - 1
        for i, stage in enumerate(self.head_series):
            tgt = stage(tgt, boxes, memory, pyramid, input_hw, self.pool)
            moved = stage.moved(tgt, boxes)
            yield boxes, moved, stage.classes(tgt) if aux or i == last else None
            boxes = moved.detach()  # a stage trains on its own step alone

    def decoded(
        self,
        tgt: Tensor,
        reference: Tensor,
        sides: Tensor,
        memory: Tensor,
        pyramid: Pyramid,
        input_hw: tuple[int, int],
        aux: bool,
    ) -> dict[str, object]:
        """What a network of stages gives for a memory (B, S, C).

        tgt (1, Q, C), reference (1, Q, 4) cx, cy, w, h as shares of `sides`, which are w, h, w, h
        of the images in pixels, of a shape that (B, Q, 4) can be multiplied by.
        """
        batch = len(memory)
        if memory.stride(0) == 0:  # one image, decoded several times
            memory = memory[:1]
        tgt = tgt.expand(batch, -1, -1)
        boxes = _corners(reference * sides).expand(batch, -1, -1)
        references, outputs = [], []
        for entering, moved, logits in self(tgt, boxes, memory, pyramid, input_hw, aux):
            references.append(_centred(entering) / sides)
            outputs.append({"pred_logits": logits, "pred_boxes": _centred(moved) / sides})
        levels = tuple(zip(pyramid.shapes, pyramid.strides, strict=True))
        result = {**outputs[-1], "levels": levels, "references": references}
        return {**result, "aux_outputs": outputs[:-1]} if aux else result

    def attention_sites(self) -> dict[tuple[str, int], nn.Module]:
        """(kind, layer) -> site: stages are decoder layers."""
        sites: dict[tuple[str, int], nn.Module] = {}
        for i, stage in enumerate(self.head_series):
            sites["decoder", i] = stage.self_attn
            sites["cross", i] = stage.inst_interact.out_layer
        return sites


def _corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h -> x0, y0, x1, y1."""
    centre, half = boxes[..., :2], 0.5 * boxes[..., 2:]
    return torch.cat([centre - half, centre + half], -1)


def _centred(boxes: Tensor) -> Tensor:
    """x0, y0, x1, y1 -> cx, cy, w, h."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def _tower(width: int, layers: int) -> nn.ModuleList:
    """Linear without bias, layer norm, ReLU; several times."""
    tower = nn.ModuleList()
    for _ in range(layers):
        tower.extend([Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU()])
    return tower


def _through(tower: nn.ModuleList, x: Tensor) -> Tensor:
    for module in tower:
        x = module(x)
    return x
