"""The .npz format of saved maps, schema version 3: plain arrays and one JSON string, no pickles.

save("cat.npz", explanation, [3, 17], ["combine", "position"])
load("cat.npz").maps["position"]                # (2, heads, h, w)

The arrays are listed in schema.py. The meta has the CRC-32 of each array, which distinguishes a
damaged file from one with other maps. Maps may be in float16. Versions 1 and 2 are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import WHOLE
from detr_viz.common.errors import UserError
from detr_viz.common.files import reason, replacing
from detr_viz.heatmaps import safe_npz
from detr_viz.heatmaps.checked import Checked
from detr_viz.heatmaps.schema import (
    CELLS,
    SCHEMA_VERSION,
    HeatmapError,
    Heatmaps,
    lack,
    no_weights,
)
from detr_viz.heatmaps.stores import STORES

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

_MOST_BYTES = 1 << 27  # of all arrays: 900 queries x 8 heads x 3 modes at 25 x 34 are 73 MB


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

    Scores, labels and boxes are those of the layer's own output.
    """
    ids = list(queries)
    layer = explanation.pick_layer(layer)
    output = explanation.output(layer)
    meta = {**explanation.meta, "schema_version": SCHEMA_VERSION}
    meta |= {"scale": scale, "modes": list(modes), "layer": layer, **more}
    place = _grids(explanation, layer)
    maps = {mode: explanation.maps(mode, ids, layer, scale) for mode in modes}
    points = {mode: _samples(explanation, mode, ids, layer) for mode in modes}
    products = maps if place["kind"] == "factored" else {}  # an axis is the map's sum along it
    return Heatmaps(
        maps=maps,
        levels={
            mode: _levels(explanation, mode, ids, layer, scale, len(place["strides"]))
            for mode in modes
        },
        outside={
            mode: np.zeros(array.shape[:2], np.float32)
            if place["kind"] in WHOLE
            else _outside(explanation, mode, ids, layer, scale)
            for mode, array in maps.items()
        },
        samples={mode: pair[0] for mode, pair in points.items() if pair is not None},
        sample_weights={mode: pair[1] for mode, pair in points.items() if pair is not None},
        references_px=_references(explanation, ids, layer) if place["kind"] == "sampled" else None,
        rows={mode: array.sum(-2) for mode, array in products.items()},
        columns={mode: array.sum(-1) for mode, array in products.items()},
        **(_cells(explanation, ids, layer) if place["kind"] == "roi" else {}),
        query_ids=np.asarray(ids, np.int64),
        scores=output.scores[ids],
        labels=output.labels[ids],
        label_names=np.asarray([explanation.class_names[output.labels[q]] for q in ids], np.str_),
        boxes_xyxy_px=output.boxes_xyxy_px[ids],
        image_hw_px=np.asarray(explanation.image.hw, np.int64),
        layers=np.asarray([layer], np.int64),
        meta=meta,
        **place,
    )


# ---- facts of an explanation's attention ---------------------------------------------------------


def _grids(e: ExplanationBase, layer: int) -> dict[str, Any]:
    """The fields of Heatmaps for the grids and the kind of attention."""
    grids = e.grids(layer)
    input_hw = grids[0].input_hw
    return {
        "grid_hw": np.asarray([grid.hw for grid in grids], np.int64),
        "strides": np.asarray([grid.stride for grid in grids], np.int64),
        "kind": e.kind(layer),
        "valid_hw_px": np.asarray(grids[0].valid_hw or input_hw, np.int64),
        "input_hw_px": np.asarray(input_hw, np.int64),
    }


def _levels(
    e: ExplanationBase, mode: str, ids: list[int], layer: int, scale: str, count: int
) -> tuple[NDArray[np.float32], ...]:
    """The maps of each level alone; () if there is only one level."""
    if count == 1:
        return ()
    levels = (e.maps(mode, ids, layer, scale, level=k) for k in range(count))
    return tuple(np.asarray(maps, np.float32) for maps in levels)


