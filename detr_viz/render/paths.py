"""Where files go: --out checked before time is spent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_viz.common.errors import UserError
from detr_viz.common.files import reason
from detr_viz.figures.styles import SUFFIXES

MAPS = ".npz"


@dataclass(frozen=True)
class Target:
    """Where the files of an image go: <stem>.png and so on.

    suffixes  of figures (SUFFIXES) and of saved maps (.npz), which several models or layers make
              <stem>_<model>_layer<n>.npz
    caption   whether the first figure gets a LaTeX file beside it
    """

    stem: Path
    suffixes: tuple[str, ...]
    caption: bool = False

    @property
    def figures(self) -> tuple[Path, ...]:
        return tuple(self._path(s) for s in self.suffixes if s.lower() in SUFFIXES)

    @property
    def saves_maps(self) -> bool:
        return MAPS in self.suffixes

    @property
    def captioned(self) -> Path:
        """The figure that a LaTeX file includes: of vectors where there is one."""
        return _captioned(self.figures)

    def is_met_by(self, files: Sequence[Path]) -> bool:
        """Whether an earlier run's files of an image, in its order, hold all that are wanted."""
        wanted = set(self.figures)
        if self.caption:
            wanted.add(self.captioned.with_suffix(".tex"))
            figures = [path for path in files if path.suffix in SUFFIXES]
            if not figures or _captioned(figures) != self.captioned:
                return False  # that .tex includes another figure
        maps = (
            path.suffix == MAPS
            and path.parent == self.stem.parent
            and path.name.startswith(self.stem.name)
            for path in files
        )
        return wanted <= set(files) and (not self.saves_maps or any(maps))

    def check(self) -> None:
        """UserError where a file cannot be put, before time is spent on it."""
        for path in (*self.figures, *[self._path(MAPS)] * self.saves_maps):
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder; choose another --out")
        if self.caption:
            from detr_viz.figures.latex_caption import caption_path

            caption_path(self.captioned)

    def _path(self, suffix: str, tag: str = "") -> Path:
        return self.stem.with_name(f"{self.stem.name}{tag}{suffix}")

    def maps(self, tag: str) -> Path:
        return self._path(MAPS, tag)


def _captioned(figures: Sequence[Path]) -> Path:
    return next((path for path in figures if path.suffix.lower() == ".pdf"), figures[0])


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


def folder_of(out: str | None) -> Path:
    """The folder that --out names; outputs/ where there is none."""
    if out is not None and not is_folder(out):
        return Path(out).parent
    return Path(out or "outputs")


def target_of(out: str | None, name: str, suffixes: tuple[str, ...], caption: bool) -> Target:
    """The files of one image: --out itself and what goes beside it, or `name` in a folder."""
    if out is None or is_folder(out):
        return Target(folder_of(out) / name, suffixes, caption)
    path = Path(out)
    beside = tuple(suffix for suffix in suffixes if suffix not in SUFFIXES)
    return Target(path.with_suffix(""), (path.suffix, *beside), caption)
