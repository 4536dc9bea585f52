"""Rooms of the batch on Ray: how a cluster is divided, what workers see to, what ends a run."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz.batch.engine import Result
from detr_viz.batch.ray import driver, worker
from detr_viz.batch.ray import engine as ray_engine
from detr_viz.batch.ray.engine import RayEngine
from detr_viz.batch.ray.job import Job, Share, Trouble, blocks, divide
from detr_viz.batch.scheduler import Item
from detr_viz.batch.tasks import Failure, Skipped
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError
from detr_viz.render.options import RunOptions
from detr_viz.render.paths import OutputPaths
from detr_viz.render.recipe import ModelFacts, Recipe

ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
MODEL = ModelFacts("detr", "w.pth", "00", 8, False, ("cat",), 800, 1333)
RECIPE = Recipe(models=(MODEL,), software=("1.0", "2.0"))


def items(count: int) -> list[Item]:
    return [Item(i, f"in/{i}.png", str(i)) for i in range(count)]


# ---- how a cluster is divided -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "device", "threads", "share"),
    [
        ([{"CPU": 1.0}], "auto", None, Share(1, 1)),
        ([{"CPU": 2.0}], "auto", None, Share(1, 2)),
        ([{"CPU": 2.0}], "auto", "1", Share(2, 1)),
        ([{"CPU": 2.0}], "auto", "8", Share(1, 2)),
        ([{"CPU": 3.0}], "cpu", "0", Share(1, 3)),
        ([{"CPU": 5.0}], "cpu", "4,2", Share(1, 4)),
        ([{"CPU": 7.0}], "cpu", None, Share(2, 3)),
        ([{"CPU": 16.0}], "cpu", None, Share(4, 4)),
        ([{"CPU": 1.0}, {"CPU": 1.0}, {"memory": 9.0}], "auto", None, Share(2, 1)),
        ([{"CPU": 16.0}, {"CPU": 3.0}], "auto", None, Share(4, 4)),
        ([{"CPU": 16.0, "GPU": 2.0}], "auto", None, Share(2, 8, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}], "auto", "1", Share(2, 8, 1)),
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}], "cuda", None, Share(1, 8, 1)),
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}], "auto", None, Share(3, 4, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}, {"GPU": 1.0}], "auto", None, Share(2, 1, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu", None, Share(4, 4)),
    ],
)
def test_how_a_cluster_is_divided(nodes, device, threads, share):
    assert divide(nodes, device, threads) == share
    assert share.workers * share.cpus <= sum(node.get("CPU", 0) for node in nodes)
    assert sum(map(share.fits, nodes)) >= 1


@pytest.mark.parametrize(
    ("nodes", "device", "says"),
    [
        ([], "auto", "has no CPU: add a node"),
        ([{"CPU": 0.0, "GPU": 8.0}], "auto", "has no CPU: add a node"),
        ([{"CPU": 4.0}], "cuda", "has no GPU: use --device cpu"),
    ],
)
def test_a_cluster_with_no_room(nodes, device, says):
    with pytest.raises(UserError, match=says):
        divide(nodes, device, None)


@pytest.mark.parametrize(
    ("count", "share", "sizes"),
    [
        (1, Share(4, 4), {1}),
        (24, Share(2, 1), {3}),
        (1000, Share(2, 1), {16, 8}),
        (1001, Share(1, 8, 1), {128, 105}),
    ],
)
def test_blocks_hold_every_image_once_in_order(count, share, sizes):
    made = blocks(items(count), share)
    assert [item for block in made for item in block] == items(count)
    assert set(map(len, made)) == sizes


# ---- what a worker sees to ----------------------------------------------------------------------


def results(count: int) -> list[Result]:
    return [Result(i, Skipped(), None) for i in range(count)]


def test_results_are_said_in_one_order_however_they_come():
    mixed = results(40)
    random.Random(3).shuffle(mixed)
    assert list(worker.in_order(iter(mixed), items(40))) == results(40)
    assert list(worker.in_order(iter(mixed), items(40))) != mixed


def test_a_result_is_said_as_soon_as_those_before_it_are():
    come = iter(results(3))
    said = worker.in_order(come, items(3))
    assert next(said).i == 0 and next(come).i == 1


def test_what_a_stopped_block_leaves_out_is_left_out():
    made = [result for result in results(9) if result.i not in (0, 4)]
    assert [r.i for r in worker.in_order(iter(made[::-1]), items(9))] == [1, 2, 3, 5, 6, 7, 8]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job whose folders are there."""
    monkeypatch.chdir(ROOT)  # and back afterwards: who checks a place goes there
    monkeypatch.setattr(worker, "_SHARED_S", 0.0)
    running = tmp_path / "out/.detr_viz/run-1"
    running.mkdir(parents=True)
    (tmp_path / "in").mkdir()
    paths = OutputPaths(Path("out"))
    at = running.parent, running, str(tmp_path), ("in", "")
    return Job((), RunOptions(), RECIPE, paths, *at)


