"""Worker processes that stay for the next run: a test of what a run writes need not start its own.

How workers start, die and end is tested with real ones (batch/test_helpers.py, test_resume.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from unittest import mock

from detr_viz.batch import worker, worker_process


@dataclass(frozen=True)
class Enter:
    """Begin anew, in another working directory."""

    folder: str


def serve(connection: Connection) -> None:
    """worker_process.serve, and one task more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    image_worker = worker.ImageWorker()
    worker_process._warm_up()
    with suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            if isinstance(task, Enter):
                os.chdir(task.folder)
                image_worker = worker.ImageWorker()
                connection.send(None)
            else:
                connection.send(image_worker.answer(task))


_free: list[worker_process.WorkerProcess] = []


def _start(count: int) -> list[worker_process.WorkerProcess]:
    workers = [_free.pop() for _ in range(min(count, len(_free)))]
    with mock.patch.object(worker_process, "serve", serve):
        workers += [worker_process.WorkerProcess() for _ in range(count - len(workers))]
    for process in workers:
        process.ask(Enter(os.getcwd()))
    return workers


def _stop(workers: Sequence[worker_process.WorkerProcess]) -> None:
    """They are free where they could begin anew; one that is in the middle of a task is not."""
    for process in workers:
        if process._process.is_alive() and not process._connection.closed:
            _free.append(process)


@contextmanager
def warm_helpers() -> Iterator[None]:
    """Runs in this process take workers that an earlier one has left."""
    with (
        mock.patch.object(worker_process, "start", _start),
        mock.patch.object(worker_process, "stop", _stop),
    ):
        yield
