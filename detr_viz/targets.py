"""Where figures go: --out checked before time is spent, a path for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detr_viz.errors import UserError
from detr_viz.files import reason
from detr_viz.styles import SUFFIXES


def is_folder(out: str) -> bool:
    """Whether --out names a folder: an existing one, a trailing slash, or no suffix."""
    return Path(out).is_dir() or out.endswith(("/", os.sep)) or not Path(out).suffix


def check_out(out: str | None, several: bool) -> None:
    """UserError where --out cannot work, before any time is spent."""
    if out in ("", "-"):
        raise UserError(f"--out {out!r} is no place: give a file or a folder")
    try:
        _check_place(out, several)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {reason(error)}; choose another") from None


def _check_place(out: str | None, several: bool) -> None:
    if out is not None and not is_folder(out):
        if Path(out).suffix.lower() not in SUFFIXES:
            raise UserError(f"--out {out}: the suffix must be one of {', '.join(SUFFIXES)}")
        if several:
            raise UserError(f"--out {out} is one file, but there are several images: give a folder")
    folder = Path(out or "outputs")
    folder = folder if out is None or is_folder(out) else folder.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"cannot write to --out {out}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied; choose another --out")


def check_target(figure: Path, caption: bool, maps: bool) -> None:
    """UserError where a figure or what goes beside it cannot be put, before time is spent on it."""
    for path in (figure, *[figure.with_suffix(".npz")] * maps):
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; choose another --out")
    if caption:
        from detr_viz.captions import caption_path

        caption_path(figure)


def output_paths(images: Sequence[str], label: str, out: str | None) -> list[Path]:
    """A figure path for each image: --out itself, or <folder>/<image>_<type>_<plot>.png."""
    if out is not None and not is_folder(out):
        return [Path(out)]
    folder = Path(out or "outputs")
    taken: set[Path] = set()
    targets = []
    for image in images:
        stem, n = Path(image).stem, 1
        target = folder / f"{stem}_{label}.png"
        while target in taken:  # a/cat.jpg and b/cat.jpg in one run
            n += 1
            target = folder / f"{stem}-{n}_{label}.png"
        taken.add(target)
        targets.append(target)
    return targets
