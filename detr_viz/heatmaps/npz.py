"""The .npz format of saved maps, schema version 2: plain arrays and one JSON string, no pickles.

save("cat.npz", explanation, [3, 17], ["combine", "position"])
load("cat.npz").maps["position"]                # (2, heads, h, w)

Version 2 has the CRC-32 of each array in its meta, so that a file that has rotted is told from one
that holds other maps, and may hold the maps in float16. Files of version 1 are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.errors import UserError
from detr_viz.common.files import reason, replacing
from detr_viz.heatmaps import safe_npz

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

SCHEMA_VERSION = 2
STORES = ("float32", "float16")
# Absolute; of values up to 1 float16 keeps 11 bits, and steps of 6e-8 near 0.
STORED_WITHIN = {"float32": 0.0, "float16": 2.0**-12}
_ROUNDING = 1e-3  # of the sum of a map
_MOST_BYTES = 1 << 27  # of all arrays: 900 queries x 8 heads x 3 modes at 25 x 34 are 73 MB
_FIELDS = {  # name -> (dtype, number of dimensions)
    "query_ids": (np.int64, 1),
    "scores": (np.float32, 1),
    "labels": (np.int64, 1),
    "label_names": (np.str_, 1),
    "boxes_xyxy_px": (np.float32, 2),
    "image_hw_px": (np.int64, 1),
    "grid_hw": (np.int64, 1),
    "layers": (np.int64, 1),
}


class HeatmapError(UserError):
    """A file of saved maps that cannot be read."""


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Saved maps of q queries at one decoder layer.

    maps           mode -> float32 (q, heads, h, w), each sums to 1 over (h, w)
    query_ids, scores, labels, label_names   (q,)
    boxes_xyxy_px  float32 (q, 4), pixels of the original image
    image_hw_px, grid_hw   int64 (2,);   layers  int64 (1,), from 0
    meta           what made them (ExplanationBase.meta), with the scale and the modes
    """

    maps: Mapping[str, NDArray[np.float32]]
    query_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: NDArray[np.str_]
    boxes_xyxy_px: NDArray[np.float32]
    image_hw_px: NDArray[np.int64]
    grid_hw: NDArray[np.int64]
    layers: NDArray[np.int64]
    meta: Mapping[str, Any]


def of(
    explanation: ExplanationBase,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layer: int | None = None,
    scale: str = "mode",
    **more: Any,
) -> Heatmaps:
    """The maps of these queries and modes. more: plain values for the meta.

    Scores, labels and boxes are as the layer's own output gives them.
    """
    ids = list(queries)
    layer = explanation.pick_layer(layer)
    output = explanation.output(layer)
    meta = {**explanation.meta, "schema_version": SCHEMA_VERSION}
    meta |= {"scale": scale, "modes": list(modes), "layer": layer, **more}
    return Heatmaps(
        maps={mode: explanation.maps(mode, ids, layer, scale) for mode in modes},
        query_ids=np.asarray(ids, np.int64),
        scores=output.scores[ids],
        labels=output.labels[ids],
        label_names=np.asarray([explanation.class_names[output.labels[q]] for q in ids], np.str_),
        boxes_xyxy_px=output.boxes_xyxy_px[ids],
        image_hw_px=np.asarray(explanation.image.hw, np.int64),
        grid_hw=np.asarray(explanation.grid_hw, np.int64),
        layers=np.asarray([layer], np.int64),
        meta=meta,
    )


