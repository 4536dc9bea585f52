"""What a state dict says of a Salience DETR: levels, layers, points, queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from detr_viz.models.config import ConfigError, _count, read_layers, read_shape
from detr_viz.models.deformable_config import GROUPS, DeformableConfig, _points
from detr_viz.models.layers.positions import TEMPERATURE

if TYPE_CHECKING:
    from torch import Tensor

LEVEL_RATIOS = (0.4, 0.8, 1.0, 1.0)  # of a level's tokens that may be refined, finest first
LAYER_RATIOS = (1.0, 0.8, 0.6, 0.6, 0.4, 0.2)  # of these, how many an encoder layer refines
_ENCODER, _DECODER = "transformer.encoder.layers.", "transformer.decoder.layers."
_TWICE = "transformer.encoder.enhance_mcsp."  # the head that scores the encoder's tokens, again
_POSITIONS = "position_embedding."
_DENOISING = "denoising_generator."


@dataclass(frozen=True, repr=False)
class SalienceConfig(DeformableConfig):
    """Sizes of a Salience DETR. Of DeformableConfig, its two stages and refinement are not asked.

    level_ratios, layer_ratios  of a network to be trained; a checkpoint has its own as buffers
    background_cells            rows and columns for which there is a background embedding
    pre_attended                how many tokens of a layer attend to each other before it
    """

    num_queries: int = 900
    num_logits: int = 91
    refine: bool = True
    two_stage: bool = True
    level_ratios: tuple[float, ...] = LEVEL_RATIOS
    layer_ratios: tuple[float, ...] = LAYER_RATIOS
    background_cells: int = 200
    pre_attended: int = 300


def own_tensors(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors that the network computes with, and notes on the others.

    Left aside: the label embeddings of denoising, which serve training alone. The wavelengths of
    the position encoding are constants: they are checked and left aside. ConfigError for others.
    """
    kept, notes = {}, []
    for key, value in state_dict.items():
        if key.startswith(_POSITIONS):
            _check_wavelengths(key, value)
        elif not key.startswith(_DENOISING):
            kept[key] = value
    for leaf in ("weight", "bias"):
        one, other = kept.get(_TWICE + leaf), kept.get(f"transformer.encoder_class_head.{leaf}")
        if one is not None and other is not None and not torch.equal(one, other):
            raise ConfigError(
                f"{_TWICE}{leaf} is not transformer.encoder_class_head.{leaf}, but they are one "
                "head: the file is damaged or of another variant, give another"
            )
    if len(kept) < len(state_dict):
        denoising = any(key.startswith(_DENOISING) for key in state_dict)
        constant = any(key.startswith(_POSITIONS) for key in state_dict)
        if denoising:
            notes.append("left aside: denoising_generator, which serves training alone")
        if constant:
            notes.append("position_embedding holds constants: checked, and computed anew")
    return kept, tuple(notes)


def _check_wavelengths(key: str, value: Tensor) -> None:
    """ConfigError if they are not 10000^(2 * floor(i / 2) / n)."""
    count = value.numel()
    i = torch.arange(count, dtype=torch.float64)
    usual = TEMPERATURE ** (2 * (i / 2).floor() / max(1, count))
    if value.ndim != 1 or not torch.allclose(value.double().cpu(), usual, rtol=1e-5, atol=0):
        raise ConfigError(
            f"{key} are not the wavelengths of a position encoding of temperature "
            f"{TEMPERATURE:g}: the model is of another variant"
        )


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> SalienceConfig:
    """Sizes of an official-format state dict; heads leave no trace in it.

    ConfigError if the shapes fit no network, or heads do not divide what they must.
    """
    levels, d_model = read_shape(state_dict, "transformer.level_embeds", 2)
    if dilation:
        raise ConfigError("Salience DETR has no dilation (DC5): drop --dilation")
    if d_model % GROUPS:
        raise ConfigError(f"model width {d_model} is no multiple of {GROUPS}, its norm's groups")
    body = "backbone."
    if "backbone.conv1.weight" not in state_dict:
        raise ConfigError("its backbone is not a ResNet, the only one that is supported here")
    layers = read_layers(state_dict, d_model, nheads, dilation, body)
    if _count(state_dict, "neck.convs.") != levels:
        raise ConfigError(f"level_embeds has {levels} levels, but neck.convs has others")
    kernels = [read_shape(state_dict, f"neck.convs.{i}.0.weight", 4)[-1] for i in range(levels)]
    stages = kernels.count(1)
    if not 1 <= stages <= len(layers["backbone"].blocks) or kernels[:stages] != [1] * stages:
        raise ConfigError(f"neck.convs has kernels {kernels}, which are no levels of its backbone")
    if not layers["enc_layers"]:
        raise ConfigError("the checkpoint has no encoder layers: it is no whole Salience DETR")
    ratios = {
        "level_ratios": _ratios(state_dict, "transformer.level_filter_ratio", levels),
        "layer_ratios": _ratios(state_dict, "transformer.layer_filter_ratio", layers["enc_layers"]),
    }
    background = "transformer.encoder.background_embedding."
    return SalienceConfig(
        num_queries=read_shape(state_dict, "transformer.tgt_embed.weight", 2)[0],
        num_logits=read_shape(state_dict, "transformer.encoder_class_head.weight", 2)[0],
        d_model=d_model,
        **layers,
        **ratios,
        stages=stages,
        levels=levels,
        enc_points=_points(state_dict, f"{_ENCODER}0.self_attn", levels, nheads),
        dec_points=_points(state_dict, f"{_DECODER}0.cross_attn", levels, nheads),
        background_cells=read_shape(state_dict, f"{background}row_embed.weight", 2)[0],
    )


def _ratios(state_dict: Mapping[str, Tensor], key: str, count: int) -> tuple[float, ...]:
    """Shares of tokens, one for each of so many levels or layers; ConfigError for others."""
    read_shape(state_dict, key, 1)
    ratios = tuple(round(x, 6) for x in state_dict[key].tolist())
    if len(ratios) != count or not all(0 < x <= 1 for x in ratios):
        raise ConfigError(f"{key} is {ratios}: no share between 0 and 1 for each of {count}")
    return ratios
