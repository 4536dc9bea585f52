"""Small files of the family in the official format, and a photo, for tests of the whole tool."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT
from network_tools import TINIES, tiny
from PIL import Image

from detr_viz import explain, load_model
from detr_viz.explanation.captured import Explanation

CLASSES = 91


def photo() -> np.ndarray:
    """(110, 150, 3) uint8."""
    return np.asarray(_picture())


def _picture() -> Image.Image:
    return Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110))


def with_photo(folder: Path, monkeypatch) -> Path:
    """The folder, with the photo as cat.png, as the working folder."""
    monkeypatch.chdir(folder)
    _picture().save("cat.png")
    return folder


def random_values(name: str, seed: int = 3, **sizes: object) -> dict[str, torch.Tensor]:
    """The state dict of a tiny model that looks about itself: attention and classes are wide."""
    model = tiny(name, num_queries=12, num_logits=CLASSES, **sizes)
    torch.manual_seed(seed)
    state_dict = {k: v.clone() for k, v in model.network.state_dict().items()}
    for key, value in state_dict.items():
        if key.endswith(("sampling_offsets.weight", "attention_weights.weight")):
            value.normal_(std=0.3)
        if name == "anchor_detr":
            if key.endswith("attn.in_proj_weight"):
                value.normal_(std=0.5)
        elif ("class_embed" in key or "class_head" in key) and value.ndim == 2:
            value.normal_()
    return state_dict


def deformable_file(folder: Path) -> Path:
    """A refining Deformable DETR, with its heads under both of their names."""
    state_dict = random_values("deformable_detr", refine=True)
    for name in ("class_embed", "bbox_embed"):
        for key in [k for k in state_dict if k.startswith(f"transformer.decoder.{name}")]:
            state_dict[key] = state_dict[key.removeprefix("transformer.decoder.")]
    return _saved(folder, "deformable_detr", state_dict)


def anchor_file(folder: Path) -> Path:
    """An Anchor DETR of four anchors; its layers have the same heads."""
    state_dict = random_values("anchor_detr")
    one = torch.empty_like(state_dict["transformer.class_embed.0.weight"]).normal_()
    for key in state_dict:
        if "class_embed" in key and key.endswith("weight"):
            state_dict[key] = one.clone()
    return _saved(folder, "anchor_detr", state_dict, num_query_position=4)


def salience_file(folder: Path) -> Path:
    """A Salience DETR as its authors' training saves it."""
    state_dict = random_values("salience_detr")
    for leaf in ("weight", "bias"):
        head = state_dict[f"transformer.encoder_class_head.{leaf}"]
        state_dict[f"transformer.encoder.enhance_mcsp.{leaf}"] = head
    wavelengths = 10000.0 ** (2 * torch.arange(16).div(2, rounding_mode="floor") / 16)
    state_dict["position_embedding.dim_tx"] = wavelengths
    state_dict["position_embedding.dim_ty"] = wavelengths
    state_dict["denoising_generator.label_encoder.weight"] = torch.randn(CLASSES, 32)
    state_dict["_classes_"] = torch.tensor([78, 47, 65, -1])
    return _saved(folder, "salience_detr", state_dict)


def _saved(folder: Path, name: str, state_dict: Mapping[str, torch.Tensor], **args: object) -> Path:
    path = folder / "small.pth"
    known = argparse.Namespace(nheads=TINIES[name].nheads, dilation=False, **args)
    torch.save({"model": state_dict, "args": known}, path)
    return path


def explained_at_all_sites(weights: Path, name: str | None = None, **more: object) -> Explanation:
    """The photo through a file, with every layer and every site."""
    model = load_model(weights, name, device="cpu")
    return explain(model, photo(), size=96, layers="all", sites=["encoder", "decoder"], **more)
