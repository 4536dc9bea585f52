"""Output files: written to a temporary name beside the target, then renamed;
nothing half-written stays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_viz.errors import UserError


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
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        # the suffix stays, since writers choose the format by it
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the file from everybody else
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; {way_out}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
