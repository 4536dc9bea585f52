"""The base class of all errors that a user can cause, and how the command reports an error."""

from __future__ import annotations

import sys
import traceback

_LONGEST = 5000  # characters of an error that are looked at
# how torch, numpy, a loader of libraries and Python itself say so
_NO_MEMORY = (
    "allocate memory",
    "out of memory",
    "failed to map segment",
    "can't start new thread",
    "bad_alloc",
    "not enough memory",
)
EXIT_USER_ERROR, EXIT_BUG, EXIT_INTERRUPTED = 2, 1, 130


class UserError(ValueError):
    """A mistake that the user can correct: one line that names the thing and the way out.

    The command prints it to stderr and exits with code 2; the library raises it like a ValueError.
    """


def in_a_line(error: BaseException) -> tuple[str, int]:
    """(an error as one line for the user, exit code: 2 for a user's mistake, 1 for a bug)."""
    line = " ".join(str(error)[:_LONGEST].split())
    if isinstance(error, MemoryError) or any(words in line for words in _NO_MEMORY):
        return "out of memory: use a smaller --size or fewer --queries", EXIT_USER_ERROR
    if isinstance(error, UserError | OSError):
        return line, EXIT_USER_ERROR
    return f"this is a bug in detr_viz: {type(error).__name__}: {line}", EXIT_BUG


def report(error: Exception, show_traceback: bool = False) -> int:
    """Print an error as one line on stderr; return the exit code, see `in_a_line`."""
    if show_traceback:
        traceback.print_exception(error)
    line, code = in_a_line(error)
    if code == EXIT_BUG and not show_traceback:
        line += "; please report it with the output of --traceback"
    from detr_viz.common.console import safe

    print(safe(f"error: {line}"), file=sys.stderr)
    return code
