"""From the words of --weights to a file or folder on the disk, downloaded if necessary."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from detr_viz import models
from detr_viz.checkpoints import hub
from detr_viz.checkpoints.downloads import KNOWN, fetch_checked
from detr_viz.checkpoints.weight_files import CheckpointError
from detr_viz.common import assets
from detr_viz.common.files import path_text
from detr_viz.models.spec import ModelSpec

BY_FILENAME = {known.filename: known for known in KNOWN.values()}


@dataclass(frozen=True)
class WeightsLocation:
    """A file or folder of weights. sha256: of the file, if it is known already."""

    path: Path
    sha256: str | None = None


def locate(
    weights: str | os.PathLike[str] | None, type: str | None, cache: Path | None, progress: bool
) -> WeightsLocation:
    """Path of the weights, downloaded if necessary; CheckpointError if there are none."""
    if weights is None:
        path = assets.find(f"weights/{type or models.names()[0]}_demo.pth")
        entry = models.REGISTRY.get(type or models.names()[0])
        if entry is not None and not entry.demo and entry.hub:
            raise CheckpointError(
                f"{entry.title} has no demo checkpoint: give --weights a file, or "
                f"{hub.PREFIX}{entry.hub[0]}"
            )
        if not path.is_file():
            raise CheckpointError(
                f"the demo checkpoint {path_text(path)} is not there: give --weights a file or a "
                f"known name such as {next(iter(KNOWN))}"
            )
        return WeightsLocation(path)
    text = os.fspath(weights)
    if text.startswith(hub.PREFIX):
        return WeightsLocation(hub.fetch_hf(text.removeprefix(hub.PREFIX), cache, progress))
    if known := KNOWN.get(text):
        if type is not None and type != known.type:
            raise CheckpointError(
                type_contradiction(text, models.get(known.type), models.get(type))
            )
        return WeightsLocation(*fetch_checked(text, cache, progress))
    try:
        exists = bool(text) and os.path.exists(text)
    except ValueError:  # a null character
        exists = False
    if exists:
        return WeightsLocation(Path(text))
    near = difflib.get_close_matches(text, [*KNOWN, *BY_FILENAME], n=1)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not Path(text).suffix:
        hint = f"hf:{text} if it is on the Hugging Face hub"
    elif near:
        hint = f"or did you mean {near[0]}?"
    else:
        hint = "hf:owner/name, or a known name (--list-models prints them)"
    raise CheckpointError(f"no checkpoint at {path_text(text)}: give a file, {hint}")


def type_contradiction(where: str, actual: ModelSpec, wanted: ModelSpec) -> str:
    """The message for a checkpoint of another type than --type says."""
    return (
        f"{where} is {actual.title} (--type {actual.name}), not {wanted.title} "
        f"(--type {wanted.name}): leave --type out, or change one of them"
    )
