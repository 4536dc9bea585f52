"""Comparison of two saved files of maps: their differences, the verdict, and possible causes.

verdict = judge(load("old.npz"), load("new.npz"))
verdict.same, verdict.heads[0], verdict.changed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from detr_viz.attention.base import WHOLE
from detr_viz.common.bounds import beyond, bound
from detr_viz.common.short_repr import ShortRepr, brief, folded
from detr_viz.detections.matching import assign
from detr_viz.heatmaps.changes import (
    HeadChange,
    PartChange,
    QueryChange,
    box_shares,
    head_changes,
    part_changes,
    query_change,
)
from detr_viz.heatmaps.limits import Limits, between
from detr_viz.heatmaps.patterns import likeness
from detr_viz.heatmaps.reasons import reasons
from detr_viz.heatmaps.schema import HeatmapError, Heatmaps

STATES = ("same", "different", "not run")  # of an outcome


@dataclass(frozen=True, repr=False)
class Comparison(ShortRepr):
    """The result of a comparison.

    heads, queries, parts   changes, the largest first
    gone, new        queries that only the old, only the new file has
    cannot           the reason if maps could not be compared at all, else ""
    changed          other changes in words: weights, image, recipe, versions
    likeness         a description of the change in words, such as heads in another order
    limits           the limits that were used; rounding of float16 is added to them
    other_weights    whether the file of weights is another one and this counts as a difference
    known_inputs     whether the files name their weights and image
    stages           whether layers are stages, which read cells of boxes and have no heads
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
    parts: tuple[PartChange, ...] = ()
    stages: bool = False

    def __repr__(self) -> str:
        verdict = self.cannot or ("same" if self.same else "different")
        others = [f"{name} {brief(getattr(self, name))}" for name in ("gone", "new", "changed")]
        return folded(
            f"Comparison: {verdict}, largest change {self.used:.3g} of its limit, in "
            f"{len(self.heads)} maps of heads, {len(self.queries)} queries, "
            f"{len(self.parts)} parts",
            f"  {', '.join([*others, f'likeness {brief(self.likeness)}'])}",
            f"  limits: {self.limits}",
        )

    @property
    def same(self) -> bool:
        """Whether no change is above the limits."""
        others = self.cannot or self.gone or self.new or self.other_weights
        return self.used <= 1 and not others

    @property
    def unexplained(self) -> str:
        """The text for a difference without a known cause."""
        if self.used <= 1:
            return "other queries"
        return "same inputs, different numbers" if self.known_inputs else "different numbers"

    @property
    def used(self) -> float:
        """The largest change, divided by its limit."""
        return max(
            (change.excess for change in (*self.heads, *self.queries, *self.parts)), default=0.0
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a check of one saved file: a verdict with the old and new maps, or the trouble.

    seconds: its time, with loading the model and the forward pass if it was the first to need them.
    """

    name: str
    path: Path | None = None
    verdict: Comparison | None = None
    old: Heatmaps | None = None
    new: Heatmaps | None = None
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
        """Without the maps; if it has passed, with only the largest change of each kind."""
        verdict = self.verdict
        if verdict is not None and verdict.same:
            heads, queries, parts = verdict.heads[:1], verdict.queries[:1], verdict.parts[:1]
            verdict = replace(verdict, heads=heads, queries=queries, parts=parts)
        return replace(self, verdict=verdict, old=None, new=None)


def judge(
    old: Heatmaps, new: Heatmaps, limits: Limits | None = None, *, strict: bool = False
) -> Comparison:
    """Compare every map of every query that both files have, its mass off the map and its points.

    With the same weights, queries are matched by their ids; with different weights by their boxes
    (one to one, the largest sum of overlaps, at least half each), then by their ids. Rounding of
    float16 is added to the limits.

    limits: None for the limits of the files' precision.
    strict: another file of weights counts as a difference, even with the same maps.
    """
    limits = limits or between(old.meta, new.meta)
    pairs = _pairs(old, new)
    used, others = {i for i, _ in pairs}, {j for _, j in pairs}
    gone = tuple(int(q) for i, q in enumerate(old.query_ids) if i not in used)
    more = tuple(int(q) for j, q in enumerate(new.query_ids) if j not in others)
    cannot = _cannot(old, new)
    heads = [] if cannot else list(head_changes(old, new, pairs, limits))
    parts = [] if cannot else list(part_changes(old, new, pairs, limits))
    queries = [query_change(old, new, i, j, limits) for i, j in pairs]
    far = any(change.excess > 1 for change in heads)
    verdict = Comparison(
        heads=tuple(sorted(heads, key=lambda c: (-c.excess, -c.total_variation))),
        queries=tuple(sorted(queries, key=lambda change: (-change.excess, change.iou))),
        gone=gone,
        new=more,
        cannot=cannot,
        changed=tuple(reasons(old, new)),
        limits=limits,
        likeness=tuple(_likeness(old, new, pairs)) if far else (),
        known_inputs=all("image_sha256" in maps.meta for maps in (old, new)),
        parts=tuple(sorted(parts, key=lambda change: -change.excess)),
        stages=old.cells_share is not None and new.cells_share is not None,
    )
    if not (strict and _other_weights(old, new)):
        return verdict
    alike = ("same maps and boxes",) if verdict.same else ()
    return replace(verdict, other_weights=True, changed=(*verdict.changed, *alike))


def _other_weights(old: Heatmaps, new: Heatmaps) -> bool:
    return old.meta.get("weights_sha256") != new.meta.get("weights_sha256")


def _pairs(old: Heatmaps, new: Heatmaps) -> list[tuple[int, int]]:
    """(index in old, index in new) of queries that belong together.

    With other weights an id may mean another object: queries are matched by their boxes first, and
    the others by their ids.
    """
    pairs: list[tuple[int, int]] = []
    if _other_weights(old, new):
        if (count := len(old.query_ids) * len(new.query_ids)) > bound("pairs"):
            raise HeatmapError(f"to compare these files takes {beyond('pairs', count)}")
        pairs = [(i, j) for i, j, _ in assign(box_shares(old), box_shares(new), 0.5)]
    used, others = {i for i, _ in pairs}, {j for _, j in pairs}
    places = {int(q): j for j, q in enumerate(new.query_ids) if j not in others}
    left = ((i, places.get(int(q))) for i, q in enumerate(old.query_ids) if i not in used)
    return sorted([*pairs, *((i, j) for i, j in left if j is not None)])


def _cannot(old: Heatmaps, new: Heatmaps) -> str:
    a, b = set(old.maps), set(new.maps)
    if a != b:
        only = sorted(a ^ b)
        return f"only one of them has maps of {' and '.join(only)}"
    if old.kind != new.kind:
        return f"their attention is {old.kind} and {new.kind}"
    if words := _other_grids(old, new):
        return words
    heads = [m.shape[1] for maps in (old, new) for m in list(maps.maps.values())[:1]]
    if len(set(heads)) > 1:
        return f"they have {heads[0]} and {heads[1]} heads"
    sides = [0 if m.cells_share is None else m.cells_share.shape[-1] for m in (old, new)]
    if sides[0] != sides[1]:
        return f"their boxes have {sides[0]} x {sides[0]} and {sides[1]} x {sides[1]} cells"
    a, b = set(old.samples), set(new.samples)
    if a != b:
        return f"only one of them has the sampling points of {' and '.join(sorted(a ^ b))}"
    points = [array.shape[-2] for maps in (old, new) for array in list(maps.samples.values())[:1]]
    if len(set(points)) > 1:
        return f"they have {points[0]} and {points[1]} sampling points a level"
    return ""


def _other_grids(old: Heatmaps, new: Heatmaps) -> str:
    """Both grids in words if they differ, else "". Strides count only if both are known."""
    levels = [len(maps.grid_hw) for maps in (old, new)]
    if levels == [1, 1] and old.hw != new.hw:
        (h, w), (other_h, other_w) = old.hw, new.hw
        return f"their maps have {w} x {h} and {other_w} x {other_h} cells"
    same = levels[0] == levels[1] and old.grid_hw.tolist() == new.grid_hw.tolist()
    if same and all(
        a == b or 0 in (a, b)
        for a, b in zip(old.strides.tolist(), new.strides.tolist(), strict=True)
    ):
        return ""
    words = " and ".join(map(_grid_words, (old, new)))
    if levels[0] != levels[1]:
        return f"they have {levels[0]} and {levels[1]} levels: {words}"
    return f"their grids are {words}"


def _grid_words(maps: Heatmaps) -> str:
    strides = maps.strides.tolist()
    places = [f" of {stride} px" if stride else "" for stride in strides]
    cells = [f"{w} x {h} cells" for h, w in maps.grid_hw.tolist()]
    return " + ".join(map("{}{}".format, cells, places))


def _likeness(old: Heatmaps, new: Heatmaps, pairs: list[tuple[int, int]]) -> Iterator[str]:
    """The likeness of each mode's maps in words; modes with the same likeness together."""
    olds, news = (list(places) for places in zip(*pairs, strict=True))
    modes_by_words: dict[str, list[str]] = {}
    for mode in old.maps:
        outside = None
        if old.kind not in WHOLE:
            outside = old.outside[mode][olds], new.outside[mode][news]
        if words := likeness(old.maps[mode][olds], new.maps[mode][news], outside):
            modes_by_words.setdefault(words, []).append(mode)
    for words, modes in modes_by_words.items():
        yield f"{words} ({', '.join(modes)})"
