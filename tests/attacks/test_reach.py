"""Which files a baseline makes check read: those around it, unless --anywhere says otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from detr_viz.cli.main import main

SCENE = ROOT / "image/scene_1.jpg"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A baseline of an image beside its folder: home/b/one.npz, home/a.jpg."""
    home = tmp_path_factory.mktemp("reach") / "home"
    home.mkdir()
    shutil.copy(SCENE, home / "a.jpg")
    words = ["record", "--type", "detr", "--image", str(home / "a.jpg"), "--size", "64", "--quiet"]
    assert main([*words, "--out", str(home / "b")]) == 0
    (path,) = (home / "b").glob("*.npz")
    path.rename(home / "b/one.npz")
    return home


def _copy(made: Path, home: Path, **entries: object) -> Path:
    """The same baseline in another place, which says something else of how it is made."""
    shutil.copytree(made, home)
    with np.load(home / "b/one.npz") as saved:
        arrays = dict(saved)
    meta = json.loads(str(arrays["meta"]))
    meta["remake"] |= entries
    arrays["meta"] = np.asarray(json.dumps(meta))
    np.savez(home / "b/one.npz", **arrays)
    return home / "b"


OUTSIDE = {  # name -> what the baseline says of its files
    "up": {"image": "../../secret.jpg"},
    "far up": {"image": "../../../../../../../../../../etc/hostname"},
    "absolute": {"image": "/etc/hostname"},
    "through a link": {"image": "../out/secret.jpg"},
    "a link": {"image": "../link.jpg"},
    "weights": {"weights": "../../secret.pth", "weights_is": "file"},
    "absolute weights": {"weights": "/etc/hostname", "weights_is": "file"},
    "classes": {"classes": "/etc/hostname"},
    "the hub": {"weights": "hf:someone/some-detr", "weights_is": "name"},
    "the hub as a file": {"weights": "hf:someone/some-detr", "weights_is": "file"},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_is_refused_unread(made, tmp_path, monkeypatch, capsys, name):
    outer = tmp_path / "outer"
    outer.mkdir()
    shutil.copy(SCENE, outer / "secret.jpg")
    baselines = _copy(made, outer / "home", **OUTSIDE[name])
    (outer / "home/out").symlink_to(outer)
    (outer / "home/link.jpg").symlink_to(outer / "secret.jpg")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["check", str(baselines)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--anywhere" in err
    if name in ("up", "through a link", "a link"):  # the same image, by a longer way
        assert main(["check", str(baselines), "--anywhere", "--quiet"]) == 0


INSIDE = {
    "beside the folder": ({}, ()),
    "in the folder": ({"image": "c.jpg"}, ()),
    "the image of the package": ({"image": str(SCENE)}, ()),
    "below --root": ({"image": "a.jpg", "relative_to": "root"}, ("--root", "root")),
    "in the working folder": ({"image": "../../work/a.jpg"}, ()),
    "in the repository": ({"image": "../../a.jpg"}, ()),
}


@pytest.mark.parametrize("name", INSIDE)
def test_inside_is_checked(made, tmp_path, monkeypatch, name):
    entries, words = INSIDE[name]
    outer = tmp_path / "outer"
    outer.mkdir()
    baselines = _copy(made, outer / "home", **entries)
    for place in ("home/b/c.jpg", "work/a.jpg", "work/root/a.jpg", "a.jpg"):
        (outer / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCENE, outer / place)
    if name == "in the repository":
        (outer / ".git").mkdir()
    monkeypatch.chdir(outer / "work")
    assert main(["check", str(baselines), *words, "--quiet"]) == 0


def test_a_root_is_left_by_no_path(made, tmp_path, monkeypatch, capsys):
    baselines = _copy(made, tmp_path / "home", image="../../../etc/hostname", relative_to="root")
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(baselines), "--root", "home"]) == 2
    assert "outside" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["../secret.png", "{tmp}/secret.png", "a/../../secret.png"])
def test_an_index_that_names_files_outside(tmp_path, monkeypatch, file):
    """A run that goes on from it draws the image again, and looks at no file outside."""
    monkeypatch.chdir(tmp_path)
    images = [str(SCENE), str(ROOT / "image/scene_2.jpg")]
    words = ["--image", *images, "--size", "64", "--queries", "0", "--out", "out", "--quiet"]
    assert main([*words, "--jobs", "1"]) == 0
    index = tmp_path / "out/index.csv"
    (first, _) = sorted((tmp_path / "out").glob("*.png"))
    before, whole = first.stat().st_mtime_ns, index.read_text()
    shutil.copy(first, tmp_path / "secret.png")  # even one that has the right recipe
    hostile = whole.replace(first.name, f"{first.name};{file.format(tmp=tmp_path)}")
    assert hostile != whole
    index.write_text(hostile)
    assert main([*words, "--jobs", "1", "--resume"]) == 0
    assert index.read_text() == whole and first.stat().st_mtime_ns > before


@pytest.mark.parametrize("root", [(), ("--root", "pictures")], ids=["", "root"])
def test_record_says_what_check_will_need(tmp_path, monkeypatch, capsys, root):
    for folder in ("pictures", "work/home"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SCENE, tmp_path / "pictures/a.jpg")
    monkeypatch.chdir(tmp_path / "work" if not root else tmp_path)
    out, image = ("home/b", "../pictures/a.jpg") if not root else ("work/home/b", "pictures/a.jpg")
    words = ["--type", "detr", "--image", image, "--size", "64", "--out", out, *root]
    assert main(["record", *words]) == 0
    notes = [line for line in "".join(capsys.readouterr()).splitlines() if "--anywhere" in line]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = () if not root else ("--root", "../pictures")
    baselines = str(tmp_path / ("work/" if not root else "") / out)
    assert len(notes) == (0 if root else 1)
    assert main(["check", baselines, *given, "--quiet"]) == (0 if root else 2)
    if notes:
        assert "pictures/a.jpg" in notes[0]
        assert main(["check", baselines, "--anywhere", "--quiet"]) == 0
