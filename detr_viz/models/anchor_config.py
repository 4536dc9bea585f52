"""What a state dict says of an Anchor DETR: patterns, anchors, layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from detr_viz.models.config import ConfigError, DetrConfig, _count, read_backbone, read_shape

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ANCHORS = 300  # num_query_position of the authors' code
_MOST_ANCHORS = 100_000  # a larger number in a file's args is no number of anchors
GROUPS = 32  # of the group norm after the projection
BODY = "backbone.body."
_ENCODER, _DECODER = "transformer.encoder_layers.", "transformer.decoder_layers."


@dataclass(frozen=True, repr=False)
class AnchorConfig(DetrConfig):
    """Sizes of an Anchor DETR.

    num_queries   patterns times anchors; query p * anchors + a is pattern p of anchor a
    patterns      queries that share an anchor
    grid_anchors  anchors are the middles of a square grid (spatial_prior=grid), not learned
    """

    num_queries: int = 900
    num_logits: int = 91
    dim_feedforward: int = 1024
    patterns: int = 3
    grid_anchors: bool = False

    def __post_init__(self) -> None:
        if self.patterns < 1 or self.num_queries < 1 or self.num_queries % self.patterns:
            raise ConfigError(
                f"{self.num_queries} queries are no multiple of {self.patterns} patterns"
            )
        if self.grid_anchors and math.isqrt(self.anchors) ** 2 != self.anchors:
            raise ConfigError(f"{self.anchors} anchors make no square grid")

    @property
    def anchors(self) -> int:
        """Number of anchor points."""
        return self.num_queries // self.patterns


def on_grid(count: int) -> int:
    """Anchors of the square grid that is nearest to this number, as in the authors' code."""
    return round(math.sqrt(count)) ** 2


def read_config(
    state_dict: Mapping[str, Tensor], nheads: int = 8, dilation: bool = False
) -> AnchorConfig:
    """Sizes of an official-format state dict.

    Heads, dilation and the number of anchors on a grid leave no trace in it. ConfigError if the
    shapes fit no network, or heads do not divide what they must.
    """
    patterns, d_model = read_shape(state_dict, "transformer.pattern.weight", 2)
    if nheads < 1 or d_model % nheads:
        raise ConfigError(f"{nheads} heads do not divide the model width {d_model}: set --nheads")
    if d_model % GROUPS:
        raise ConfigError(f"model width {d_model} is no multiple of {GROUPS}, its norm's groups")
    levels = _count(state_dict, "input_proj.")
    if levels > 1:
        raise ConfigError(f"{levels} feature levels: only Anchor DETR with one is supported")
    site = f"{_DECODER}0.cross_attn.in_proj_weight"
    rows = read_shape(state_dict, site, 2)[0]
    if rows == 3 * d_model:
        raise ConfigError(
            "its cross-attention is nn.MultiheadAttention (attention_type of the authors' code): "
            "only row-column decoupled attention (RCDA) is supported"
        )
    grid = "transformer.position.weight" not in state_dict
    anchors = on_grid(DEFAULT_ANCHORS)
    if not grid:
        anchors, numbers = read_shape(state_dict, "transformer.position.weight", 2)
        if numbers != 2:
            raise ConfigError(f"transformer.position has {numbers} numbers an anchor, not x and y")
    return AnchorConfig(
        num_queries=patterns * anchors,
        num_logits=read_shape(state_dict, "transformer.class_embed.0.weight", 2)[0],
        d_model=d_model,
        nheads=nheads,
        enc_layers=_count(state_dict, _ENCODER),
        dec_layers=_count(state_dict, _DECODER),
        dim_feedforward=read_shape(state_dict, f"{_DECODER}0.ffn.linear1.weight", 2)[0],
        backbone=read_backbone(state_dict, dilation, BODY),
        patterns=patterns,
        grid_anchors=grid,
    )


def with_hints(
    config: AnchorConfig, hints: Mapping[str, Any]
) -> tuple[AnchorConfig, tuple[str, ...]]:
    """The number of anchors on a grid, which leaves no trace, and a note on it."""
    if not config.grid_anchors:
        return config, ()
    count = hints.get("num_query_position")
    known = isinstance(count, int) and 0 < count <= _MOST_ANCHORS
    anchors = on_grid(count if known else DEFAULT_ANCHORS)
    config = replace(config, num_queries=config.patterns * anchors)
    if known:
        return config, ()
    side = math.isqrt(anchors)
    return config, (f"assumed a grid of {side} x {side} anchors: the file does not say",)
