"""Demo models that stay for the next command of this process, as in a batch for the next image.

How files become models is tested in checkpoints/; each demo is loaded by the first command that
asks for it, in each process that runs tests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from detr_viz.checkpoints import sources
from detr_viz.cli import record, settings
from detr_viz.common import assets
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.checkpoints.sources import ModelSource
    from detr_viz.explanation.detector import Detector

_FOLDER = Path(__file__).parent.parent.resolve() / "weights"
_kept: dict[tuple, Detector] = {}
_load = sources.load


def _key(source: ModelSource) -> tuple | None:
    """What a kept model is known by; None for one that is not a shipped demo on the CPU."""
    if source.device not in ("auto", "cpu") or source.classes is not None:
        return None
    path = source.weights
    if path is None:
        path = assets.find(f"weights/{source.type or 'detr'}_demo.pth")
    try:
        path = Path(path).resolve(strict=True)
        found = path.stat()
    except (OSError, ValueError):
        return None
    if path.parent != _FOLDER or not path.is_file():
        return None
    return source, os.getcwd(), str(path), found.st_mtime_ns, found.st_size


def load(asked: Sequence[ModelSource], progress: bool = True) -> list[Detector]:
    """sources.load; the same source twice in one command is two models, as there."""
    keys = [_key(source) for source in asked]
    if None in keys or max(Counter(keys).values(), default=0) > 1:
        return _load(asked, progress)
    try:
        for source, key in zip(asked, keys, strict=True):
            if key not in _kept:
                (_kept[key],) = _load([source], progress)
    except UserError:
        return _load(asked, progress)  # says which of several it is
    return [_kept[key] for key in keys]


@contextmanager
def kept_models() -> Iterator[None]:
    """Commands in this process take models that an earlier one has left."""
    with mock.patch.object(settings, "load", load), mock.patch.object(record, "load", load):
        yield
