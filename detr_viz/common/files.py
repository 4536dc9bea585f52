"""Output files: written to a temporary name beside the target, or in one folder of a run, then
renamed; nothing half-written stays.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from detr_viz.common.errors import UserError

_unfinished: set[Path] = set()
_elsewhere: Path | None = None  # the folder for temporary files, where it is not the target's own
# what the disk says when no other file can be written either
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class OutputError(UserError):
    """An output that cannot be written. problem: what is wrong, without the way out."""

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem}; {way_out}" if way_out else problem)
        self.problem = problem

    @property
    def of_the_disk(self) -> bool:
        """Whether the next file would fare no better: the disk is full, or cannot be written."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno in _DISK


def reason(error: object) -> str:
    """The plain words of an error, without its number and path, on one line."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())


def printable(text: object) -> str:
    """Text from anywhere as part of one line, without characters that control a terminal."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def path_text(path: object) -> str:
    """A path as part of one line: as it is, or quoted if it is empty or not printable."""
    text = str(path)
    return text if text and text.isprintable() else repr(text)


def search(top: str | Path, suffix: str) -> list[Path]:
    """Files of a suffix in a folder and below it, sorted, without hidden ones.

    Links to folders are followed, once each. UserError where a folder cannot be read: going on
    would leave out what is in it unseen.
    """
    found, seen = [], set()

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot search {printable(error.filename)}: {reason(error)}") from None

    for folder, inner, files in os.walk(top, onerror=unreadable, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            inner.clear()
            continue
        seen.add(place)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in files
            if name.lower().endswith(suffix) and not name.startswith(".")
        ]
    return sorted(found)


@contextmanager
def replacing(path: str | Path, way_out: str = "choose another place with --out") -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path` in one rename, else it is removed.

    The folder is made where it is missing. OSErrors come out as OutputError,
    one line that names the file.
    """
    path = Path(path)
    # the suffix stays, since writers choose the format by it
    folder = path.parent if _elsewhere is None else _elsewhere
    temporary = folder / f".{path.stem[:40]}-{os.urandom(6).hex()}{path.suffix}"
    _unfinished.add(temporary)
    try:
        check_file(path, way_out)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _move(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}", way_out) from error
    finally:
        _remove(temporary)


def check_file(path: Path, way_out: str) -> None:
    """OutputError where no file can be put at a path, before time is spent on it."""
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is no regular file", way_out)
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}", way_out) from error
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is a file, not a folder", way_out)


def put_temporaries_in(folder: Path | None) -> None:
    """From now on temporary files of this process lie there, best on the targets' file system.

    For a process that can be killed: whoever cleans up knows where to look. None: beside each
    target, as at first.
    """
    global _elsewhere
    _elsewhere = folder


def discard_unfinished() -> None:
    """Remove what is being written right now: for a process that ends on the spot."""
    for temporary in list(_unfinished):
        _remove(temporary)


def _move(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    beside = path.with_name(temporary.name)  # the target's folder is on another file system
    _unfinished.add(beside)
    try:
        shutil.copyfile(temporary, beside)
        beside.replace(path)
    finally:
        _remove(beside)


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    _unfinished.discard(temporary)
