"""The grammar of --queries: words, & between words that must all hold, + between alternatives.

    choice   any + any + ...         a query answers to one of these, or to several
    any      word & word & ...       a query answers to all of these; & binds tighter than +
    word     objects | all | top:N | score:T | class:A,B | point:X,Y | anchor:IDS | IDS
             missed | found | wrong-class | bad-box | duplicate | background | both

parse("class:cat&score:0.5+top:1")     # ((class:cat, score:0.5), (top:1,))
joined(["class:cat", "and", "score:0.5"])                    # "class:cat&score:0.5"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from detr_viz.common.errors import UserError
from detr_viz.common.lists import items, numbers
from detr_viz.common.words import did_you_mean

DEFAULT = "objects"
ALL, IDS = "all", "ids"
TOP, SCORE, CLASS, POINT, ANCHOR = KEYS = ("top", "score", "class", "point", "anchor")
MISSED = "missed"
# of mistakes.py, which takes numpy: --help does without
ERROR_WORDS = (MISSED, "wrong-class", "bad-box", "duplicate", "background", "both", "found")
BARE = (DEFAULT, ALL, *ERROR_WORDS)
SYNTAX = (
    "objects, top:5, score:0.5, class:cat,remote, point:x,y, anchor:17, 3,17, 0-3 or all "
    "(join with + or &)"
)
SYNTAX_HELP = (
    "objects, top:5, score:0.5, class:cat,remote, point:x,y, anchor:17, 3,17, 0-3 or all; of "
    f"annotated images also {', '.join(ERROR_WORDS)}; + joins alternatives, '&' (quoted, or the "
    "word and) what must hold together: 'class:cat&score:0.5'"
)
_AND, _OR = "&", "+"
_SPOKEN = {"and": _AND, "or": _OR, "&&": _AND, "||": _OR, "|": _OR}


class QueryError(UserError):
    """A choice of queries that cannot be read, or that fits no query."""


class NoQueryError(QueryError):
    """A valid choice that fits no query of this image."""


@dataclass(frozen=True)
class Word:
    """One word. key: one of KEYS, BARE or IDS. rest: what stands after its colon; ids as written"""

    key: str
    rest: str = ""

    @property
    def keeps_order(self) -> bool:
        """Whether its queries are shown as written, not the best first."""
        return self.key in (ALL, IDS, ANCHOR)


class Choice(NamedTuple):
    """Alternatives, each of them words that must all hold."""

    alternatives: tuple[tuple[Word, ...], ...]

    @property
    def words(self) -> list[Word]:
        """All words, in their order."""
        return [word for part in self.alternatives for word in part]


def parse(choice: str) -> Choice:
    """The words of a choice. QueryError where one cannot be read."""
    parts = []
    for alternative in choice.split(_OR):
        words: list[Word] = []
        for text in map(str.strip, alternative.split(_AND)):
            if words and words[-1].key == CLASS and _is_name(text):  # class:salt & pepper
                words[-1] = Word(CLASS, f"{words[-1].rest} & {text}")
            else:
                words.append(_word(text, choice))
        parts.append(tuple(words))
    return Choice(tuple(parts))


def _word(text: str, choice: str) -> Word:
    key, colon, rest = text.partition(":")
    rest = rest.strip()
    if (colon and key in KEYS and rest) or numbers(text) is not None or text in BARE:
        if colon and _plain(meant := _before_keys(choice)) != _plain(choice):
            raise QueryError(_two_words(text, meant))
        return Word(key, rest) if colon else Word(text if text in BARE else IDS, text)
    raise QueryError(unreadable(text, choice))


def begins(word: str) -> bool:
    """Whether a word of the shell begins a word of the grammar."""
    return word in BARE or word.partition(":")[0] in KEYS or numbers(word) is not None


def _is_name(text: str) -> bool:
    """Whether text after a & can only be more of the name before it."""
    near = did_you_mean(text.partition(":")[0], (*BARE, *KEYS), cutoff=0.7)
    return bool(text) and ":" not in text and not begins(text) and not near


def unreadable(text: str, choice: str = "") -> str:
    """The message about a word that is none."""
    meant = with_operators(choice)
    if meant != choice and _is_choice(meant):
        return _two_words(choice, meant)
    near = did_you_mean(text.partition(":")[0], (*BARE, *KEYS))
    advice = f"{near} Write" if near else "write"
    return f"cannot read {text[:40]!r} in --queries: {advice} {SYNTAX}"


def _two_words(text: str, meant: str) -> str:
    return f"cannot read {text[:40]!r} in --queries: did you mean {meant[:80]}?"


def _is_choice(text: str) -> bool:
    try:
        parse(text)
    except QueryError:
        return False
    return True


_KEY = rf"(?:(?:{'|'.join(KEYS)}):)"
_NAMED = rf"(?:{'|'.join(BARE)})"
# a comma, a space or a word before what begins another word: no operator, but meant as one
_BEFORE_KEY = re.compile(rf"\s*(?:(\|\|?|[,;\s]or\s)|&&|[,;\s]and\s|[,;]|\s)\s*(?={_KEY})")
_BEFORE_NAMED = re.compile(rf"\s*(?:(\|\|?|\sor\s)|&&|\sand\s)\s*(?={_NAMED}(?![\w-]))")
_AFTER_NAMED = re.compile(
    rf"(?<![\w:-])({_NAMED})\s*(?:[,;]|\s)\s*(?={_KEY}|({_NAMED})(?![\w-])|[0-9])"
)
_MOST_ROUNDS = 20


def _before_keys(choice: str) -> str:
    choice = re.sub(r"\s*([&+])\s*", r"\1", choice)
    return _BEFORE_KEY.sub(lambda match: _OR if match[1] else _AND, choice)


def _plain(choice: str) -> str:
    return re.sub(r"\s", "", choice)


def with_operators(choice: str) -> str:
    """The choice with & and + where another separator stands before a word of the grammar.

    Between two kinds of errors a comma is an alternative, for hardly a query is of two kinds.
    """

    def after(match: re.Match[str]) -> str:
        both = match[1] in ERROR_WORDS and match[2] in ERROR_WORDS
        return match[1] + (_OR if both else _AND)

    for _ in range(_MOST_ROUNDS):
        text = _AFTER_NAMED.sub(after, _before_keys(choice))
        text = _BEFORE_NAMED.sub(lambda match: _OR if match[1] else _AND, text)
        if text == choice:
            break
        choice = text
    return choice


def joined(words: Sequence[str]) -> str:
    """Words of the command line as one choice: "3", "17", "class:cat" -> "3,17+class:cat".

    One word stays as it is, but for spaces between ids. `and` and `or` before a word of the
    grammar are & and +. A word that begins none of the forms belongs to the one before it, such as
    the second of "class:traffic light"; so does what stands beside a comma or an operator.
    """
    choice, words = "", [word.strip() for word in words]
    for i, word in enumerate(words):
        if len(words) > 1 and not word:
            continue
        if word in _SPOKEN and choice and i + 1 < len(words) and begins(words[i + 1]):
            choice += _SPOKEN[word]
            continue
        is_ids = numbers(word) is not None
        word = ",".join(items(word)) if is_ids else word
        if not choice or choice[-1] in ",+&" or word[:1] in (",", "+", "&"):
            choice += word
        elif is_ids and numbers(re.split(r"[+&]", choice)[-1]) is not None:
            choice += f",{word}"
        elif begins(word):
            choice += f"+{word}"
        else:
            choice += f" {word}"
    return choice


def holds_ids(choice: str) -> bool:
    """Whether the choice has ids or anchors, which have no meaning in another model."""
    return any(word.key in (IDS, ANCHOR) for word in parse(choice).words)


def needs_truth(choice: str) -> bool:
    """Whether the choice asks what was found or missed, so that images must be annotated."""
    return any(word.key in ERROR_WORDS for word in parse(choice).words)


def asks_for_missed(choice: str) -> bool:
    """Whether the choice asks for missed objects."""
    return any(word.key == MISSED for word in parse(choice).words)
