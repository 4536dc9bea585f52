"""Helper processes, real ones: orders, deaths, replacement, what they inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from batch_tools import picture
from conftest import ROOT, demo_explanation

from detr_viz.batch import worker_process
from detr_viz.batch.tasks import Draw, Drawn, Drop, Failure, Pixels, Read, Setup
from detr_viz.batch.worker import ImageWorker
from detr_viz.batch.worker_process import WorkerProcess, WorkersDied
from detr_viz.common import files
from detr_viz.common.errors import UserError
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.explanation.stored import store
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import ModelFacts, Recipe
from detr_viz.render.run import MeasuredImage
from detr_viz.render.views.head_maps import HeadMapsResult

pytestmark = pytest.mark.own_helpers
posix = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
MODEL = ModelFacts("detr", "w.pth", "00", 8, False, ("cat",), 64, 100)
RECIPE = Recipe((MODEL,))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_elsewhere", None)  # and back: a worker sets it for good
    picture(1).save("a.png")
    return tmp_path


@pytest.fixture
def helper(here):
    made = WorkerProcess()
    made.set_up(Setup(RECIPE, here))
    yield made
    made.stop()


def pid(helper: WorkerProcess) -> int:
    return helper._process.pid


@posix
def test_a_helper_that_is_killed_is_replaced_and_knows_the_run(helper):
    first = pid(helper)
    os.kill(first, signal.SIGKILL)
    with pytest.raises((EOFError, OSError)):
        helper.ask(Read(0, "a.png"))
    assert helper.restart() == "SIGKILL, perhaps for want of memory"
    assert pid(helper) != first
    assert isinstance(helper.ask(Read(0, "a.png")), Pixels)  # sizes are those of the run


@posix
def test_a_helper_that_died_before_it_was_set_up_is_replaced(here):
    made = WorkerProcess()
    try:
        os.kill(pid(made), signal.SIGKILL)
        made.set_up(Setup(RECIPE, here))
        assert isinstance(made.ask(Read(0, "a.png")), Pixels)
    finally:
        made.stop()


def test_helpers_that_die_at_once_are_given_up(helper, monkeypatch):
    tried = []

    def never(self):
        tried.append(1)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(WorkerProcess, "_start", never)
    with pytest.raises(WorkersDied, match=r"keep dying \(Resource temporarily unavailable\)"):
        helper.restart()
    assert len(tried) == 3


def test_no_room_for_processes_is_one_line_and_leaves_none(monkeypatch):
    made = []
    real = WorkerProcess._start

    def third(self):
        if len(made) == 2:
            raise OSError(11, "Resource temporarily unavailable")
        made.append(self)
        real(self)

    monkeypatch.setattr(WorkerProcess, "_start", third)
    with pytest.raises(UserError) as raised:
        worker_process.start(5)
    assert str(raised.value) == (
        "cannot start process 3 of 5 that read and draw: Resource temporarily unavailable; "
        "use fewer --jobs"
    )
    assert not any(helper._process.is_alive() for helper in made)


def test_a_helper_whose_process_could_not_be_started_can_be_stopped(monkeypatch):
    from multiprocessing.context import SpawnProcess

    def full(self):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(SpawnProcess, "start", full)
    with pytest.raises(UserError, match=r"process 1 of 1 .* Cannot allocate memory"):
        worker_process.start(1)


@posix
def test_helpers_that_start_side_by_side_leave_no_trace_here(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    main = sys.modules["__main__"]
    before = main.__spec__, getattr(main, "__file__", None)
    workers: list[WorkerProcess] = []
    threads = [threading.Thread(target=lambda: workers.append(WorkerProcess())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(workers) == 4 and "OMP_NUM_THREADS" not in os.environ
        assert (main.__spec__, getattr(main, "__file__", None)) == before
        if Path("/proc/self/environ").exists():
            for helper in workers:
                assert helper.ask(Drop(0)) is None
                text = Path(f"/proc/{pid(helper)}/environ").read_bytes()
                assert b"OMP_NUM_THREADS=1" in text.split(b"\0")
                assert os.getpriority(os.PRIO_PROCESS, pid(helper)) >= 10
    finally:
        worker_process.stop(workers)
    assert not any(helper._process.is_alive() for helper in workers)


def test_a_script_without_a_main_guard_is_not_run_again(here):
    (here / "mine.py").write_text(
        "print('run')\n"
        "from detr_viz.batch import tasks, worker_process\n"
        "workers = worker_process.start(2)\n"
        "print([helper.ask(tasks.Drop(0)) for helper in workers])\n"
        "worker_process.stop(workers)\n"
    )
    done = subprocess.run(
        [sys.executable, "mine.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "run\n[None, None]\n"


@posix
def test_stopping_many_takes_no_longer_than_one():
    workers = worker_process.start(4)
    for helper in workers:
        helper.ask(Drop(0))
        os.kill(pid(helper), signal.SIGSTOP)  # none goes by itself
    began = time.monotonic()
    worker_process.stop(workers[:1])
    one = time.monotonic() - began
    assert one >= 0.5
    assert not workers[0]._process.is_alive()
    worker_process.stop(workers[1:])
    assert not any(helper._process.is_alive() for helper in workers)


# ---- the worker ---------------------------------------------------------------------------------


def draw_order(image: str, here: Path) -> tuple[ImageWorker, Draw]:
    """A worker that does not hold the image, and the order to draw what was found in it."""
    e = demo_explanation("detr")
    worker = ImageWorker()
    worker.answer(Setup(replace(RECIPE, queries="top:1"), here))
    pixels = worker.answer(Read(0, image))
    worker.answer(Drop(0))
    kept = replace(store(e, [0], ["combine"], "mode"), image=pixels.facts)
    one = SharedObject(0, (Match(0, 1.0),))
    measured = MeasuredImage({"cross": HeadMapsResult((kept,), (one,), None, ((),))}, ())
    return worker, Draw(0, image, "a", measured, OutputPaths(here, "", (".npz",)))


def test_an_image_that_was_changed_after_it_was_read_is_not_drawn(here):
    worker, order = draw_order("a.png", here)
    assert isinstance(worker.answer(order), Drawn)  # it is read again
    picture(2).save("a.png")
    assert worker.answer(order) == Failure(
        "a.png was changed while it was drawn: go on with --resume"
    )


def test_an_order_that_raises_is_a_failure_and_the_pixels_are_gone(here):
    worker, order = draw_order("a.png", here)
    worker.answer(Read(0, "a.png"))
    (here / "taken.npz").mkdir()
    taken = replace(order, paths=OutputPaths(here, "taken", (".npz",)))
    assert "it is a folder" in worker.answer(taken).reason
    assert not worker._held
