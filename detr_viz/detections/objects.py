"""The objects of a figure or a table: the queries that --queries chooses, in one or more models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.detections.queries import LEAST, QueryError, holds_ids, select

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.results import ExplanationBase

DETECTED = 0.5  # queries with at least this score are matched first


def choose(
    explanations: Sequence[ExplanationBase], queries: str, least: float = LEAST
) -> list[SharedObject]:
    """The objects of a figure: the queries chosen in every model, matched by box IoU.

    queries: text of --queries; ids in it are those of the first model, whose objects are then
    matched with queries of the others. least: scores below it are no detections, for words about
    errors. QueryError if no model has such a query.
    """
    from detr_viz.detections.matching import shared_objects  # slow to import

    chosen: list[list[int]] = []
    failed: list[QueryError] = []
    for k, e in enumerate(explanations):
        try:
            chosen.append([] if k and holds_ids(queries) else select(e, queries, least))
        except QueryError as error:  # none in this model, but perhaps in another
            failed.append(error)
            chosen.append([])
    if not any(chosen):
        raise failed[0]
    candidates = [[q for q in e.by_score() if e.scores[q] >= DETECTED] for e in explanations]
    return shared_objects([e.boxes_xyxy_px for e in explanations], chosen, candidates)


def queries_of(objects: Sequence[SharedObject], k: int) -> list[int]:
    """The queries of model k that have an object, in the objects' order."""
    matched = (shared.matches[k].query for shared in objects)
    return [query for query in matched if query is not None]
