"""Lines on standard output."""

from __future__ import annotations

import os
import sys

from detr_viz.common.files import OutputError, reason


def say(line: str, quiet: bool = False) -> None:
    """Print a line, unless quiet. A closed pipe (| head) does not stop the run.

    OutputError if standard output cannot be written to for another reason.
    """
    if quiet:
        return
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"cannot write to standard output: {reason(error)}; use --quiet"
        ) from error
