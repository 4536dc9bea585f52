"""record, check, update: what cannot run, and files and folders that are not what they seem."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from regression_tools import checked, command, recorded, with_project

from detr_viz import cli, heatmaps
from detr_viz.demo.shapes import scene
from detr_viz.regression.baselines import BaselineSpec


@pytest.fixture
def project(here):
    return with_project(here)


# ---- what cannot run ----------------------------------------------------------------------------


def test_what_cannot_run_is_said_and_the_rest_is_checked(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--plot", "content")
    os.remove("a.png")
    os.remove("mine.pth")
    Path("base/rotten.npz").write_bytes(Path("base/b_detr_combine.npz").read_bytes()[:-50])
    out, err = command(capsys, "check", "base", code=2)
    assert out[-1] == "1 same, 3 not run"
    said = err.splitlines()
    assert len(said) == 3 and all(line.startswith("error: ") for line in said)
    assert sum("a.png" in line for line in said) == 1
    assert sum("mine.pth" in line for line in said) == 1
    assert sum("rotten.npz" in line for line in said) == 1


MISTAKES = [
    (["record"], "--out"),
    (["record", "--out", "a.png"], "is a file: give a folder"),
    (["record", "--out", "x", "--image", "none.png"], "none.png"),
    (["record", "--out", "x", "--weights", "none.pth"], "none.pth"),
    (["record", "--out", "x", "--queries", "best"], "best"),
    (["record", "--out", "x", "--queries", "999"], "no query 999"),
    (["record", "--out", "x", "--layer", "9"], "no decoder layer 9"),
    (["record", "--out", "x", "--store", "int8"], "invalid choice"),
    (["record", "--out", "x", "--root", "none"], "--root none is no folder"),
    (["record", "--out", "x", "--classes", "none.txt"], "none.txt"),
    (["check"], "PATH"),
    (["check", "none"], "no file or folder none"),
    (["check", "empty"], "no baselines (.npz) in empty"),
    (["check", "plain.npz"], "it does not say how it is made again"),
    (["check", "good", "--only", "z*"], "no baseline is called 'z*': there is a_detr"),
    (["check", "good", "--root", "none"], "--root none is not a folder"),
    (["check", "good", "--atol", "x"], "is not a number"),
    (["update", "none"], "no file or folder none"),
    (["update", "good", "--max-shift", "x"], "is not a distance"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What mistakes are made with: good baselines, maps that are none, an empty folder."""
    folder, before = tmp_path_factory.mktemp("places"), os.getcwd()
    os.chdir(folder)
    try:
        Path("empty").mkdir()
        Image.fromarray(scene(2_000_000_300, 128).rgb).save("a.png")
        argv = ["record", "--out", "good", "--type", "detr", "--image", "a.png", "--quiet"]
        assert cli.main(argv) == 0
        assert cli.main(["--image", "a.png", "--format", "npz", "--out", "o", "--quiet"]) == 0
        shutil.move("o/a_detr_combine.npz", "plain.npz")
        shutil.rmtree("o")
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize(("argv", "says"), MISTAKES, ids=lambda x: " ".join(x)[:40])
def test_mistakes_are_one_line_and_change_nothing(project, places, capsys, argv, says):
    shutil.copytree(places, project, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    more = ["--image", "a.png"] if argv[0] == "record" and "--image" not in argv else []
    try:
        code = cli.main([*argv, *more])
    except SystemExit as stop:
        code = stop.code
    _, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and says in err
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


GOOD = BaselineSpec(
    *("detr", None, "demo", "a.png", "folder", "top:5", ("combine",), 2, "mode"),
    *(None, None, "float32", None, None, None),
)


@pytest.mark.parametrize(
    "change",
    [
        {"type": 3},
        {"image": None},
        {"image": "a\0.png"},
        {"modes": "combine"},
        {"modes": [1]},
        {"layer": -1},
        {"layer": True},
        {"layer": 10**9},
        {"size": "800"},
        {"weights": "x.pth"},
        {"weights_is": "file"},
        {"weights_is": "url"},
        {"relative_to": "/"},
        {"dilation": "yes"},
        {"extra": 1},
    ],
    ids=str,
)
def test_what_a_file_says_of_itself_is_not_believed(change):
    assert BaselineSpec.parsed(json.loads(json.dumps(GOOD.as_meta()))) == GOOD
    with pytest.raises(ValueError, match="made again"):
        BaselineSpec.parsed({**GOOD.as_meta(), **change})


@pytest.mark.parametrize("entry", [None, [], "x", {}, 3])
def test_what_is_no_recipe(entry):
    with pytest.raises(ValueError, match="made again"):
        BaselineSpec.parsed(entry)


def test_the_demo_checkpoints_look_where_they_did(capsys):
    """This project's own baselines; also on a machine with other versions of its libraries."""
    assert cli.main(["check", str(ROOT / "tests/heatmaps")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 same"


# ---- places -------------------------------------------------------------------------------------


def test_no_baseline_is_lost_to_another(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    before = Path("base/a_detr_combine.npz").read_bytes()
    for argv in (["--queries", "top:2"], ["--size", "64"], ["--image", "x/a.png"]):
        Path("x").mkdir(exist_ok=True)
        shutil.copy("b.png", "x/a.png")
        argv = [*argv, *["--image", "a.png"] * ("--image" not in argv)]
        _, err = command(capsys, "record", "--out", "base", "--type", "detr", *argv, code=2)
        assert "exists already with other settings" in err and err.count("\n") == 1
    assert Path("base/a_detr_combine.npz").read_bytes() == before
    recorded(capsys, "--type", "detr", "--image", "a.png")  # the same again is no loss
    shutil.copy("a.png", "a_cd.png")
    argv = ["--type", "detr", "cd_detr", "--image", "a.png", "a_cd.png"]
    _, err = command(capsys, "record", "--out", "other", *argv, code=2)
    assert "a_cd_detr_combine.npz exists already, for a_cd.png" in err


def test_links_are_followed_and_hidden_files_are_not_ours(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    Path("all").mkdir()
    Path("all/linked").symlink_to("../base")
    Path("base/back").symlink_to("..")  # a ring
    shutil.copy("base/a_detr_combine.npz", "base/.b_detr_combine-0123.npz")
    out, _ = command(capsys, "check", "all")
    assert out[0].startswith("same       linked/a_detr_combine.npz") and out[-1] == "1 same"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_no_pass(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    Path("base/more").mkdir(mode=0)
    try:
        _, err = command(capsys, "check", "base", code=2)
    finally:
        Path("base/more").chmod(0o700)
    assert "cannot search base/more" in err


def test_a_search_says_what_it_cannot_read(project, monkeypatch):
    """What os.walk does for a folder without permission, which root cannot be refused."""
    from detr_viz.common import files
    from detr_viz.common.errors import UserError

    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", f"{top}/more"))
        yield top, [], []

    monkeypatch.setattr(files.os, "walk", walk)
    with pytest.raises(UserError, match="cannot search base/more: Permission denied"):
        files.search("base", ".npz")


@pytest.mark.parametrize("words", [["check", ""], ["update", ""], ["compare", "", "base"]])
def test_an_empty_path_is_not_the_current_folder(project, capsys, words):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    _, err = command(capsys, *words, code=2)
    assert err.count("\n") == 1 and ("empty" in err or "no file or folder ''" in err)


def test_names_of_several_places_are_whole(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    shutil.copytree("base", "base2")
    out, _ = command(capsys, "check", "base", "base2", "base/a_detr_combine.npz")
    assert [line.split()[1] for line in out[:-1]] == [
        "base/a_detr_combine.npz",
        "base2/a_detr_combine.npz",
    ]


@pytest.mark.parametrize(
    ("only", "count"),
    [(["a_*"], 1), (["sub/*"], 1), (["a_detr_combine"], 1), (["a_*", "b_*"], 2), (["[ab]*"], 2)],
)
def test_only(project, capsys, only, count):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    Path("base/sub").mkdir()
    shutil.move("base/a_detr_combine.npz", "base/sub/")
    shutil.copy("a.png", "base/a.png")
    argv = [word for pattern in only for word in ("--only", pattern)]
    cli.main(["check", "base", *argv, "--quiet"])
    capsys.readouterr()
    cli.main(["check", "base", *argv])
    assert sum(map(int, re.findall(r"(\d+) ", capsys.readouterr().out.splitlines()[-1]))) == count
    _, err = command(capsys, "check", "base", "--only", "", code=2)
    assert "no baseline is called ''" in err


def test_maps_that_are_no_numbers_are_neither_recorded_nor_the_same(project, capsys, monkeypatch):
    from detr_viz.explanation.captured import Explanation

    recorded(capsys, "--type", "detr", "--image", "a.png", "--plot", "position")
    right = Explanation.attention
    monkeypatch.setattr(
        Explanation, "attention", lambda *args, **more: right(*args, **more) * np.float32(np.nan)
    )
    assert checked(capsys, code=1)[-1] == "1 different"
    argv = ["record", "--out", "new", "--type", "detr", "--image", "a.png"]
    _, err = command(capsys, *argv, code=2)
    assert "values that are no weights" in err and not list(Path("new").glob("*.npz"))


def test_a_bug_is_no_difference(project, capsys, monkeypatch):
    """The exit code 1 says that maps differ; what cannot be told is 2; a traceback if asked."""
    from detr_viz.heatmaps import compare
    from detr_viz.regression import outcomes

    def broken(*args, **more):
        raise KeyError("x")

    recorded(capsys, "--type", "detr", "--image", "a.png")
    monkeypatch.setattr(outcomes, "judge", broken)
    _, err = command(capsys, "check", "base", code=2)
    assert "this is a bug in detr_viz: KeyError" in err and "Traceback" not in err
    _, err = command(capsys, "check", "base", "--traceback", code=2)
    assert "in broken" in err
    monkeypatch.setattr(compare, "judge", broken)
    _, err = command(capsys, "compare", "base", "base", code=2)
    assert "this is a bug in detr_viz: KeyError" in err


def test_the_demo_image_needs_no_path(project, capsys):
    """It comes with the package, wherever that is."""
    (path,) = recorded(capsys, "--type", "detr")
    assert heatmaps.load(path).meta["remake"]["image"] == ""
    assert checked(capsys)[-1] == "1 same"


def test_one_mistake_is_one_line(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    _, err = command(capsys, "check", "base", "--device", "cuda", code=2)
    assert err.count("\n") == 1 and "device cuda" in err
    _, err = command(capsys, "chek", "base", code=2)
    assert err.count("\n") == 1 and "did you mean check?" in err


def test_a_compare_goes_on_after_a_damaged_file(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    shutil.copytree("base", "base2")
    Path("base2/a_detr_combine.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    out, err = command(capsys, "compare", "base", "base2", code=2)
    assert out[-1] == "1 same, 1 not run" and err.count("\n") == 1 and "git lfs pull" in err
    Path("empty").mkdir()
    shutil.copy("base/b_detr_combine.npz", "empty/other.npz")
    _, err = command(capsys, "compare", "base", "empty", code=2)
    assert "no file of one name" in err
