"""What a training writes, and what becomes of it on the way: no room, Ctrl-C, a damaged file."""

from __future__ import annotations

import io
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, check_file, path_text, reason, replacing


def check_place(path: Path, flag: str) -> None:
    """OutputError where no file can be written, which else would be found out in an hour.

    flag: that names the place. The folder is made.
    """
    way_out = f"choose another place with {flag}"
    check_file(path, way_out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"0")
    except OSError as error:
        raise OutputError(f"cannot write {path_text(path)}: {reason(error)}", way_out) from None


def write_atomically(value: object, path: Path, flag: str = "--out") -> None:
    """torch.save, in one rename. OutputError where there is no room, with the flag to change.

    By way of memory: where a disk is full, torch itself ends in an error of its own kind.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with replacing(path, f"make room, or choose another place with {flag}") as part:
        part.write_bytes(buffer.getbuffer())


def unfinished(path: Path, device: str) -> dict[str, Any]:
    """What an interrupted training wrote; UserError for a file that is damaged or another one."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise _not_resumed(path, reason(error)) from None
    if not isinstance(state, dict):
        raise _not_resumed(path, "it holds no training")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """UserError where a state does not fit the training."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise _not_resumed(path, reason(error)) from None


def _not_resumed(path: Path, why: str) -> UserError:
    return UserError(
        f"cannot go on from {path_text(path)} ({why[:120]}): leave --resume out, or give the flags "
        "that it was begun with"
    )


class Interrupt:
    """Whether Ctrl-C was pressed: a step that has begun is finished first. Again: at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def watched(self) -> Iterator[Interrupt]:
        """While this runs; elsewhere than in the main thread nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _on_signal(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
