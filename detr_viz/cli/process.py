"""The process of the command, where it is ours: signals, standard streams, the names of files."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

from detr_viz.common import files
from detr_viz.common.console import SafeStream
from detr_viz.common.errors import EXIT_INTERRUPTED
from detr_viz.common.many_passes import own_process

_AGAIN = "DETR_VIZ_UTF8"  # set in the environment of a process that was started again
_ENDING = ("SIGTERM", "SIGHUP", "SIGQUIT")


def prepare_process() -> None:
    """Names in UTF-8; signals that remove half-written files; standard streams that are there."""
    _in_utf8()
    own_process()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end_by_signal)
    _open_closed_streams()
    if hasattr(sys.stdout, "reconfigure"):  # the terminal may be unable to show a name
        sys.stdout.reconfigure(errors="backslashreplace")


def _in_utf8() -> None:
    """Start the process again in Python's UTF-8 mode where the locale has another encoding.

    Names of files would otherwise lose every letter that the locale does not have.
    """
    known = os.environ.get(_AGAIN)
    if os.name != "posix" or known or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    words = list(getattr(sys, "orig_argv", ()))
    if not words or any(word.startswith("-X") for word in words[1:]):
        return
    settings = {**os.environ, "PYTHONUTF8": "1", _AGAIN: "1"}
    with suppress(OSError):
        os.execve(sys.executable, words, settings)


def _open_closed_streams() -> None:
    """Streams that were closed at the start become ones that cannot be written to.

    Otherwise the next file that is opened would take their place.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest free descriptor: this one
    sys.stdout = sys.stdout or _unwritable(1)
    sys.stderr = sys.stderr or _unwritable(2)


def _unwritable(descriptor: int) -> TextIO:
    return open(descriptor, "w", closefd=False)


def lost_lines() -> str:
    """Why lines on standard output or error were lost, "" for none; a closed pipe is no loss."""
    why = ""
    for stream, name in ((sys.stderr, "error"), (sys.stdout, "output")):
        if not isinstance(stream, SafeStream):
            continue
        with suppress(OSError, ValueError):
            stream.flush()
        if stream.trouble is None:
            continue
        _to_nowhere(stream)
        if not isinstance(stream.trouble, BrokenPipeError):
            why = f"cannot write to standard {name}: {files.reason(stream.trouble)}"
    return why


def _to_nowhere(stream: SafeStream) -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _end_by_signal(number: int, *_: object) -> None:
    """Remove half-written files, then end as the signal would have ended the process."""
    files.discard_unfinished()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def end_at_once(*_: object) -> NoReturn:
    """Ctrl-C: remove half-written files and end the process, without a message.

    A KeyboardInterrupt at any line of the program is not enough: the imports of large libraries
    turn it into other exceptions, or print and ignore it.
    """
    files.discard_unfinished()
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(EXIT_INTERRUPTED)
