"""Output files: written to a temporary name beside the target, then renamed;
nothing half-written stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detr_viz.errors import UserError

_unfinished: set[Path] = set()


class OutputError(UserError):
    """An output that cannot be written."""


def reason(error: object) -> str:
    """The plain words of an error, without its number and path, on one line."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())


@contextmanager
def replacing(path: str | Path, way_out: str = "choose another place with --out") -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path` in one rename, else it is removed.

    The folder is made where it is missing. OSErrors come out as OutputError,
    one line that names the file.
    """
    path = Path(path)
    # the suffix stays, since writers choose the format by it
    temporary = path.with_name(f".{path.stem[:40]}-{os.urandom(6).hex()}{path.suffix}")
    _unfinished.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; {way_out}") from error
    finally:
        _remove(temporary)


def say(line: str) -> None:
    """Print a line on standard output; a reader that has gone (| head) is no reason to stop."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"cannot write to standard output: {reason(error)}; use --quiet"
        ) from error


def discard_unfinished() -> None:
    """Remove what is being written right now: for a process that ends on the spot."""
    for temporary in list(_unfinished):
        _remove(temporary)


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    _unfinished.discard(temporary)
