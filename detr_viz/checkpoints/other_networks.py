"""Folders of transformers whose own network runs, through an adapter, instead of one of ours.

theirs(location, type, network)         # the model_type, or None where a network of ours is taken
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.adapters import REGISTRY
from detr_viz.adapters.transformers_types import NETWORKS, TYPES, check_installed
from detr_viz.checkpoints.downloads import sha256_of
from detr_viz.checkpoints.locate import WeightsLocation
from detr_viz.checkpoints.weight_files import WEIGHTS, CheckpointError, config_in
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text

if TYPE_CHECKING:
    import torch

    from detr_viz.adapters.attached import AttachedDetector


def check_words(weights: str | None, type: str | None) -> None:
    """UserError for a type of transformers without weights: none of them ships a demo."""
    entry = REGISTRY.get(type or "")
    if weights is None and entry is not None and entry.of_transformers:
        hub = f", such as hf:{entry.hub}" if entry.hub else ""
        raise UserError(
            f"{entry.title} has no demo checkpoint: give --weights a folder of save_pretrained, or "
            f"hf:owner/name{hub}"
        )


def theirs(location: WeightsLocation, type: str | None, network: str) -> str | None:
    """The model_type of a folder whose own network is to run; None for a network of ours.

    type: as --type names it. network: one of NETWORKS. UserError where these contradict the folder.
    """
    if network not in NETWORKS:
        raise UserError(f"network {network!r} is not one of {', '.join(NETWORKS)}")
    where = path_text(location.path)
    config = config_in(location.path) if location.path.is_dir() else None
    model_type = str((config or {}).get("model_type", ""))
    kind = TYPES.get(model_type)
    entry = REGISTRY.get(type or "")
    wanted = entry is not None and entry.of_transformers
    if kind is None:
        if wanted or network == "transformers":
            asked = f"--type {type}" if wanted else "--network transformers"
            raise CheckpointError(f"{asked} is for folders of transformers, and {where} is none")
        return None
    if wanted and kind.name != type:
        raise CheckpointError(
            f"{where} is {kind.title}, not {entry.title} (--type {type}): leave --type out"
        )
    if kind.ours and network == "own":
        return None
    if not kind.ours and type is not None and not wanted:
        raise CheckpointError(f"{where} is {kind.title}, not of --type {type}: leave --type out")
    check_installed(f"{where} is {kind.title}, which")
    return model_type


def load_theirs(
    location: WeightsLocation,
    device: torch.device,
    prompt: str | None,
    class_names: Sequence[str] | None,
) -> AttachedDetector:
    """The detector of such a folder; UserError on anything that is wrong with it."""
    from detr_viz.adapters.transformers_models import load_folder

    folder = location.path
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()][:1]
    stem = WEIGHTS[0].split(".")[0]
    files = files or sorted(folder.glob(f"{stem}-*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise CheckpointError(f"{path_text(folder)} has no weights beside config.json")
    return load_folder(
        folder,
        device,
        prompt=prompt,
        class_names=class_names,
        notes=filter(None, [location.note]),
        sha256=sha256_of(*files),
    )
