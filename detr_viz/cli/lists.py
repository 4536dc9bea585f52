"""Flags that take lists: one syntax for all, words and commas alike.

add("--heads", action=Listed, read=heads)
--heads 0,3    --heads 0 3    --heads 0, 3    --heads 0-3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detr_viz.checkpoints.downloads import KNOWN
from detr_viz.checkpoints.hub import PREFIX
from detr_viz.checkpoints.type_names import type_name
from detr_viz.cli.arguments import no_choice, term_sum
from detr_viz.common.lists import items, numbers
from detr_viz.detections.points import parse as parse_points
from detr_viz.explanation.removals import parse as parse_removal


class Listed(argparse.Action):
    """One or more words of the command line, read together.

    read: words -> value; ArgumentTypeError or ValueError for what it cannot read.
    extend: whether the flag may be given several times, each adding to a list.
    """

    def __init__(
        self,
        *args: Any,
        read: Callable[[Sequence[str]], Any],
        extend: bool = False,
        nargs: str = "+",
        **settings: Any,
    ) -> None:
        super().__init__(*args, nargs=nargs, **settings)
        self.read, self.extend = read, extend

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            value = self.read(values)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise argparse.ArgumentError(self, str(error)) from None
        if self.extend:
            value = [*(getattr(namespace, self.dest) or ()), *value]
        setattr(namespace, self.dest, value)


def as_text(read: Callable[[str], Any]) -> Callable[[Sequence[str]], Any]:
    """A reader of one text as a reader of words."""
    return lambda words: read(" ".join(words))


def choices(names: Iterable[str]) -> Callable[[Sequence[str]], list[str]]:
    """A reader of words that are each one of these names."""
    known = [*names]

    def read(words: Sequence[str]) -> list[str]:
        given = items(" ".join(words))
        for word in given:
            if word not in known:
                raise argparse.ArgumentTypeError(no_choice(word, known))
        return given

    return read


def plot_words(modes: Sequence[str], alone: Sequence[str]) -> Callable[[Sequence[str]], str]:
    """A reader of --plot: one of `alone`, or modes, which come out in their order.

    All modes together are "all".
    """
    read_choices = choices((*modes, *alone))

    def read(words: Sequence[str]) -> str:
        given = read_choices(words)
        for word in given:
            if word in alone and len({*given}) > 1:
                raise argparse.ArgumentTypeError(f"{word} stands alone: leave the others out")
        if given[0] in alone:
            return given[0]
        return "all" if {*given} == {*modes} else ",".join(m for m in modes if m in given)

    return read


def terms(words: Sequence[str]) -> str:
    """A sum of terms; a plus, a comma or a space stands between them."""
    return term_sum("+".join(items(" ".join(words).replace("+", ","))))


def types(words: Sequence[str]) -> list[str]:
    """Names of types; a title such as "Conditional DETR" in quotes is one word."""
    found: list[str] = []
    for word in words:
        for part in word.strip(", ").split(","):
            try:
                found.append(type_name(part))
            except ValueError:
                found += map(type_name, items(part))
    return found


def points(words: Sequence[str]) -> list[str]:
    """Points of an image, in the form of their names; spaces between them."""
    return [parse_points(word).name for text in words for word in text.split() or [""]]


def removals(words: Sequence[str]) -> list[str]:
    """Names of parts of a cross-attention; head:0-3 are four heads."""
    names: list[str] = []
    for word in items(" ".join(words)):
        kind, _, value = word.partition(":")
        heads = numbers(value, digits=4) if kind == "head" else None
        names += [f"head:{head}" for head in heads] if heads else [parse_removal(word).name]
    return names


def weights(words: Sequence[str]) -> list[str]:
    """Names and paths of weights. A path may have a comma or a space in it."""
    return _paths(words, lambda part: part in KNOWN or part.startswith(PREFIX))


def images(words: Sequence[str]) -> list[str]:
    """Paths of images. A path may have a comma or a space in it."""
    return _paths(words, lambda part: False)


def _paths(words: Sequence[str], is_name: Callable[[str], bool]) -> list[str]:
    """Words, split at commas where that gives names or paths that are there, and the word is none.

    Commas between words separate them too: a.png, b.png
    """
    paths: list[str] = []
    for i, word in enumerate(words):
        if word.endswith(",") and i + 1 < len(words) and not _is_there(word):
            word = word[:-1]
        parts = word.split(",")
        split = len(parts) > 1 and not _is_there(word)
        if split and all(part and (is_name(part) or _is_there(part)) for part in parts):
            paths += parts
        else:
            paths.append(word)
    return paths


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a null character
        return False
