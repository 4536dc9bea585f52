"""A batch on a Ray cluster, through Ray Data (extra `ray`).

There are three kinds of process. The command itself keeps the journal (this file). Beside it the
driver uses Ray (driver.py): Ray prints, takes over signals and aborts its process when a cluster
disappears, and none of that may happen to the command. On the cluster the workers, actors of Ray
Data, write the files; each has its own models and its own worker processes (worker.py).
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import detr_viz
from detr_viz.batch.engine import Result
from detr_viz.batch.ray.job import NEEDS, RESUME, Job, Message, Trouble, ended_folder
from detr_viz.batch.scheduler import Item
from detr_viz.checkpoints.sources import ModelSource
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, reason
from detr_viz.render.options import RunOptions
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe

_KNOCK_S, _JOIN_S, _START_S = 5, 60, 180  # for a port, a running cluster, a new cluster
_LEAVE_S = 15


def check(address: str | None) -> None:
    """UserError where Ray is not installed, or no cluster can be at an address.

    This takes seconds; Ray itself would take minutes.
    """
    try:
        installed = all(find_spec(name) for name in ("ray", "pyarrow", "pandas"))
    except ImportError:
        installed = False
    if not installed:
        raise UserError(NEEDS)
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--ray-address {address!r} is neither auto nor host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({reason(error)}): start one with "
            "ray start --head, or leave --ray-address out"
        ) from None


class RayEngine:
    """Runs the images of batch.run on a cluster.

    sources: of the models, which each worker loads itself. recipe: has the facts of the models of
    this process, which must equal those of the workers; device and software of a recipe are those
    of the worker that draws.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        recipe: Recipe,
        paths: OutputPaths,
        options: RunOptions,
    ) -> None:
        self._sources, self._recipe, self._paths, self._options = sources, recipe, paths, options
        self._running: Path | None = None
        self._stopped = False
        self._driver: subprocess.Popen[bytes] | None = None

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        todo = list(items)
        if not todo:
            return
        job = self._job(todo, temporary.absolute())
        seen: set[int] = set()
        try:
            for message in self._messages(job, todo):
                if isinstance(message, str):
                    say(message)
                elif isinstance(message, Trouble):
                    raise message.error()
                elif (
                    message.i not in seen
                ):  # otherwise a worker sent it twice, because it died in between
                    seen.add(message.i)
                    yield message
        finally:
            self.stop()
            self._end_driver()

    def stop(self) -> None:
        self._stopped = True
        if self._running is not None:  # workers start no image once this folder is gone
            with suppress(OSError):
                self._running.rename(ended_folder(self._running))

    def kill(self) -> None:
        if self._driver is not None:  # and its session: a cluster that it started ends too
            with suppress(OSError, AttributeError):
                os.killpg(self._driver.pid, signal.SIGKILL)
            self._driver.kill()

    def _job(self, todo: Sequence[Item], temporary: Path) -> Job:
        self._running = temporary / f"run-{os.urandom(6).hex()}"
        try:
            self._running.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write to {temporary}: {reason(error)}") from error
        if self._stopped:  # before the folder existed
            self.stop()
        folders = dict.fromkeys(os.path.dirname(item.path) for item in todo)
        return Job(
            sources=tuple(self._sources),
            options=self._options,
            recipe=self._recipe,
            paths=self._paths,
            temporary=temporary,
            running=self._running,
            cwd=os.getcwd(),
            inputs=tuple(folder for folder in folders if os.path.isdir(folder or ".")),
        )

    def _messages(self, job: Job, todo: list[Item]) -> Iterator[Message]:
        """The messages of the driver, until the last."""
        address, joined = job.options.ray_address, False
        self._driver = driver = subprocess.Popen(
            [sys.executable, "-c", "from detr_viz.batch.ray.driver import serve; serve()"],
            # Ray puts this folder on the search path of its workers: so they find this package in a
            # checkout, and import nothing from the folder that the user is in
            cwd=Path(detr_viz.__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for Ray's processes
        )
        assert driver.stdin is not None and driver.stdout is not None
        timer = threading.Timer(_START_S if address is None else _JOIN_S, driver.kill)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump((job, todo), driver.stdin)
            driver.stdin.flush()
            while (message := pickle.load(driver.stdout)) is not None:
                timer.cancel()
                if message is True:
                    joined = True
                else:
                    yield message
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            where = f"at {address}" if address else "of this run"
            if joined:
                raise UserError(f"the Ray cluster {where} has gone away: {RESUME}") from None
            raise UserError(
                f"the Ray cluster {where} cannot be joined: --traceback shows the output of Ray"
            ) from None
        finally:
            timer.cancel()

    def _end_driver(self) -> None:
        """Let the driver leave the cluster; end it by force where it does not."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        for pipe in (driver.stdout, driver.stdin):
            with suppress(OSError):
                pipe.close()
        try:
            driver.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
