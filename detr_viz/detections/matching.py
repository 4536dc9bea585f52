"""Queries of different models that found the same object, matched one to one by their boxes.

    objects = shared_objects([e.boxes_xyxy_px for e in explanations], chosen)
    objects[0].matches[1].query                     # model 1's query of the first object, or None

Boxes are xyxy, of all models in the same units (pixels of the one image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz.detections.boxes import iou

MIN_IOU = 0.5


@dataclass(frozen=True)
class Match:
    """What one model has for an object.

    query    the model's query, None where it has none
    iou      of that query's box with the object's reference box; 1.0 for the reference itself.
             Where query is None: the best of any query of the model, taken or not
    nearest  where query is None: the query that has this best iou, None if nothing overlaps at all
    """

    query: int | None
    iou: float
    nearest: int | None = None


@dataclass(frozen=True)
class SharedObject:
    """One object: `reference` is the model whose box defines it; `matches` has one a model."""

    reference: int
    matches: tuple[Match, ...]


def assign(a: NDArray, b: NDArray, min_iou: float = MIN_IOU) -> list[tuple[int, int, float]]:
    """Pairs (i, j, iou) of boxes a (N, 4) and b (M, 4), one to one, in order of i.

    argmax over one-to-one pairings of sum iou(a_i, b_j), over pairs of at least min_iou (and of
    more than 0) alone: a pair below counts nothing, so it cannot displace one that is good.
    The same input gives the same answer, also where several pairings are equally good.
    """
    value = iou(a, b)
    value[value < min_iou] = 0
    if not value.any():
        return []
    from scipy.optimize import linear_sum_assignment  # slow to import

    pairs = zip(*linear_sum_assignment(value, maximize=True), strict=True)
    return [(int(i), int(j), float(value[i, j])) for i, j in pairs if value[i, j] > 0]


def shared_objects(
    boxes: Sequence[NDArray],
    chosen: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]] | None = None,
    min_iou: float = MIN_IOU,
) -> list[SharedObject]:
    """The objects that the chosen queries of all models show, each with a query of every model.

    boxes        (Q_k, 4) a model: xyxy of all its queries
    chosen       ids a model: the queries to show; every one stands in the result exactly once
    candidates   ids a model: its confident queries; None: the chosen ones
    min_iou      with less overlap (with the reference box) two queries are not of one object

    Model 0's chosen queries are the first objects, in their order. Then for k = 1, 2, ...:
      1. the objects so far whose own query is a candidate are matched (`assign`) with k's;
      2. all that are left, with k's candidates and chosen queries;
      3. all that are left, with k's other queries;
      4. chosen queries of k still unused become new objects, at the end, in their order, with k as
         reference. They are looked for in the models before k, among unused queries, by steps 1-3.
    No query is used twice.

    Candidates come first because a model has many more queries than objects: one that says
    "no object", or a weak second one on the same object, may by chance overlap a little better
    than the detection itself. The others still get their turn, so that a figure can show what a
    model had where it detected nothing.

    ValueError where the lists differ in length, boxes are not (Q, 4), or an id is wrong or twice.
    """
    if candidates is None:
        candidates = chosen
    _check(boxes, chosen, candidates)
    models = range(len(boxes))
    origins: list[tuple[int, int]] = []  # (reference model, its query) an object
    found: list[dict[int, Match]] = []  # model -> match, an object
    used: list[set[int]] = [set() for _ in models]

    def add(k: int, query: int) -> None:
        origins.append((k, query))
        found.append({k: Match(query, 1.0)})
        used[k].add(query)

    def look(k: int) -> None:
        """Steps 1 to 3: the objects that model k has no query of."""
        named = dict.fromkeys([*candidates[k], *chosen[k]])
        for confident, ids in (
            (True, candidates[k]),
            (False, named),
            (False, range(len(boxes[k]))),
        ):
            missing = [
                o
                for o, (j, query) in enumerate(origins)
                if k not in found[o] and (query in candidates[j] or not confident)
            ]
            free = [int(q) for q in ids if q not in used[k]]
            wanted = np.reshape(
                [boxes[j][q] for j, q in map(origins.__getitem__, missing)], (-1, 4)
            )
            for i, j, overlap in assign(wanted, boxes[k][free], min_iou):
                found[missing[i]][k] = Match(free[j], overlap)
                used[k].add(free[j])

    for k in models:
        look(k)
        for query in chosen[k]:
            if query not in used[k]:
                add(k, int(query))
        for earlier in range(k):
            look(earlier)

    def match(o: int, k: int) -> Match:
        if k in found[o]:
            return found[o][k]
        reference, query = origins[o]
        return _nearest(boxes[reference][query], boxes[k])

    return [
        SharedObject(reference, tuple(match(o, k) for k in models))
        for o, (reference, _) in enumerate(origins)
    ]


def _nearest(box: NDArray, boxes: NDArray) -> Match:
    """No query, but which of boxes (Q, 4) comes nearest to box (4,)."""
    overlap = iou(box[None], boxes)[0]
    if not overlap.any():
        return Match(None, 0.0)
    best = int(overlap.argmax())
    return Match(None, float(overlap[best]), best)


def _check(
    boxes: Sequence[NDArray], chosen: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
) -> None:
    counts = len(boxes), len(chosen), len(candidates)
    if len(set(counts)) > 1:
        raise ValueError("boxes, chosen and candidates are of {}, {} and {} models".format(*counts))
    for k, of_model in enumerate(boxes):
        if of_model.ndim != 2 or of_model.shape[1] != 4:
            raise ValueError(f"boxes of model {k} are {of_model.shape}, expected (Q, 4)")
        for name, ids in (("chosen", chosen[k]), ("candidates", candidates[k])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name}[{k}] names a query twice")
            wrong = [q for q in ids if not 0 <= q < len(of_model)]
            if wrong:
                raise ValueError(f"{name}[{k}]: model {k} has no query {wrong[0]}")
