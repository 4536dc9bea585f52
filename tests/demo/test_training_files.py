"""A training that is interrupted, or cannot write: nothing that was learned is lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch
from test_coco_data import SMALL, annotated

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError
from detr_viz.demo import train
from detr_viz.demo.training_files import Interrupt, check_place, unfinished, write_atomically


@pytest.fixture
def common(tmp_path, monkeypatch):
    monkeypatch.setitem(train.CONFIGS, "cd_detr", SMALL)
    monkeypatch.chdir(tmp_path)
    path = annotated(tmp_path)
    argv = ["--type", "cd_detr", "--coco", path, "--steps", "4", "--size", "64"]
    return [*argv, "--cache", "cache", "--out", "own.pth"]


def after(monkeypatch, count: int, act) -> None:
    """Do something after so many steps of a training."""
    step, done = train.Run.step, []

    def one(self, data):
        step(self, data)
        done.append(self.steps)
        if len(done) == count:
            act()

    monkeypatch.setattr(train.Run, "step", one)


def test_ctrl_c_keeps_what_was_learned_and_resume_ends_as_if_nothing_had_been(
    common, monkeypatch, tmp_path, capsys
):
    assert train.main(common) == 0
    whole = torch.load("own.pth", weights_only=True)["model"]
    os.remove("own.pth")
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train.main([*common[:-3], "other", *common[-2:]]) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert "stopped after 2 steps: --resume goes on from" in capsys.readouterr().out
    assert not (tmp_path / "own.pth").exists()
    assert train.main([*common[:-3], "other", *common[-2:], "--resume"]) == 0
    assert "going on from" in capsys.readouterr().out
    for key, value in torch.load("own.pth", weights_only=True)["model"].items():
        torch.testing.assert_close(value, whole[key], atol=2e-3, rtol=2e-3)


def test_a_second_ctrl_c_is_at_once():
    interrupt = Interrupt()
    with interrupt.watched():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(1)


def test_an_image_that_cannot_be_read_on_the_way_costs_nothing(common, monkeypatch, tmp_path):
    from detr_viz.demo import coco_data

    def damage():
        def refused(image):
            raise UserError("x.png is damaged")

        monkeypatch.setattr(coco_data, "_pixels", refused)
        for data in kept:
            data._pictures.clear()

    kept, read = [], train.read_coco
    monkeypatch.setattr(train, "read_coco", lambda *a: kept.append(read(*a)) or kept[-1])
    after(monkeypatch, 2, damage)
    with pytest.raises(UserError, match="is damaged"):
        train.main(common)
    (path,) = (tmp_path / "cache").glob("*_resume.pth")
    assert unfinished(path, "cpu")["steps"] == 2


@pytest.mark.parametrize("flag", ["--out", "--cache"])
def test_places_are_tried_before_anything_is_learned(common, monkeypatch, flag, tmp_path):
    monkeypatch.setattr(train.Run, "step", lambda *_: pytest.fail("a step was done"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    bad = ["file/x.pth", "/proc/x/own.pth"] + (["folder", "/dev/full"] if flag == "--out" else [])
    for place in bad:
        with pytest.raises(OutputError) as error:
            train.main([*common, flag, place])
        message = str(error.value)
        assert "\n" not in message and message.startswith("cannot write ")
        assert flag in message or place == "folder"


def test_no_room_is_one_line_and_leaves_nothing_behind(tmp_path):
    """With a real limit on the size of files, in a process of its own."""
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from detr_viz.common.errors import UserError, report\n"
        "from detr_viz.demo.training_files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        "    write_atomically(torch.zeros(90000), Path(sys.argv[1]), '--cache')\n"
        "except UserError as error:\n"
        "    sys.exit(report(error))\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    path = tmp_path / "a.pth"
    path.write_bytes(b"before")
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "cannot write" in run.stderr and "--cache" in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"] and path.read_bytes() == b"before"


@pytest.mark.parametrize("content", ["bytes", "list", "other"])
def test_what_is_no_unfinished_training_is_one_line(common, tmp_path, content, capsys):
    assert train.main([*common, "--steps", "1"]) == 0
    (path,) = (tmp_path / "cache").glob("*_resume.pth")
    if content == "bytes":
        path.write_bytes(b"x" * 99)
    else:
        write_atomically([1] if content == "list" else {"trainee": {}}, path)
    with pytest.raises(UserError, match="cannot go on from") as error:
        train.main([*common, "--resume"])
    assert "\n" not in str(error.value) and "leave --resume out" in str(error.value)


def test_resume_without_a_training_says_so(common, capsys):
    assert train.main([*common, "--resume"]) == 0
    assert "is not there: this training begins at its first step" in capsys.readouterr().out


def test_a_place_that_is_good_is_made_and_left_empty(tmp_path):
    check_place(tmp_path / "new" / "own.pth", "--out")
    assert [p.name for p in tmp_path.rglob("*")] == ["new"]
