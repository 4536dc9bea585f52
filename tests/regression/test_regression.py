"""record, check, update: what passes, what is caught and what it is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_tools import run
from conftest import demo_model
from PIL import Image
from regression_tools import checked, command, recorded, with_project

from detr_viz import cli, heatmaps
from detr_viz.demo.shapes import scene
from detr_viz.regression.baselines import BaselineSpec


@pytest.fixture
def project(here):
    return with_project(here)


# ---- what passes --------------------------------------------------------------------------------


def test_what_was_recorded_is_the_same(project, capsys):
    argv = ["--type", "detr", "cd_detr", "--plot", "all", "--image", "a.png", "b.png"]
    assert recorded(capsys, *argv) == [
        f"base/{image}_{name}_all.npz" for name in ("detr", "cd_detr") for image in "ab"
    ]
    told = checked(capsys)
    assert told[-1] == "4 same" and len(told) == 5
    assert checked(capsys, "--quiet") == []


def test_the_recipe_is_in_the_file_with_paths_relative_to_it(project, capsys):
    (path,) = recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--size", "96")
    meta = heatmaps.load(path).meta
    made = BaselineSpec.parsed(meta["remake"])
    assert (made.type, made.weights, made.image) == ("cd_detr", "../mine.pth", "../a.png")
    assert (made.modes, made.layer, made.size, made.queries) == (("combine",), 2, 96, "top:5")
    assert str(project) not in json.dumps(dict(meta))


@pytest.mark.parametrize("moved", ["folder", "root"])
def test_a_project_that_was_moved(project, capsys, monkeypatch, moved):
    root = ["--root", "."] if moved == "root" else []
    for name in ("images", "weights"):
        Path(name).mkdir()
    shutil.move("a.png", "images/a.png")
    shutil.move("mine.pth", "weights/mine.pth")
    recorded(capsys, "--weights", "weights/mine.pth", "--image", "images/a.png", *root)
    other = project / "elsewhere/clone"
    shutil.copytree(project / "images", other / "images")
    shutil.copytree(project / "weights", other / "weights")
    shutil.copytree(project / "base", other / "base")
    shutil.rmtree(project / "weights")
    monkeypatch.chdir(other.parent)
    argv = ["--root", "clone"] if moved == "root" else []
    out, _ = command(capsys, "check", "clone/base", *argv)
    assert out[-1] == "1 same"
    if moved == "root":
        _, err = command(capsys, "check", "clone/base", code=2)
        assert "recorded with --root: say --root here too" in err


def test_every_option_is_remade(project, capsys):
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
def test_each_option_makes_the_same_numbers_again(project, capsys, argv):
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


def test_a_resaved_image_and_another_thread_count_are_the_same(project, capsys):
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


def test_another_image_is_caught_and_named(project, capsys):
    recorded(capsys, "--type", "detr", "--image", "a.png", "b.png")
    shutil.copy("b.png", "a.png")
    told = checked(capsys, code=1)
    assert told[0] == "different  a_detr_combine.npz" and told[1].strip().startswith(
        "image changed"
    )
    assert told[-1] == "1 same, 1 different"


def test_a_scaled_layer_is_caught_with_layer_and_head(project, capsys):
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


def test_a_single_weight_is_caught_by_the_files_hash(project, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png")

    def one(state):
        state["class_embed.weight"][0, 0] += 1e-7

    tampered(one)
    told = checked(capsys, code=1)
    assert told[0] == "different  a_cd_detr_combine.npz"
    assert told[1].strip().startswith("weights file changed (")
    assert told[1].endswith("; same maps and boxes")  # the file alone is another


def test_a_retrained_model_is_compared_by_its_boxes(project, capsys):
    """Queries in another order: the same detector, every id another object."""
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "score:0.5")

    def turn(state):
        state["query_embed.weight"] = state["query_embed.weight"].flip(0)

    tampered(turn)
    told = checked(capsys, code=1)  # for the hash alone
    assert told[1].strip().startswith("weights file changed") and len(told) == 3
    assert told[1].endswith("; same maps and boxes")
    assert "gone" not in "".join(told)


def test_a_query_that_is_gone_is_a_difference(project, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "score:0.5")
    tampered(lambda state: state["class_embed.bias"].sub_(20))
    told = checked(capsys, code=1)
    assert told[-1] == "1 different" and any(line.strip().startswith("gone: ") for line in told)
    _, err = command(capsys, "update", "base", code=2)
    assert "no query is left, so it stays as it was" in err


def test_limits_are_flags(project, capsys):
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


def test_update_rewrites_what_differs_and_nothing_else(project, capsys):
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


def test_an_updated_baseline_is_the_one_that_would_be_recorded(project, capsys):
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "top:3")
    tampered(lambda state: state["query_embed.weight"].copy_(state["query_embed.weight"].flip(0)))
    command(capsys, "update", "base")
    updated = Path("base/a_cd_detr_combine.npz").read_bytes()
    recorded(capsys, "--weights", "mine.pth", "--image", "a.png", "--queries", "top:3")
    assert Path("base/a_cd_detr_combine.npz").read_bytes() == updated
