"""Which baselines are checked and which reports are written. Imports nothing heavy.

[path for path, _ in chosen(CheckOptions(("tests/heatmaps",)))]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from detr_viz.common.errors import UserError
from detr_viz.common.files import check_file, printable
from detr_viz.regression.baselines import find

_SUFFIXES = {"report": ".html", "junit": ".xml", "json": ".json"}


@dataclass(frozen=True)
class CheckOptions:
    """Which baselines are checked, and how the models run.

    baselines  folders of baselines, or single files
    root       the folder of the paths in baselines that were recorded with --root
    only       patterns of names; None: all
    other_precision  whether maps made in another precision are compared, by the coarser limits
    cache      folder for downloads
    anywhere   whether baselines may name any file and weights of the hub, see reach.py
    """

    baselines: tuple[str, ...]
    root: str | None = None
    only: tuple[str, ...] | None = None
    device: str = "auto"
    other_precision: bool = False
    cache: str | None = None
    anywhere: bool = False
    quiet: bool = False
    traceback: bool = False


@dataclass(frozen=True)
class Reports:
    """File names of the requested reports; None: no report of that kind."""

    report: str | None = None
    junit: str | None = None
    json: str | None = None

    def paths(self) -> dict[str, Path]:
        """Kind -> path. UserError if a report cannot be written, before the work starts."""
        names = {kind: getattr(self, kind) for kind in _SUFFIXES}
        paths = {kind: Path(path) for kind, path in names.items() if path is not None}
        for kind, path in paths.items():
            if path.suffix.lower() != _SUFFIXES[kind]:
                problem = f"--{kind} {names[kind]!r} is no {_SUFFIXES[kind]} file"
                raise UserError(f"{problem}: give a name such as heatmaps{_SUFFIXES[kind]}")
            check_file(path, f"choose another --{kind}")
        return paths


def chosen(options: CheckOptions) -> Iterator[tuple[Path, str]]:
    """(path, name) of the chosen files. UserError if no name fits --only."""
    files = list(find(options.baselines))
    fitting = [
        (path, name)
        for path, name in files
        if options.only is None or any(_fits(name, pattern) for pattern in options.only)
    ]
    if not fitting:
        names = [printable(name) for _, name in files[:3]]
        if len(files) > 3:
            names.append("…")
        patterns = " or ".join(repr(pattern) for pattern in options.only)
        raise UserError(f"no baseline is called {patterns}: there is {', '.join(names)}")
    yield from fitting


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits a path below the folder or a file name, with or without suffix."""
    names = (name, name.rpartition("/")[2])
    return any(fnmatch(n, pattern) or fnmatch(n.removesuffix(".npz"), pattern) for n in names)
