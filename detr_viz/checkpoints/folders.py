"""The Hugging Face model in a folder above it.

folder, note = model_folder(Path("detr-finetuned"))       # its only checkpoint-500/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from detr_viz.checkpoints.weight_files import WEIGHTS, CheckpointError
from detr_viz.common.files import path_text

_MOST_NAMED = 5


def model_folder(folder: Path) -> tuple[Path, str]:
    """The folder with config.json and weights, and a note if that is one further down.

    The output_dir of transformers' Trainer has checkpoint-500/ and the like, a repository in the
    hub's cache has snapshots/<hash>/. CheckpointError where there are several. A folder without any
    comes back as it is, for the reader to say what is missing.
    """
    if _is_model(folder):
        return folder, ""
    inside = sorted(filter(_is_model, _below(folder)), key=_by_number)
    if not inside:
        return folder, ""
    names = [path.relative_to(folder).as_posix() for path in inside]
    if len(inside) > 1:
        listed = ", ".join(names[-_MOST_NAMED:])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        raise CheckpointError(
            f"{path_text(folder)} holds {len(names)} checkpoints ({listed}{more}): give one of "
            f"them, as {path_text(inside[-1])}"
        )
    return inside[0], f"{names[0]} is used, the only checkpoint in {folder.name or folder}"


def _is_model(folder: Path) -> bool:
    weights = (folder / f"{name}{end}" for name in WEIGHTS for end in ("", ".index.json"))
    return (folder / "config.json").is_file() and any(path.is_file() for path in weights)


def _below(folder: Path) -> Iterator[Path]:
    """The folders in which a checkpoint may lie."""
    for child in folder.iterdir():
        if child.is_dir():
            yield child
            cached = child if child.name == "snapshots" else child / "snapshots"
            if cached.is_dir():
                yield from (path for path in cached.iterdir() if path.is_dir())


def _by_number(path: Path) -> list[tuple[int, str]]:
    """checkpoint-500 before checkpoint-1000."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
