"""Worker processes of a batch, which read images and draw figures while the network runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from detr_viz.batch.tasks import Setup, Task, TaskResult
from detr_viz.batch.worker import ImageWorker
from detr_viz.common.bounds import bound
from detr_viz.common.errors import UserError
from detr_viz.common.files import reason

_NICE = 10  # drawing waits for the network, not the network for drawing
_TRIES = 3  # to start a process that lives long enough to be set up
_STOP_S = 0.5  # for a process to end on its own
# The maths libraries of a worker have one thread each; torch in the main process has all cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def serve(connection: Connection) -> None:
    """The main function of a worker process: tasks in, results out, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    with suppress(AttributeError, OSError):  # Windows has no such function
        os.nice(_NICE)
    worker = ImageWorker()
    _warm_up()
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(worker.answer(connection.recv()))


def _warm_up() -> None:
    """Import what is slow to import, while the main process loads its model."""
    os.environ["MPLBACKEND"] = "agg"
    import detr_viz.figures.head_maps
    import detr_viz.heatmaps.npz
    import detr_viz.images.read
    import detr_viz.render.run  # noqa: F401


class WorkersDied(UserError):
    """No worker process stays alive. ended: how the last one died."""

    def __init__(self, ended: str) -> None:
        super().__init__(
            f"the processes that read and draw keep dying ({ended}): "
            "give them more memory, or fewer --jobs"
        )


class WorkerProcess:
    """A worker process and the connection to it; for use by one thread.

    OSError where the system has no room for a process.
    """

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._late = ""  # why the process was ended, if it was
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs,), name="detr_viz worker", daemon=True
        )
        with (
            _inherited,
            _environment(dict.fromkeys(_ONE_THREAD, "1")),
            _without_main(),
            _without_interrupts(),
        ):
            self._process.start()
        theirs.close()

    def set_up(self, setup: Setup) -> None:
        """Send the settings of a run. WorkersDied where no process lives that long."""
        self._setup = setup
        try:
            self.ask(setup)
        except (EOFError, OSError):
            self.restart()

    def ask(self, task: Task) -> TaskResult:
        """Send a task and wait for the result. EOFError or OSError where the process died.

        One that does not answer in time is ended: it was stopped, or a decoder has no end.
        """
        seconds = bound("seconds")
        late = threading.Timer(seconds, self._end_late, (seconds, self._process))
        late.daemon = True
        late.start()
        try:
            self._connection.send(task)
            return self._connection.recv()
        finally:
            late.cancel()

    def _end_late(self, seconds: int, process: Any) -> None:
        self._late = f"no answer in {seconds} s; --timeout waits longer"
        process.kill()

    def restart(self) -> str:
        """Replace a process that died; returns how it ended, as text.

        WorkersDied where the new ones die too.
        """
        self.stop()
        first = ended = self._late or _exit_text(self._process.exitcode)
        self._late = ""
        for _ in range(_TRIES):
            try:
                self._start()
                if self._setup is not None:
                    self.ask(self._setup)
                return first
            except (EOFError, ConnectionError):
                self.stop()
                ended = _exit_text(self._process.exitcode)
            except OSError as error:
                self.stop()
                ended = reason(error)
        raise WorkersDied(ended)

    def kill(self) -> None:
        """End the process at once; for a signal handler."""
        with suppress(AttributeError):  # it was never started
            self._process.kill()

    def hang_up(self) -> None:
        """Let the process end on its own, soon."""
        self._connection.close()

    def stop(self) -> None:
        """End the process, by force where it does not end on its own."""
        self.hang_up()
        if self._process.pid is None:
            return
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _exit_text(code: int | None) -> str:
    """How a process ended, as text."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, perhaps for want of memory" if code == -signal.SIGKILL else name


# A new process inherits settings that are changed for this whole process, so one starts at a time.
_inherited = threading.Lock()


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
    start another batch in every worker. No class of a task is defined in that script.
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


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from a process that is started in the block; later it ignores Ctrl-C itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # otherwise the first start would also start the tracker, which unblocks the signal
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(count: int) -> list[WorkerProcess]:
    """Start workers, which import what they need while the caller continues.

    UserError where the system has no room for so many processes.
    """
    workers: list[WorkerProcess] = []
    try:
        for _ in range(count):
            workers.append(WorkerProcess())
    except OSError as error:
        stop(workers)
        raise UserError(
            f"cannot start process {len(workers) + 1} of {count} that read and draw: "
            f"{reason(error)}; use fewer --jobs"
        ) from error
    return workers


def stop(workers: Sequence[WorkerProcess]) -> None:
    """End all workers; the waiting times overlap."""
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.stop()


def default_count(device: str) -> int:
    """The number of workers without --jobs: few where the network itself needs the cores.

    device: "cuda" where the network runs on a GPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    return max(1, cores - 1 if device == "cuda" else cores // 2)
