"""Whole commands on a Ray cluster: what one process makes, with workers and commands that die."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from batch_tools import QUICK, content, folder_of_scenes, run, run_here, start
from warm_commands import WarmCommand
from warm_helpers import warm_helpers

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
    pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them"),
]
BATCH = [*QUICK, "--image", "in", "--format", "png,npz", "--jobs", "1"]
RAY = [*BATCH, "--engine", "ray"]
COUNT, BROKEN = 20, 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of images, some of them broken, and what the local engine makes of it."""
    home = tmp_path_factory.mktemp("scenes")
    folder_of_scenes(home / "in", COUNT, BROKEN)
    with warm_helpers():
        assert run_here(*BATCH, "--out", "local", cwd=home).returncode == 1
    return home


@pytest.fixture
def home(scenes, monkeypatch):
    """That folder as the working directory, and a thread a worker, as many as locally."""
    monkeypatch.chdir(scenes)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return scenes


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cpus = [int(word) for word in sys.argv[1:]]
made = Cluster(initialize_head=True, head_node_args=dict(num_cpus=cpus[0], include_dashboard=False))
nodes = [made.add_node(num_cpus=count) for count in cpus[1:]]
made.wait_for_nodes()
print("\\n" + made.address, flush=True)
for line in sys.stdin:
    made.remove_node(nodes.pop(), allow_graceful=False)
made.shutdown()
"""


class Nodes:
    """A Ray cluster of nodes with so many CPUs each, apart from this process."""

    def __init__(self, *cpus: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, *map(str, cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        lines = iter(self._process.stdout.readline, "")
        self.address = next(line.strip() for line in lines if re.fullmatch(r"\S+:\d+\n", line))

    def remove_one(self) -> None:
        self._process.stdin.write("remove\n")
        self._process.stdin.flush()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def nodes():
    with Nodes(2) as made:
        yield made


def workers(out: str) -> list[int]:
    """Processes of the workers that a run has started so far."""
    started = sorted(Path(out).glob(".detr_viz/run-*/*"), key=lambda path: path.stat().st_mtime)
    words = [path.read_text().split() for path in started]
    return [int(pid) for _, pid in filter(None, words)]


def drawn(out: str) -> int:
    return len(list(Path(out).rglob("*.npz")))


def started(out: str, *argv: str, count: int) -> WarmCommand:
    """A run that has drawn `count` images."""
    process = start(*RAY, "--out", out, *argv)
    while drawn(out) < count:
        if process.poll() is not None:
            pytest.fail(process.communicate()[1])
        time.sleep(0.02)
    return process


def worded(stderr: str) -> list[str]:
    """The lines of a run in some order, but for its progress and for waiting on a busy machine."""
    progress = r"\d+ of \d+ images(, \d+ (failed|skipped))*(, [\d.]+ (images/s|s an image).*)?"
    progress += "|note: the Ray cluster is busy: .*"
    return sorted(line for line in stderr.splitlines() if not re.fullmatch(progress, line))


def test_a_cluster_of_this_machine_makes_what_one_process_makes(home):
    """Figures and numbers of four views, captions, and the line of an image that is broken."""
    folder_of_scenes(home / "few", 3, broken=1)
    argv = [*QUICK, "--image", "few", "--attention", "cross", "encoder", "decoder", "--save-maps"]
    argv += ["--ablate", "content", "--caption", "--jobs", "1"]
    process = start(*argv, "--engine", "ray", "--out", "many")
    local = run_here(*argv, "--out", "one", cwd=home)
    stdout, stderr = process.communicate(timeout=600)
    made = content(home / "one")
    assert content(home / "many") == made
    assert len(made) == 2 + 2 * (4 + 4 + 3)  # png and tex of four figures, three files of numbers
    assert process.returncode == local.returncode == 1
    assert stdout == local.stdout.replace("one/", "many/")
    assert worded(stderr) == worded(local.stderr.replace("one/", "many/"))
    assert len(worded(stderr)) == 1 + 1


def test_stopped_and_killed_and_without_a_worker_it_makes_what_one_process_makes(home, nodes):
    """One folder by three commands: each goes on where the one before it was."""
    argv = ["--ray-address", nodes.address]
    ctrl_c_finishes_what_is_being_drawn_and_leaves_the_cluster(started("out", *argv, count=3))
    socket.create_connection(nodes.address.rsplit(":", 1), timeout=5).close()

    process = started("out", *argv, "--resume", count=drawn("out") + 3)
    killed_with_its_workers(process, "out")
    before = drawn("out")
    assert before < COUNT - BROKEN
    next(iter(Path("out").rglob("*.npz"))).unlink()

    process = started("out", *argv, "--resume", count=before + 1)
    stdout, stderr = worker_killed(process, "out")
    assert process.returncode == 1, stderr
    assert content(home / "out") == content(home / "local")
    kept = int(re.search(r"(\d+) images? done by an earlier run", stdout)[1])
    assert 1 <= kept < before
    assert re.search(rf"\b{COUNT} of {COUNT} images, .*{BROKEN} failed", stderr)


def ctrl_c_finishes_what_is_being_drawn_and_leaves_the_cluster(process: WarmCommand) -> None:
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after" in stderr and "Traceback" not in stderr
    done = int(re.search(r"stopped with (\d+) images done", stdout)[1])
    assert 3 <= done < COUNT
    listed = Path("out/.detr_viz/journal.jsonl").read_text().splitlines()
    assert len(listed) == len(set(listed)) >= done
    assert drawn("out") == sum('"files":["' in line for line in listed)


def killed_with_its_workers(process: WarmCommand, out: str) -> None:
    left = workers(out)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left and time.monotonic() < deadline, "workers outlived the command"


def worker_killed(process: WarmCommand, out: str) -> tuple[str, str]:
    """What a run printed one of whose workers was killed, and started again."""
    while len(workers(out)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    first, second = workers(out)
    os.kill(first, signal.SIGKILL)
    again: list[int] = []
    while process.poll() is None:
        again = workers(out) or again
        time.sleep(0.05)
    printed = process.communicate()
    assert len(again) >= 3 and again[:2] == [first, second]
    return printed


@pytest.mark.slow
def test_a_node_that_is_removed_leaves_no_gap(home):
    with Nodes(1, 1) as nodes:
        process = started("removed", "--ray-address", nodes.address, count=6)
        assert len(workers("removed")) == 2
        nodes.remove_one()
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert content(home / "removed") == content(home / "local")


@pytest.mark.slow
def test_a_cluster_without_a_node_is_one_line_and_what_is_done_is_kept(home):
    with Nodes(0, 2) as nodes:
        process = started("alone", "--ray-address", nodes.address, count=6)
        nodes.remove_one()
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 2
    (ended,) = [line for line in worded(stderr) if "Ray" in line]
    assert ended.startswith("error: the Ray cluster has no node left with 1 CPU: ")
    assert "Traceback" not in stderr and "error: " in stderr
    assert len((home / "alone/.detr_viz/journal.jsonl").read_text().splitlines()) >= 5
    done = run(*BATCH, "--out", "alone", "--resume", cwd=home)
    assert done.returncode == 1 and "by an earlier run" in done.stdout
    assert content(home / "alone") == content(home / "local")
