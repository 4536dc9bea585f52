"""record, check, update: what passes, what is caught and what it is called, and what cannot run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_tools import run
from conftest import ROOT, demo_model
from PIL import Image

from detr_viz import cli, heatmaps
from detr_viz.common import assets
from detr_viz.demo.shapes import scene
from detr_viz.regression.baselines import BaselineSpec

ENDS = ("same", "different", "not run")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project with two images and a checkpoint of its own."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("ab"):
        Image.fromarray(scene(2_000_000_300 + i, 128).rgb).save(f"{name}.png")
    shutil.copy(assets.find("weights/cd_detr_demo.pth"), "mine.pth")
    return tmp_path


def command(capsys, *argv: str, code: int = 0) -> tuple[list[str], str]:
    assert cli.main([*argv]) == code
    out, err = capsys.readouterr()
    return out.splitlines(), err


def recorded(capsys, *argv: str) -> list[str]:
    out, err = command(capsys, "record", "--out", "base", *argv)
    assert err == "" and all(line.startswith("wrote base/") for line in out)
    return [line.removeprefix("wrote ") for line in out]


def checked(capsys, *argv: str, code: int = 0) -> list[str]:
    out, err = command(capsys, "check", "base", *argv, code=code)
    assert err == ""
    return out


# ---- what passes --------------------------------------------------------------------------------


def test_what_was_recorded_is_the_same(here, capsys):
    argv = ["--type", "detr", "cd_detr", "--plot", "all", "--image", "a.png", "b.png"]
    assert recorded(capsys, *argv) == [
        f"base/{image}_{name}_all.npz" for name in ("detr", "cd_detr") for image in "ab"
    ]
    told = checked(capsys)
    assert told[-1] == "4 same" and len(told) == 5
    assert checked(capsys, "--quiet") == []


def test_the_recipe_is_in_the_file_with_paths_relative_to_it(here, capsys):
    (path,) = recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--size", "96")
    meta = heatmaps.load(path).meta
    made = BaselineSpec.parsed(meta["remake"])
    assert (made.type, made.weights, made.image) == ("cd_detr", "../mine.pth", "../a.png")
    assert (made.modes, made.layer, made.size, made.queries) == (("combine",), 2, 96, "top:5")
    assert str(here) not in json.dumps(dict(meta))


@pytest.mark.parametrize("moved", ["folder", "root"])
def test_a_project_that_was_moved(here, capsys, monkeypatch, moved):
    root = ["--root", "."] if moved == "root" else []
    for name in ("images", "weights"):
        Path(name).mkdir()
    shutil.move("a.png", "images/a.png")
    shutil.move("mine.pth", "weights/mine.pth")
    recorded(capsys, "--weights", "weights/mine.pth", "--image", "images/a.png", *root)
    other = here / "elsewhere/clone"
    shutil.copytree(here / "images", other / "images")
    shutil.copytree(here / "weights", other / "weights")
    shutil.copytree(here / "base", other / "base")
    shutil.rmtree(here / "weights")
    monkeypatch.chdir(other.parent)
    argv = ["--root", "clone"] if moved == "root" else []
    out, _ = command(capsys, "check", "clone/base", *argv)
    assert out[-1] == "1 same"
    if moved == "root":
        _, err = command(capsys, "check", "clone/base", code=2)
        assert "recorded with --root: say --root here too" in err


def test_every_option_is_remade(here, capsys):
    argv = ["--type", "detr", "--layer", "0,2", "--scale", "layer", "--size", "96", "--max-size"]
    argv += ["110", "--queries", "score:0.3+1", "--plot", "position", "--precision", "bfloat16"]
    names = [f"thing {i}\n" for i, _ in enumerate(demo_model("detr").class_names)]
    Path("names.txt").write_text("".join(names))
    paths = recorded(capsys, *argv, "--classes", "names.txt", "--store", "float16")
    assert [p.rpartition("position")[2] for p in paths] == ["_layer0.npz", ".npz"]
    assert heatmaps.load(paths[0]).meta["precision"] == "bfloat16"
    assert str(heatmaps.load(paths[0]).label_names[0]).startswith("thing")
    assert checked(capsys)[-1] == "2 same"


@pytest.mark.parametrize(
    "argv",
    [
        ["--scale", "layer", "--type", "cd_detr"],
        ["--precision", "bfloat16", "--type", "detr"],
        ["--size", "96", "--type", "detr"],
        ["--max-size", "110", "--type", "detr"],
        ["--weights", "bare.pth", "--nheads", "4"],
        ["--layer", "0", "--type", "detr"],
    ],
)
def test_each_option_makes_the_same_numbers_again(here, capsys, argv):
    """With no room at all; and without the option they would be others."""
    Image.fromarray(scene(2_000_000_301, 192).rgb).resize((192, 128)).save("a.png")
    checkpoint = torch.load("mine.pth", weights_only=True)
    del checkpoint["meta"]["nheads"]
    torch.save(checkpoint, "bare.pth")
    none = ["--atol", "0", "--max-tv", "0", "--max-shift", "0", "--min-iou", "1"]
    none += ["--max-score", "0"]
    command(capsys, "record", "--out", "base", *argv, "--image", "a.png", "--plot", "position")
    (path,) = Path("base").iterdir()
    assert checked(capsys, *none)[-1] == "1 same"
    plain = {"--type", "--weights"}
    fewer = [word for i, word in enumerate(argv) if word in plain or argv[i - 1] in plain]
    command(capsys, "record", "--out", "plain", *fewer, "--image", "a.png", "--plot", "position")
    (other,) = Path("plain").iterdir()
    assert cli.main(["compare", str(path), str(other), *none, "--quiet"]) == 1
    assert "recipe changed" in capsys.readouterr().out


def test_a_resaved_image_and_another_thread_count_are_the_same(here, capsys):
    torch.set_num_threads(2)  # and back, by a fixture of all tests
    recorded(capsys, "--type", "detr", "--plot", "all", "--image", "a.png")
    Image.open("a.png").save("a.png", compress_level=1)
    done = run("check", "base", env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "1 same" and done.stderr == ""


# ---- what is caught -----------------------------------------------------------------------------


def tampered(change) -> None:
    state = torch.load("mine.pth", weights_only=True)
    change(state["model"])
    torch.save(state, "mine.pth")


def test_another_image_is_caught_and_named(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    shutil.copy("b.png", "a.png")
    told = checked(capsys, code=1)
    assert told[0] == "different  a_detr_combine.npz" and told[1].strip().startswith(
        "image changed"
    )
    assert told[-1] == "1 same, 1 different"


def test_a_scaled_layer_is_caught_with_layer_and_head(here, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--plot", "all")

    def scale(state):
        name = "transformer.decoder.layers.2.ca_qcontent_proj.weight"
        state[name][: state[name].shape[0] // 8] *= 1.5  # head 0

    tampered(scale)
    told = checked(capsys, code=1)
    assert told[1].strip().startswith("weights file changed") and "same maps" not in "".join(told)
    rows = [line.split() for line in told if line.startswith(("  combine", "  content", "  posi"))]
    assert rows and {row[0] for row in rows} == {"combine", "content"}  # position has no part in it
    heads = {int(row[-6]) for row in rows}
    assert heads == {0}


def test_a_single_weight_is_caught_by_the_files_hash(here, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png")

    def one(state):
        state["class_embed.weight"][0, 0] += 1e-7

    tampered(one)
    told = checked(capsys, code=1)
    assert told[0] == "different  a_cd_detr_combine.npz"
    assert told[1].strip().startswith("weights file changed (")
    assert told[1].endswith("; same maps and boxes")  # the file alone is another


def test_a_retrained_model_is_compared_by_its_boxes(here, capsys):
    """Queries in another order: the same detector, every id another object."""
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "score:0.5")

    def turn(state):
        state["query_embed.weight"] = state["query_embed.weight"].flip(0)

    tampered(turn)
    told = checked(capsys, code=1)  # for the hash alone
    assert told[1].strip().startswith("weights file changed") and len(told) == 3
    assert told[1].endswith("; same maps and boxes")
    assert "gone" not in "".join(told)


def test_limits_are_flags(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    picture = np.asarray(Image.open("a.png")).copy()
    picture[:40] //= 2
    Image.fromarray(picture).save("a.png")
    checked(capsys, code=1)
    lax = [
        "--atol",
        "1",
        "--max-tv",
        "1",
        "--max-shift",
        "99",
        "--min-iou",
        "0",
        "--max-score",
        "1",
    ]
    kept = checked(capsys, *lax, code=0)
    assert kept[-1] == "1 same"


# ---- update -------------------------------------------------------------------------------------


def test_update_rewrites_what_differs_and_nothing_else(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png", "--store", "float16")
    before = {p.name: p.read_bytes() for p in Path("base").iterdir()}
    shutil.copy("b.png", "a.png")
    out, _ = command(capsys, "update", "base", "--only", "b_*")
    assert out == ["1 the same"]
    out, _ = command(capsys, "update", "base")
    assert out[0] == "different  a_detr_combine.npz"
    assert out[-2:] == ["rewrote base/a_detr_combine.npz", "1 rewritten, 1 the same"]
    after = {p.name: p.read_bytes() for p in Path("base").iterdir()}
    assert after["b_detr_combine.npz"] == before["b_detr_combine.npz"]
    assert after["a_detr_combine.npz"] != before["a_detr_combine.npz"]
    assert heatmaps.load("base/a_detr_combine.npz").meta["store"] == "float16"
    assert checked(capsys)[-1] == "2 same"


def test_an_updated_baseline_is_the_one_that_would_be_recorded(here, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "top:3")
    tampered(lambda state: state["query_embed.weight"].copy_(state["query_embed.weight"].flip(0)))
    command(capsys, "update", "base")
    updated = Path("base/a_cd_detr_combine.npz").read_bytes()
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "top:3")
    assert Path("base/a_cd_detr_combine.npz").read_bytes() == updated


# ---- what cannot run ----------------------------------------------------------------------------


def test_what_cannot_run_is_said_and_the_rest_is_checked(here, capsys):
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
def test_mistakes_are_one_line_and_change_nothing(here, places, capsys, argv, says):
    shutil.copytree(places, here, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    more = ["--image", "a.png"] if argv[0] == "record" and "--image" not in argv else []
    try:
        code = cli.main([*argv, *more])
    except SystemExit as stop:
        code = stop.code
    _, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and says in err
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


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


def test_no_baseline_is_lost_to_another(here, capsys):
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


def test_links_are_followed_and_hidden_files_are_not_ours(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    Path("all").mkdir()
    Path("all/linked").symlink_to("../base")
    Path("base/back").symlink_to("..")  # a ring
    shutil.copy("base/a_detr_combine.npz", "base/.b_detr_combine-0123.npz")
    out, _ = command(capsys, "check", "all")
    assert out[0].startswith("same       linked/a_detr_combine.npz") and out[-1] == "1 same"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_no_pass(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    Path("base/more").mkdir(mode=0)
    try:
        _, err = command(capsys, "check", "base", code=2)
    finally:
        Path("base/more").chmod(0o700)
    assert "cannot search base/more" in err


def test_a_search_says_what_it_cannot_read(here, monkeypatch):
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
def test_an_empty_path_is_not_the_current_folder(here, capsys, words):
    recorded(capsys, "--type", "detr", "--image", "a.png")
    _, err = command(capsys, *words, code=2)
    assert err.count("\n") == 1 and ("empty" in err or "no file or folder ''" in err)


def test_names_of_several_places_are_whole(here, capsys):
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
def test_only(here, capsys, only, count):
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


def test_a_query_that_is_gone_is_a_difference(here, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "score:0.5")
    tampered(lambda state: state["class_embed.bias"].sub_(20))
    told = checked(capsys, code=1)
    assert told[-1] == "1 different" and any(line.strip().startswith("gone: ") for line in told)
    _, err = command(capsys, "update", "base", code=2)
    assert "no query is left, so it stays as it was" in err


def test_maps_that_are_no_numbers_are_neither_recorded_nor_the_same(here, capsys, monkeypatch):
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


def test_a_bug_is_no_difference(here, capsys, monkeypatch):
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


def test_the_demo_image_needs_no_path(here, capsys):
    """It comes with the package, wherever that is."""
    (path,) = recorded(capsys, "--type", "detr")
    assert heatmaps.load(path).meta["remake"]["image"] == ""
    assert checked(capsys)[-1] == "1 same"


def test_one_mistake_is_one_line(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    _, err = command(capsys, "check", "base", "--device", "cuda", code=2)
    assert err.count("\n") == 1 and "device cuda" in err
    _, err = command(capsys, "chek", "base", code=2)
    assert err.count("\n") == 1 and "did you mean check?" in err


def test_a_compare_goes_on_after_a_damaged_file(here, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    shutil.copytree("base", "base2")
    Path("base2/a_detr_combine.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    out, err = command(capsys, "compare", "base", "base2", code=2)
    assert out[-1] == "1 same, 1 not run" and err.count("\n") == 1 and "git lfs pull" in err
    Path("empty").mkdir()
    shutil.copy("base/b_detr_combine.npz", "empty/other.npz")
    _, err = command(capsys, "compare", "base", "empty", code=2)
    assert "no file of one name" in err
