"""Which files a baseline may name: it may come from anywhere, and says what the check reads.

check_reach(baseline, root=None)     # HeatmapError for an image or weights outside
why_outside(baseline, root=None)     # the same as a clause

Allowed are --root, the working folder, the repository of the baseline (without one: the folder that
its own folder lies in), and what comes with the package. Links are followed first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from detr_viz.checkpoints.hub import PREFIX
from detr_viz.common import assets
from detr_viz.common.files import path_text
from detr_viz.regression.baselines import FILE, Baseline

_MARKS = (".git", ".hg", ".svn")  # of a repository
_WAY_OUT = "--anywhere allows it, for baselines of your own"


def check_reach(baseline: Baseline, root: str | None = None) -> None:
    """HeatmapError where a baseline names a file outside, or weights of the hub."""
    from detr_viz.heatmaps.npz import HeatmapError

    if why := why_outside(baseline, root):
        raise HeatmapError(f"{path_text(baseline.path)} {why}: {_WAY_OUT}")


def why_outside(baseline: Baseline, root: str | None = None) -> str:
    """What a baseline names that a check does not read without a flag, a clause; "" if nothing."""
    spec, allowed = baseline.remake, list(_allowed(baseline.path, root))
    if spec.weights is not None and spec.weights.startswith(PREFIX):
        return f"asks for weights of the hub ({spec.weights[:60]!r})"
    named = {"image": spec.image or None, "classes": spec.classes}
    if spec.weights_is == FILE:
        named["weights"] = spec.weights
    for what, path in named.items():
        if path is None:
            continue
        place = os.path.realpath(baseline.base / path)
        if not any(_is_below(place, folder) for folder in allowed):
            return f"names the {what} {path[:80]!r}, which lies outside {path_text(allowed[0])}"
    return ""


def _allowed(path: Path, root: str | None) -> Iterator[str]:
    if root is not None:
        yield os.path.realpath(root)
    own = Path(os.path.realpath(path)).parent
    repository = next(
        (p for p in (own, *own.parents) if any((p / m).exists() for m in _MARKS)), None
    )
    yield str(own.parent if repository is None else repository)
    yield os.path.realpath(os.getcwd())
    yield os.path.realpath(assets.find(assets.DEFAULT_IMAGE).parent.parent)


def _is_below(place: str, folder: str) -> bool:
    """Whether a file is in a folder; the root of the file system counts as none."""
    return folder != os.path.dirname(folder) and place.startswith(os.path.join(folder, ""))
