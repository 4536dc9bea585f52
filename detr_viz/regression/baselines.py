"""Baselines: saved maps with the settings to compute them again.

A baseline is a file of saved maps (heatmaps/npz.py) whose meta has an entry "remake": model,
weights, image, queries and sizes. Paths are relative to the file's folder or to a --root, so that
they are valid in a clone too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from detr_viz import adapters, models
from detr_viz.attention.terms import PRECISIONS, SCALES, check_mode
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.common.files import printable, reason, search

KEY = "remake"
DEMO, FILE, NAME = "demo", "file", "name"  # values of weights_is
FOLDER, ROOT = "folder", "root"  # values of relative_to


@dataclass(frozen=True)
class ModelKey:
    """The settings that a model is loaded with; baselines with equal keys share the model.

    weights: None for the demo of the type, else as load_model takes it.
    """

    type: str
    weights: str | None
    classes: str | None
    nheads: int | None
    dilation: bool | None
    precision: str


@dataclass(frozen=True)
class BaselineSpec:
    """The settings to compute a baseline again. Paths as in the file, with "/".

    image: "" for the one that comes with the package.
    """

    type: str
    weights: str | None
    weights_is: str
    image: str
    relative_to: str
    queries: str
    modes: tuple[str, ...]
    layer: int
    scale: str
    size: int | None
    max_size: int | None
    precision: str
    classes: str | None
    nheads: int | None
    dilation: bool | None

    @classmethod
    def parsed(cls, entry: Any) -> BaselineSpec:
        """From an entry of a meta, which may come from anywhere; ValueError if it is wrong."""
        names = [field.name for field in fields(cls)]
        if not isinstance(entry, dict) or sorted(entry) != sorted(names):
            raise ValueError("it does not say how it is made again")
        modes = entry["modes"]
        texts = [entry[n] for n in ("type", "image", "queries", "scale", "precision")]
        texts += modes if isinstance(modes, list) else [None]
        texts += [entry[n] for n in ("weights", "classes") if entry[n] is not None]
        numbers = [entry["layer"]]
        numbers += [entry[n] for n in ("size", "max_size", "nheads") if entry[n] is not None]
        sound = (
            all(isinstance(text, str) and "\0" not in text for text in texts)
            and all(type(number) is int and 0 <= number < 10**6 for number in numbers)
            and entry["dilation"] in (None, True, False)
            and entry["weights_is"] in (DEMO, FILE, NAME)
            and (entry["weights"] is None) == (entry["weights_is"] == DEMO)
            and entry["relative_to"] in (FOLDER, ROOT)
            and entry["type"] in (*models.names(), *adapters.names())
            and entry["scale"] in SCALES
            and entry["precision"] in PRECISIONS
            and all(map(_is_mode, modes))
        )
        if not sound:
            raise ValueError(
                "what it says of how it is made again is damaged, or of a newer detr_viz"
            )
        return cls(**{**entry, "modes": tuple(modes)})

    def as_meta(self) -> dict[str, Any]:
        return {**asdict(self), "modes": list(self.modes)}


@dataclass(frozen=True)
class Baseline:
    """A baseline file, without its maps. base: the folder that its paths are relative to."""

    path: Path
    name: str
    remake: BaselineSpec
    base: Path

    @property
    def image(self) -> Path:
        if not self.remake.image:
            return assets.find(assets.DEFAULT_IMAGE)
        return self._place(self.remake.image)

    def _place(self, path: str) -> Path:
        place = os.path.normpath(self.base / path)
        with suppress(ValueError):  # another drive
            place = min(os.path.relpath(place), place, key=len)  # the shorter one, for messages
        return Path(place)

    @property
    def model(self) -> ModelKey:
        spec = self.remake
        weights, classes = spec.weights, spec.classes
        if weights is not None and spec.weights_is == FILE:
            weights = str(self._place(weights))
        if classes is not None:
            classes = str(self._place(classes))
        return ModelKey(spec.type, weights, classes, spec.nheads, spec.dilation, spec.precision)


def _is_mode(name: str) -> bool:
    try:
        check_mode(name)
    except ValueError:
        return False
    return True


def read(path: Path, name: str, root: str | None = None) -> Baseline:
    """A baseline; HeatmapError if the file is not one."""
    from detr_viz.heatmaps.npz import HeatmapError, load_meta

    meta = load_meta(path)
    try:
        remake = BaselineSpec.parsed(meta.get(KEY))
    except ValueError as error:
        raise HeatmapError(
            f"{path} is no baseline ({error}): make it with the record command"
        ) from None
    if remake.relative_to == ROOT and root is None:
        raise HeatmapError(f"{path} was recorded with --root: say --root here too")
    start = path.parent if remake.relative_to == FOLDER else root or "."
    return Baseline(path, name, remake, Path(os.path.realpath(start)))


def find(places: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """(path, name) of every .npz file in these folders, and of single files, each once.

    places: folders or files. A name is the path below its folder, or the whole path if there are
    several places. UserError for a place that does not exist or has no baselines.
    """
    seen: set[str] = set()
    for place in places:
        top = Path(place)
        if not place:
            raise UserError("the path is empty: name a folder of baselines")
        if top.is_dir():
            files = search(top, ".npz")
            if not files:
                raise UserError(f"no baselines (.npz) in {top}: make some with the record command")
        elif top.exists():
            files = [top]
        else:
            raise UserError(f"no file or folder {printable(top)}: check the path")
        for path in files:
            if (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                whole = len(places) > 1 or path == top
                name = path.as_posix() if whole else path.relative_to(top).as_posix()
                yield path, path.name if path == top and len(places) == 1 else name


def relative(path: str, start: str | Path) -> str:
    """A path as a baseline has it, relative to `start`. UserError on another drive."""
    try:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(start))).as_posix()
    except ValueError as error:
        raise UserError(f"no relative path leads to {path}: {reason(error)}") from None
