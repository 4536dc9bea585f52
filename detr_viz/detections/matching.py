"""Queries of different models that show the same object, matched one to one by their boxes.

    objects = shared_objects([e.boxes_xyxy_px for e in explanations], chosen)
    objects[0].matches[1].query                     # model 1's query of the first object, or None

Boxes are xyxy, in pixels of the same image for all models.
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
    """The query of one model for an object.

    query    the model's query, or None
    iou      of that query's box with the object's reference box; 1.0 for the reference itself.
             If query is None: the best iou of any query of the model, even a matched one
    nearest  if query is None: the query with this best iou, or None if no box overlaps
    """

    query: int | None
    iou: float
    nearest: int | None = None


@dataclass(frozen=True)
class SharedObject:
    """One object. reference: the model whose box defines it. matches: one for each model."""

    reference: int
    matches: tuple[Match, ...]


def assign(a: NDArray, b: NDArray, min_iou: float = MIN_IOU) -> list[tuple[int, int, float]]:
    """Pairs (i, j, iou) of boxes a (N, 4) and b (M, 4), one to one, in order of i.

    argmax over one-to-one pairings of sum iou(a_i, b_j). A pair with less than min_iou (or with 0)
    counts as 0, so it cannot displace a good pair. The same input gives the same result, even if
    several pairings are equally good.
    """
    value = iou(a, b)
    value[value < min_iou] = 0
    if not value.any():
        return []
    from scipy.optimize import linear_sum_assignment  # slow to import

    pairs = zip(*linear_sum_assignment(value, maximize=True), strict=True)
    return [(int(i), int(j), float(value[i, j])) for i, j in pairs if value[i, j] > 0]


def shared_objects(
    boxes: Sequence[NDArray],  # (Q, 4)
    chosen: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]] | None = None,
    min_iou: float = MIN_IOU,
) -> list[SharedObject]:
    """The objects of the chosen queries of all models, each with a query of every model.

    boxes        (Q_k, 4) for each model: xyxy of all its queries
    chosen       ids for each model: the queries to show; each is in the result exactly once
    candidates   ids for each model: its confident queries; None: the chosen ones
    min_iou      two queries with less overlap (with the reference box) are different objects

    Model 0's chosen queries are the first objects, in their order. Then for k = 1, 2, ...:
      1. objects whose own query is a candidate are matched (`assign`) with k's candidates;
      2. all objects without a match, with k's candidates and chosen queries;
      3. all objects without a match, with k's other queries;
      4. chosen queries of k that are still unused become new objects, at the end, in their order,
         with k as reference. Steps 1-3 then match them with unused queries of the models before k.
    No query is used twice.

    Candidates come first because a model has many more queries than objects: a query that says
    "no object", or a weak second one on the same object, may by chance overlap a little better
    than the detection itself. The others follow, so that a figure can show the query of a model
    that did not detect the object.

    ValueError if the lists differ in length, boxes are not (Q, 4), or an id is wrong or repeated.
    """
    if candidates is None:
        candidates = chosen
    _check(boxes, chosen, candidates)
    models = range(len(boxes))
    origins: list[tuple[int, int]] = []  # of each object: (reference model, its query)
    matches: list[dict[int, Match]] = []  # of each object: model -> match
    used: list[set[int]] = [set() for _ in models]

    def add(k: int, query: int) -> None:
        origins.append((k, query))
        matches.append({k: Match(query, 1.0)})
        used[k].add(query)

    def match_objects(k: int) -> None:
        """Steps 1 to 3, for the objects without a query of model k."""
        named = dict.fromkeys([*candidates[k], *chosen[k]])
        for confident, ids in (
            (True, candidates[k]),
            (False, named),
            (False, range(len(boxes[k]))),
        ):
            missing = [
                o
                for o, (j, query) in enumerate(origins)
                if k not in matches[o] and (query in candidates[j] or not confident)
            ]
            free = [int(q) for q in ids if q not in used[k]]
            wanted = np.reshape(
                [boxes[j][q] for j, q in map(origins.__getitem__, missing)], (-1, 4)
            )
            for i, j, overlap in assign(wanted, boxes[k][free], min_iou):
                matches[missing[i]][k] = Match(free[j], overlap)
                used[k].add(free[j])

    for k in models:
        match_objects(k)
        for query in chosen[k]:
            if query not in used[k]:
                add(k, int(query))
        for earlier in range(k):
            match_objects(earlier)

    def match(o: int, k: int) -> Match:
        if k in matches[o]:
            return matches[o][k]
        reference, query = origins[o]
        return _nearest(boxes[reference][query], boxes[k])

    return [
        SharedObject(reference, tuple(match(o, k) for k in models))
        for o, (reference, _) in enumerate(origins)
    ]


def _nearest(box: NDArray, boxes: NDArray) -> Match:
    """A Match without a query: the one of boxes (Q, 4) with the largest iou with box (4,)."""
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
