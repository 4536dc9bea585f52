"""The one exception family that a user's mistake ends in, and how the command reports any error."""

from __future__ import annotations

import sys
import traceback

EXIT_USER_ERROR, EXIT_BUG = 2, 1


class UserError(ValueError):
    """A mistake the user can mend: one line that names the thing and the way out.

    The command prints it to stderr and exits with code 2; the library raises it like a ValueError.
    """


def report(error: Exception, show_traceback: bool = False) -> int:
    """Print an error as one line on stderr; return the exit code: 2 for a user's, 1 for a bug."""
    if show_traceback:
        traceback.print_exception(error)
    line = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "allocate memory" in line or "out of memory" in line:
        line = "out of memory: use a smaller --size or fewer --queries"
    elif not isinstance(error, UserError | OSError):
        hint = "" if show_traceback else "; please report it with the output of --traceback"
        line = f"this is a bug in detr_viz: {type(error).__name__}: {line}{hint}"
        print(f"error: {line}", file=sys.stderr)
        return EXIT_BUG
    print(f"error: {line}", file=sys.stderr)
    return EXIT_USER_ERROR