def test_a_worker_goes_where_the_command_is(job):
    worker.check_place(job, "node7")
    assert os.getcwd() == job.cwd


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda job, tmp: replace(job, cwd="/none/here"), "no folder /none/here (No such file"),
        (lambda job, tmp: (tmp / "in").rmdir(), "no folder {tmp}/in: images, weights and --out"),
        (lambda job, tmp: shutil.rmtree(tmp / "out"), "no folder {tmp}/out: images"),
        (lambda job, tmp: job.running.rmdir(), "another folder {tmp}/out than this machine"),
    ],
    ids=["cwd", "images", "out", "not shared"],
)
def test_a_worker_that_sees_other_folders_names_itself_and_the_path(job, tmp_path, change, says):
    changed = change(job, tmp_path)
    with pytest.raises(UserError) as raised:
        worker.check_place(changed if isinstance(changed, Job) else job, "node7")
    said = str(raised.value)
    assert said.startswith("worker node7 has ") and says.format(tmp=tmp_path) in said
    assert "\n" not in said and said.endswith("must lie at the same place on all nodes")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (replace(RECIPE, software=("0.9", "2.0")), "it has detr-viz 0.9, this machine 1.0"),
        (replace(RECIPE, models=(replace(MODEL, sha256="11"),)), "its file w.pth differs"),
        (
            replace(RECIPE, models=(replace(MODEL, class_names=("Katze",)),)),
            "it takes w.pth for another model",
        ),
    ],
)
def test_a_worker_must_have_the_models_of_the_command(there, says):
    worker.check_models(replace(RECIPE, device="cuda", software=("1.0", "3.0")), RECIPE)
    with pytest.raises(UserError, match=says):
        worker.check_models(there, RECIPE)


# ---- what ends a run ----------------------------------------------------------------------------


def test_a_mistake_of_the_users_comes_home_as_one():
    made = Trouble.of(OutputError("cannot write x", "use --out"), "worker node7: ")
    error = pickle.loads(pickle.dumps(made)).error()
    assert isinstance(error, UserError) and str(error) == "worker node7: cannot write x; use --out"


def test_a_bug_comes_home_with_its_traceback():
    def broken():
        raise KeyError("gone")

    with pytest.raises(KeyError) as raised:
        broken()
    error = pickle.loads(pickle.dumps(Trouble.of(raised.value, "worker node7: "))).error()
    assert not isinstance(error, UserError) and str(error) == "worker node7: KeyError: 'gone'"
    assert "in broken" in str(error.__cause__)


def test_what_ray_says_is_one_line():
    words = "ray::X()\n  File x\nModuleNotFoundError: No module named 'a'"
    said = driver.error_line(RuntimeError(words))
    assert said == "a worker of the Ray cluster has no a: install detr-viz on every node"
    said = driver.error_line(RuntimeError("first\n  second\nthe last word"))
    assert "\n" not in said and "(the last word)" in said and "--resume" in said


def engine(monkeypatch, job, *messages) -> RayEngine:
    made = RayEngine(job.sources, job.recipe, job.paths, job.options)
    monkeypatch.setattr(made, "_messages", lambda *_: iter(messages))
    return made


def test_a_second_result_of_an_image_is_dropped(monkeypatch, job):
    again = Result(1, Failure("again"), None)
    made = engine(monkeypatch, job, *results(2), "a note", again, *results(3))
    said: list[str] = []
    assert list(made.run(iter(items(3)), job.temporary, said.append)) == results(3)
    assert said == ["a note"]


def test_trouble_ends_the_run_and_workers_see_that_it_is_over(monkeypatch, job):
    made = engine(monkeypatch, job, *results(1), Trouble("no room", True, ""), *results(3))
    going = made.run(iter(items(3)), job.temporary, print)
    assert next(going).i == 0
    (running,) = set(job.temporary.glob("run-*")) - {job.running}
    with pytest.raises(UserError, match="no room"):
        list(going)
    assert not running.exists()


def test_stop_says_so_to_the_workers(monkeypatch, job):
    made = engine(monkeypatch, job, *results(2))
    going = made.run(iter(items(2)), job.temporary, print)
    next(going)
    (running,) = set(job.temporary.glob("run-*")) - {job.running}
    made.stop()
    assert not running.exists()
    assert len(list(going)) == 1  # what comes all the same is kept


def test_no_images_need_no_cluster(job):
    made = RayEngine(job.sources, job.recipe, job.paths, job.options)
    assert list(made.run(iter([]), job.temporary, print)) == []


# ---- before anything is started -----------------------------------------------------------------


@ray
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("here", "neither auto nor host:port"),
        ("", "neither auto nor host:port"),
        ("ray://127.0.0.1:10001", "neither auto nor host:port"),
        ("127.0.0.1:99999", "neither auto nor host:port"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("no host.invalid:1", "no Ray cluster answers at"),
    ],
)
def test_an_address_that_is_none_or_where_nobody_answers(address, says):
    with pytest.raises(UserError) as raised:
        ray_engine.check(address)
    assert says in str(raised.value) and "\n" not in str(raised.value)


@ray
def test_no_address_is_a_cluster_on_this_machine():
    ray_engine.check(None)
    ray_engine.check("auto")


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_ray_one_line_before_a_model_is_loaded(missing, tmp_path):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from detr_viz.cli.main import main\n"
        "code = main(['--engine', 'ray'])\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --engine ray needs Ray: pip install")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@ray
def test_who_answers_but_is_no_cluster_is_given_up(job, monkeypatch, capfd):
    monkeypatch.setattr(ray_engine, "_JOIN_S", 4)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        job = replace(job, options=RunOptions(ray_address=address))
        made = RayEngine(job.sources, job.recipe, job.paths, job.options)
        began = time.monotonic()
        with pytest.raises(UserError, match=f"at {address} cannot be joined"):
            list(made.run(iter(items(2)), job.temporary, print))
    assert time.monotonic() - began < 15
    assert capfd.readouterr() == ("", "")
