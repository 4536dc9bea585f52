"""What a state dict says of its network: plain sizes, read off shapes and key indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr

if TYPE_CHECKING:
    from torch import Tensor


ENCODER_NORM = "transformer.encoder.norm.weight"  # only pre-norm models have one
ROW_EMBED = "backbone.1.row_embed.weight"  # only models with learned positions have one


class ConfigError(UserError):
    """The sizes in a checkpoint do not make one of our networks."""


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet: `widths` are the planes of each stage (64, 128, 256, 512 in torchvision's).

    groups, inner: of the 3x3 convolutions of bottlenecks, and their channels in each stage where
    these are not the planes (ResNeXt, wide ResNets); () means that they are.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    dilation: bool = False  # DC5: the last stage keeps its resolution and dilates instead
    groups: int = 1
    inner: tuple[int, ...] = ()

    @property
    def stride(self) -> int:
        """Input pixels per cell of the last stage: 32 for four stages, 16 with dilation."""
        return 4 * 2 ** (len(self.blocks) - 1) // (2 if self.dilation else 1)

    @property
    def out_channels(self) -> int:
        return self.widths[-1] * (4 if self.block == "bottleneck" else 1)


@dataclass(frozen=True, repr=False)
class DetrConfig(ShortRepr):
    """Sizes of a DETR or Conditional DETR; `num_logits` counts no-object where the model has it.

    pre_norm: every sublayer norms what it is given, not its sum (--pre_norm of the authors' code).
    learned_positions: entries of each axis's learned position embedding; 0 means sine positions.
    """

    num_queries: int = 100
    num_logits: int = 92
    d_model: int = 256
    nheads: int = 8
    enc_layers: int = 6
    dec_layers: int = 6
    dim_feedforward: int = 2048
    backbone: BackboneConfig = BackboneConfig()
    pre_norm: bool = False
    learned_positions: int = 0


def _count(keys: Iterable[str], prefix: str) -> int:
    """Largest index after `prefix`, plus one; 0 where there is none."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return max((int(m.group(1)) + 1 for key in keys if (m := pattern.match(key))), default=0)


def read_shape(state_dict: Mapping[str, Tensor], key: str, dims: int) -> tuple[int, ...]:
    """Shape of a tensor that must be there, with this number of dimensions; else ConfigError."""
    if key not in state_dict:
        raise ConfigError(f"the checkpoint has no {key}: it is not a whole DETR-family detector")
    shape = tuple(state_dict[key].shape)
    if len(shape) != dims:
        raise ConfigError(
            f"{key} has shape {shape}; a DETR-family detector has {dims} dimensions there"
        )
    return shape


def read_backbone(
    state_dict: Mapping[str, Tensor], dilation: bool, body: str = "backbone.0.body."
) -> BackboneConfig:
    """Stem, stages and block type of the keys after `body`; dilation is told, it has no trace."""
    stem = read_shape(state_dict, f"{body}conv1.weight", 4)[0]
    stages = _count(state_dict, f"{body}layer")  # the keys count from layer1
    bottleneck = f"{body}layer1.0.conv3.weight" in state_dict
    blocks, widths, inner, groups = [], [], [], 1
    for stage in range(1, stages):
        blocks.append(_count(state_dict, f"{body}layer{stage}."))
        inner.append(read_shape(state_dict, f"{body}layer{stage}.0.conv1.weight", 4)[0])
        if bottleneck:
            widths.append(read_shape(state_dict, f"{body}layer{stage}.0.conv3.weight", 4)[0] // 4)
            c_out, c_in = read_shape(state_dict, f"{body}layer{stage}.0.conv2.weight", 4)[:2]
            groups = max(1, c_out // max(1, c_in))
    if not blocks:
        raise ConfigError(f"the checkpoint has no {body}layer1: its backbone is not a ResNet")
    if not bottleneck:
        widths = inner
    if dilation and not bottleneck:
        raise ConfigError("dilation (DC5) needs bottleneck blocks (ResNet-50 up): drop --dilation")
    return BackboneConfig(
        block="bottleneck" if bottleneck else "basic",
        stem=stem,
        widths=tuple(widths),
        blocks=tuple(blocks),
        dilation=dilation,
        groups=groups,
        inner=() if inner == widths else tuple(inner),
    )


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> DetrConfig:
    """Sizes of an official-format state dict; heads and dilation are told, they leave no trace.

    Raises ConfigError where the shapes fit no network, or where heads do not divide the width.
    """
    num_queries, d_model = read_shape(state_dict, "query_embed.weight", 2)
    learned = 0
    if ROW_EMBED in state_dict:
        learned = read_shape(state_dict, ROW_EMBED, 2)[0]
    layers = read_layers(state_dict, d_model, nheads, dilation)
    if d_model % 4 and not learned:
        raise ConfigError(f"model width {d_model} is no multiple of 4, which sine positions need")
    return DetrConfig(
        num_queries=num_queries,
        num_logits=read_shape(state_dict, "class_embed.weight", 2)[0],
        d_model=d_model,
        pre_norm=ENCODER_NORM in state_dict,
        learned_positions=learned,
        **layers,
    )


def read_layers(
    state_dict: Mapping[str, Tensor],
    d_model: int,
    nheads: int,
    dilation: bool,
    body: str = "backbone.0.body.",
) -> dict[str, Any]:
    """Sizes of encoder, decoder and backbone, as arguments of DetrConfig; ConfigError as above."""
    if nheads < 1 or d_model % nheads:
        raise ConfigError(f"{nheads} heads do not divide the model width {d_model}: set --nheads")
    layers = "transformer.encoder.layers.", "transformer.decoder.layers."
    return {
        "nheads": nheads,
        "enc_layers": _count(state_dict, layers[0]),
        "dec_layers": _count(state_dict, layers[1]),
        "dim_feedforward": read_shape(state_dict, f"{layers[1]}0.linear1.weight", 2)[0],
        "backbone": read_backbone(state_dict, dilation, body),
    }
