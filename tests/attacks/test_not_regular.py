"""Pipes, sockets, devices and files of the system: refused at once, without being opened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from not_regular import KINDS

from detr_viz.common.regular import NotRegularError, open_regular

SCENE = str(ROOT / "image/scene_1.jpg")


TWO = f"--image {SCENE} {ROOT / 'image/scene_2.jpg'}"
PLACES = {  # where -> (the file's name, the words of the command)
    "image": ("a.png", "--image a.png"),
    "list": ("list.txt", f"--image @list.txt {SCENE}"),
    "coco file": ("a.json", f"--image a.json {SCENE}"),
    "weights": ("a.pth", f"--image {SCENE} --weights a.pth"),
    "safetensors": ("a.safetensors", f"--image {SCENE} --weights a.safetensors"),
    "config": ("hf/config.json", f"--image {SCENE} --weights hf"),
    "classes": ("names.txt", f"--image {SCENE} --classes names.txt"),
    "baseline": ("a.npz", "check a.npz"),
    "folder of baselines": ("b/a.npz", "check b"),
    "compared": ("a.npz", "compare a.npz a.npz"),
    "report": ("a.html", "check b.npz --report a.html"),
    "index": ("out/index.csv", f"--image {SCENE} {SCENE}2 --out out --resume"),
    "hidden folder": ("out/.detr_viz", f"--image {SCENE} {SCENE}2 --out out"),
    "folder": ("out", f"--image {SCENE} --out out/"),
    "folder of a folder": ("out", f"--image {SCENE} --out out/a/b.png"),
    "cache": ("w", f"--image {SCENE} --weights detr-r50 --cache w"),
}
SMALL = f"--image {SCENE} --size 64 --queries 0"
PLACES |= {  # of what a run writes
    "figure": ("a.png", f"{SMALL} --out a.png"),
    "figure in a folder": ("out/scene_1_detr_combine.png", f"{SMALL} --out out"),
    "maps": ("a.npz", f"{SMALL} --out a.png --save-maps"),
    "maps in a folder": ("out/scene_1_detr_combine.npz", f"{SMALL} --out out --format npz"),
    "caption": ("a.tex", f"{SMALL} --out a.png --caption"),
    "caption in a folder": ("out/scene_1_detr_combine.tex", f"{SMALL} --out out --caption"),
    "second format": ("out/scene_1_detr_combine.pdf", f"{SMALL} --out out --format png,pdf"),
}
BATCH = f"{TWO} --size 64 --queries 0"
PLACES |= {  # of a batch: two images
    "journal": ("out/.detr_viz/journal.jsonl", f"{BATCH} --out out"),
    "journal to resume": ("out/.detr_viz/journal.jsonl", f"{BATCH} --out out --resume"),
    "lock": ("out/.detr_viz/lock", f"{BATCH} --out out"),
    "table": ("out/index.csv", f"{BATCH} --out out"),
    "table to resume": ("out/index.csv", f"{BATCH} --out out --resume"),
    "failures": ("out/failures.csv", f"{BATCH} --out out"),
    "contact sheet": ("out/contact-sheet.pdf", f"{BATCH} --out out --contact-sheet 4"),
}


@pytest.mark.parametrize("place", PLACES)
def test_refused_at_once(tmp_path, place, capsys, monkeypatch):
    """In this process, with an alarm: nothing may wait for the other end of a pipe."""
    from detr_viz import cli

    name, words = PLACES[place]
    outcomes = {}
    kinds = {k: KINDS[k] for k in ("pipe", "socket")} if name.endswith(".jsonl") else KINDS
    for kind, build in kinds.items():
        home = tmp_path / kind.replace(" ", "_")
        path = home / name
        path.parent.mkdir(parents=True)
        if "hf/" in name:
            (path.parent / "model.safetensors").write_bytes(b"")
        build(path)
        monkeypatch.chdir(home)
        before = sorted(p for p in home.rglob("*"))
        done: dict[str, object] = {}

        def run(done=done, words=words) -> None:
            try:
                done["code"] = cli.main(words.split())
            except SystemExit as stop:
                done["code"] = stop.code

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
        err = capsys.readouterr().err
        left = [p for p in home.rglob("*") if p not in before and ".detr_viz" not in str(p)]
        fine = done.get("code") in (1, 2) and "this is a bug" not in err and "error: " in err
        if not fine or left or thread.is_alive():
            outcomes[kind] = (done.get("code"), err, left)
            if thread.is_alive():
                break
    monkeypatch.chdir(tmp_path)
    assert not outcomes


@pytest.mark.parametrize("kind", ["zero", "memory", "nothing", "loop"])
def test_a_link_in_place_of_the_journal_goes_unopened(tmp_path, kind, capsys, monkeypatch):
    """The hidden folder is the run's own, which empties it at its start: the link is removed."""
    from detr_viz import cli

    monkeypatch.chdir(tmp_path)
    name, words = PLACES["journal"]
    (tmp_path / name).parent.mkdir(parents=True)
    KINDS[kind](tmp_path / name)
    assert cli.main([*words.split(), "--quiet"]) == 0
    assert not (tmp_path / "out/.detr_viz").exists() and (tmp_path / "out/index.csv").is_file()
    assert not (tmp_path / "out/nowhere").exists()


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "loop"])
def test_one_of_several_images(tmp_path, kind, capsys, monkeypatch):
    """The others are drawn; this one is listed as failed, by its name."""
    import csv

    from detr_viz import cli

    KINDS[kind](tmp_path / "bad.png")
    monkeypatch.chdir(tmp_path)
    words = ["--image", SCENE, "bad.png", *BATCH.split()[2:], "--out", "out", "--jobs", "1"]
    assert cli.main(words) == 1
    with open("out/failures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == "bad.png" and "bad.png" in row["reason"]
    with open("out/index.csv", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {SCENE, BATCH.split()[2]}
    assert len(list(Path("out").glob("*.png"))) == 2


@pytest.mark.parametrize("kind", ["pipe", "socket", "zero", "memory", "link to a pipe"])
def test_what_takes_an_images_place_during_a_run(tmp_path, kind, monkeypatch):
    """A worker reads an image; when it is asked again, something else stands there."""
    from detr_viz.batch.tasks import Earlier, Failure, Pixels, Read, Setup
    from detr_viz.batch.worker import ImageWorker
    from detr_viz.common import files
    from detr_viz.render.recipe import ModelFacts, Recipe

    monkeypatch.setattr(files, "_elsewhere", None)  # and back: a worker sets it for good
    model = ModelFacts("detr", "w.pth", "00", 8, False, ("cat",), 64, 100)
    path = tmp_path / "a.png"
    path.write_bytes(Path(SCENE).read_bytes())
    worker = ImageWorker()
    worker.answer(Setup(Recipe((model,)), tmp_path))
    assert isinstance(worker.answer(Read(0, str(path))), Pixels)
    path.unlink()
    KINDS[kind](path)
    for again in (Read(1, str(path)), Read(2, str(path), Earlier("0" * 12, (path,)))):
        done: list[object] = []
        thread = threading.Thread(target=lambda a=again, d=done: d.append(worker.answer(a)))
        thread.daemon = True
        thread.start()
        thread.join(30)
        (failed,) = done
        assert isinstance(failed, Failure) and "a.png" in failed.reason, failed


LISTS = {  # shell words after --image -> (exit code, words of what is printed)
    "pipe of the shell": (f"@<(echo {SCENE})", 0, "wrote 1 file for 1 image"),
    "standard input": (f"@- <<< {SCENE}", 0, "wrote 1 file for 1 image"),
    "a pipe as standard input": (f"@/dev/stdin < <(echo {SCENE})", 0, "wrote 1 file for 1 image"),
    "empty": ("@<(true)", 2, "names no image"),
    "no text": ("@<(head -c 99 /dev/urandom; printf '\\0')", 2, "is not UTF-8 text"),
    "no end": ("@<(sleep 60 2>&-)", 2, "has no end after 2 s"),
    "slow": (
        "@<(for i in 1 2 3 4 5 6 7 8; do echo a; sleep 1; done 2>&-)",
        2,
        "has no end after 2 s",
    ),
    "zeros": ("@- < /dev/zero", 2, "it is a device, not a regular file"),
    "nothing": ("@- < /dev/null", 2, "it is a device, not a regular file"),
    "closed": ("@- <&-", 2, "cannot read"),
    "a pipe with a name": ("@named", 2, "it is a pipe, not a regular file"),
    "one that was never open": ("@/dev/fd/87", 2, "cannot read"),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_come_through_a_pipe(tmp_path, name):
    """Only pipes that the caller has opened: nothing can wait for their other end to be opened."""
    words, code, says = LISTS[name]
    os.mkfifo(tmp_path / "named")
    # with a longer limit where a result is wanted: helpers start within it too
    flags = f"--size 64 --queries 0 --out out --timeout {2 if code else 40}"
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m detr_viz {flags} --image {words}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == code and says in done.stdout + done.stderr, done.stderr
    assert code == 0 or done.stderr.count("\n") == 1


def test_a_list_through_a_pipe_has_a_limit(monkeypatch):
    from detr_viz.common.regular import read_stream

    back, front = os.pipe()
    writer = threading.Thread(target=lambda: os.write(front, b"a" * 50_000))
    writer.start()
    assert read_stream(back, 9_999, 5) is None
    writer.join()
    os.close(back)
    os.close(front)


def test_nothing_is_written_below_the_system(tmp_path, capsys, monkeypatch):
    """A link to a folder of /proc as --out; a link to a file of /proc is not replaced."""
    from detr_viz import cli

    monkeypatch.chdir(tmp_path)
    Path("out").symlink_to("/proc/self")
    Path("a.png").symlink_to("/proc/self/maps")
    Path("here").symlink_to("/proc/self/cwd")
    for out in ("out", "out/x/", "out/x.png", "a.png", "/proc/self/x.png", "/sys/x/"):
        assert cli.main([*SMALL.split(), "--out", out]) == 2, out
        assert "of the system" in capsys.readouterr().err, out
    assert sorted(os.listdir()) == ["a.png", "here", "out"] and Path("a.png").is_symlink()
    assert cli.main([*SMALL.split(), "--out", "here/good.png"]) == 0  # leads to a folder of a disk
    assert Path("good.png").is_file()


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("loop", "nothing")])
def test_the_one_door(tmp_path, kind):
    path = tmp_path / "a"
    KINDS[kind](path)
    if not os.path.exists(path):
        pytest.skip("this machine has none")
    with pytest.raises(NotRegularError, match="regular file"):
        open_regular(path)


def test_what_takes_a_files_place_after_the_check(tmp_path, monkeypatch):
    path = tmp_path / "a"
    os.mkfifo(path)
    monkeypatch.setattr("detr_viz.common.regular.check_regular", lambda path: None)
    with pytest.raises(NotRegularError, match="pipe"):
        open_regular(path)
    ordinary = tmp_path / "b"
    ordinary.write_bytes(b"abc")
    with open_regular(ordinary) as file:
        assert file.read() == b"abc" and file.name is not None


def test_a_figure_through_a_link_to_nothing(tmp_path):
    """As a process: nothing is written where the link leads."""
    (tmp_path / "a.png").symlink_to("elsewhere.png")
    done = subprocess.run(
        [sys.executable, "-m", "detr_viz", "--image", SCENE, "--out", "a.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "link to nothing" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.png"]
