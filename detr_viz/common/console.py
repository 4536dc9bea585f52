"""Lines on standard output and error: what leaves for a terminal is safe for it.

with safe_streams(): print(name)     # no escape, no mark of direction, 500 characters a line
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from detr_viz.common.files import OutputError, reason

LONGEST_LINE = 500  # characters
LONGEST_NAME = 60  # of a name in a table
_CUT = "…"


def safe(text: str) -> str:
    """Text whose characters cannot control a terminal, nor turn its direction; lines are cut."""
    return "\n".join(_cut(_shown(line), LONGEST_LINE) for line in text.split("\n"))


def short_name(name: object) -> str:
    """A name from anywhere as part of a line of a table."""
    return _cut(_shown(" ".join(str(name)[: 4 * LONGEST_NAME].split())), LONGEST_NAME)


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + _CUT


class SafeStream:
    """A stream of text for a terminal: what is written to it is made safe.

    raw      the stream itself, for a progress bar, which moves the cursor
    trouble  the first error of the disk
    tolerant  whether it is no more than noted: of standard error nobody can be told
    """

    def __init__(self, raw: TextIO, tolerant: bool = False) -> None:
        self.raw, self.trouble = raw, None
        self._tolerant, self._column = tolerant, 0

    def write(self, text: str) -> int:
        first, *others = text.split("\n")
        parts = [self._next(first)]
        for line in others:
            self._column = 0
            parts.append(self._next(line))
        self._try(lambda: self.raw.write("\n".join(parts)))
        return len(text)

    def _next(self, text: str) -> str:
        """What of a text still fits on the line that was begun."""
        before, shown = self._column, _shown(text)
        self._column += len(shown)
        room = LONGEST_LINE - before
        if len(shown) <= room:
            return shown
        return shown[: room - 1] + _CUT if room > 0 else ""

    def flush(self) -> None:
        self._try(self.raw.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except (OSError, ValueError) as error:
            self.trouble = self.trouble or error
            if not self._tolerant:
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Standard output and error are safe inside the block."""
    out, err = sys.stdout, sys.stderr
    if out is not None and not isinstance(out, SafeStream):
        sys.stdout = SafeStream(out)
    if err is not None and not isinstance(err, SafeStream):
        sys.stderr = SafeStream(err, tolerant=True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def raw_stream(stream: Any) -> Any:
    """The stream under a safe one, for a line that is drawn again and again."""
    return stream.raw if isinstance(stream, SafeStream) else stream


def say(line: str, quiet: bool = False) -> None:
    """Print a line, unless quiet. A closed pipe (| head) does not stop the run.

    OutputError if standard output cannot be written to for another reason.
    """
    if quiet:
        return
    if sys.stdout is None:  # it was closed before Python began, and print() says nothing
        raise OutputError("cannot write to standard output: it is closed; use --quiet")
    try:
        print(safe(line), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"cannot write to standard output: {reason(error)}; use --quiet"
        ) from error
