"""Helper processes that stay for the next run: a test of what a run writes need not start its own.

How helpers start, die and end is tested with real ones (batch/test_helpers.py, test_resume.py).
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
    """worker_process.serve, and an order more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk = worker.ImageWorker()
    worker_process._warm_up()
    with suppress(EOFError, ConnectionError):
        while True:
            order = connection.recv()
            if isinstance(order, Enter):
                os.chdir(order.folder)
                desk = worker.ImageWorker()
                connection.send(None)
            else:
                connection.send(desk.answer(order))


_free: list[worker_process.WorkerProcess] = []


def _start(count: int) -> list[worker_process.WorkerProcess]:
    team = [_free.pop() for _ in range(min(count, len(_free)))]
    with mock.patch.object(worker_process, "serve", serve):
        team += [worker_process.WorkerProcess() for _ in range(count - len(team))]
    for helper in team:
        helper.ask(Enter(os.getcwd()))
    return team


def _stop(team: Sequence[worker_process.WorkerProcess]) -> None:
    """They are free where they could begin anew; one that is in the middle of an order is not."""
    for helper in team:
        if helper._process.is_alive() and not helper._connection.closed:
            _free.append(helper)


@contextmanager
def warm_helpers() -> Iterator[None]:
    """Runs in this process take helpers that an earlier one has left."""
    with (
        mock.patch.object(worker_process, "start", _start),
        mock.patch.object(worker_process, "stop", _stop),
    ):
        yield
