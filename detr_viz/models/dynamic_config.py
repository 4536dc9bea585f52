"""What a state dict says of a Dynamic DETR: backbone, levels, encoder blocks, stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from detr_viz.models.config import ConfigError, _count, read_backbone, read_shape
from detr_viz.models.roi_config import RoIConfig, read_head, read_levels

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 5  # of the paper's pyramid
NORM_GROUPS = 16  # of the norm after each deformable convolution
_BLOCK = "encoder.layers.0."
_OFFSETS, _MASKED = 18, 27  # channels of the layer that predicts places, and masks too


@dataclass(frozen=True, repr=False)
class DynamicConfig(RoIConfig):
    """Sizes of a Dynamic DETR.

    stages   how many of the backbone's last stages are levels; further levels are the last one,
             at half the resolution each
    masked   whether the deformable convolutions have masks
    """

    num_queries: int = 300
    num_logits: int = 92
    nheads: int = 4
    enc_layers: int = 6
    dynamic_width: int = 32
    dynamic_layers: int = 1
    box_layers: int = 1
    stages: int = 4
    levels: int = LEVELS
    masked: bool = True


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 4, dilation: bool = False
) -> DynamicConfig:
    """Sizes of a state dict; heads, further levels and how boxes are read leave no trace in it.

    ConfigError if the shapes fit no network, or heads do not divide what they must.
    """
    if dilation:
        raise ConfigError("Dynamic DETR has no dilation (DC5): drop --dilation")
    head, backbone = read_head(state_dict, nheads), read_backbone(state_dict, False)
    pyramid = read_levels(state_dict, "pyramid.")
    stages = pyramid["levels"]
    if stages > len(backbone.blocks) or 2 ** (pyramid["first_level"] + stages - 1) != (
        backbone.stride
    ):
        raise ConfigError(
            f"its pyramid ends at stride {2 ** (pyramid['first_level'] + stages - 1)}, its "
            f"backbone at {backbone.stride}: it is damaged or of another variant, give another"
        )
    if head["d_model"] % NORM_GROUPS:
        raise ConfigError(
            f"model width {head['d_model']} is no multiple of {NORM_GROUPS}, its norm's groups"
        )
    channels = read_shape(state_dict, f"{_BLOCK}offset.weight", 4)[0]
    if channels not in (_OFFSETS, _MASKED):
        raise ConfigError(
            f"{_BLOCK}offset makes {channels} numbers a cell, neither {_OFFSETS} (offsets of 9 "
            f"taps) nor {_MASKED} (masks too)"
        )
    return DynamicConfig(
        **head,
        enc_layers=_count(state_dict, "encoder.layers."),
        backbone=backbone,
        first_level=pyramid["first_level"],
        levels=max(stages, min(LEVELS, stages + 1)),
        stages=stages,
        masked=channels == _MASKED,
    )


def with_hints(
    config: DynamicConfig, hints: Mapping[str, Any]
) -> tuple[DynamicConfig, tuple[str, ...]]:
    """Levels and how boxes are read, which leave no trace, and notes on what is assumed.

    ConfigError for what cannot be.
    """
    given, assumed = {}, []
    words = {
        "levels": f"{config.levels} levels",
        "canonical_px": f"boxes of {config.canonical_px:g} pixels at stride 16",
        "samples": f"{config.samples} samples a bin",
    }
    for name, text in words.items():
        if name in hints:
            given[name] = hints[name]
        else:
            assumed.append(text)
    least = {"levels": config.stages, "canonical_px": 1, "samples": 1}
    for name, value in given.items():
        if not least[name] <= value <= (16 if name != "canonical_px" else 1e6):
            raise ConfigError(f"{name} {value!r} in its meta cannot be: save it again")
    notes = (f"assumed {', '.join(assumed)}: the file does not say",) if assumed else ()
    return replace(config, **given), notes
