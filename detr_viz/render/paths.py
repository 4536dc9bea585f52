"""Where the files of a run go; --out is checked before the run starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detr_viz.common.errors import UserError
from detr_viz.common.file_names import LONGEST, fitting
from detr_viz.common.files import check_file, existing_folder, reason
from detr_viz.common.regular import is_of_the_system
from detr_viz.figures.styles import SUFFIXES

MAPS = ".npz"
NUMBERS = (MAPS, ".csv")
PAGE = ".html"
_LONGEST_STEM = LONGEST - 8  # bytes, without the suffix


@dataclass(frozen=True)
class OutputPaths:
    """Where the files of a run go, and with a stem, those of one view of one image.

    folder    of all of them
    stem      the start of their names, "/" between folders; "" for a whole run
    suffixes  of figures (SUFFIXES), in the order of the index, and .npz where the numbers are
              saved too: <stem><end>.npz or .csv, depending on the view; .html: a page
    caption   whether each figure gets a LaTeX file beside it
    tag       of a shard (--shard): part of the names of its tables
    """

    folder: Path
    stem: str = ""
    suffixes: tuple[str, ...] = (".png",)
    caption: bool = False
    tag: str = ""

    def at(self, stem: str) -> OutputPaths:
        """The files of one view of one image; where --out names a file, that file."""
        return self if self.stem else replace(self, stem=stem)

    def ending(self, end: str) -> OutputPaths:
        """The files of one figure of a view."""
        return replace(self, stem=self.stem + end)

    def named(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Paths as they stand in an index."""
        return tuple(path.relative_to(self.folder).as_posix() for path in files)

    @property
    def figures(self) -> tuple[Path, ...]:
        return tuple(self._path(s) for s in self.suffixes if s.lower() in SUFFIXES)

    @property
    def saves_maps(self) -> bool:
        return MAPS in self.suffixes

    @property
    def page(self) -> Path | None:
        """The page of one view; None where none is written."""
        return self._path(PAGE) if PAGE in map(str.lower, self.suffixes) else None

    @property
    def caption_figure(self) -> Path:
        """The figure that the LaTeX file includes: the .pdf where there is one."""
        return _caption_figure(self.figures)

    def is_complete(self, files: Sequence[Path], stems: Sequence[str] = ()) -> bool:
        """Whether the files of an earlier run for an image, in its order, lack none of this run.

        stems: of the views of the image; (): only this one.
        """
        views = [self.at(stem) for stem in stems] or [self]
        owned: list[list[Path]] = [[] for _ in views]
        for path in files:
            own = [
                i
                for i, view in enumerate(views)
                if path.parent == view._path("").parent
                and path.name.startswith(view._path("").name)
            ]
            if own:  # the stem of one view may begin that of another
                owned[max(own, key=lambda i: len(views[i].stem))].append(path)
        return all(view._is_complete(own) for view, own in zip(views, owned, strict=True))

    def _is_complete(self, files: Sequence[Path]) -> bool:
        if self.saves_maps and not any(path.suffix in NUMBERS for path in files):
            return False
        if self.page is not None and self.page not in files:
            return False
        drawn = [path for path in files if path.suffix in SUFFIXES]
        stems = dict.fromkeys([self._path(""), *(path.with_suffix("") for path in drawn)])
        for stem in stems if self.figures else ():
            one = replace(self, folder=stem.parent, stem=stem.name)
            wanted = set(one.figures)
            if self.caption:
                wanted.add(one.caption_figure.with_suffix(".tex"))
                own = [path for path in drawn if path.with_suffix("") == stem]
                if not own or _caption_figure(own) != one.caption_figure:
                    return False  # the .tex of the earlier run includes another figure
            if not wanted <= set(files):
                return False
        return True

    def check(self) -> None:
        """UserError where a file cannot be written, before the work starts."""
        pages = [self.page] if self.page is not None else []
        numbers = [self._path(MAPS)] if self.saves_maps else []
        _check_each((*self.figures, *pages, *numbers))
        if self.caption and self.figures:
            from detr_viz.figures.latex_caption import caption_path

            caption_path(self.caption_figure)

    def check_all(self, figures: Iterable[str], numbers: Iterable[str]) -> None:
        """check() for all figures and numbers of a view, by the ends of their names.

        Which suffix numbers have is not known before they are made: neither may be in the way.
        """
        for end in figures:
            self.ending(end).check()
        for end in numbers if self.saves_maps else ():
            _check_each([self.numbers(end, suffix) for suffix in NUMBERS])

    def numbers(self, end: str, suffix: str) -> Path:
        """The path of saved numbers."""
        return self._path(suffix, end)

    def _path(self, suffix: str, end: str = "") -> Path:
        *folders, name = f"{self.stem}{end}".split("/")
        # of the stem alone, so that all files of one figure share theirs; `is_complete` knows a
        # file by its start, which stays
        return self.folder.joinpath(*folders, fitting(name, most=_LONGEST_STEM) + suffix)


def _check_each(targets: Sequence[Path]) -> None:
    """UserError for a folder, a pipe, a device, or a link to one of them or to nothing."""
    for path in targets:
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; choose another --out")
        check_file(path, "choose another --out")


def _caption_figure(figures: Sequence[Path]) -> Path:
    """The file that a LaTeX document includes: the PDF, else one that LaTeX reads."""
    worst = (".tif", ".tiff")
    return min(figures, key=lambda p: (p.suffix.lower() != ".pdf", p.suffix.lower() in worst))


def is_folder(out: str) -> bool:
    """Whether --out names a folder: an existing one, a trailing slash, or no suffix."""
    return Path(out).is_dir() or out.endswith(("/", os.sep)) or not Path(out).suffix


def check_out(out: str | None, several: bool) -> None:
    """UserError where nothing can be written to --out, before the work starts."""
    if out in ("", "-"):
        raise UserError(f"--out {out!r} is not a path: give a file or a folder")
    try:
        _check_folder(out, several)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {reason(error)}; choose another") from None


def _check_folder(out: str | None, several: bool) -> None:
    if out is not None and not is_folder(out):
        if Path(out).suffix.lower() not in (*SUFFIXES, PAGE):
            known = ", ".join((*SUFFIXES, PAGE))
            raise UserError(f"--out {out}: the suffix must be one of {known}")
        if several:
            raise UserError(f"--out {out} is one file, but there are several images: give a folder")
    folder = Path(out or "outputs")
    folder = folder if out is None or is_folder(out) else folder.parent
    folder = existing_folder(folder)
    if not folder.is_dir():
        raise UserError(f"cannot write to --out {out}: {folder} is a file, not a folder")
    if is_of_the_system(folder):
        raise UserError(f"cannot write to --out {out}: {folder} is a folder of the system")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied; choose another --out")


def folder_of(out: str | None) -> Path:
    """The folder of --out; outputs/ without --out."""
    if out is not None and not is_folder(out):
        return Path(out).parent
    return Path(out or "outputs")


def output_paths(
    out: str | None, suffixes: tuple[str, ...], caption: bool, tag: str = ""
) -> OutputPaths:
    """The files of a run: --out itself with the files beside it, or those in a folder."""
    if out is None or is_folder(out):
        return OutputPaths(folder_of(out), "", suffixes, caption, tag)
    path = Path(out)
    beside = tuple(suffix for suffix in suffixes if suffix not in (*SUFFIXES, PAGE))
    return OutputPaths(path.parent, path.stem, (path.suffix, *beside), caption, tag)
