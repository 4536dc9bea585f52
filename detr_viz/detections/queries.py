"""Which queries to show: words like objects, top:5, score:0.5, class:cat, point:x,y, missed, all.

Words joined by & must all hold, words joined by + are alternatives; query_grammar.py reads them.

select(explanation, "class:cat&score:0.5+top:2")          # [17, 3, 61], best first
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.detections.query_grammar import (
    ANCHOR,
    CLASS,
    DEFAULT,
    IDS,
    SYNTAX,
    SYNTAX_HELP,
    NoQueryError,
    QueryError,
    asks_for_missed,
    holds_ids,
    joined,
    needs_truth,
    parse,
)
from detr_viz.detections.query_words import (
    MOST_OBJECTS,
    OBJECT_SCORE,
    anchor_ids,
    anchors_of,
    answers,
    best_first,
    classes,
    ids_of,
)

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

__all__ = [
    "DEFAULT",
    "LEAST",
    "MOST_OBJECTS",
    "OBJECT_SCORE",
    "SYNTAX",
    "SYNTAX_HELP",
    "NoQueryError",
    "QueryError",
    "asks_for_missed",
    "check_for",
    "check_syntax",
    "holds_ids",
    "joined",
    "needs_truth",
    "select",
]

LEAST = 0.5  # scores below it are no detections, for the words about errors


def select(explanation: ExplanationBase, choice: str = DEFAULT, least: float = LEAST) -> list[int]:
    """Ids of the queries that fit `choice`, each once.

    objects      the queries with a score of at least .5, at most five; where there is none, the
                 best query
    top:N        the N best queries
    score:T      queries with a score of at least T
    class:A,B    queries whose best class has one of these names
    point:X,Y    queries whose box contains the point, pixels of the original image
    anchor:3     all queries (patterns) of this anchor point, or of several: anchor:3,17, anchor:0-3
    3,17 | 0-3 | all   these ids, or all, in this order
    found, wrong-class, bad-box, duplicate, background, both
                 queries with a detection of that kind, see mistakes.py
    missed       of each missed object the query whose box overlaps it most, the query with most of
                 its attention on it, and the one that the reason is about, see reasons.py
    Words joined by & must all hold, words (or several of them with &) joined by + are alternatives.
    top:N and objects take the best of the queries that answer to what & joins them with; beside
    `missed`, class: and point: are about the missed object: its annotated class, its box.
    Order: best first; but as written if one of the words is ids, anchors or `all`. A query's score
    is the largest over its classes.
    least: scores below it are no detections, for the words about errors, which need the image's
    annotated objects. Raises QueryError, or NoQueryError if no query fits, with the best queries in
    its message.
    """
    parsed = parse(choice)
    by_score = not any(word.keeps_order for word in parsed.words)
    ids = [q for words in parsed.alternatives for q in answers(explanation, words, least)]
    chosen = list(dict.fromkeys(ids))
    if not chosen:
        raise NoQueryError(f"no query answers to {choice!r}: {_why(explanation, choice, least)}")
    return best_first(explanation, chosen) if by_score else chosen


def _why(explanation: ExplanationBase, choice: str, least: float) -> str:
    """What there is, as text for a message: the best queries, and how many objects were found."""
    best = explanation.by_score()[:3]
    listed = ", ".join(
        f"{q} ({explanation.label_name(q)} {explanation.scores[q]:.2f})" for q in best
    )
    count = explanation.num_queries
    words = f"there are {count} queries, the best {listed}; see them with --list-queries"
    if not needs_truth(choice):
        return words
    from detr_viz.detections.judged import judged

    return f"{judged(explanation, least).summary}; {words}"


def check_syntax(choice: str) -> None:
    """Raise QueryError on a choice that is wrong for every model, before anything is loaded."""
    for word in parse(choice).words:
        if word.key == ANCHOR:
            anchor_ids(word.rest)


def check_for(
    choice: str,
    class_names: Sequence[str],
    num_queries: int | None = None,
    anchors: int | None = None,
) -> None:
    """Raise QueryError on a class, an id or an anchor that a model lacks, before any image is read.

    num_queries, anchors: None where they are not known yet; then they are not checked.
    """
    for word in parse(choice).words:
        if word.key == CLASS:
            classes(word.rest, class_names)
        elif word.key == ANCHOR and anchors is not None:
            anchors_of(word.rest, anchors)
        elif word.key == IDS and num_queries is not None:
            ids_of(word.rest, num_queries)
