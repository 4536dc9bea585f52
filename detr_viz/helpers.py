"""Helper processes of a batch: they read images and draw figures while the network runs.

A helper keeps the pixels of the images it has read until it has drawn them, so that of a photo
only the resized input goes to the main process, and only maps come back. What a broken file does
to the process that reads it stays there too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_viz.errors import in_a_line
from detr_viz.files import OutputError
from detr_viz.recipe import Recipe, carries

if TYPE_CHECKING:
    import numpy as np

    from detr_viz.findings import Snapshot
    from detr_viz.images import ImageFacts, LoadedImage
    from detr_viz.matching import SharedObject
    from detr_viz.targets import Target

_NICE = 10  # drawing waits for the network, not the network for drawing
# The maths libraries of a helper: a thread each. torch's in the main process has all cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Setup:
    """What is the same for all images of a run. temporary: the folder for unfinished files."""

    recipe: Recipe
    temporary: Path


@dataclass(frozen=True)
class Earlier:
    """What an earlier run made of an image: its recipe's digest, and the files (none where there
    was nothing to draw).
    """

    recipe: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Read:
    """Read image i and resize it for each model; skip it where what is there is what would be."""

    i: int
    path: str
    earlier: Earlier | None = None


@dataclass(frozen=True)
class Draw:
    """Write the files of image i."""

    i: int
    path: str
    found: tuple[Snapshot, ...]
    objects: tuple[SharedObject, ...]
    target: Target


@dataclass(frozen=True)
class Drop:
    """Image i will not be drawn."""

    i: int


Order = Setup | Read | Draw | Drop


@dataclass(frozen=True)
class Pixels:
    """An image that was read: what is known of it, and the input of each size, uint8 (h, w, 3)."""

    facts: ImageFacts
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Skipped:
    """The files that are there are the ones that would be made."""


@dataclass(frozen=True)
class Drawn:
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why an image came to nothing. fatal: so would the next, for the disk is full or broken."""

    reason: str
    fatal: bool = False


Reply = Pixels | Skipped | Drawn | Failure | None


class Desk:
    """What a helper does with its orders; a process of its own is only one way to run it."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._held: dict[int, LoadedImage] = {}

    def answer(self, order: Order) -> Reply:
        """Carry out an order; an error comes back as a Failure."""
        try:
            if isinstance(order, Setup):
                self._start(order)
                return None
            if isinstance(order, Read):
                return self._read(order)
            if isinstance(order, Draw):
                return self._draw(order)
            self._held.pop(order.i, None)
            return None
        except Exception as error:
            self._held.pop(getattr(order, "i", -1), None)
            return failure(error)

    def _start(self, order: Setup) -> None:
        from detr_viz import files

        self._setup = order
        files.put_temporaries_in(order.temporary)

    @property
    def _recipe(self) -> Recipe:
        assert self._setup is not None
        return self._setup.recipe

    def _read(self, order: Read) -> Reply:
        from detr_viz import images

        if order.earlier is not None and self._is_done(order.path, order.earlier):
            return Skipped()
        picture = images.load(order.path)
        made = {size: images.resized(picture, *size) for size in dict.fromkeys(self._recipe.sizes)}
        self._held[order.i] = picture
        return Pixels(picture.facts, tuple(made[size] for size in self._recipe.sizes))

    def _is_done(self, path: str, earlier: Earlier) -> bool:
        from detr_viz import images

        with suppress(OSError), open(path, "rb") as file:
            wanted = self._recipe.digest_of(images.sha256(file), path)
            return earlier.recipe == wanted[: len(earlier.recipe) or None] and all(
                carries(f, wanted) for f in earlier.files
            )
        return False

    def _draw(self, order: Draw) -> Drawn:
        from detr_viz import images, rendering

        picture = self._held.pop(order.i, None)
        if picture is None:  # it was read by a helper that is no more
            picture = images.load(order.path)
        found = [replace(snapshot, image=picture) for snapshot in order.found]
        order.target.check()
        written = rendering.write(found, order.objects, self._recipe, order.target)
        return Drawn(written.files, written.notes)


def failure(error: BaseException) -> Failure:
    """An error as the reason why an image failed."""
    if isinstance(error, OutputError) and error.of_the_disk:
        return Failure(error.problem, fatal=True)
    return Failure(in_a_line(error)[0])


def serve(connection: Connection) -> None:
    """The life of a helper process: orders in, replies out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    with suppress(AttributeError, OSError):  # no such thing on Windows
        os.nice(_NICE)
    desk = Desk()
    _warm_up()
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(desk.answer(connection.recv()))


def _warm_up() -> None:
    """What is slow to import, while the main process loads its model."""
    os.environ["MPLBACKEND"] = "agg"
    from detr_viz import figures, heatmaps, images, rendering  # noqa: F401


class Helper:
    """A helper process and the way to talk to it; for use by one thread."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs,), name="detr_viz helper", daemon=True
        )
        with _environment(dict.fromkeys(_ONE_THREAD, "1")), _without_main():
            self._process.start()
        theirs.close()

    def ask(self, order: Order) -> Reply:
        """Send an order and wait for the reply. EOFError or OSError where the process died."""
        if isinstance(order, Setup):
            self._setup = order
        self._connection.send(order)
        return self._connection.recv()

    def restart(self) -> str:
        """Replace a process that died; returns how it ended, in words."""
        self.stop()
        code = self._process.exitcode
        self._start()
        if self._setup is not None:
            self.ask(self._setup)
        if code is None or code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"{name}, perhaps for want of memory" if code == -signal.SIGKILL else name

    def kill(self) -> None:
        """End the process at once; for a signal handler."""
        self._process.kill()

    def stop(self, wait_s: float = 0.5) -> None:
        """End the process, by force where it does not go on its own."""
        self._connection.close()
        self._process.join(wait_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not import the program it was started from.

    spawn would run the caller's script again, and one that has no `if __name__ == "__main__"` would
    start another batch in every helper. Nothing that is sent lives in that script.
    """
    main: Any = sys.modules["__main__"]
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    main.__spec__ = None
    if path is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if path is not None:
            main.__file__ = path


def start(count: int) -> Sequence[Helper]:
    """Helpers that import what they need while the caller goes on."""
    return [Helper() for _ in range(count)]


def default_count(device: str) -> int:
    """Helpers where --jobs does not say: few beside a network that has all cores itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    return max(1, cores - 1 if device == "cuda" else cores // 2)
