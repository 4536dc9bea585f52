"""What stands where a file should: name -> builder of it at a path."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path


def _socket(path: Path) -> None:
    one = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        one.bind(path.name)
    finally:
        os.chdir(here)
        one.close()


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "socket": _socket,
    "zero": _link("/dev/zero"),
    "terminal": _link("/dev/tty"),
    "random": _link("/dev/urandom"),
    "memory": _link("/proc/self/mem"),
    "maps": _link("/proc/self/maps"),
    "core": _link("/proc/kcore"),
    "kernel": _link("/proc/kmsg"),
    "power": _link("/sys/kernel/uevent_seqnum"),
    "link to a pipe": lambda path: (
        os.mkfifo(path.with_name("pipe")),
        path.symlink_to("pipe"),
    ),
    "loop": lambda path: path.symlink_to(path.name),
    "nothing": _link("nowhere"),
}
