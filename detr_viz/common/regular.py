"""Only regular files are read: a pipe or a device may never end, or act when it is opened.

with open_regular("list.txt") as file: ...

A file of /proc or /sys counts as a device too, whatever its kind says. A pipe that the caller has
opened (standard input, <(command) of a shell) is read by read_stream(), within limits.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time
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
    if is_of_the_system(path):
        raise NotRegularError(errno.EINVAL, "it is a file of the system, not a regular file", path)
    return info


def is_of_the_system(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads into /proc or /sys, by itself or by a link."""
    return os.path.join(os.path.realpath(path), "").startswith(_OF_THE_SYSTEM)


def own_descriptor(path: str) -> int | None:
    """The number of a descriptor that this process was started with: "-", /dev/fd/63, /dev/stdin.

    None for every other path, and for a descriptor that is closed. In bash <(command) is such a
    path. A pipe behind it is one that the caller opened, so opening it cannot wait for an end.
    """
    found = re.fullmatch(r"-|/dev/stdin|(?:/dev|/proc/self)/fd/(\d{1,5})", path)
    if found is None:
        return None
    number = int(found[1] or 0)
    try:
        os.fstat(number)
    except OSError:
        return None
    return number


def read_stream(descriptor: int, most: int, seconds: float) -> bytes | None:
    """What comes through a pipe, a socket or a file that is open; None for more than `most` bytes.

    TimeoutError where it has not ended after so many seconds; NotRegularError for a device.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        _check_mode(mode, str(descriptor))
    end, blocks, size = time.monotonic() + seconds, [], 0
    while size <= most:
        # a file is always ready; Windows can wait for sockets alone
        left = max(0.0, end - time.monotonic())
        if os.name == "posix" and not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError(f"it has no end after {seconds:g} s; --timeout waits longer")
        block = os.read(descriptor, 1 << 16)
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        size += len(block)
        if time.monotonic() > end:
            raise TimeoutError(f"it has no end after {seconds:g} s; --timeout waits longer")
    return None


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
