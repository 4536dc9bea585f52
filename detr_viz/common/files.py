"""Output files: written under a temporary name, then renamed, so that no half-written file stays.

The temporary file lies beside the target, or in one folder of the run.
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
from detr_viz.common.regular import check_regular, is_of_the_system

_unfinished: set[Path] = set()
_elsewhere: Path | None = None  # the folder for temporary files; None: the target's own
# errors of the disk, after which no other file can be written either
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class OutputError(UserError):
    """An output file that cannot be written. problem: the message without the way out."""

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem}; {way_out}" if way_out else problem)
        self.problem = problem

    @property
    def of_the_disk(self) -> bool:
        """Whether other files would fail too: the disk is full, or cannot be written."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno in _DISK


def reason(error: object) -> str:
    """An error's message on one line, without its number and path."""
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
    """Files with a suffix in a folder and its subfolders, sorted, without hidden ones.

    Links to folders are followed, once each. UserError if a folder cannot be read, since its files
    would otherwise be left out without a word.
    """
    paths, seen = [], set()

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot search {printable(error.filename)}: {reason(error)}") from None

    for folder, inner, files in os.walk(top, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        paths += [
            Path(folder, name)
            for name in files
            if name.lower().endswith(suffix) and not name.startswith(".")
        ]
    return sorted(paths)


@contextmanager
def replacing(path: str | Path, way_out: str = "choose another place with --out") -> Iterator[Path]:
    """A temporary path to write to; on success it is renamed to `path`, else it is removed.

    A missing folder is created. An OSError becomes an OutputError, one line that names the file.
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
    """OutputError if no file can be written at a path; for a check before the work starts."""
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        if path.exists():
            check_regular(path)
        if path.is_symlink() and not path.exists():
            raise OutputError(f"cannot write {path}: it is a link to nothing", way_out)
        folder = existing_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}", way_out) from error
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is a file, not a folder", way_out)
    if is_of_the_system(folder):
        raise OutputError(f"cannot write {path}: {folder} is a folder of the system", way_out)


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there. OSError at a link to nothing."""
    while not folder.exists() and folder != folder.parent:
        if folder.is_symlink():
            raise OSError(errno.ENOENT, f"{folder} is a link to nothing")
        folder = folder.parent
    return folder


def put_temporaries_in(folder: Path | None) -> None:
    """From now on this process writes its temporary files there; None: beside each target.

    For a process that can be killed: another process can then remove its files. The folder should
    be on the file system of the targets.
    """
    global _elsewhere
    _elsewhere = folder


def discard_unfinished() -> None:
    """Remove the files that are being written now, for a process that ends at once."""
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
