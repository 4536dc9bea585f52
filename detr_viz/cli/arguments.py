"""Pieces of argparse that every command shares."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from functools import wraps
from typing import NoReturn, TypeVar

from detr_viz.attention.terms import parse_terms
from detr_viz.common.errors import EXIT_USER_ERROR
from detr_viz.common.lists import items
from detr_viz.common.words import did_you_mean
from detr_viz.figures import words
from detr_viz.figures.styles import SUFFIXES, FigureError

T = TypeVar("T")

_FORMATS = (*SUFFIXES, ".npz", ".csv", ".html")
_MOST_PER_PAGE, _MOST_SHARDS = 200, 1_000_000


class OneLineParser(argparse.ArgumentParser):
    """argparse that states a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        short = " ".join(message.split())
        if short.startswith("unrecognized arguments: --"):
            near = did_you_mean(short.split()[2].split("=")[0], self._option_string_actions)
            short += f"; {near}" if near else ""
        short = short if len(short) <= 300 else f"{short[:300]}..."
        self.exit(EXIT_USER_ERROR, f"error: {short} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """argparse's check of `choices`, with a suggestion."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, no_choice(str(value), action.choices))


def no_choice(word: str, choices: Iterable[str]) -> str:
    """The message for a word that is none of the choices."""
    names = [*choices]
    near = did_you_mean(word, names)
    listed = ", ".join(map(repr, names))
    return f"invalid choice: {word!r}{f'; {near}' if near else ''} (choose from {listed})"


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1")
    return int(text)


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0")
    return int(text)


def query_id(text: str) -> int:
    """A query's number, from 0."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not the number of a query")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = words.number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 0 to 1")
    return value


def cells(text: str) -> float:
    """A distance on the grid of a map."""
    value = words.number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a distance in cells (write 0.5, for example)"
        )
    return value


def per_page(text: str) -> int:
    """Figures on a page of a contact sheet."""
    value = positive(text)
    if value > _MOST_PER_PAGE:
        raise argparse.ArgumentTypeError(f"{text} figures are too many: at most {_MOST_PER_PAGE}")
    return value


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader of words (figures/words.py) whose refusals are argparse's."""

    @wraps(read)
    def checked(text: str) -> T:
        try:
            return read(text)
        except FigureError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


heads, levels, layers = _checked(words.heads), _checked(words.levels), _checked(words.layers)
zoom, contour_shares = _checked(words.zoom), _checked(words.contour_shares)
width_in, dpi = _checked(words.width_in), _checked(words.dpi)


def term_sum(text: str) -> str:
    """A sum of terms of the logits, by their names, without spaces."""
    try:
        return "+".join(parse_terms(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def formats(text: str) -> tuple[str, ...]:
    """Suffixes of what to write, in the order in which they are written: png,npz."""
    names = [word.lower().removeprefix(".") for word in items(text)]
    unknown = [word for word in names if f".{word}" not in _FORMATS]
    if unknown:
        choices = [suffix[1:] for suffix in _FORMATS]
        near = did_you_mean(unknown[0], choices)
        raise argparse.ArgumentTypeError(
            f"{unknown[0][:40]!r} is none of {', '.join(choices)}{f'; {near}' if near else ''} "
            "(write png,npz)"
        )
    return tuple(suffix for suffix in _FORMATS if suffix[1:] in names)


class Unasked(str):
    """A default, told from the same word that a user has given."""


def colormap(text: str) -> str:
    """A possible name of a colour map; only matplotlib, slow to import, can check it."""
    if not text.strip() or len(text) > 60:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not the name of a colour map (write viridis, for example)"
        )
    return text


def shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n": part i, counted from 0, of the n that a batch is split into."""
    part, _, parts = text.partition("/")
    valid = all(number.isdecimal() and len(number) < 8 for number in (part, parts))
    if not valid or not int(part) < int(parts) <= _MOST_SHARDS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a part of a batch (write 0/4 for the first of four, up to 3/4)"
        )
    return int(part), int(parts)
