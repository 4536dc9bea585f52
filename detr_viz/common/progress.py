"""How far a batch is: a bar if stderr is a terminal, else a line every few seconds.

with Progress(len(inputs), quiet=args.quiet) as progress:
    progress.advance(failed=True)
    progress.note("error: no image at cat.jpg: check the path")
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from detr_viz.common.console import raw_stream, safe

if TYPE_CHECKING:
    from tqdm import tqdm

_BAR_EVERY_S = 0.1
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "


class Progress:
    """Counts the images of a batch and shows how far it is; for use by one thread.

    done: finished images, with the failed and the skipped ones.  failed, skipped: some of these.
    Create it just before the first image starts. The rate counts all images but the skipped ones,
    over the time since the start. Images that a resumed batch skips at its beginning take no time,
    so the clock starts again after the last of them. The time left assumes that no more images
    are skipped.
    If the stream cannot be written to (closed, full disk, none), the output stops, not the run.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 10.0,
        what: tuple[str, str] = ("an image", "images"),
    ) -> None:
        """total: images in all.  stream: default sys.stderr.  every_s: seconds between lines.

        what: the things that are counted, as singular with its article and as plural.
        """
        self._what = what
        self.done = self.failed = self.skipped = 0
        self._total, self._clock, self._every_s = total, clock, every_s
        self._start = self._shown = clock()
        self._shown_done = 0
        self._stream = None if quiet else raw_stream(sys.stderr if stream is None else stream)
        self._bar: tqdm | None = None
        with self._unless_broken():
            if self._stream is not None and total > 0 and self._stream.isatty():
                with suppress(ImportError):  # without tqdm: lines instead of a bar
                    self._bar = _bar(total, self._stream, what[1])
                    self._every_s = _BAR_EVERY_S

    def advance(self, *, failed: bool = False, skipped: bool = False) -> None:
        """One more image is finished."""
        self.done += 1
        self.failed += failed
        self.skipped += skipped
        now = self._clock()
        if self.done == self.skipped:
            self._start = now
        if self.done == 1 or now - self._shown >= self._every_s:
            self._show(now)

    def note(self, line: str) -> None:
        """Print a line above the bar; nothing if quiet."""
        with self._unless_broken():
            if self._bar is not None:
                self._bar.write(self._showable(line), file=self._stream)
            else:
                self._print(line)

    def close(self) -> None:
        """Show the final state; nothing is written after that."""
        if self._bar is not None or self.done > self._shown_done:
            self._show(self._clock(), last=True)
        with self._unless_broken():
            if self._bar is not None:
                self._bar.close()
        self._stream = self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _show(self, now: float, last: bool = False) -> None:
        self._shown, self._shown_done = now, self.done
        words = []
        if self.failed:
            words.append(f"{self.failed} failed")
        if self.skipped:
            words.append(f"{self.skipped} skipped")
        worked, seconds = self.done - self.skipped, now - self._start
        if worked and seconds > 0:
            words.append(rate(worked / seconds, self._what))
            if self.done < self._total and not last:
                words.append(f"{duration((self._total - self.done) * seconds / worked)} left")
        with self._unless_broken():
            if self._bar is not None:
                self._bar.n, self._bar.ncols = self.done, _columns(self._stream)
                self._bar.set_postfix_str(", ".join(words), refresh=False)
                self._bar.refresh()
            else:
                self._print(", ".join([f"{self.done} of {self._total} {self._what[1]}", *words]))

    def _print(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(f"{self._showable(line)}\n")
            self._stream.flush()

    def _showable(self, line: str) -> str:
        """The line, with escapes for characters that the stream's encoding lacks."""
        coding = getattr(self._stream, "encoding", None) or "utf-8"
        return safe(line).encode(coding, "backslashreplace").decode(coding)

    @contextmanager
    def _unless_broken(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:  # from a signal handler, while another line is written: leave it out
            pass
        except (OSError, ValueError):
            if self._bar is not None:
                self._bar.disable = True  # or it writes once more when it is collected
            self._stream = self._bar = None


def rate(per_s: float, what: tuple[str, str] = ("an image", "images")) -> str:
    """A rate as text: "4.1 images/s"; below one a second "2.3 s an image"."""
    number, unit = (per_s, f"{what[1]}/s") if per_s >= 1 else (1 / per_s, f"s {what[0]}")
    return f"{number:.{1 if number < 99.95 else 0}f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as text: "40 s", "3 min", "2 h 10 min"; at least "1 s"."""
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min")) if number]
    return " ".join(parts)


def _bar(total: int, stream: TextIO, what: str) -> tqdm:
    from tqdm import tqdm

    class Bar(tqdm):
        # no monitor thread, and no lock between processes: both are unsafe with forks
        monitor_interval = 0

    Bar.set_lock(threading.RLock())
    return Bar(
        total=total,
        file=stream,
        ncols=_columns(stream),
        nrows=20,
        bar_format=f"{_BAR}{what}{{postfix}}",
    )


def _columns(stream: TextIO) -> int:
    """The terminal's columns less one, or 79 if it reports 0: then tqdm would show nothing."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns - 1 if columns > 1 else 79
