"""Small networks of ours as detectors, and what their attention sites were called with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from conftest import GOLDEN
from golden.famfill import fill
from golden.fillrule import image, preprocess
from torch import nn

from detr_viz import models
from detr_viz.attention.dense import DenseAttention
from detr_viz.explanation.capture import AttentionCall
from detr_viz.models.anchor_config import AnchorConfig
from detr_viz.models.config import BackboneConfig, DetrConfig
from detr_viz.models.deformable_config import DeformableConfig
from detr_viz.models.detector import LoadedModel
from detr_viz.models.dynamic_config import DynamicConfig
from detr_viz.models.efficient_detr import EfficientConfig
from detr_viz.models.roi_config import RoIConfig
from detr_viz.models.salience_config import SalienceConfig

_SMALL = {
    "num_logits": 7,
    "nheads": 2,
    "enc_layers": 1,
    "dec_layers": 2,
    "dim_feedforward": 24,
    "backbone": BackboneConfig("basic", stem=8, widths=(8, 8), blocks=(1, 1)),
}
_LEVELS = {"d_model": 32, "stages": 2, "levels": 3, "enc_points": 3, "dec_points": 2}
TINY = DetrConfig(**_SMALL, num_queries=4, d_model=16)
TINY_DEFORMABLE = DeformableConfig(**_SMALL, **_LEVELS, num_queries=4)
TINY_ANCHOR = AnchorConfig(**_SMALL, num_queries=6, d_model=32)
SOURCES = {"A": (480, 640, 1), "P": (640, 427, 3)}  # height, width, seed of the goldens' images
DEFORMABLE = {  # variant of the goldens -> family of the fill rule
    "deformable": "def",
    "deformable_refine": "defr",
    "deformable_twostage": "def2",
}
TINY_SALIENCE = SalienceConfig(
    **{**_SMALL, "enc_layers": 3},
    **_LEVELS,
    num_queries=12,
    level_ratios=(0.4, 0.8, 1.0),
    layer_ratios=(1.0, 0.6, 0.2),
    background_cells=40,
    pre_attended=8,
)
TINY_ROI = RoIConfig(
    **{**_SMALL, "enc_layers": 0},
    num_queries=6,
    d_model=16,
    dynamic_width=4,
    box_layers=1,
    levels=2,
    canonical_px=40.0,
)
TINIES = {
    "sparse_rcnn": TINY_ROI,
    "deformable_detr": TINY_DEFORMABLE,
    "efficient_detr": EfficientConfig(**{**vars(TINY_DEFORMABLE), "refine": True}),
    "anchor_detr": TINY_ANCHOR,
    "salience_detr": TINY_SALIENCE,
    "dynamic_detr": DynamicConfig(
        **{**_SMALL, "backbone": BackboneConfig("basic", 8, (8, 8, 8, 8), (1, 1, 1, 1))},
        num_queries=5,
        d_model=32,
        stages=3,
        levels=3,
        first_level=3,
        dynamic_width=4,
        canonical_px=32.0,
        samples=1,
    ),
}
DENSE = ("detr", "cd_detr")  # whose cross-attention is dense


def tiny(name: str, **changes: object) -> LoadedModel:
    """A detector of random weights, always the same ones; changes: of its sizes."""
    torch.manual_seed(0)
    config = replace(TINIES.get(name, TINY), **changes)
    network = models.get(name).build(config).eval().requires_grad_(False)
    if isinstance(config, DeformableConfig):  # their initial values are 0: every sample alike
        for key, value in network.named_parameters():
            if key.endswith(("sampling_offsets.bias", "level_embed", "level_embeds", "alpha")):
                value.normal_()
    if isinstance(config, RoIConfig):  # boxes of both levels, in the image
        network.init_proposal_boxes.weight.uniform_(0.3, 0.7)
    return as_detector(network, name)


def filled_deformable(name: str) -> dict[str, torch.Tensor]:
    """The official state dict of a variant of Deformable DETR, filled by the rule, float32."""
    return filled(name, DEFORMABLE[name])


def filled(name: str, family: str) -> dict[str, torch.Tensor]:
    """An official state dict of the family's goldens, filled by the rule, float32."""
    lines = (GOLDEN / "family" / f"keys_{name}.txt").read_text().splitlines()
    shapes = {key: tuple(map(int, dims.split("x"))) for key, dims, _ in map(str.split, lines)}
    return {key: torch.from_numpy(fill(key, shape, family)) for key, shape in shapes.items()}


def family_inputs(case: str, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, H, W) and mask of a case of the family's goldens: A256; batch352, A and P.

    They are padded together at the right and below, to sides that are multiples of a number.
    """
    names, size = ("AP", case[5:]) if case.startswith("batch") else ("A", case[1:])
    tensors = [preprocess(image(*SOURCES[name]), int(size)) for name in names]
    height, width = (-(-max(t.shape[i] for t in tensors) // multiple) * multiple for i in (1, 2))
    batch = np.zeros((len(tensors), 3, height, width), np.float32)
    mask = np.ones((len(tensors), height, width), bool)
    for i, t in enumerate(tensors):
        batch[i, :, : t.shape[1], : t.shape[2]] = t
        mask[i, : t.shape[1], : t.shape[2]] = False
    return torch.from_numpy(batch), torch.from_numpy(mask)


def filled_salience() -> dict[str, torch.Tensor]:
    """Every key of an official checkpoint of Salience DETR, filled by the rule."""
    wavelengths = 10000.0 ** (2 * torch.arange(128).div(2, rounding_mode="floor") / 128)
    state_dict = {
        "position_embedding.dim_tx": wavelengths,
        "position_embedding.dim_ty": wavelengths.clone(),
        "transformer.level_filter_ratio": torch.tensor([0.4, 0.8, 1.0, 1.0]),
        "transformer.layer_filter_ratio": torch.tensor([1.0, 0.8, 0.6, 0.6, 0.4, 0.2]),
    }
    for line in (GOLDEN / "family" / "keys_salience.txt").read_text().splitlines():
        key, dims, _ = line.split()
        if key not in state_dict:
            shape = () if dims == "scalar" else tuple(map(int, dims.split("x")))
            state_dict[key] = torch.from_numpy(fill(key, shape, "salience"))
    return state_dict


def as_detector(network: nn.Module, name: str) -> LoadedModel:
    """A network as if it had been loaded from a file."""
    spec, config = models.get(name), network.config
    return LoadedModel(
        network=network,
        spec=spec,
        config=config,
        class_names=tuple(f"class {i}" for i in range(spec.num_classes(config))),
        size=64,
        max_size=128,
        path="tiny.pth",
        sha256="ab" * 32,
        notes=(),
        meta={},
        device=torch.device("cpu"),
    )


def of_batch(call: AttentionCall) -> DenseAttention:
    """What a call attended with, of all its images at once: fields begin with B."""
    return call.site.module.read(call.args[0])


def hooks(model: LoadedModel) -> int:
    """How many hooks its network has."""
    modules = model.network.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
