"""The content of a file of saved maps, checked completely, since it may come from anywhere.

Checked("cat.npz", arrays, meta).heatmaps()     # Heatmaps, or HeatmapError of one line
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from detr_viz.common.bounds import beyond, bound
from detr_viz.heatmaps import safe_npz
from detr_viz.heatmaps.checked_arrays import CheckedArrays
from detr_viz.heatmaps.schema import (
    FIELDS,
    KINDS,
    MORE_FIELDS,
    MOST_LEVELS,
    SCHEMA_VERSION,
    Heatmaps,
    lack,
    of_a_view,
)

_PREFIXES = ("maps_", "outside_", "samples_", "sample_weights_", "row_", "column_")
_LEVEL = re.compile(r"\.l\d+\Z")  # the end of the name of one level's maps


class Checked(CheckedArrays):
    """Checks the content of a file; `heatmaps` raises HeatmapError at the first error."""

    def heatmaps(self) -> Heatmaps:
        self._check_meta()
        self._check_fields()
        self._check_crc32()
        modes = self._modes()
        if len(modes) > bound("modes"):
            raise self._wrong(f" has {beyond('modes', len(modes))}")
        if not modes:
            raise self._wrong(" has no maps: write it again")
        heads = self._meta.get("num_heads")
        if type(heads) is not int or heads < 1:
            raise self._wrong(f": {str(heads)[:20]} heads: write it again")
        rows = (len(self._arrays["query_ids"]), heads)
        if rows[0] > bound("queries"):
            raise self._wrong(f" has {beyond('queries', rows[0])}")
        grids = self._grids()
        maps = {m: self._maps(f"maps_{m}", (*rows, *grids[0])) for m in modes}
        fields = {name: self._arrays[name] for name in FIELDS}
        if self._version < 3:
            fields |= self._fields_from_meta()
            return Heatmaps(
                maps=maps,
                meta=self._meta,
                levels={m: () for m in modes},
                outside={m: lack(array) for m, array in maps.items()},
                **fields,
            )
        levels, outside, samples, weights, axes = {}, {}, {}, {}, {}
        for m in modes:
            shapes = [(*rows, *hw) for hw in (grids if len(grids) > 1 else [])]
            levels[m] = tuple(self._maps(f"maps_{m}.l{k}", shape) for k, shape in enumerate(shapes))
            outside[m] = self._outside(f"outside_{m}", rows)
            self._check_totals(m, maps[m], outside[m], levels[m])
            if {f"samples_{m}", f"sample_weights_{m}"} & self._arrays.keys():
                samples[m], weights[m] = self._samples(m, (*rows, len(grids)))
            if {f"row_{m}", f"column_{m}"} & self._arrays.keys():
                axes[m] = self._axes(m, maps[m])
        self._check_names(modes, len(grids))
        fields |= {name: self._arrays[name] for name in MORE_FIELDS}
        fields["kind"] = str(fields["kind"])
        fields["references_px"] = self._references(rows[0])
        fields |= self._cells(rows[0])
        fields["truth"] = self._truth()
        return Heatmaps(
            maps=maps,
            meta=self._meta,
            levels=levels,
            outside=outside,
            samples=samples,
            sample_weights=weights,
            rows={m: row for m, (row, _) in axes.items()},
            columns={m: column for m, (_, column) in axes.items()},
            **fields,
        )

    def check_version(self) -> None:
        version = self._meta.get("schema_version") if isinstance(self._meta, dict) else None
        if type(version) is int and version > SCHEMA_VERSION:
            raise self._wrong(
                f" has schema version {version}, this detr_viz reads up to {SCHEMA_VERSION}: "
                "it was written by a newer detr_viz, install that"
            )
        if type(version) is not int or version < 1:
            raise self._wrong(f" has schema version {str(version)[:40]}: write it again")

    # ---- the fields -------------------------------------------------------------------------

    def _check_meta(self) -> None:
        if words := of_a_view(self._meta):
            raise self._wrong(words)
        self._check_there(FIELDS)
        self.check_version()
        if self._version >= 3:
            self._check_there(MORE_FIELDS)
        if len(self._arrays) >= safe_npz.MOST_MEMBERS:  # the meta is one more
            raise self._wrong(f" has {len(self._arrays)} arrays: choose fewer modes")

    def _check_there(self, names: Mapping[str, Any]) -> None:
        missing = [name for name in names if name not in self._arrays]
        if missing:
            raise self._wrong(f" lacks {', '.join(missing)}: it was not written by --save-maps")

    def _check_fields(self) -> None:
        wanted = {**FIELDS, **MORE_FIELDS} if self._version >= 3 else FIELDS | _OLD_FIELDS
        for name, (dtype, ndim) in wanted.items():
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
        sizes |= {"boxes_xyxy_px": (count, 4), "image_hw_px": (2,), "layers": (1,)}
        sizes |= self._sizes_of_grids()
        for name, shape in sizes.items():
            if self._arrays[name].shape != shape:
                actual = self._arrays[name].shape
                raise self._wrong(f": {name} is {actual}, expected {shape}: {self._not_ours}")
        for name in ("image_hw_px", "grid_hw"):
            if (self._arrays[name] < 1).any():
                raise self._wrong(f": {name} has none: write it again")
        if self._version >= 3:
            self._check_grids()

    def _sizes_of_grids(self) -> dict[str, tuple[int, ...]]:
        if self._version < 3:
            return {"grid_hw": (2,)}
        levels = len(self._arrays["grid_hw"])
        if not 1 <= levels <= MOST_LEVELS:
            raise self._wrong(f" has {levels} levels: 1 to {MOST_LEVELS} are read")
        sizes = {"grid_hw": (levels, 2), "strides": (levels,), "kind": ()}
        return sizes | {"valid_hw_px": (2,), "input_hw_px": (2,)}

    def _check_grids(self) -> None:
        kind = str(self._arrays["kind"])
        if kind not in KINDS:
            raise self._wrong(f": attention of kind {kind[:20]!r}: one of {', '.join(KINDS)}")
        for name in ("strides", "valid_hw_px"):
            if (self._arrays[name] < 0).any():
                raise self._wrong(f": {name} is below 0: write it again")
        if (self._arrays["valid_hw_px"] > self._arrays["input_hw_px"]).any():
            raise self._wrong(": valid_hw_px is more than input_hw_px: write it again")
        cells = [height * width for height, width in self._grids()]
        if cells != sorted(cells, reverse=True):
            raise self._wrong(": its levels do not come finest first: write it again")

    def _grids(self) -> list[list[int]]:
        """[h, w] of each level."""
        return self._arrays["grid_hw"].reshape(-1, 2).tolist()

    def _fields_from_meta(self) -> dict[str, Any]:
        """The fields of version 3 of an older file: one level of dense attention."""
        stride, how = self._meta.get("stride_px"), self._meta.get("preprocessing")
        given = how.get("input_hw_px") if isinstance(how, dict) else None
        sound = isinstance(given, list) and len(given) == 2 and all(map(_is_size, given))
        input_hw = np.asarray(given if sound else [0, 0], np.int64)
        return {
            "grid_hw": self._arrays["grid_hw"].reshape(1, 2),
            "strides": np.asarray([stride if _is_size(stride) else 0], np.int64),
            "kind": "dense",
            "valid_hw_px": input_hw,
            "input_hw_px": input_hw,
        }

    def _check_crc32(self) -> None:
        """Check that the arrays have not changed since they were written; version 1 has no sums."""
        if self._version < 2:
            return
        in_meta = self._meta.get("crc32")
        for name, crc32 in safe_npz.checksums(self._arrays).items():
            if not isinstance(in_meta, dict) or in_meta.get(name) != crc32:
                raise self._wrong(f" is damaged: the CRC-32 of {name[:60]} is not the one it had")
        gone = [name for name in in_meta if name not in self._arrays]
        if gone:
            raise self._wrong(f" is damaged: it has no {gone[0][:60]} any more")

    # ---- the names of the maps -----------------------------------------------------------------

    def _modes(self) -> list[str]:
        """Names of the modes. In files of several levels, names that end in ".l0" are levels."""
        several = self._version >= 3 and len(self._arrays["grid_hw"]) > 1
        names = [name for name in self._arrays if name.startswith("maps_")]
        return [n.removeprefix("maps_") for n in names if not (several and _LEVEL.search(n))]

    def _check_names(self, modes: list[str], levels: int) -> None:
        """Check that every array of a map belongs to a mode."""
        known = {f"{prefix}{mode}" for prefix in _PREFIXES for mode in modes}
        if levels > 1:
            known |= {f"maps_{mode}.l{k}" for mode in modes for k in range(levels)}
        for name in self._arrays:
            if name.startswith(_PREFIXES) and name not in known:
                raise self._wrong(f": {name[:60]} belongs to no map: write it again")


_OLD_FIELDS = {"grid_hw": (np.int64, 1)}  # of versions 1 and 2


def _is_size(value: object) -> bool:
    """Whether a value from JSON is a number of pixels."""
    return type(value) is int and 1 <= value < 2**31
