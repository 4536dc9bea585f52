"""Pieces of argparse that every command shares."""

from __future__ import annotations

import argparse
import difflib
from typing import NoReturn

from detr_viz.errors import EXIT_USER_ERROR


class OneLineParser(argparse.ArgumentParser):
    """argparse that states a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        short = " ".join(message.split())
        if short.startswith("unrecognized arguments: --"):
            near = difflib.get_close_matches(short.split()[2], self._option_string_actions, n=1)
            short += f"; did you mean {near[0]}?" if near else ""
        short = short if len(short) <= 300 else f"{short[:300]}..."
        self.exit(EXIT_USER_ERROR, f"error: {short} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1")
    return int(text)


def layer(text: str) -> int | str:
    """ "last" or a decoder layer counted from 0."""
    if text == "last":
        return text
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is neither last nor a layer from 0")
    return int(text)
