"""Two saved files of maps, compared: how far apart, whether that is too far, and what lies behind.

verdict = judge(load("old.npz"), load("new.npz"))
verdict.same, verdict.heads[0], verdict.changed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detr_viz.detections.boxes import iou
from detr_viz.detections.matching import assign
from detr_viz.heatmaps.distances import distances
from detr_viz.heatmaps.limits import Limits, between
from detr_viz.heatmaps.patterns import likeness
from detr_viz.heatmaps.reasons import reasons
from detr_viz.heatmaps.schema import STORED_WITHIN, Heatmaps

STATES = ("same", "different", "not run")  # of an outcome


@dataclass(frozen=True)
class HeadChange:
    """How far one head's map of one query has moved; fields as in distances.Distances.

    query, other: its ids in the old and the new file.
    excess: the largest share of a limit that is used up; over 1 it is too far.
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


@dataclass(frozen=True)
class QueryChange:
    """A query and the one that it is compared with: ids, class names, scores, overlap of boxes."""

    query: int
    other: int
    labels: tuple[str, str]
    scores: tuple[float, float]
    iou: float
    excess: float


@dataclass(frozen=True)
class Comparison:
    """What a comparison has found.

    heads, queries   worst first
    gone, new        queries that only the old, only the new file has
    cannot           why maps could not be compared at all, else ""
    changed          what else is not as it was, in words: weights, image, recipe, versions
    likeness         what the change looks like, in words: heads that changed places
    limits           by which it was judged; rounding of float16 comes on top
    other_weights    whether the file of weights is another, and that alone is a difference
    known_inputs     whether the files say which weights and image they are of
    """

    heads: tuple[HeadChange, ...]
    queries: tuple[QueryChange, ...]
    gone: tuple[int, ...]
    new: tuple[int, ...]
    cannot: str
    changed: tuple[str, ...]
    limits: Limits
    likeness: tuple[str, ...] = ()
    other_weights: bool = False
    known_inputs: bool = True

    @property
    def same(self) -> bool:
        """Whether nothing is further apart than the limits allow."""
        others = self.cannot or self.gone or self.new or self.other_weights
        return self.used <= 1 and not others

    @property
    def unexplained(self) -> str:
        """What is said where nothing is known to lie behind a difference."""
        if self.used <= 1:
            return "other queries"
        return "same inputs, different numbers" if self.known_inputs else "different numbers"

    @property
    def used(self) -> float:
        """The largest share of a limit that is used up."""
        return max((change.excess for change in (*self.heads, *self.queries)), default=0.0)


@dataclass(frozen=True)
class Outcome:
    """What became of a saved file: a verdict, the maps as they were and are; or the trouble.

    seconds: that it took, with the forward pass and the model where it was the first to need them.
    """

    name: str
    path: Path | None = None
    verdict: Comparison | None = None
    old: Heatmaps | None = None
    made: Heatmaps | None = None
    trouble: str = ""
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.verdict is None:
            return "not run"
        return "same" if self.verdict.same else "different"

    @property
    def passed(self) -> bool:
        return self.state == "same"

    def brief(self) -> Outcome:
        """Without the maps, and of what has passed only the worst head and query."""
        verdict = self.verdict
        if verdict is not None and verdict.same:
            verdict = replace(verdict, heads=verdict.heads[:1], queries=verdict.queries[:1])
        return replace(self, verdict=verdict, old=None, made=None)


def judge(
    old: Heatmaps, new: Heatmaps, limits: Limits | None = None, *, strict: bool = False
) -> Comparison:
    """Every map of every query that both files have.

    Queries of the same weights are matched by their ids, those of different ones by their boxes
    (one to one, the largest sum of overlaps, at least half each), then by their ids. Rounding of a
    file that stores float16 is allowed for. limits: None for those of the files' precision. strict:
    another file of weights is a difference, whatever the maps are.
    """
    limits = limits or between(old.meta, new.meta)
    pairs = _pairs(old, new)
    used, others = {i for i, _ in pairs}, {j for _, j in pairs}
    gone = tuple(int(q) for i, q in enumerate(old.query_ids) if i not in used)
    more = tuple(int(q) for j, q in enumerate(new.query_ids) if j not in others)
    cannot = _cannot(old, new)
    heads = [] if cannot else list(_heads(old, new, pairs, limits))
    queries = [_query(old, new, i, j, limits) for i, j in pairs]
    far = any(change.excess > 1 for change in heads)
    return Comparison(
        heads=tuple(sorted(heads, key=lambda c: (-c.excess, -c.total_variation))),
        queries=tuple(sorted(queries, key=lambda change: (-change.excess, change.iou))),
        gone=gone,
        new=more,
        cannot=cannot,
        changed=tuple(reasons(old, new)),
        limits=limits,
        likeness=tuple(_likeness(old, new, pairs)) if far else (),
        other_weights=strict and _other_weights(old, new),
        known_inputs=all("image_sha256" in maps.meta for maps in (old, new)),
    )


