"""What each word of --queries chooses in an explanation; query_grammar.py has their grammar."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from detr_viz.common.lists import numbers
from detr_viz.common.words import did_you_mean
from detr_viz.detections.query_grammar import (
    ALL,
    ANCHOR,
    BARE,
    CLASS,
    DEFAULT,
    ERROR_WORDS,
    IDS,
    MISSED,
    POINT,
    SCORE,
    SYNTAX,
    TOP,
    QueryError,
    Word,
    unreadable,
    with_operators,
)

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

OBJECT_SCORE, MOST_OBJECTS = 0.5, 5


def answers(e: ExplanationBase, words: Sequence[Word], least: float) -> list[int]:
    """The queries that answer to all the words, each once.

    Best first, but as written where one of the words has an order of its own (ids, anchors, all).
    top:N and objects take the best of those that answer to the other words. Beside `missed`, class:
    and point: are about the missed object: its annotated class, its box.
    """
    missed = any(word.key == MISSED for word in words)
    of_object = [word for word in words if missed and word.key in (CLASS, POINT)]
    ranked = [word for word in words if word.key in (TOP, DEFAULT)]
    chosen, in_order = best_first(e, range(e.num_queries)), False
    for word in words:
        if word in ranked or word in of_object:
            continue
        if word.key == MISSED:
            hits = _missed(e, of_object, least)
        else:
            hits = _RULES[word.key](e, word.rest, least)
        if word.keeps_order and not in_order:
            fit = set(chosen)
            chosen, in_order = [q for q in dict.fromkeys(hits) if q in fit], True
        else:
            fit = set(hits)
            chosen = [q for q in chosen if q in fit]
    best = [{*_RANKED[word.key](e, word.rest, best_first(e, chosen))} for word in ranked]
    return [q for q in chosen if all(q in some for some in best)]


def best_first(e: ExplanationBase, queries: Sequence[int]) -> list[int]:
    """The queries by score, equal ones by id."""
    return sorted(queries, key=lambda q: (-e.scores[q], q))


# ---- words that take the best of others ---------------------------------------------------------


def _objects(e: ExplanationBase, rest: str, best: list[int]) -> list[int]:
    return [q for q in best[:MOST_OBJECTS] if e.scores[q] >= OBJECT_SCORE] or best[:1]


def _top(e: ExplanationBase, rest: str, best: list[int]) -> list[int]:
    if not (rest.isdecimal() and len(rest) < 10) or int(rest) < 1:
        raise QueryError(f"top:{rest[:40]} needs a whole number from 1: write {SYNTAX}")
    return best[: int(rest)]


_RANKED: dict[str, Callable[[ExplanationBase, str, list[int]], list[int]]] = {
    DEFAULT: _objects,
    TOP: _top,
}

# ---- words about a query alone ------------------------------------------------------------------


def _number(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise QueryError(f"{text!r} in {word} is not a number: write {SYNTAX}")
    return value


def _score(e: ExplanationBase, rest: str, least: float) -> list[int]:
    lowest = _number(rest, f"score:{rest}")
    import numpy as np  # not at the top, for --help

    return np.flatnonzero(e.scores >= np.float32(lowest)).tolist()


def _class(e: ExplanationBase, rest: str, least: float) -> list[int]:
    wanted = classes(rest, e.class_names)
    return [q for q in range(e.num_queries) if e.label_name(q).casefold() in wanted]


def classes(rest: str, class_names: Sequence[str]) -> set[str]:
    """The classes of class:A,B or class:A B, casefolded; a name may have spaces in it."""
    known = {name.casefold() for name in class_names}
    wanted = set()
    for name in (part.strip() for part in rest.split(",")):
        if name.casefold() not in known:
            several = _split_names(name.casefold().split(), known)
            if several:
                wanted.update(several)
                continue
            raise QueryError(f"no class is named {name[:80]!r}: {_advice(name, rest, class_names)}")
        wanted.add(name.casefold())
    return wanted


def _advice(name: str, rest: str, class_names: Sequence[str]) -> str:
    """What may be meant by a class that there is not."""
    first, comma, last = rest.rpartition(",")
    if comma and first and last.strip() in BARE:
        return f"did you mean class:{first[:80]}&{last.strip()}?"
    meant = with_operators(f"class:{rest}")
    if meant != f"class:{rest}":
        return f"did you mean {meant[:80]}?"
    near = did_you_mean(name, class_names, most=3)
    return near or f"there are {', '.join(class_names[:8])}, ..."


def _split_names(words: Sequence[str], known: Collection[str]) -> list[str]:
    """Words as names, the longest first: traffic light cat -> two. [] where a word is in none."""
    names: list[str] = []
    while words:
        ends = range(len(words), 0, -1)
        end = next((i for i in ends if " ".join(words[:i]) in known), 0)
        if not end:
            return []
        names.append(" ".join(words[:end]))
        words = words[end:]
    return names


def _point(e: ExplanationBase, rest: str, least: float) -> list[int]:
    from detr_viz.detections import boxes

    return boxes.contains(e.boxes_xyxy_px, *_place(e, rest)).nonzero()[0].tolist()


def _place(e: ExplanationBase, rest: str) -> tuple[float, float]:
    """The point of point:X,Y, pixels of the image."""
    parts = rest.split(",")
    if len(parts) != 2:
        raise QueryError(f"point:{rest} needs two numbers, x,y in pixels of the image")
    x, y = (_number(part.strip(), f"point:{rest}") for part in parts)
    height, width = e.image.hw
    if not (0 <= x <= width and 0 <= y <= height):
        raise QueryError(f"point:{rest} lies outside the image, which is {width} x {height} pixels")
    return x, y


def ids_of(rest: str, count: int) -> list[int]:
    """Ids of queries, for a model with so many."""
    ids = numbers(rest)
    if ids is None:
        raise QueryError(unreadable(rest))
    wrong = [i for i in ids if i >= count]
    if wrong:
        raise QueryError(f"no query {wrong[0]}: this model has {count}, 0..{count - 1}")
    return ids


def _ids(e: ExplanationBase, rest: str, least: float) -> list[int]:
    return ids_of(rest, e.num_queries)


def _all(e: ExplanationBase, rest: str, least: float) -> list[int]:
    return list(range(e.num_queries))


def _anchor(e: ExplanationBase, rest: str, least: float) -> list[int]:
    count = int(e.meta.get("anchors", 0))
    patterns = range(0, e.num_queries, count) if count else ()
    return [first + i for i in anchors_of(rest, count) for first in patterns]


def anchors_of(rest: str, count: int) -> list[int]:
    """Ids of anchors, for a model with so many."""
    ids = anchor_ids(rest)
    if not count:
        raise QueryError(f"anchor:{rest[:40]}: no two queries of this model share a point")
    wrong = [i for i in ids if i >= count]
    if wrong:
        raise QueryError(f"no anchor {wrong[0]}: this model has {count}, 0..{count - 1}")
    return ids


def anchor_ids(rest: str) -> list[int]:
    """Ids of anchors, for a model that is not known yet."""
    ids = numbers(rest)
    if not ids:
        raise QueryError(f"anchor:{rest[:40]} needs whole numbers from 0: write {SYNTAX}")
    return ids


# ---- words about what was found and missed ------------------------------------------------------


def _kind(kind: str) -> Callable[[ExplanationBase, str, float], Sequence[int]]:
    def queries(e: ExplanationBase, rest: str, least: float) -> Sequence[int]:
        from detr_viz.detections.judged import judged

        return judged(e, least).queries(kind)

    return queries


def _missed(e: ExplanationBase, about: Sequence[Word], least: float) -> list[int]:
    """The queries nearest to the missed objects that the words are about."""
    from detr_viz.detections.boxes import contains
    from detr_viz.detections.reasons import misses

    wanted: list[int] = []
    for miss in misses(e, least):
        fits = True
        for word in about:
            if word.key == CLASS:
                fits &= miss.name.casefold() in classes(word.rest, e.class_names)
            else:
                fits &= bool(contains(miss.box_xyxy_px[None], *_place(e, word.rest))[0])
        if fits:
            wanted += miss.queries
    for word in about:  # a wrong word is wrong where nothing is missed, too
        classes(word.rest, e.class_names) if word.key == CLASS else _place(e, word.rest)
    return list(dict.fromkeys(wanted))


_RULES: dict[str, Callable[[ExplanationBase, str, float], Sequence[int]]] = {
    ALL: _all,
    IDS: _ids,
    SCORE: _score,
    CLASS: _class,
    POINT: _point,
    ANCHOR: _anchor,
    **{kind: _kind(kind) for kind in ERROR_WORDS if kind != MISSED},
}
