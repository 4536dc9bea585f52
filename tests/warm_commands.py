"""Whole commands, forked from a process that has imported what they need.

A command that starts anew imports for seconds, and so does each of its worker processes. Here both
are forked from one process that waits (multiprocessing's fork server, Linux and macOS). A command
is a process all the same: it has a process group of its own with its workers in it, its own
folder, environment, signals, standard streams and exit code. How commands start is tested with
processes that do so (batch_tools.start, cli/test_cli.py).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
PRELOAD = (
    "warm_commands",
    "torch",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "detr_viz.cli.main",
    "detr_viz.cli.render",
    "detr_viz.batch.run",
    "detr_viz.batch.local_engine",
    "detr_viz.batch.explainer",
    "detr_viz.checkpoints",
    "detr_viz.explanation",
    "detr_viz.figures.head_maps",
    "detr_viz.heatmaps.npz",
    "detr_viz.images.read",
    "detr_viz.render.run",
)
SERVER = {  # its environment: one thread each, and a path to the modules
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}


@functools.cache
def _context() -> multiprocessing.context.BaseContext:
    """The fork server, running."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    with mock.patch.dict(os.environ, SERVER):
        multiprocessing.forkserver.ensure_running()
    return context


def _work(group: int, connection: Connection) -> None:
    """A worker process of a command, in the command's process group."""
    from detr_viz.batch import worker_process

    os.setpgid(0, group)  # from here on it hears of Ctrl-C
    worker_process.serve(connection)


def _main(
    argv: list[str],
    folder: str,
    environment: dict[str, str],
    streams: tuple[str, str],
    stdout: Connection | None,
    prepare: Callable[[], object] | None,
    ready: Connection,
) -> None:
    """The command's process."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(streams, start=1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    if stdout is not None:
        os.dup2(stdout.fileno(), 1)
        stdout.close()
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    ready.send(None)
    ready.close()

    from detr_viz import cli
    from detr_viz.batch import worker_process

    worker_process.multiprocessing = mock.Mock(
        get_context=lambda _: multiprocessing.get_context("forkserver")
    )
    worker_process.serve = functools.partial(_work, os.getpgrp())
    sys.argv = ["attention_scripts.py", *argv]
    try:
        code = cli.main(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as stop:  # argparse
        code = stop.code
    sys.exit(code)


class WarmCommand:
    """What subprocess.Popen of the command would be, as far as the tests use it."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        prepare: Callable[[], object] | None = None,
        stdout: Connection | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="command-"))
        self._streams = tuple(self._folder / name for name in ("out", "err"))
        for path in self._streams:
            path.touch()
        context = _context()
        ours, theirs = context.Pipe(duplex=False)
        streams = tuple(map(str, self._streams))
        where = str(folder or os.getcwd())
        self.args = [*argv]
        self._process = context.Process(
            target=_main,
            args=(self.args, where, dict(environment), streams, stdout, prepare, theirs),
        )
        self._process.start()
        theirs.close()
        with ours:
            ours.recv()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def stderr_so_far(self) -> str:
        return self._streams[1].read_text()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote, once it has ended. subprocess.TimeoutExpired where it does not."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        out, err = (path.read_text() for path in self._streams)
        shutil.rmtree(self._folder)
        return out, err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
