"""Differences between two saved files: maps head by head, mass off the map, samples, queries.

pairs: (index in old, index in new) of the queries that are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import WHOLE
from detr_viz.detections.boxes import iou
from detr_viz.heatmaps.distances import Distances, distances
from detr_viz.heatmaps.limits import Limits
from detr_viz.heatmaps.schema import STORED_WITHIN, Heatmaps

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class HeadChange:
    """The change of one head's map of one query; fields as in distances.Distances.

    query, other: ids of the query in the old and the new file.
    level: of the map; None for the map on the finest grid, of all levels together.
    excess: change divided by limit, the largest of several; above 1 it is too large.
    """

    mode: str
    layer: int
    query: int
    other: int
    label: str
    head: int
    max_abs: float
    total_variation: float
    jensen_shannon: float
    peak_shift: float
    centroid_shift: float
    excess: float
    level: int | None = None


@dataclass(frozen=True)
class PartChange:
    """A change of one head's attention of one query that its map does not show.

    part           "outside": mass off the map; "point": a sampling point; "weight": of a point;
                   "cell": the share of a cell of the query's box
    level, point   of the point that moved farthest; None for "outside". Of a cell its number, row
                   by row, and no level
    change         of a mass or a weight, 0 to 1; of a point in cells of its level
    """

    mode: str
    layer: int
    query: int
    other: int
    label: str
    head: int
    part: str
    level: int | None
    point: int | None
    change: float
    excess: float


@dataclass(frozen=True)
class QueryChange:
    """A query before and after: ids, class names, scores, overlap of the boxes."""

    query: int
    other: int
    labels: tuple[str, str]
    scores: tuple[float, float]
    iou: float
    excess: float


def head_changes(
    old: Heatmaps, new: Heatmaps, pairs: Pairs, limits: Limits
) -> Iterator[HeadChange]:
    """The change of every map of these queries, and with several levels also of each level."""
    if not pairs:
        return
    rounding = _rounding(old, new)
    atol = limits.atol + rounding
    olds, news = (list(places) for places in zip(*pairs, strict=True))
    for mode in old.maps:
        before = (old.maps[mode], *old.levels.get(mode, ()))
        after = (new.maps[mode], *new.levels.get(mode, ()))
        for k, (a, b) in enumerate(zip(before, after, strict=True)):
            apart = distances(a[olds], b[news], atol)
            if old.kind not in WHOLE:
                apart = _without_empty(apart, a[olds], b[news], atol)
            shift = np.maximum(apart.peak_shift, apart.centroid_shift)
            excess = np.max(
                [
                    _used(apart.max_abs, atol),
                    _used(apart.total_variation, limits.max_tv + rounding),
                    _used(shift, limits.max_shift),
                ],
                axis=0,
            )
            columns = {f.name: getattr(apart, f.name).tolist() for f in fields(apart)}
            for n, row in enumerate(excess.tolist()):
                where = _where(old, new, mode, olds[n], news[n])
                level = k - 1 if k else None
                for head, most in enumerate(row):
                    numbers = {name: column[n][head] for name, column in columns.items()}
                    yield HeadChange(**where, head=head, **numbers, excess=most, level=level)


def _without_empty(apart: Distances, p: NDArray, q: NDArray, atol: float) -> Distances:
    """The same with a centroid_shift of 0 for maps almost without mass, which is only noise."""
    mass = np.minimum(p.sum((-2, -1)), q.sum((-2, -1)))
    return replace(apart, centroid_shift=np.where(mass > atol, apart.centroid_shift, 0.0))


def part_changes(
    old: Heatmaps, new: Heatmaps, pairs: Pairs, limits: Limits
) -> Iterator[PartChange]:
    """Changes of the mass off the map, and the largest changes of a sampling point and of a weight.

    None for the kinds WHOLE, which have no points and no mass off the map.
    """
    if not pairs or old.kind in WHOLE:
        return
    olds, news = (list(places) for places in zip(*pairs, strict=True))
    atol = limits.atol + _rounding(old, new)
    sizes = old.grid_hw[:, None, ::-1].astype(np.float64)  # (L, 1, 2): w, h
    for mode in old.maps:
        apart = np.abs(_apart(old.outside[mode][olds], new.outside[mode][news]))
        changes = {"outside": (apart[:, :, None, None], limits.atol)}
        if mode in old.samples:
            shifts = _apart(old.samples[mode][olds], new.samples[mode][news]) * sizes
            changes["point"] = (np.hypot(shifts[..., 0], shifts[..., 1]), limits.max_shift)
            weights = (old.sample_weights[mode][olds], new.sample_weights[mode][news])
            changes["weight"] = (np.abs(_apart(*weights)), atol)
        if old.cells_share is not None and new.cells_share is not None:
            shares = _apart(old.cells_share[olds], new.cells_share[news])
            cells = np.abs(shares).reshape(len(olds), 1, 1, -1)
            changes["cell"] = (cells, limits.atol)
        for part, (change, limit) in changes.items():
            yield from _parts(old, new, mode, pairs, part, change, limit)


def _parts(
    old: Heatmaps,
    new: Heatmaps,
    mode: str,
    pairs: Pairs,
    part: str,
    change: NDArray[np.float64],
    limit: float,
) -> Iterator[PartChange]:
    """The largest of change (q, M, L, P) for each query and head."""
    flat = change.reshape(*change.shape[:2], -1)
    places, most = flat.argmax(-1), flat.max(-1)
    excess = _used(most, limit)
    for n, (i, j) in enumerate(pairs):
        where = _where(old, new, mode, i, j)
        for head in range(flat.shape[1]):
            level, point = divmod(int(places[n, head]), change.shape[-1])
            yield PartChange(
                **where,
                head=head,
                part=part,
                level=None if part in ("outside", "cell") else level,
                point=None if part == "outside" else point,
                change=float(most[n, head]),
                excess=float(excess[n, head]),
            )


def _apart(old: NDArray, new: NDArray) -> NDArray[np.float64]:
    return new.astype(np.float64) - old.astype(np.float64)


def _rounding(old: Heatmaps, new: Heatmaps) -> float:
    """Largest rounding error of the weights, which is not 0 for those stored as float16."""
    return sum(STORED_WITHIN[str(maps.meta.get("store", "float32"))] for maps in (old, new))


def _where(old: Heatmaps, new: Heatmaps, mode: str, i: int, j: int) -> dict[str, Any]:
    return {
        "mode": mode,
        "layer": int(old.layers[0]),
        "query": int(old.query_ids[i]),
        "other": int(new.query_ids[j]),
        "label": str(old.label_names[i]),
    }


def _used(value: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """value / limit; with a limit of 0: inf for any change; inf for NaN too."""
    used = value / limit if limit > 0 else np.where(value > 0, np.inf, 0.0)
    return np.where(np.isfinite(value), used, np.inf)


def query_change(old: Heatmaps, new: Heatmaps, i: int, j: int, limits: Limits) -> QueryChange:
    """The change of a query's box, class and score."""
    boxes = box_shares(old)[[i]], box_shares(new)[[j]]
    # the iou of a box without area is 0, even with itself
    overlap = 1.0 if np.array_equal(*boxes) else float(iou(*boxes)[0, 0])
    scores = float(old.scores[i]), float(new.scores[j])
    labels = str(old.label_names[i]), str(new.label_names[j])
    excess = max(
        float(_used(np.asarray(1 - overlap), 1 - limits.min_iou)),
        float(_used(np.asarray(abs(scores[0] - scores[1])), limits.max_score)),
    )
    return QueryChange(
        query=int(old.query_ids[i]),
        other=int(new.query_ids[j]),
        labels=labels,
        scores=scores,
        iou=overlap,
        excess=float("inf") if labels[0] != labels[1] else excess,
    )


def box_shares(maps: Heatmaps) -> NDArray[np.float64]:
    """Boxes as fractions of the image, since its size may have changed."""
    height, width = maps.image_hw_px
    return maps.boxes_xyxy_px / np.asarray([width, height, width, height], np.float64)
