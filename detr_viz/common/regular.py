"""Only regular files are read: a pipe or a device may never end, or act when it is opened.

with open_regular("list.txt") as file: ...

A file of /proc or /sys counts as a device too, whatever its kind says.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_OF_THE_SYSTEM = ("/proc/", "/sys/")
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularError(OSError):
    """What is no regular file; it reads like any other error of the disk."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; NotRegularError for what is none, without opening it.

    Another process may put something else in its place after the check: the open does not wait for
    the other end of a pipe, and the opened file is checked again.
    """
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    try:
        _check_mode(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """NotRegularError for a path that leads to no regular file; OSError where nothing is there."""
    info = os.stat(path)
    _check_mode(info.st_mode, path)
    if os.path.realpath(path).startswith(_OF_THE_SYSTEM):
        raise NotRegularError(errno.EINVAL, "it is a file of the system, not a regular file", path)
    return info


def read_regular(path: str | Path) -> bytes:
    """The content of a regular file."""
    with open_regular(path) as file:
        return file.read()


_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _check_mode(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    what = next((title for is_kind, title in _KINDS if is_kind(mode)), "no file")
    raise NotRegularError(errno.EINVAL, f"it is {what}, not a regular file", os.fspath(path))
