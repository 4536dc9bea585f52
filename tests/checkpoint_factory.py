"""Small checkpoints in the authors' format, made of the fill rule; and files that are none."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from golden.fillrule import fill

from detr_viz import models
from detr_viz.checkpoints.fit import skeleton
from detr_viz.models.config import BackboneConfig, DetrConfig

BASIC = BackboneConfig(block="basic", stem=8, widths=(8, 16), blocks=(1, 2))
BOTTLENECK = BackboneConfig(block="bottleneck", stem=8, widths=(4, 8), blocks=(1, 2))


def small_config(backbone: BackboneConfig = BASIC, **changes: object) -> DetrConfig:
    sizes = {
        "num_queries": 6,
        "num_logits": 5,
        "d_model": 32,
        "nheads": 8,
        "enc_layers": 1,
        "dec_layers": 2,
        "dim_feedforward": 24,
    }
    return DetrConfig(**{**sizes, **changes}, backbone=backbone)


def small_state_dict(
    type: str = "detr", config: DetrConfig | None = None
) -> dict[str, torch.Tensor]:
    """A whole official-format state dict of a few hundred kilobytes at most."""
    network = skeleton(models.get(type), config or small_config())
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    return {key: torch.from_numpy(fill(key, shape)) for key, shape in shapes.items()}


def training(state_dict: dict[str, torch.Tensor], **extra: object) -> dict[str, object]:
    """A checkpoint as the authors' main.py writes it."""
    args = argparse.Namespace(
        nheads=8, dilation=False, hidden_dim=32, lr=1e-4, position_embedding="sine", pre_norm=False
    )
    moments = {i: {"exp_avg": torch.zeros(3), "step": 7} for i in range(3)}
    return {
        "model": state_dict,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "params": [0, 1, 2]}]},
        "lr_scheduler": {"step_size": 200, "_last_lr": [1e-4]},
        "epoch": 3,
        "args": args,
        **extra,
    }


def prefixed(prefix: str, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state_dict.items()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
