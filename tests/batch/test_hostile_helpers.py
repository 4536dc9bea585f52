"""Workers that are killed or stopped at any time: what a resumed run leaves is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_tools import COMMAND, QUICK, folder_of_scenes
from conftest import ROOT

from detr_viz.batch.worker_process import WorkerProcess
from detr_viz.common.bounds import raised_by

pytestmark = [pytest.mark.slow, pytest.mark.own_helpers]


def _children(pid: int) -> list[int]:
    """The processes of a run that read and draw, as /proc lists them."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit():
                continue
            words = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid and b"spawn_main" in words:
            found.append(int(folder.name))
    return found


def _run(home: Path, out: str, *flags: str) -> subprocess.Popen:
    argv = [*COMMAND, *QUICK, "--image", "in", "--out", out, "--jobs", "2", "--resume", *flags]
    return subprocess.Popen(
        argv,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".detr_viz" not in p.parts
    }


def test_killed_and_stopped_workers_change_nothing(tmp_path):
    """20 SIGKILLs and 5 SIGSTOPs at random times, with as many resumed runs as they take."""
    folder_of_scenes(tmp_path / "in", 24, broken=0)
    plain = _run(tmp_path, "plain")
    _, err = plain.communicate(timeout=900)
    assert plain.returncode == 0, err
    dice = random.Random(0)
    signals = [signal.SIGKILL] * 20 + [signal.SIGSTOP] * 5
    dice.shuffle(signals)
    sent = 0
    for _ in range(40):
        process = _run(tmp_path, "out", "--timeout", "20")
        while process.poll() is None:
            time.sleep(dice.uniform(0.2, 1.5))
            if (workers := _children(process.pid)) and sent < len(signals):
                try:
                    os.kill(dice.choice(workers), signals[sent])
                    sent += 1
                except ProcessLookupError:
                    continue
        process.communicate()
        if process.returncode == 0 and sent == len(signals):
            break
        if process.returncode == 0:
            for path in list((tmp_path / "out").rglob("*.png"))[:8]:
                path.unlink()  # there is more to draw
    assert sent == len(signals) and process.returncode == 0
    assert _files(tmp_path / "out") == _files(tmp_path / "plain")


def test_a_stopped_worker_is_replaced_and_says_why():
    worker = WorkerProcess()
    try:
        os.kill(worker._process.pid, signal.SIGSTOP)
        with raised_by(["seconds=2"]):
            start = time.monotonic()
            with pytest.raises((EOFError, OSError)):
                worker.ask(None)  # type: ignore[arg-type]
            assert 1.5 < time.monotonic() - start < 60
        assert "no answer in 2 s" in worker.restart()
        assert worker._process.is_alive()
    finally:
        worker.stop()
    assert sys.platform != "win32"
