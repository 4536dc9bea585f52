"""A batch on a Ray cluster, through Ray Data (extra `ray`): many processes like LocalEngine's.

Three kinds of process. The command's own has the journal and asks (here). Beside it the clerk talks
to Ray, which prints, takes signals over and, where a cluster goes away, aborts the process that it
is in: none of that may happen to the command (clerk.py). On the cluster the workers, actors of Ray
Data, each with the models and helpers of its own, write the files (worker.py).
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
from detr_viz.batch.ray.job import NEEDS, RESUME, Job, Message, Trouble, over
from detr_viz.batch.scheduler import Item
from detr_viz.checkpoints.sources import ModelSource
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, reason
from detr_viz.render.options import RunOptions
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import Recipe

_KNOCK_S, _JOIN_S, _START_S = 5, 60, 180  # for a port, a cluster that is there, a new one
_LEAVE_S = 15


def check(address: str | None) -> None:
    """UserError where Ray is not installed, or no cluster can be at an address: in seconds, where
    Ray itself would take minutes to say so.
    """
    try:
        there = all(find_spec(name) for name in ("ray", "pyarrow", "pandas"))
    except ImportError:
        there = False
    if not there:
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
    """What batch.run drives; the work is done by workers on a cluster.

    sources: of the models, which each worker loads itself. recipe: with the facts of the models
    of this process, which the workers' must equal; the rest of a recipe (device, software) is that
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
        self._clerk: subprocess.Popen[bytes] | None = None

    def run(
        self, items: Iterator[Item], temporary: Path, say: Callable[[str], None]
    ) -> Iterator[Result]:
        todo = list(items)
        if not todo:
            return
        job = self._job(todo, temporary.absolute())
        seen: set[int] = set()
        try:
            for message in self._ask(job, todo):
                if isinstance(message, str):
                    say(message)
                elif isinstance(message, Trouble):
                    raise message.error()
                elif message.i not in seen:  # else a worker had answered before it died
                    seen.add(message.i)
                    yield message
        finally:
            self.stop()
            self._dismiss()

    def stop(self) -> None:
        self._stopped = True
        if self._running is not None:  # workers begin nothing new once it has gone
            with suppress(OSError):
                self._running.rename(over(self._running))

    def kill(self) -> None:
        if self._clerk is not None:  # its session: a cluster that it has started goes with it
            with suppress(OSError, AttributeError):
                os.killpg(self._clerk.pid, signal.SIGKILL)
            self._clerk.kill()

    def _job(self, todo: Sequence[Item], temporary: Path) -> Job:
        self._running = temporary / f"run-{os.urandom(6).hex()}"
        try:
            self._running.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write to {temporary}: {reason(error)}") from error
        if self._stopped:  # while there was no such folder
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

    def _ask(self, job: Job, todo: list[Item]) -> Iterator[Message]:
        """What the clerk says, until it has no more to say."""
        address, joined = job.options.ray_address, False
        self._clerk = clerk = subprocess.Popen(
            [sys.executable, "-c", "from detr_viz.batch.ray.driver import serve; serve()"],
            # Ray puts it on the search path of its workers: those of a checkout find this package
            # there, and nobody imports what lies in the folder that the user is in
            cwd=Path(detr_viz.__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for Ray's processes
        )
        assert clerk.stdin is not None and clerk.stdout is not None
        timer = threading.Timer(_START_S if address is None else _JOIN_S, clerk.kill)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump((job, todo), clerk.stdin)
            clerk.stdin.flush()
            while (message := pickle.load(clerk.stdout)) is not None:
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
                f"the Ray cluster {where} cannot be joined: --traceback shows what Ray says"
            ) from None
        finally:
            timer.cancel()

    def _dismiss(self) -> None:
        """Let the clerk leave the cluster; end it where it does not."""
        clerk, self._clerk = self._clerk, None
        if clerk is None:
            return
        for pipe in (clerk.stdout, clerk.stdin):
            with suppress(OSError):
                pipe.close()
        try:
            clerk.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            clerk.kill()
            clerk.wait()
