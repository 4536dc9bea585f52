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

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
    pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them"),
]
BATCH = [*QUICK, "--image", "in", "--format", "png,npz", "--jobs", "1"]
RAY = [*BATCH, "--engine", "ray"]
COUNT, BROKEN = 18, 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of images, some of them broken, and what the local engine makes of it."""
    home = tmp_path_factory.mktemp("whole")
    folder_of_scenes(home / "in", COUNT, BROKEN)
    done = run_here(*BATCH, "--out", "local", cwd=home)
    assert done.returncode == 1, done.stderr
    return home, done


@pytest.fixture
def home(whole, monkeypatch):
    """That folder as the working directory, and a thread a worker, as many as locally."""
    monkeypatch.chdir(whole[0])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return whole[0]


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


def started(out: str, *argv: str, count: int) -> subprocess.Popen:
    """A run that has drawn `count` images."""
    process = start(*RAY, "--out", out, *argv)
    while drawn(out) < count:
        if process.poll() is not None:
            pytest.fail(process.communicate()[1])
        time.sleep(0.02)
    return process


def worded(stderr: str) -> list[str]:
    """The lines of a run but for its progress, in some order."""
    progress = r"\d+ of \d+ images(, \d+ (failed|skipped))*(, [\d.]+ (images/s|s an image).*)?"
    return sorted(line for line in stderr.splitlines() if not re.fullmatch(progress, line))


def test_a_cluster_of_this_machine_makes_what_one_process_makes(whole, home):
    _, local = whole
    done = run(*RAY, "--out", "ray", cwd=home)
    assert content(home / "ray") == content(home / "local")
    assert done.returncode == local.returncode == 1
    assert done.stdout == local.stdout.replace("local/", "ray/")
    assert worded(done.stderr) == worded(local.stderr.replace("local/", "ray/"))
    assert len(worded(done.stderr)) == BROKEN + 1


def test_views_on_a_cluster_are_those_of_one_process(home, nodes):
    folder_of_scenes(home / "few", 2)
    argv = [*QUICK, "--image", "few", "--attention", "cross", "encoder", "decoder", "--save-maps"]
    argv += ["--ablate", "content", "--caption", "--jobs", "1", "--quiet"]
    for out, more in (("one", []), ("many", ["--engine", "ray", "--ray-address", nodes.address])):
        done = run(*argv, *more, "--out", out, cwd=home)
        assert done.returncode == 0, done.stderr
    made = content(home / "one")
    assert content(home / "many") == made
    assert len(made) == 1 + 2 * (4 + 4 + 3)  # png and tex of four figures, three files of numbers


def test_a_worker_that_is_killed_leaves_no_gap_and_no_double(home, nodes):
    process = started("killed", "--ray-address", nodes.address, count=6)
    first, second = workers("killed")
    os.kill(first, signal.SIGKILL)
    again: list[int] = []
    while process.poll() is None:
        again = workers("killed") or again
        time.sleep(0.05)
    _, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert len(again) >= 3 and again[:2] == [first, second]  # it was started again
    assert content(home / "killed") == content(home / "local")
    assert f"{COUNT} of {COUNT} images, {BROKEN} failed" in stderr


def test_a_command_that_is_killed_and_resumed_is_as_never_interrupted(home, nodes):
    argv = ["--ray-address", nodes.address]
    process = started("resumed", *argv, count=8)
    left = workers("resumed")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert time.monotonic() < deadline, "workers outlived the command"
    before = drawn("resumed")
    gone = next(iter(Path("resumed").rglob("*.npz")))
    gone.unlink()
    done = run(*RAY, "--out", "resumed", *argv, "--resume", cwd=home)
    assert done.returncode == 1, done.stderr
    assert content(home / "resumed") == content(home / "local")
    kept = int(re.search(r"(\d+) images? done by an earlier run", done.stdout)[1])
    assert 1 <= kept < before < COUNT - BROKEN


def test_ctrl_c_finishes_what_is_being_drawn_and_leaves_the_cluster(home, nodes):
    process = started("stopped", "--ray-address", nodes.address, count=4)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopping after" in stderr and "Traceback" not in stderr
    done = int(re.search(r"stopped with (\d+) images done", stdout)[1])
    assert 4 <= done < COUNT
    listed = (home / "stopped/.detr_viz/journal.jsonl").read_text().splitlines()
    assert len(listed) == len(set(listed)) >= done
    assert drawn("stopped") == sum('"files":["' in line for line in listed)
    host, _, port = nodes.address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


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
