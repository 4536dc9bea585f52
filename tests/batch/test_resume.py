"""Runs that are stopped, and what a resumed one does."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from batch_tools import (
    QUICK,
    batch,
    content,
    folder_of_scenes,
    picture,
    run_fresh,
    run_here,
    sign,
    start,
    start_fresh,
    table,
    wait_for,
)
from PIL import Image

from detr_viz import heatmaps

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits as POSIX has them")


pytestmark = pytest.mark.usefixtures("here")


# --- resumed ------------------------------------------------------------------------------------


def test_resume_does_nothing_where_all_is_there(whole, here):
    home, _, _ = whole
    shutil.copytree(home / "out", here / "out")
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*_detr_*")}
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz", "--resume"]
    done = run_here(*QUICK, *argv, cwd=home)
    assert done.returncode == 1  # the broken ones are tried again
    assert "wrote 0 files for 0 images" in done.stdout and "15 images done" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*_detr_*")}
    assert content(here / "out") == content(home / "out")


CHANGES = {
    "a figure is gone": lambda out: (out / "a/0003_detr_combine.png").unlink(),
    "a figure is cut": lambda out: os.truncate(out / "a/0003_detr_combine.png", 900),
    "maps are cut": lambda out: os.truncate(out / "a/0003_detr_combine.npz", 900),
    "a figure is another's": lambda out: shutil.copy(
        out / "a/0001_detr_combine.png", out / "a/0003_detr_combine.png"
    ),
    "the index is gone": lambda out: (out / "index.csv").unlink(),
    "a temporary file is left": lambda out: (
        (out / ".detr_viz").mkdir(),
        (out / ".detr_viz/lock").touch(),  # a run's folder has it before all else
        (out / ".detr_viz/.0003-abc.png").write_bytes(b"x"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_mends_what_was_changed(change, whole, here):
    home, _, _ = whole
    shutil.copytree(home / "out", here / "out")
    CHANGES[change](here / "out")
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz", "--resume"]
    done = run_here(*QUICK, *argv, cwd=home)
    redone = {"the index is gone": 15, "a temporary file is left": 0}.get(change, 1)
    assert f"wrote {2 * redone} files for {redone} image" in done.stdout
    assert content(here / "out") == content(home / "out")


def test_resume_redoes_what_another_recipe_or_image_made(here, capsys):
    for i in range(3):
        picture(i).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "2.png", "--format", "png,npz", "--resume"]
    assert "for 3 images" in batch(*argv, capsys=capsys)[0]
    assert "for 0 images" in batch(*argv, capsys=capsys)[0]
    assert "for 3 images" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    assert "for 0 images" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    picture(9).save("1.png")
    assert "for 1 image;" in batch(*argv, "--style", "heat", capsys=capsys)[0]
    more = ["--format", "png,pdf,npz", "--resume", "--style", "heat"]
    assert "for 3 images" in batch(*argv[:4], *more, capsys=capsys)[0]
    fewer = ["--format", "png", "--resume", "--style", "heat"]
    assert "for 0 images" in batch(*argv[:4], *fewer, capsys=capsys)[0]


def test_resume_knows_images_without_an_answer(here, capsys):
    for i, color in enumerate(("white", "gray")):
        Image.new("RGB", (64, 64), color).save(f"{i}.png")
    argv = ["--image", "0.png", "1.png", "--resume", "--queries"]
    assert "2 images without a query" in batch(*argv, "score:0.9", capsys=capsys)[0]
    out, _ = batch(*argv, "score:0.9", capsys=capsys)
    assert "wrote 0 files for 0 images;" in out and "2 images done by an earlier run" in out
    out, _ = batch(*argv, "score:0.91", capsys=capsys)  # another question
    assert "by an earlier run" not in out and "2 images without a query" in out


def test_resume_does_not_take_the_maps_of_another_image(here, capsys):
    """b.jpg comes before b.png and takes its name; the maps that lie there are those of b.png."""
    Path("n").mkdir()
    picture(1).save("n/b.png")
    argv = ["--image", "n", "--format", "npz", "--resume"]
    batch(*argv, capsys=capsys)
    picture(2).save("n/b.jpg")
    assert "wrote 2 files for 2 images" in batch(*argv, capsys=capsys)[0]
    names = {row["image"]: row["files"] for row in table(here / "outputs/index.csv")}
    assert names == {"n/b.jpg": "b_detr_combine.npz", "n/b.png": "b-2_detr_combine.npz"}
    for image, file in names.items():
        assert heatmaps.load(here / "outputs" / file).meta["image"] == Path(image).name


# --- stopped ------------------------------------------------------------------------------------


def resumed_to_the_end(home: Path, out: Path) -> None:
    argv = ["--image", "in", "--out", str(out), "--format", "png,npz", "--resume"]
    assert run_here(*QUICK, *argv, cwd=home).returncode == 1
    assert content(out) == content(home / "out")
    assert not list(out.rglob(".*"))


@posix
def test_ctrl_c_finishes_what_is_being_drawn(whole, here, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    out = here / "out"
    argv = [*QUICK, "--image", "in", "--out", str(out), "--format", "png,npz"]
    process = start(*argv)
    while not list(out.rglob("*.npz")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command with --resume goes on" in stdout and "stopping" in stderr
    assert "Traceback" not in stderr
    assert 1 <= len(list(out.rglob("*.npz"))) < 15
    resumed_to_the_end(home, out)


@posix
@pytest.mark.parametrize("after", [0, 1, 9])
def test_killed_and_resumed_is_as_never_interrupted(after, whole, here, monkeypatch):
    home, _, _ = whole
    monkeypatch.chdir(home)
    out = here / "out"
    process = start(*QUICK, "--image", "in", "--out", str(out), "--format", "png,npz")
    journal = out / ".detr_viz/journal.jsonl"
    while not journal.exists() or len(list(out.rglob("*_detr_*"))) < after:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "index.csv").exists()
    resumed_to_the_end(home, out)


@posix
@pytest.mark.parametrize("after_s", [0.2, 0.4, 0.7, 1.2])
def test_ctrl_c_while_all_is_being_started_is_quiet(after_s, here):
    folder_of_scenes(here / "in", 40)
    process = start_fresh(*QUICK, "--image", "in", "--jobs", "3", env=sign(here / "begun"))
    wait_for(here / "begun", process)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "Fatal" not in stderr and stderr.count("\n") <= 2


@posix
def test_ctrl_c_before_the_first_image_is_not_forgotten(here):
    folder_of_scenes(here / "in", 40)
    process = start_fresh(*QUICK, "--image", "in", "--jobs", "4", "--out", "out")
    while not Path("out/.detr_viz/journal.jsonl").exists():  # helpers are still importing
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume goes on" in stdout
    assert len(list(Path("out").rglob("*.png"))) < 20


@posix
def test_helpers_go_with_a_main_process_that_is_killed(whole, here, monkeypatch):
    """And what they have written is where a resumed run begins."""
    home, _, _ = whole
    monkeypatch.chdir(home)
    argv = ["--image", "in", "--out", str(here / "out"), "--format", "png,npz"]
    process = start_fresh(*QUICK, *argv)
    while not list(here.rglob("*.npz")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)  # the group is there while a process of it is
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("helper processes outlived the run")
    resumed_to_the_end(home, here / "out")


@posix
def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_is_done(whole, here, monkeypatch):
    home, _, _ = whole
    out = here / "out"
    argv = ["--image", "in", "--out", str(out), "--format", "png,npz"]

    import resource

    def limit():  # no file may be larger: what a disk says that is full of other things
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # Python itself would write cut files
    done = run_fresh(*QUICK, *argv, "--dpi", "300", cwd=home, preexec_fn=limit)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "cannot write" in lines[-1] and "--resume" in lines[-1]
    assert sum("cannot write" in line for line in lines) == 1
    resumed_to_the_end(home, out)
