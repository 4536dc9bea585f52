"""The .npz format of saved maps, schema version 1: plain arrays and one JSON string, no pickles.

save("cat.npz", explanation, [3, 17], ["combine", "position"])
load("cat.npz").maps["position"]                # (2, heads, h, w)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from detr_viz.errors import UserError
from detr_viz.files import reason, replacing

if TYPE_CHECKING:
    from detr_viz.findings import Findings

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
    meta           what made them (Findings.meta), with the scale and the modes
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


def save(
    path: str | Path,
    explanation: Findings,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layer: int | None = None,
    scale: str = "mode",
    recipe: str = "",
) -> Path:
    """Write the maps of these queries and modes; the same input gives the same bytes.

    Scores, labels and boxes are as the layer's own output gives them. recipe: a digest, see
    recipe.py.
    """
    path, ids = Path(path), list(queries)
    layer = explanation.pick_layer(layer)
    output = explanation.output(layer)
    meta = {**explanation.meta, "scale": scale, "modes": list(modes), "layer": layer}
    meta |= {"recipe_sha256": recipe} if recipe else {}
    arrays: dict[str, Any] = {
        f"maps_{mode}": explanation.maps(mode, ids, layer, scale) for mode in modes
    }
    arrays |= {
        "query_ids": np.asarray(ids, np.int64),
        "scores": output.scores[ids],
        "labels": output.labels[ids],
        "label_names": np.asarray(
            [explanation.class_names[output.labels[q]] for q in ids], np.str_
        ),
        "boxes_xyxy_px": output.boxes_xyxy_px[ids],
        "image_hw_px": np.asarray(explanation.image.hw, np.int64),
        "grid_hw": np.asarray(explanation.grid_hw, np.int64),
        "layers": np.asarray([layer], np.int64),
        "meta": np.asarray(json.dumps(meta, ensure_ascii=False, sort_keys=True)),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def load(path: str | Path) -> Heatmaps:
    """Read a file that `save` wrote; HeatmapError on anything else."""
    try:
        # opened here: numpy leaves its own handle open where the archive turns out broken
        with Path(path).open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it is a single array")
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays.get("meta", "{}")))
    except OSError as error:
        raise HeatmapError(f"cannot read saved maps {path}: {reason(error)}") from error
    except Exception as error:  # a damaged archive can raise anything
        raise HeatmapError(f"{path} is not a file of saved maps (.npz): {reason(error)}") from error
    return _check(path, arrays, meta)


def _check(path: str | Path, arrays: dict[str, Any], meta: Any) -> Heatmaps:
    missing = [name for name in (*_FIELDS, "meta") if name not in arrays]
    if missing:
        raise HeatmapError(f"{path} lacks {', '.join(missing)}: it was not written by --save-maps")
    if not isinstance(meta, dict) or meta.get("schema_version") != 1:
        found = meta.get("schema_version") if isinstance(meta, dict) else None
        raise HeatmapError(f"{path} has schema version {found}; this detr_viz reads version 1")
    for name, (dtype, ndim) in _FIELDS.items():
        array = arrays[name]
        if not np.issubdtype(array.dtype, dtype) or array.ndim != ndim:
            raise HeatmapError(
                f"{path}: {name} is {array.dtype} {array.shape}: not schema version 1"
            )
    maps = {
        name.removeprefix("maps_"): array
        for name, array in arrays.items()
        if name.startswith("maps_")
    }
    expected = (len(arrays["query_ids"]), meta.get("num_heads"), *arrays["grid_hw"].tolist())
    for mode, array in maps.items():
        if array.shape != expected or array.dtype != np.float32:
            raise HeatmapError(
                f"{path}: maps_{mode} is {array.dtype} {array.shape}, expected float32 {expected}"
            )
    return Heatmaps(maps=maps, meta=meta, **{name: arrays[name] for name in _FIELDS})