def of_arrays(maps: Mapping[str, NDArray[Any]], **meta: Any) -> Heatmaps:
    """Maps from anywhere, (q, heads, h, w) by mode, as those of queries 0, 1, ... of no class.

    ValueError where shapes differ, or weights are negative, no numbers, or more than 1 in all.
    """
    arrays = {mode: np.asarray(array, np.float32) for mode, array in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 4 or not min(shape[1:]):
        raise ValueError(f"maps of one shape (q, heads, h, w) are needed, not {sorted(shapes)}")
    for mode, array in arrays.items():
        if trouble := _no_weights(array):
            raise ValueError(f"{mode} has {trouble}: weights are those of a softmax")
    count, heads, height, width = shape
    return Heatmaps(
        maps=arrays,
        query_ids=np.arange(count),
        scores=np.zeros(count, np.float32),
        labels=np.zeros(count, np.int64),
        label_names=np.asarray([""] * count, np.str_),
        boxes_xyxy_px=np.tile(np.asarray([0, 0, 1, 1], np.float32), (count, 1)),
        image_hw_px=np.ones(2, np.int64),
        grid_hw=np.asarray([height, width], np.int64),
        layers=np.zeros(1, np.int64),
        meta={"schema_version": SCHEMA_VERSION, "num_heads": heads, "modes": list(arrays), **meta},
    )


def write(
    path: str | Path,
    heatmaps: Heatmaps,
    store: str = "float32",
    way_out: str = "choose another place with --out",
) -> Path:
    """Write maps to a file; the same input gives the same bytes.

    store: float16 halves the file, and keeps the maps within STORED_WITHIN. HeatmapError for what
    `load` would not take: maps that are none, a query twice, more than it reads.
    """
    if store not in STORES:
        raise UserError(f"maps are stored as {' or '.join(STORES)}, not {store}")
    path = Path(path)
    arrays: dict[str, Any] = {
        f"maps_{mode}": maps.astype(store) for mode, maps in heatmaps.maps.items()
    }
    arrays |= {name: getattr(heatmaps, name) for name in _FIELDS}
    meta = {**heatmaps.meta, "store": store, "crc32": safe_npz.checksums(arrays)}
    size = sum(array.nbytes for array in arrays.values())
    if size > _MOST_BYTES:
        raise HeatmapError(
            f"{path} would hold {size:,} bytes of maps, and {_MOST_BYTES:,} are read: choose fewer "
            "queries or modes, a smaller size, or float16"
        )
    _Checked(path, dict(arrays), meta).heatmaps()
    arrays["meta"] = np.asarray(json.dumps(meta, ensure_ascii=False, sort_keys=True))
    with replacing(path, way_out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def save(
    path: str | Path,
    explanation: ExplanationBase,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layer: int | None = None,
    scale: str = "mode",
    recipe: str = "",
    store: str = "float32",
) -> Path:
    """`of` and `write` in one. recipe: a digest, see recipe.py."""
    more = {"recipe_sha256": recipe} if recipe else {}
    return write(path, of(explanation, queries, modes, layer=layer, scale=scale, **more), store)


def load(path: str | Path) -> Heatmaps:
    """Read a file that `save` wrote; HeatmapError on anything else, whoever made it."""
    arrays, meta = _read(path)
    return _Checked(path, arrays, meta).heatmaps()


def load_meta(path: str | Path) -> dict[str, Any]:
    """The meta alone, quickly; HeatmapError as of `load`, of what is wrong with the meta."""
    _, meta = _read(path, "meta")
    _Checked(path, {}, meta).check_version()
    return meta


def _read(path: str | Path, *only: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """(arrays, meta)"""
    try:
        arrays = safe_npz.read(path, _MOST_BYTES, *only)
        return arrays, json.loads(str(arrays.pop("meta", "{}")))
    except OSError as error:
        raise HeatmapError(f"cannot read saved maps {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:  # a null character in the path, bad JSON
        raise HeatmapError(f"{path} is not a file of saved maps (.npz): {reason(error)}") from error


class _Checked:
    """What a file holds, believed piece by piece. HeatmapError at the first that is wrong."""

    def __init__(self, path: str | Path, arrays: dict[str, NDArray[Any]], meta: Any) -> None:
        self._path, self._arrays, self._meta = path, arrays, meta

    def heatmaps(self) -> Heatmaps:
        self._check_meta()
        self._check_fields()
        self._check_sums()
        maps = {
            name.removeprefix("maps_"): self._maps(name)
            for name in self._arrays
            if name.startswith("maps_")
        }
        if not maps:
            raise self._wrong(" has no maps: write it again")
        fields = {name: self._arrays[name] for name in _FIELDS}
        return Heatmaps(maps=maps, meta=self._meta, **fields)

    def _wrong(self, words: str) -> HeatmapError:
        return HeatmapError(f"{self._path}{words}")

    def _check_meta(self) -> None:
        missing = [name for name in _FIELDS if name not in self._arrays]
        if missing:
            raise self._wrong(f" lacks {', '.join(missing)}: it was not written by --save-maps")
        self.check_version()

    def check_version(self) -> None:
        found = self._meta.get("schema_version") if isinstance(self._meta, dict) else None
        if type(found) is int and found > SCHEMA_VERSION:
            raise self._wrong(
                f" has schema version {found}, this detr_viz reads up to {SCHEMA_VERSION}: "
                "it was written by a newer detr_viz, install that"
            )
        if type(found) is not int or found < 1:
            raise self._wrong(f" has schema version {str(found)[:40]}: write it again")

    def _check_fields(self) -> None:
        for name, (dtype, ndim) in _FIELDS.items():
            array = self._arrays[name]
            if not np.issubdtype(array.dtype, dtype) or array.ndim != ndim:
                raise self._wrong(f": {name} is {array.dtype} {array.shape}: {self._not_ours}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._wrong(f": {name} has values that are no numbers: write it again")
        count = len(self._arrays["query_ids"])
        ids = self._arrays["query_ids"]
        if len(np.unique(ids)) < count or (ids < 0).any():
            raise self._wrong(": its queries are no ids, each once: write it again")
        if not count:
            raise self._wrong(" has no queries: write it again")
        sizes = {"scores": (count,), "labels": (count,), "label_names": (count,)}
        sizes |= {"boxes_xyxy_px": (count, 4), "image_hw_px": (2,), "grid_hw": (2,)}
        for name, shape in {**sizes, "layers": (1,)}.items():
            if self._arrays[name].shape != shape:
                found = self._arrays[name].shape
                raise self._wrong(f": {name} is {found}, expected {shape}: {self._not_ours}")
        for name in ("image_hw_px", "grid_hw"):
            if (self._arrays[name] < 1).any():
                raise self._wrong(f": {name} has none: write it again")

    @property
    def _not_ours(self) -> str:
        return f"not schema version {self._meta['schema_version']}"

    def _check_sums(self) -> None:
        """That the arrays are those that were written; version 1 has no sums."""
        if self._meta["schema_version"] < 2:
            return
        said = self._meta.get("crc32")
        for name, found in safe_npz.checksums(self._arrays).items():
            if not isinstance(said, dict) or said.get(name) != found:
                raise self._wrong(f" is damaged: the CRC-32 of {name[:60]} is not the one it had")
        gone = [name for name in said if name not in self._arrays]
        if gone:
            raise self._wrong(f" is damaged: it has no {gone[0][:60]} any more")

    def _maps(self, name: str) -> NDArray[np.float32]:
        array = self._arrays[name]
        store = self._meta.get("store", "float32")
        count, heads = len(self._arrays["query_ids"]), self._meta.get("num_heads")
        expected = (count, heads, *self._arrays["grid_hw"].tolist())
        if type(heads) is not int or heads < 1:
            raise self._wrong(f": {str(heads)[:20]} heads: write it again")
        if store not in STORES or array.shape != expected or array.dtype != np.dtype(store):
            raise self._wrong(
                f": {name[:60]} is {array.dtype} {array.shape}, expected {str(store)[:20]} "
                f"{expected}"
            )
        maps = array.astype(np.float32)
        if trouble := _no_weights(maps):
            raise self._wrong(f": {name[:60]} has {trouble}: write it again")
        return maps


def _no_weights(maps: NDArray[np.float32]) -> str:
    """What is wrong with maps (..., h, w) that came from elsewhere, or ""."""
    if not (np.isfinite(maps).all() and (maps >= 0).all()):
        return "values that are no weights"
    # sampled attention may sum to less than 1; rounding makes it a little more
    return "maps of more than 1 in all" if (maps.sum((-2, -1)) > 1 + _ROUNDING).any() else ""
