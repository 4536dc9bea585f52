"""A sentence for each query: its verdict, and the missed objects that it is nearest to.

error_notes(explanation)[17]     # "missed cat, suppressed by score: query 17 has the box ..."
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.console import short_name
from detr_viz.detections.judged import judged
from detr_viz.detections.reasons import misses_of

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase


def error_notes(
    explanation: ExplanationBase, least: float = 0.5, missed: bool = True
) -> dict[int, str]:
    """Query -> its note; queries without one are left out.

    least: scores below it are no detections. missed: whether missed objects have notes, which need
    the maps of all queries. QueryError where the image has no annotation file.
    """
    verdicts = judged(explanation, least)
    notes: dict[int, list[str]] = {}
    for query in dict.fromkeys(verdicts.ids.tolist()):
        if words := verdicts.words(query):
            notes[query] = [words]
    for miss in misses_of(explanation, verdicts) if missed else ():
        for query in miss.queries:
            notes.setdefault(query, []).append(f"missed {short_name(miss.name)}, {miss.words}")
    return {query: "; ".join(parts) for query, parts in notes.items()}
