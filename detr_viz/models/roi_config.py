"""What a state dict says of a detector whose queries read RoI cells: Sparse R-CNN, Dynamic DETR."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detr_viz.attention.roi_align import RoIRule
from detr_viz.models.config import BackboneConfig, ConfigError, DetrConfig, _count, read_shape

if TYPE_CHECKING:
    from torch import Tensor

SERIES = "head.head_series."
_STAGE = f"{SERIES}0."


@dataclass(frozen=True, repr=False)
class RoIConfig(DetrConfig):
    """Sizes of a detector with stages of dynamic convolution; dec_layers is their number.

    dynamic_width   channels between the dynamic layers
    dynamic_layers  2, or 1, whose result has dynamic_width channels
    class_layers, box_layers  of the towers before the last layer of each
    first_level     of the pyramid, as the logarithm of its stride: 2 means p2, stride 4
    levels          of the pyramid
    side, samples, canonical_px   see RoIRule; all but the side leave no trace in a state dict
    """

    num_queries: int = 100
    num_logits: int = 80
    enc_layers: int = 0
    dynamic_width: int = 64
    dynamic_layers: int = 2
    class_layers: int = 1
    box_layers: int = 3
    first_level: int = 2
    levels: int = 4
    side: int = 7
    samples: int = 2
    canonical_px: float = 224.0

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels from cell to cell of each level, finest first."""
        return tuple(2 ** (self.first_level + i) for i in range(self.levels))

    @property
    def rule(self) -> RoIRule:
        """How boxes read the pyramid."""
        return RoIRule(self.side, self.samples, self.canonical_px)


def read_head(state_dict: Mapping[str, Tensor], nheads: int) -> dict[str, Any]:
    """Sizes of queries and stages, as arguments of RoIConfig; ConfigError if they fit no network.

    Heads of the self-attention leave no trace.
    """
    num_queries, d_model = read_shape(state_dict, "init_proposal_features.weight", 2)
    boxes = read_shape(state_dict, "init_proposal_boxes.weight", 2)
    if boxes != (num_queries, 4):
        raise ConfigError(
            f"init_proposal_boxes.weight has shape {boxes}, not {(num_queries, 4)}: it is damaged"
        )
    if nheads < 1 or d_model % nheads:
        raise ConfigError(f"{nheads} heads do not divide the model width {d_model}: set --nheads")
    (dynamic_width,) = read_shape(state_dict, f"{_STAGE}inst_interact.norm1.weight", 1)
    rows = read_shape(state_dict, f"{_STAGE}inst_interact.dynamic_layer.weight", 2)[0]
    dynamic_layers = 2 if f"{_STAGE}inst_interact.norm2.weight" in state_dict else 1
    if rows != dynamic_layers * d_model * dynamic_width:
        raise ConfigError(
            f"inst_interact.dynamic_layer makes {rows} numbers, not {dynamic_layers} filters of "
            f"{d_model} x {dynamic_width}"
        )
    inputs = read_shape(state_dict, f"{_STAGE}inst_interact.out_layer.weight", 2)[1]
    cells = inputs // (d_model if dynamic_layers == 2 else dynamic_width)
    return {
        "num_queries": num_queries,
        "num_logits": read_shape(state_dict, f"{_STAGE}class_logits.weight", 2)[0],
        "d_model": d_model,
        "nheads": nheads,
        "dec_layers": _count(state_dict, SERIES),
        "dim_feedforward": read_shape(state_dict, f"{_STAGE}linear1.weight", 2)[0],
        "dynamic_width": dynamic_width,
        "dynamic_layers": dynamic_layers,
        # of each layer three modules: linear, layer norm, ReLU
        "class_layers": -(-_count(state_dict, f"{_STAGE}cls_module.") // 3),
        "box_layers": -(-_count(state_dict, f"{_STAGE}reg_module.") // 3),
        "side": math.isqrt(cells),
    }


def read_levels(state_dict: Mapping[str, Tensor], before: str) -> dict[str, int]:
    """The levels of a pyramid with convolutions `before` + "fpn_lateral2" and so on."""
    pattern = re.compile(re.escape(before) + r"fpn_lateral(\d+)\.weight")
    found = sorted(int(m[1]) for key in state_dict if (m := pattern.fullmatch(key)))
    if not found or found != list(range(found[0], found[0] + len(found))):
        raise ConfigError(f"its pyramid has the levels {found}: they must follow each other")
    return {"first_level": found[0], "levels": len(found)}


def read_bottom_up(state_dict: Mapping[str, Tensor], body: str) -> BackboneConfig:
    """Stem, stages and block type of a ResNet with detectron2's names after `body`."""
    stages = _count(state_dict, f"{body}res")  # the keys count from res2
    first = f"{body}res2.0."
    bottleneck = f"{first}conv3.weight" in state_dict
    blocks, widths, inner, groups = [], [], [], 1
    for stage in range(2, stages):
        name = f"{body}res{stage}"
        blocks.append(_count(state_dict, f"{name}."))
        inner.append(read_shape(state_dict, f"{name}.0.conv1.weight", 4)[0])
        last = "conv3" if bottleneck else "conv2"
        c_out = read_shape(state_dict, f"{name}.0.{last}.weight", 4)[0]
        widths.append(c_out // 4 if bottleneck else c_out)
        if bottleneck:
            c_out, c_in = read_shape(state_dict, f"{name}.0.conv2.weight", 4)[:2]
            groups = max(1, c_out // max(1, c_in))
    if not blocks:
        raise ConfigError(f"the checkpoint has no {body}res2: its backbone is not a ResNet")
    return BackboneConfig(
        block="bottleneck" if bottleneck else "basic",
        stem=read_shape(state_dict, f"{body}stem.conv1.weight", 4)[0],
        widths=tuple(widths),
        blocks=tuple(blocks),
        groups=groups,
        inner=() if inner == widths else tuple(inner),
    )
