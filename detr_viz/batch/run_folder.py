"""The hidden folder of a run, with a lock for one run at a time; errors of the disk in one line."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, reason

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None

JOURNAL, LOCK = "journal.jsonl", "lock"
PLAIN_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # flags of os.open
AT_START = "choose another folder with --out"
LATER = "correct that, then go on with --resume"


def lock_folder(folder: Path) -> int | None:
    """Make the hidden folder and lock it; returns the lock, None on a system without locks."""
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir() or _is_foreign(folder):
                raise OutputError(f"{folder} is not the folder of a run: remove it") from None
        _check_plain(folder)
        if fcntl is None:
            return None
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | PLAIN_FILE, 0o666)
        except FileNotFoundError:  # a run that ended just now removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # a run that ended may have deleted this file, and another run may have made a new one
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
                    return lock
        except OSError as error:
            os.close(lock)
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                return None  # a file system without locks
            raise UserError(
                f"another run is writing to {folder.parent}: wait for it, or choose another --out"
            ) from None
        os.close(lock)


def _check_plain(folder: Path) -> None:
    """OutputError for a pipe, a socket or a device that stands where a run has its own files."""
    for name in (LOCK, JOURNAL):
        with suppress(FileNotFoundError):
            mode = os.lstat(folder / name).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # links are refused or removed
                raise OutputError(f"{folder / name} is not a regular file: remove it")


def _is_foreign(folder: Path) -> bool:
    """Whether a folder has files, but not those that each run begins with."""
    names = set(os.listdir(folder))
    return bool(names) and not names & {LOCK, JOURNAL}


def unlock(lock: int) -> None:
    """Release a lock of `lock_folder`."""
    fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: a fork has the file open too
    os.close(lock)


def clear(folder: Path, keep: tuple[str, ...] = (LOCK, JOURNAL)) -> None:
    """Empty the hidden folder except for the plain files `keep`; what cannot be removed stays."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry)
                elif entry.name not in keep or entry.is_symlink():
                    os.unlink(entry)


@contextmanager
def disk_errors(failure: str, way_out: str = LATER) -> Iterator[None]:
    """An OSError in the block becomes an OutputError: the failure, its reason and the way out."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{failure}: {reason(error)}; {way_out}") from error
