"""The objects that a figure or a table is about: what --queries choose, in one model or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.detections.queries import QueryError, holds_ids, select

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.results import ExplanationBase

DETECTED = 0.5  # queries from this score on are matched first


def choose(found: Sequence[ExplanationBase], queries: str) -> list[SharedObject]:
    """The objects of a figure: what --queries choose in every model, matched by box IoU.

    Ids are those of the first model; in the others its objects are looked for.
    """
    from detr_viz.detections.matching import shared_objects  # slow to import

    chosen: list[list[int]] = []
    failed: list[QueryError] = []
    for k, e in enumerate(found):
        try:
            chosen.append([] if k and holds_ids(queries) else select(e, queries))
        except QueryError as error:  # nothing here, but perhaps in another model
            failed.append(error)
            chosen.append([])
    if not any(chosen):
        raise failed[0]
    candidates = [[q for q in e.by_score() if e.scores[q] >= DETECTED] for e in found]
    return shared_objects([e.boxes_xyxy_px for e in found], chosen, candidates)


def queries_of(objects: Sequence[SharedObject], k: int) -> list[int]:
    matched = (shared.matches[k].query for shared in objects)
    return [query for query in matched if query is not None]
