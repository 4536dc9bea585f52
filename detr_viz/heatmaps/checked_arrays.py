"""The arrays of saved maps, each checked: type, shape, and values that can be weights or points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.heatmaps.schema import (
    CELLS,
    MOST_CELLS,
    MOST_POINTS,
    ROUNDING,
    TRUTH,
    HeatmapError,
    no_weights,
    rounding,
)
from detr_viz.heatmaps.stores import STORES


class CheckedArrays:
    """Gives the arrays of a file's maps; HeatmapError at the first one that is wrong."""

    def __init__(self, path: str | Path, arrays: dict[str, NDArray[Any]], meta: Any) -> None:
        self._path, self._arrays, self._meta = path, arrays, meta

    def _wrong(self, words: str) -> HeatmapError:
        return HeatmapError(f"{self._path}{words}")

    @property
    def _version(self) -> int:
        return self._meta["schema_version"]

    @property
    def _not_ours(self) -> str:
        return f"not schema version {self._version}"

    def _stored(self, name: str, shape: tuple[int, ...], store: object) -> NDArray[Any]:
        """An array that must exist, with this type and shape."""
        if name not in self._arrays:
            raise self._wrong(f" lacks {name[:60]}: write it again")
        array = self._arrays[name]
        if store not in STORES or array.shape != shape or array.dtype != np.dtype(store):
            raise self._wrong(
                f": {name[:60]} is {array.dtype} {array.shape}, expected {str(store)[:20]} {shape}"
            )
        return array

    def _maps(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array = self._stored(name, shape, self._meta.get("store", "float32"))
        maps = array.astype(np.float32)
        if trouble := no_weights(maps, 1 + rounding(array)):
            raise self._wrong(f": {name[:60]} has {trouble}: write it again")
        return maps

    def _outside(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array = self._stored(name, shape, "float32")
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise self._wrong(f": {name[:60]} has values that are no weights: write it again")
        return array

    def _check_totals(
        self,
        mode: str,
        maps: NDArray[np.float32],
        outside: NDArray[np.float32],
        levels: tuple[NDArray[np.float32], ...],
    ) -> None:
        """Check that a map, and its levels together, sum to 1 with the part off the map."""
        name = f"maps_{mode}"
        stored = [self._arrays[f"{name}.l{k}"] for k in range(len(levels))]
        for parts, arrays in (((maps,), [self._arrays[name]]), (levels, stored)):
            total = outside + sum(part.sum((-2, -1)) for part in parts)
            allowed = ROUNDING + sum(rounding(array) - ROUNDING for array in arrays)
            if parts and (np.abs(total - 1) > allowed).any():
                words = name[:60] if parts[0] is maps else f"the levels of {name[:60]}"
                raise self._wrong(f": {words} and what is outside do not sum to 1: write it again")

    def _samples(
        self, mode: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Points (q, M, L, P, 2) and their weights (q, M, L, P)."""
        name = f"sample_weights_{mode}"
        actual = self._arrays[name].shape if name in self._arrays else ()
        points = actual[3] if len(actual) == 4 else 1
        if not 1 <= points <= MOST_POINTS:
            raise self._wrong(f": {name[:60]} has {points} points: 1 to {MOST_POINTS} are read")
        shape = (*shape, points)
        stored = self._stored(name, shape, self._meta.get("store", "float32"))
        samples = self._stored(f"samples_{mode}", (*shape, 2), "float32")
        if not np.isfinite(samples).all():
            raise self._wrong(f": samples_{mode[:60]} has values that are no numbers")
        weights = stored.astype(np.float32)
        if trouble := no_weights(weights, 1 + rounding(stored)):
            raise self._wrong(f": {name[:60]} has {trouble}: write it again")
        return samples, weights

    def _references(self, count: int) -> NDArray[np.float32] | None:
        """Reference points or boxes, which need not be there."""
        array = self._arrays.get("references_px")
        if array is None:
            return None
        if array.shape not in ((count, 2), (count, 4)) or array.dtype != np.float32:
            raise self._wrong(f": references_px is {array.dtype} {array.shape}: {self._not_ours}")
        if not np.isfinite(array).all():
            raise self._wrong(": references_px has values that are no numbers: write it again")
        return array

    def _cells(self, count: int) -> dict[str, NDArray[np.float32]]:
        """The arrays of cells of boxes; {} if there are none. All are there, or none is."""
        if not any(name in self._arrays for name in CELLS):
            return {}
        share = self._arrays.get("cells_share")
        side = share.shape[-1] if share is not None and share.ndim == 3 else 1
        if not 1 <= side <= MOST_CELLS:
            raise self._wrong(f": cells_share has {side} cells a side: 1 to {MOST_CELLS} are read")
        shapes = ((count, side, side), (count, 4), (count,))
        found = {
            name: self._stored(name, shape, "float32")
            for name, shape in zip(CELLS, shapes, strict=True)
        }
        for name, array in found.items():
            if not np.isfinite(array).all():
                raise self._wrong(f": {name} has values that are no numbers: write it again")
        share, bias_share = found["cells_share"], found["cells_bias_share"]
        total = share.sum((1, 2), dtype=np.float64) + bias_share
        allowed = ROUNDING * (1 + np.abs(share).sum((1, 2)))
        # without any output at all there is nothing to share, and all shares are 0
        empty = ~share.any((1, 2)) & (bias_share == 0)
        if ((np.abs(total - 1) > allowed) & ~empty).any():
            raise self._wrong(": cells_share and cells_bias_share do not sum to 1: write it again")
        return found

    def _axes(self, mode: str, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """row (q, M, w) and column (q, M, h), whose product is the map (q, M, h, w)."""
        store, shapes = self._meta.get("store", "float32"), (maps[:, :, 0], maps[..., 0])
        row, column = (
            self._stored(f"{axis}_{mode}", one.shape, store).astype(np.float32)
            for axis, one in zip(("row", "column"), shapes, strict=True)
        )
        if not (np.abs(column[..., None] * row[:, :, None] - maps) <= ROUNDING).all():
            raise self._wrong(f": maps_{mode[:60]} is not its column times its row: write it again")
        return row, column

    def _truth(self) -> dict[str, NDArray[Any]]:
        """The annotated objects of the image; {} where the file has none."""
        found = {name: self._arrays[name] for name in TRUTH if name in self._arrays}
        if not found:
            return {}
        if len(found) < len(TRUTH):
            missing = next(name for name in TRUTH if name not in found)
            raise self._wrong(f" lacks {missing}: write it again")
        count = len(found["truth_labels"]) if found["truth_labels"].ndim else 0
        for name, (dtype, ndim) in TRUTH.items():
            array, shape = found[name], (count, 4)[:ndim]
            if not np.issubdtype(array.dtype, dtype) or array.shape != shape:
                raise self._wrong(f": {name} is {array.dtype} {array.shape}: {self._not_ours}")
        if not np.isfinite(found["truth_boxes_xyxy_px"]).all():
            raise self._wrong(": truth_boxes_xyxy_px has values that are no numbers")
        return found
