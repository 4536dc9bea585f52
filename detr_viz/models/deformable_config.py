"""What a state dict says of a Deformable DETR: levels, points, refinement, two stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from detr_viz.models.config import ConfigError, DetrConfig, _count, read_backbone, read_shape

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_PROPOSALS = 300  # of every released two-stage model
GROUPS = 32  # of the group norm after each projection
_ENCODER, _DECODER = "transformer.encoder.layers.", "transformer.decoder.layers."


@dataclass(frozen=True, repr=False)
class DeformableConfig(DetrConfig):
    """Sizes of a Deformable DETR.

    stages      how many of the backbone's last stages are levels; the others are convolved from
                the last one, each at half the resolution of the level before
    levels      all of them
    enc_points, dec_points   points of a head on each level
    refine      boxes are refined layer by layer (with_box_refine)
    two_stage   the queries are the encoder's best proposals
    """

    stages: int = 3
    levels: int = 4
    enc_points: int = 4
    dec_points: int = 4
    refine: bool = False
    two_stage: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels from cell to cell of each level, finest first."""
        last = self.backbone.stride
        count = len(self.backbone.blocks)
        plain = [4 * 2**stage for stage in range(count - self.stages, count)]
        more = [last * 2**i for i in range(1, self.levels - self.stages + 1)]
        return (*plain[:-1], last, *more)


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> DeformableConfig:
    """Sizes of an official-format state dict; heads and dilation leave no trace in it.

    ConfigError if the shapes fit no network, or heads do not divide what they must.
    """
    refine = any(key.startswith("transformer.decoder.bbox_embed.") for key in state_dict)
    two_stage = "transformer.enc_output.weight" in state_dict
    if two_stage and not refine:
        raise ConfigError("a two-stage model without refinement: its proposals have no boxes")
    sizes = read_levels(state_dict, nheads, dilation)
    queries = DEFAULT_PROPOSALS
    if not two_stage:
        queries, width = read_shape(state_dict, "query_embed.weight", 2)
        if width != 2 * sizes["d_model"]:
            raise ConfigError(
                f"query_embed is {width} wide, not twice the model width {sizes['d_model']}"
            )
    return DeformableConfig(
        num_queries=queries,
        num_logits=read_shape(state_dict, "class_embed.0.weight", 2)[0],
        refine=refine,
        two_stage=two_stage,
        **sizes,
    )


def read_levels(state_dict: Mapping[str, Tensor], nheads: int, dilation: bool) -> dict[str, Any]:
    """Sizes of backbone, levels, encoder and decoder, as arguments of DeformableConfig.

    ConfigError as of `read_config`.
    """
    levels, d_model = read_shape(state_dict, "transformer.level_embed", 2)
    if nheads < 1 or d_model % nheads:
        raise ConfigError(f"{nheads} heads do not divide the model width {d_model}: set --nheads")
    if d_model % GROUPS:
        raise ConfigError(f"model width {d_model} is no multiple of {GROUPS}, its norm's groups")
    if _count(state_dict, "input_proj.") != levels:
        raise ConfigError(f"level_embed has {levels} levels, but input_proj has others")
    kernels = [read_shape(state_dict, f"input_proj.{i}.0.weight", 4)[-1] for i in range(levels)]
    backbone = read_backbone(state_dict, dilation)
    stages = kernels.count(1)
    if not 1 <= stages <= len(backbone.blocks) or kernels[:stages] != [1] * stages:
        raise ConfigError(f"input_proj has kernels {kernels}, which are no levels of its backbone")
    enc_layers = _count(state_dict, _ENCODER)
    dec_points = _points(state_dict, f"{_DECODER}0.cross_attn", levels, nheads)
    enc_points = dec_points
    if enc_layers:
        enc_points = _points(state_dict, f"{_ENCODER}0.self_attn", levels, nheads)
    return {
        "d_model": d_model,
        "nheads": nheads,
        "enc_layers": enc_layers,
        "dec_layers": _count(state_dict, _DECODER),
        "dim_feedforward": read_shape(state_dict, f"{_DECODER}0.linear1.weight", 2)[0],
        "backbone": backbone,
        "stages": stages,
        "levels": levels,
        "enc_points": enc_points,
        "dec_points": dec_points,
    }


def _points(state_dict: Mapping[str, Tensor], site: str, levels: int, nheads: int) -> int:
    """Points of a head on a level: the rows of attention_weights are heads * levels * points."""
    samples = read_shape(state_dict, f"{site}.attention_weights.weight", 2)[0]
    if not samples or samples % (levels * nheads):
        raise ConfigError(
            f"{site} has {samples} samples a query, which {nheads} heads on {levels} levels do not "
            "share evenly: set --nheads"
        )
    return samples // (levels * nheads)


def with_hints(
    config: DeformableConfig, hints: Mapping[str, Any]
) -> tuple[DeformableConfig, tuple[str, ...]]:
    """The number of a two-stage model's proposals, which leaves no trace, and a note on it."""
    if not config.two_stage:
        return config, ()
    count = hints.get("num_queries")
    if isinstance(count, int) and count > 0:
        return replace(config, num_queries=count), ()
    return config, (f"assumed {DEFAULT_PROPOSALS} proposals: the file does not say",)
