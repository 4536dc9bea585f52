"""Pipes, sockets, devices and files of the system: refused at once, without being opened."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz.common.regular import NotRegularError, open_regular

SCENE = str(ROOT / "image/scene_1.jpg")


def _socket(path: Path) -> None:
    one = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        one.bind(path.name)
    finally:
        os.chdir(here)
        one.close()


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


KINDS: dict[str, Callable[[Path], None]] = {  # what stands where a file should
    "pipe": lambda path: os.mkfifo(path),
    "socket": _socket,
    "zero": _link("/dev/zero"),
    "terminal": _link("/dev/tty"),
    "random": _link("/dev/urandom"),
    "memory": _link("/proc/self/mem"),
    "maps": _link("/proc/self/maps"),
    "core": _link("/proc/kcore"),
    "kernel": _link("/proc/kmsg"),
    "power": _link("/sys/kernel/uevent_seqnum"),
    "link to a pipe": lambda path: (
        os.mkfifo(path.with_name("pipe")),
        path.symlink_to("pipe"),
    ),
    "loop": lambda path: path.symlink_to(path.name),
    "nothing": _link("nowhere"),
}
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
# what a link may stand for: the run makes these, or nothing is wrong with them
HELD = {("list", "nothing"), ("image", "nothing")}


@pytest.mark.parametrize("place", PLACES)
def test_refused_at_once(tmp_path, place, capsys, monkeypatch):
    """In this process, with an alarm: nothing may wait for the other end of a pipe."""
    from detr_viz import cli

    name, words = PLACES[place]
    outcomes = {}
    for kind, build in KINDS.items():
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
