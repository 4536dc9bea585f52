"""What the helpers of a run unpack at a time, together: one budget of pixels, whatever --jobs says.

with budget.room(): load_image(path)     # waits until the pixels of the image fit

The budget is a file on which helpers of one machine lock bytes, one for each unit of pixels: locks
of a helper that dies are free again, and no helper has to ask another one.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_viz.batch.run_folder import PLAIN_FILE
from detr_viz.common.bounds import bound
from detr_viz.images.loaded_image import MAX_PIXELS, before_pixels

try:
    import fcntl
except ImportError:  # Windows: no shared locks of bytes
    fcntl = None

UNIT = 4_000_000  # pixels of a locked byte
_FREE = 1_000_000  # pixels of an image that takes none
_WAIT_S = 0.02


class PixelBudget:
    """The part of one helper in it. folder: of the run. helpers: how many share it."""

    def __init__(self, folder: Path, helpers: int) -> None:
        most = max(bound("flight"), MAX_PIXELS)  # one image that is read at all always fits
        self.units = -(-most // UNIT)
        self.held_most = most // (
            2 * max(helpers, 1)
        )  # pixels that a helper keeps from task to task
        self._alone = helpers < 2
        self._path = folder / f"pixels-{platform.node()[:40].replace('/', '-')}"
        self._file: int | None = None
        self._taken: list[int] = []

    @contextmanager
    def room(self, pixels: int = 0) -> Iterator[None]:
        """In the block, images that are read wait for room, and so does one of `pixels`."""
        try:
            self.take(pixels)
            with before_pixels(self.take):
                yield
        finally:
            self._release()

    def take(self, pixels: int) -> None:
        """Wait for room for so many pixels, at most for half of the time that a task has.

        After that it goes on without: a helper that was stopped must not hold up all others.
        """
        wanted = min(-(-pixels // UNIT), self.units) if pixels > _FREE else 0
        wanted -= len(self._taken)
        if wanted <= 0 or fcntl is None or self._alone:
            return
        end = time.monotonic() + bound("seconds") / 2
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | PLAIN_FILE, 0o666)
            while not self._locked(0):  # one helper at a time gathers its bytes
                if time.monotonic() > end:
                    return
                time.sleep(_WAIT_S)
            while not self._gathered(wanted) and time.monotonic() < end:
                time.sleep(_WAIT_S)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)
        except OSError:  # a file system without locks
            return

    def _gathered(self, wanted: int) -> bool:
        """Lock so many of the free bytes, or none."""
        got: list[int] = []
        for unit in range(1, self.units + 1):
            if unit not in self._taken and self._locked(unit):
                got.append(unit)
                if len(got) == wanted:
                    self._taken += got
                    return True
        self._unlock(got)
        return False

    def _locked(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, units: list[int]) -> None:
        for unit in units:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, unit)

    def _release(self) -> None:
        if self._taken:
            self._unlock(self._taken)
            self._taken = []