def _outside(
    e: ExplanationBase, mode: str, ids: list[int], layer: int, scale: str
) -> NDArray[np.float32]:
    """The mass off the map (q, heads); at least 0, since rounding could make it negative."""
    mass = np.asarray(e.outside(mode, ids, layer, scale), np.float32)
    return np.maximum(mass, 0)


def _samples(
    e: ExplanationBase, mode: str, ids: list[int], layer: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Points (q, heads, L, P, 2) and weights (q, heads, L, P), or None if there are no samples."""
    samples = e.samples(mode, ids, layer)
    if samples is None:
        return None
    points, weights = samples
    return np.asarray(points, np.float32), np.asarray(weights, np.float32)


def _references(e: ExplanationBase, ids: list[int], layer: int) -> NDArray[np.float32] | None:
    """Reference points or boxes of these queries; None if the network has none."""
    references = e.references(layer)
    return None if references is None else np.asarray(references[ids], np.float32)


def _cells(e: ExplanationBase, ids: list[int], layer: int) -> dict[str, NDArray[np.float32]]:
    """The fields of Heatmaps for cells of boxes; {} if there are none."""
    found = e.cells(ids, layer)
    if found is None:
        return {}
    share, boxes, bias_share = found
    return dict(zip(CELLS, (share[:, 0], boxes, bias_share), strict=True))


def of_arrays(maps: Mapping[str, NDArray[Any]], **meta: Any) -> Heatmaps:
    """Heatmaps from plain arrays (q, heads, h, w) by mode, for queries 0, 1, ... without classes.

    They count as dense attention on one grid, whose position in the image is not known.
    ValueError if shapes differ, or weights are negative or NaN, or sum to more than 1.
    """
    arrays = {mode: np.asarray(array, np.float32) for mode, array in maps.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 4 or not min(shape[1:]):
        raise ValueError(f"maps of one shape (q, heads, h, w) are needed, not {sorted(shapes)}")
    for mode, array in arrays.items():
        if trouble := no_weights(array):
            raise ValueError(f"{mode} has {trouble}: weights are those of a softmax")
    count, heads, height, width = shape
    return Heatmaps(
        maps=arrays,
        levels={mode: () for mode in arrays},
        outside={mode: lack(array) for mode, array in arrays.items()},
        query_ids=np.arange(count),
        scores=np.zeros(count, np.float32),
        labels=np.zeros(count, np.int64),
        label_names=np.asarray([""] * count, np.str_),
        boxes_xyxy_px=np.tile(np.asarray([0, 0, 1, 1], np.float32), (count, 1)),
        image_hw_px=np.ones(2, np.int64),
        grid_hw=np.asarray([[height, width]], np.int64),
        strides=np.zeros(1, np.int64),
        kind="dense",
        valid_hw_px=np.zeros(2, np.int64),
        input_hw_px=np.zeros(2, np.int64),
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

    store: float16 halves the file, with errors of at most STORED_WITHIN. HeatmapError for content
    that `load` would reject: invalid maps, a repeated query, too many bytes.
    """
    if store not in STORES:
        raise UserError(f"maps are stored as {' or '.join(STORES)}, not {store}")
    path = Path(path)
    arrays = heatmaps.arrays(store)
    meta = {**heatmaps.meta, "schema_version": SCHEMA_VERSION}
    meta |= {"store": store, "crc32": safe_npz.checksums(arrays)}
    size = sum(array.nbytes for array in arrays.values())
    if size > _MOST_BYTES:
        raise HeatmapError(
            f"{path} would hold {size:,} bytes of maps, and {_MOST_BYTES:,} are read: choose fewer "
            "queries or modes, a smaller size, or float16"
        )
    Checked(path, dict(arrays), meta).heatmaps()
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
    """Read a file that `save` wrote; HeatmapError on any other file."""
    arrays, meta = _read(path)
    return Checked(path, arrays, meta).heatmaps()


def load_meta(path: str | Path) -> dict[str, Any]:
    """The meta only, which is fast; HeatmapError if the meta is wrong."""
    _, meta = _read(path, "meta")
    Checked(path, {}, meta).check_version()
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
