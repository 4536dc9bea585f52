"""The content of a file of saved maps: its fields, its versions, and valid attention weights.

The arrays of version 3; q queries, M heads, L levels (finest first), h x w the finest grid.

    maps_<mode>            (q, M, h, w); for several levels their sum, coarse cells spread evenly
    maps_<mode>.l<k>       (q, M, h_k, w_k) of level k, only if L > 1
    outside_<mode>         float32 (q, M): the mass off the map; with the map it sums to 1
    samples_<mode>         float32 (q, M, L, P, 2), and
    sample_weights_<mode>  (q, M, L, P): only for attention that samples points
    row_<mode>             (q, M, w), and
    column_<mode>          (q, M, h): only for maps that are column times row
    references_px          float32 (q, 2) or (q, 4): only for attention that samples points
    cells_share            float32 (q, n, n), signed, and
    cells_boxes            float32 (q, 4), and
    cells_bias_share       float32 (q,): only for attention that reads cells of boxes
    truth_boxes_xyxy_px    float64 (n, 4), and
    truth_labels           int64 (n,), and
    truth_names            (n,) and
    truth_crowd            (n,): the annotated objects of the image, only if asked for

Versions 1 and 2 have one level, no `outside` and none of the fields of MORE_FIELDS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.errors import UserError
from detr_viz.common.short_repr import ShortRepr

SCHEMA_VERSION = 3
KINDS = ("dense", "sampled", "factored", "roi", "joint")
# Largest absolute rounding error. float16 keeps 11 bits of values up to 1; near 0 steps of 6e-8.
STORED_WITHIN = {"float32": 0.0, "float16": 2.0**-12}
ROUNDING = 1e-3  # allowed in the sum of a map
MOST_LEVELS = 16
MOST_POINTS = 1024  # for a head on one level
MOST_CELLS = 64  # of a box along an axis
TRUTH = {  # name -> (dtype, number of dimensions)
    "truth_boxes_xyxy_px": (np.float64, 2),
    "truth_labels": (np.int64, 1),
    "truth_names": (np.str_, 1),
    "truth_crowd": (np.bool_, 1),
}
CELLS = ("cells_share", "cells_boxes", "cells_bias_share")
_TINY_STEP = 2.0**-24  # of float16 below 6e-5; there all cells of a flat map round the same way
FIELDS = {  # name -> (dtype, number of dimensions); of every version
    "query_ids": (np.int64, 1),
    "scores": (np.float32, 1),
    "labels": (np.int64, 1),
    "label_names": (np.str_, 1),
    "boxes_xyxy_px": (np.float32, 2),
    "image_hw_px": (np.int64, 1),
    "grid_hw": (np.int64, 2),
    "layers": (np.int64, 1),
}
MORE_FIELDS = {  # since version 3
    "strides": (np.int64, 1),
    "kind": (np.str_, 0),
    "valid_hw_px": (np.int64, 1),
    "input_hw_px": (np.int64, 1),
}
VIEWS = {  # "view" in the meta of files that are no maps of heads -> the flags that wrote them
    "rollout": "--rollout",
    "rollout_encoder": "--rollout --attention encoder",
    "encoder": "--attention encoder",
    "decoder": "--attention decoder",
    "terms": "--plot terms",
}


class HeatmapError(UserError):
    """A file of saved maps that cannot be read."""


@dataclass(frozen=True, eq=False, repr=False)
class Heatmaps(ShortRepr):
    """Saved maps of q queries at one decoder layer, by M heads, on L levels (finest first).

    maps            mode -> float32 (q, M, h, w) on the finest grid
    outside         mode -> float32 (q, M): the mass off the map; with the map it sums to 1. 0 for
                    dense attention; for plain arrays and older files 1 minus the map's sum
    query_ids, scores, labels, label_names   (q,)
    boxes_xyxy_px   float32 (q, 4), pixels of the original image
    image_hw_px     int64 (2,)
    grid_hw         int64 (L, 2): the network's own grids, padding included
    strides         int64 (L,): pixels of the network input from cell to cell; 0 if not known
    kind            of attention, one of KINDS
    valid_hw_px     int64 (2,): pixels of the network input that show the image, from its top left
    input_hw_px     int64 (2,): the network input with its padding; both 0 if not known
    layers          int64 (1,), from 0
    meta            how they were computed (ExplanationBase.meta), with the scale and the modes
    levels          mode -> float32 (q, M, h_k, w_k) of each level; () if there is only one
    samples         mode -> float32 (q, M, L, P, 2): x, y of each point as fractions of the level's
                    whole grid; below 0 or above 1 it is outside
    sample_weights  mode -> float32 (q, M, L, P); both are empty if no points are sampled
    rows, columns   mode -> float32 (q, M, w) and (q, M, h), whose product is the map; both are
                    empty unless the kind is "factored"
    references_px   float32 (q, 2) x, y of the points around which they are, as they enter the
                    layer, or (q, 4) x0, y0, x1, y1 of boxes; pixels of the original image
    cells_share     float32 (q, n, n): what each cell of a query's box adds, signed; row 0 is the
                    top. With cells_bias_share (q,) the shares of a query sum to 1
    cells_boxes     float32 (q, 4): the boxes x0, y0, x1, y1 that were read, pixels of the original
                    image; these three are None unless the kind is "roi"
    truth           the arrays of TRUTH: annotated objects; label -1: a class the model does not
                    have. Empty unless they were asked for
    """

    maps: Mapping[str, NDArray[np.float32]]  # (q, M, h, w)
    outside: Mapping[str, NDArray[np.float32]]  # (q, M)
    query_ids: NDArray[np.int64]  # (q,)
    scores: NDArray[np.float32]  # (q,)
    labels: NDArray[np.int64]  # (q,)
    label_names: NDArray[np.str_]  # (q,)
    boxes_xyxy_px: NDArray[np.float32]  # (q, 4)
    image_hw_px: NDArray[np.int64]  # (2,)
    grid_hw: NDArray[np.int64]  # (L, 2)
    strides: NDArray[np.int64]  # (L,)
    kind: str
    valid_hw_px: NDArray[np.int64]  # (2,)
    input_hw_px: NDArray[np.int64]  # (2,)
    layers: NDArray[np.int64]  # (1,)
    meta: Mapping[str, Any]
    # (q, M, h, w) of each level
    levels: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)
    samples: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (q, M, L, P, 2)
    sample_weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (q, M, L, P)
    rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (q, M, w)
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (q, M, h)
    references_px: NDArray[np.float32] | None = None  # (q, 2 or 4)
    cells_share: NDArray[np.float32] | None = None  # (q, n, n)
    cells_boxes: NDArray[np.float32] | None = None  # (q, 4)
    cells_bias_share: NDArray[np.float32] | None = None  # (q,)
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (n, 4) and (n,)

    @property
    def hw(self) -> tuple[int, int]:
        """(h, w) of the finest grid, in cells."""
        height, width = self.grid_hw[0].tolist()
        return height, width

    def arrays(self, store: str) -> dict[str, NDArray[Any]]:  # (as of the fields)
        """The arrays of a file by name. store: one of STORES, for all but outside and samples."""
        arrays = {f"maps_{mode}": maps.astype(store) for mode, maps in self.maps.items()}
        for mode, parts in self.levels.items():
            arrays |= {f"maps_{mode}.l{k}": part.astype(store) for k, part in enumerate(parts)}
        arrays |= {f"outside_{mode}": array for mode, array in self.outside.items()}
        arrays |= {f"samples_{mode}": array for mode, array in self.samples.items()}
        for mode, array in self.sample_weights.items():
            arrays[f"sample_weights_{mode}"] = array.astype(store)
        arrays |= {f"row_{mode}": array.astype(store) for mode, array in self.rows.items()}
        arrays |= {f"column_{mode}": array.astype(store) for mode, array in self.columns.items()}
        if self.references_px is not None:
            arrays["references_px"] = self.references_px
        if self.cells_share is not None:
            arrays |= {name: getattr(self, name) for name in CELLS}
        arrays |= self.truth
        return arrays | {n: np.asarray(getattr(self, n)) for n in (*FIELDS, *MORE_FIELDS)}


def of_a_view(meta: object) -> str:
    """What a file is that is not of saved maps, but has the numbers of a view; "" for others."""
    view = meta.get("view") if isinstance(meta, dict) else None
    if not isinstance(view, str):
        return ""
    flags = VIEWS.get(view, "a view of its own")
    return (
        f" holds the numbers of {flags}, not maps of heads: read it with numpy, or save maps "
        "without that"
    )


def rounding(maps: NDArray[Any]) -> float:
    """Largest rounding error of the sum of a map (..., h, w), by the type it is stored in."""
    cells = maps.shape[-2] * maps.shape[-1]
    return ROUNDING + (cells * _TINY_STEP / 2 if maps.dtype == np.float16 else 0.0)


def no_weights(maps: NDArray[Any], most: float = 1 + ROUNDING) -> str:
    """The fault of weights (..., h, w) of unknown origin in words, or "".

    most: the largest allowed sum over (h, w).
    """
    if not (np.isfinite(maps).all() and (maps >= 0).all()):
        return "values that are no weights"
    # less than 1 if a part falls off the map; a little more than 1 by rounding
    return "maps of more than 1 in all" if (maps.sum((-2, -1)) > most).any() else ""


def lack(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 minus the sum of maps (..., h, w), (...); 0 if it is only rounding."""
    missing = 1 - maps.sum((-2, -1))
    return np.where(missing > ROUNDING, missing, 0).astype(np.float32)
