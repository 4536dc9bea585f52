"""Pieces of argparse that every command shares."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import NoReturn

from detr_viz.attention.terms import parse_terms
from detr_viz.common.errors import EXIT_USER_ERROR
from detr_viz.common.lists import items, numbers
from detr_viz.common.words import did_you_mean
from detr_viz.figures.styles import HEADS, LEVELS, SUFFIXES, ZOOMS

_FORMATS = (*SUFFIXES, ".npz", ".csv", ".html")
_MOST_PER_PAGE = 200


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


_MOST_ZOOM = 1000


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1")
    return int(text)


def query_id(text: str) -> int:
    """A query's number, from 0."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not the number of a query")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 0 to 1")
    return value


def cells(text: str) -> float:
    """A distance on the grid of a map."""
    value = _number(text)
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


def heads(text: str) -> str | tuple[int, ...] | None:
    """Numbers of heads from 0, each once, or one of styles.HEADS; None: all, the default."""
    if text == "all":
        return None
    if text in HEADS:
        return text
    found = numbers(text, digits=4)
    if not found or len(set(found)) < len(found):
        near = did_you_mean(text, HEADS)
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} are not heads{f'; {near}' if near else ''} "
            f"(write 0,3 or 0-3 or one of {', '.join(HEADS)})"
        )
    return tuple(found)


def levels(text: str) -> str | tuple[int, ...]:
    """Numbers of levels from 0, each once, or one of styles.LEVELS."""
    if text in LEVELS:
        return text
    found = numbers(text, digits=4)
    if not found or len(set(found)) < len(found):
        near = did_you_mean(text, LEVELS)
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} are not levels{f'; {near}' if near else ''} "
            f"(write 0,2 or 0-3 or one of {', '.join(LEVELS)})"
        )
    return tuple(found)


def zoom(text: str) -> str | float:
    """auto, none, or a factor from 1 on."""
    if text in ZOOMS:
        return text
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 <= factor <= _MOST_ZOOM:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no zoom: write auto, none, or a factor from 1 to {_MOST_ZOOM}"
        )
    return factor


def contour_shares(text: str) -> tuple[float, ...]:
    """Per cent of a map, 1 to 99, as shares; each once."""
    found = numbers(text, digits=2)
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} are no contours: write per cent from 1 to 99, such as 50,80,95"
        )
    return tuple(share / 100 for share in found)


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


def layers(text: str) -> str | int | list[int]:
    """ "last", "all", a decoder layer counted from 0, or several: 0,2,5 or 0-3."""
    if text in ("last", "all"):
        return text
    found = numbers(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not last, all, a layer from 0 or several layers (0,2,5)"
        )
    return found if len(found) > 1 else found[0]


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


_UNITS_IN = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_WIDTHS_IN, _DPIS = (0.5, 200.0), (20.0, 2400.0)
_MOST_SHARDS = 1_000_000


def width_in(text: str) -> float:
    """A width: inches, or with a unit (85mm, "85 mm"; pt are 1/72 in); returned in inches."""
    unit = text[-2:].lower() if text[-2:].lower() in _UNITS_IN else ""
    value = _number(text.removesuffix(text[-2:] if unit else "")) * _UNITS_IN[unit or "in"]
    if not _WIDTHS_IN[0] <= value <= _WIDTHS_IN[1]:
        low, high = _WIDTHS_IN
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a width of {low:g} to {high:g} inches (write 3.25 or 85mm)"
        )
    return value


def dpi(text: str) -> float:
    """Pixels per inch."""
    value = _number(text)
    if not _DPIS[0] <= value <= _DPIS[1]:
        low, high = _DPIS
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a resolution of {low:g} to {high:g} dpi"
        )
    return value


def _number(text: str) -> float:
    """A finite number, or NaN, which no range contains."""
    try:
        return float(text)
    except ValueError:
        return math.nan
