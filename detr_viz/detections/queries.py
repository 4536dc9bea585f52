"""Which queries to show: words like objects, top:5, score:0.5, class:cat, point:x,y, anchor:3, all.

Words joined by + are a union.

select(explanation, "class:cat+top:2")          # [17, 3, 61], best first
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.lists import items, numbers
from detr_viz.common.words import did_you_mean

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

DEFAULT = "objects"
OBJECT_SCORE, MOST_OBJECTS = 0.5, 5
SYNTAX = (
    "objects, top:5, score:0.5, class:cat,remote, point:x,y, anchor:17, 3,17, 0-3 or all "
    "(join with +)"
)


class QueryError(UserError):
    """A choice of queries that cannot be read, or that fits no query."""


class NoQueryError(QueryError):
    """A valid choice that fits no query of this image."""


def select(explanation: ExplanationBase, choice: str = DEFAULT) -> list[int]:
    """Ids of the queries that fit `choice`, each once.

    objects      the queries with a score of at least .5, at most five; where there is none, the
                 best query
    top:N        the N best queries
    score:T      queries with a score of at least T
    class:A,B    queries whose best class has one of these names
    point:X,Y    queries whose box contains the point, pixels of the original image
    anchor:3     all queries (patterns) of this anchor point, or of several: anchor:3,17, anchor:0-3
    3,17 | 0-3 | all   these ids, or all, in this order
    Words joined by + are a union. Order: best first; but as written if one of the words is ids,
    anchors or `all`. A query's score is the largest over its classes. Raises QueryError, or
    NoQueryError if no query fits, with the best queries in its message.
    """
    words = [word.strip() for word in choice.split("+")]
    by_score = True
    ids: list[int] = []
    for word in words:
        key, colon, rest = word.partition(":")
        if colon and key in _RULES:
            hits = _RULES[key](explanation, rest.strip())
            if key == _ANCHOR:
                ids += hits
                by_score = False
            else:
                ids += sorted(hits, key=lambda q: (-explanation.scores[q], q))
        elif word == DEFAULT:
            ids += _objects(explanation)
        elif word == "all":
            ids += range(explanation.num_queries)
            by_score = False
        else:
            ids += _ids(word, explanation.num_queries)
            by_score = False
    chosen = list(dict.fromkeys(ids))
    if not chosen:
        raise NoQueryError(f"no query answers to {choice!r}: {_best_queries(explanation)}")
    if by_score:
        chosen.sort(key=lambda q: (-explanation.scores[q], q))
    return chosen


def _best_queries(explanation: ExplanationBase) -> str:
    """The best queries as text for a message."""
    best = explanation.by_score()[:3]
    listed = ", ".join(
        f"{q} ({explanation.label_name(q)} {explanation.scores[q]:.2f})" for q in best
    )
    count = explanation.num_queries
    return f"there are {count} queries, the best {listed}; see them with --list-queries"


def joined(words: Sequence[str]) -> str:
    """Words of the command line as one choice: "3", "17", "class:cat" -> "3,17+class:cat".

    One word stays as it is, but for spaces between ids. A word that begins none of the forms
    belongs to the one before it, such as the second of "class:traffic light"; so does what stands
    beside a comma or a plus.
    """
    choice = ""
    for word in (word.strip() for word in words):
        if len(words) > 1 and not word:
            continue
        is_ids = numbers(word) is not None
        word = ",".join(items(word)) if is_ids else word
        if not choice or choice[-1] in ",+" or word[:1] in (",", "+"):
            choice += word
        elif is_ids and numbers(choice.rsplit("+", 1)[-1]) is not None:
            choice += f",{word}"
        elif is_ids or word in (DEFAULT, "all") or word.partition(":")[0] in _RULES:
            choice += f"+{word}"
        else:
            choice += f" {word}"
    return choice


def _objects(explanation: ExplanationBase) -> list[int]:
    best = explanation.by_score()[:MOST_OBJECTS]
    return [q for q in best if explanation.scores[q] >= OBJECT_SCORE] or best[:1]


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _unreadable(word: str) -> str:
    near = did_you_mean(word.partition(":")[0], (DEFAULT, "all", *_RULES))
    advice = f"{near} Write" if near else "write"
    return f"cannot read {word[:40]!r} in --queries: {advice} {SYNTAX}"


def _number(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise QueryError(f"{text!r} in {word} is not a number: write {SYNTAX}")
    return value


def _top(explanation: ExplanationBase, rest: str) -> list[int]:
    if not _is_count(rest) or int(rest) < 1:
        raise QueryError(f"top:{rest[:40]} needs a whole number from 1: write {SYNTAX}")
    return explanation.by_score()[: int(rest)]


def _score(explanation: ExplanationBase, rest: str) -> list[int]:
    least = _number(rest, f"score:{rest}")
    import numpy as np  # not at the top, for --help

    return np.flatnonzero(explanation.scores >= np.float32(least)).tolist()


def _class(explanation: ExplanationBase, rest: str) -> list[int]:
    wanted = _classes(rest, explanation.class_names)
    return [
        q for q in range(explanation.num_queries) if explanation.label_name(q).casefold() in wanted
    ]


def _classes(rest: str, class_names: Sequence[str]) -> set[str]:
    """The classes of class:A,B or class:A B, casefolded; a name may have spaces in it."""
    known = {name.casefold() for name in class_names}
    wanted = set()
    for name in (part.strip() for part in rest.split(",")):
        if name.casefold() not in known:
            several = _split_names(name.casefold().split(), known)
            if several:
                wanted.update(several)
                continue
            near = did_you_mean(name, class_names, most=3)
            some = near or f"there are {', '.join(class_names[:8])}, ..."
            raise QueryError(f"no class is named {name!r}: {some}")
        wanted.add(name.casefold())
    return wanted


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


def _point(explanation: ExplanationBase, rest: str) -> list[int]:
    parts = rest.split(",")
    if len(parts) != 2:
        raise QueryError(f"point:{rest} needs two numbers, x,y in pixels of the image")
    x, y = (_number(part.strip(), f"point:{rest}") for part in parts)
    height, width = explanation.image.hw
    if not (0 <= x <= width and 0 <= y <= height):
        raise QueryError(f"point:{rest} lies outside the image, which is {width} x {height} pixels")
    from detr_viz.detections import boxes

    return boxes.contains(explanation.boxes_xyxy_px, x, y).nonzero()[0].tolist()


def _ids(word: str, count: int) -> list[int]:
    ids = numbers(word)
    if ids is None:
        raise QueryError(_unreadable(word))
    wrong = [i for i in ids if i >= count]
    if wrong:
        raise QueryError(f"no query {wrong[0]}: this model has {count}, 0..{count - 1}")
    return ids


def _anchor(explanation: ExplanationBase, rest: str) -> list[int]:
    count = int(explanation.meta.get("anchors", 0))
    patterns = range(0, explanation.num_queries, count) if count else ()
    return [first + i for i in _anchors(rest, count) for first in patterns]


def _anchors(rest: str, count: int) -> list[int]:
    """Ids of anchors, for a model with so many."""
    ids = _anchor_ids(rest)
    if not count:
        raise QueryError(f"anchor:{rest[:40]}: no two queries of this model share a point")
    wrong = [i for i in ids if i >= count]
    if wrong:
        raise QueryError(f"no anchor {wrong[0]}: this model has {count}, 0..{count - 1}")
    return ids


def _anchor_ids(rest: str) -> list[int]:
    ids = numbers(rest)
    if not ids:
        raise QueryError(f"anchor:{rest[:40]} needs whole numbers from 0: write {SYNTAX}")
    return ids


_ANCHOR = "anchor"
_RULES: dict[str, Callable[[ExplanationBase, str], Sequence[int]]] = {
    "top": _top,
    "score": _score,
    "class": _class,
    "point": _point,
    _ANCHOR: _anchor,
}


def check_syntax(choice: str) -> None:
    """Raise QueryError on a choice that is wrong for every model, before anything is loaded."""
    for word in (part.strip() for part in choice.split("+")):
        key, colon, rest = word.partition(":")
        known = colon and key in _RULES and rest.strip()
        if not (known or word in (DEFAULT, "all") or numbers(word) is not None):
            raise QueryError(_unreadable(word))
        if key == _ANCHOR:
            _anchor_ids(rest.strip())


def check_for(
    choice: str,
    class_names: Sequence[str],
    num_queries: int | None = None,
    anchors: int | None = None,
) -> None:
    """Raise QueryError on a class, an id or an anchor that a model lacks, before any image is read.

    num_queries, anchors: None where they are not known yet; then they are not checked.
    """
    for word in (part.strip() for part in choice.split("+")):
        key, _, rest = word.partition(":")
        if key == "class":
            _classes(rest.strip(), class_names)
        elif key == _ANCHOR and anchors is not None:
            _anchors(rest.strip(), anchors)
        elif word[:1].isdecimal() and num_queries is not None:
            _ids(word, num_queries)


def holds_ids(choice: str) -> bool:
    """Whether the choice has ids or anchors, which have no meaning in another model."""
    words = [part.strip() for part in choice.split("+")]
    return any(word[:1].isdecimal() or word.startswith(f"{_ANCHOR}:") for word in words)