def _other_weights(old: Heatmaps, new: Heatmaps) -> bool:
    return old.meta.get("weights_sha256") != new.meta.get("weights_sha256")


def _pairs(old: Heatmaps, new: Heatmaps) -> list[tuple[int, int]]:
    """(place in old, place in new) of queries that are one.

    After other weights an id may stand for another object: what has the box comes first, and an id
    only where no box is left for it.
    """
    pairs: list[tuple[int, int]] = []
    if _other_weights(old, new):
        pairs = [(i, j) for i, j, _ in assign(_shares(old), _shares(new), 0.5)]
    used, others = {i for i, _ in pairs}, {j for _, j in pairs}
    places = {int(q): j for j, q in enumerate(new.query_ids) if j not in others}
    left = ((i, places.get(int(q))) for i, q in enumerate(old.query_ids) if i not in used)
    return sorted([*pairs, *((i, j) for i, j in left if j is not None)])


def _shares(maps: Heatmaps) -> NDArray[np.float64]:
    """Boxes as shares of the image, which may have been resized."""
    height, width = maps.image_hw_px
    return maps.boxes_xyxy_px / np.asarray([width, height, width, height], np.float64)


def _cannot(old: Heatmaps, new: Heatmaps) -> str:
    a, b = set(old.maps), set(new.maps)
    if a != b:
        only = sorted(a ^ b)
        return f"only one of them has maps of {' and '.join(only)}"
    shapes = [maps.hw for maps in (old, new)]
    if shapes[0] != shapes[1]:
        said = " and ".join("{1} x {0}".format(*shape) for shape in shapes)
        return f"their maps have {said} cells"
    heads = [m.shape[1] for maps in (old, new) for m in list(maps.maps.values())[:1]]
    if len(set(heads)) > 1:
        return f"they have {heads[0]} and {heads[1]} heads"
    return ""


def _heads(
    old: Heatmaps, new: Heatmaps, pairs: list[tuple[int, int]], limits: Limits
) -> Iterator[HeadChange]:
    if not pairs:
        return
    rounding = sum(STORED_WITHIN[str(maps.meta.get("store", "float32"))] for maps in (old, new))
    atol = limits.atol + rounding
    olds, news = (list(places) for places in zip(*pairs, strict=True))
    for mode in old.maps:
        apart = distances(old.maps[mode][olds], new.maps[mode][news], atol)
        shift = np.maximum(apart.peak_shift, apart.centroid_shift)
        excess = np.max(
            [
                _share(apart.max_abs, atol),
                _share(apart.total_variation, limits.max_tv + rounding),
                _share(shift, limits.max_shift),
            ],
            axis=0,
        )
        columns = {f.name: getattr(apart, f.name).tolist() for f in fields(apart)}
        for n, row in enumerate(excess.tolist()):
            where = {
                "mode": mode,
                "layer": int(old.layers[0]),
                "query": int(old.query_ids[olds[n]]),
                "other": int(new.query_ids[news[n]]),
                "label": str(old.label_names[olds[n]]),
            }
            for head, most in enumerate(row):
                numbers = {name: column[n][head] for name, column in columns.items()}
                yield HeadChange(**where, head=head, **numbers, excess=most)


def _likeness(old: Heatmaps, new: Heatmaps, pairs: list[tuple[int, int]]) -> Iterator[str]:
    """What the maps of the modes look like now; modes of one likeness together."""
    olds, news = (list(places) for places in zip(*pairs, strict=True))
    found: dict[str, list[str]] = {}
    for mode in old.maps:
        if words := likeness(old.maps[mode][olds], new.maps[mode][news]):
            found.setdefault(words, []).append(mode)
    for words, modes in found.items():
        yield f"{words} ({', '.join(modes)})"


def _share(value: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """How much of a limit is used up; where it is 0, all or nothing; by no number, all."""
    used = value / limit if limit > 0 else np.where(value > 0, np.inf, 0.0)
    return np.where(np.isfinite(value), used, np.inf)


def _query(old: Heatmaps, new: Heatmaps, i: int, j: int, limits: Limits) -> QueryChange:
    boxes = _shares(old)[[i]], _shares(new)[[j]]
    # one that has no area overlaps nothing, not even itself
    overlap = 1.0 if np.array_equal(*boxes) else float(iou(*boxes)[0, 0])
    scores = float(old.scores[i]), float(new.scores[j])
    labels = str(old.label_names[i]), str(new.label_names[j])
    excess = max(
        float(_share(np.asarray(1 - overlap), 1 - limits.min_iou)),
        float(_share(np.asarray(abs(scores[0] - scores[1])), limits.max_score)),
    )
    return QueryChange(
        query=int(old.query_ids[i]),
        other=int(new.query_ids[j]),
        labels=labels,
        scores=scores,
        iou=overlap,
        excess=float("inf") if labels[0] != labels[1] else excess,
    )
