"""Models of stages through the command: small files, what it draws, writes and refuses."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from conftest import ROOT
from network_tools import tiny
from PIL import Image

from detr_viz import cli, explain, heatmaps, load_model

TYPES = {"sparse_rcnn": "Sparse R-CNN", "dynamic_detr": "Dynamic DETR"}
CLASSES = 80


def saved(name: str, path) -> None:
    """A small model of random weights in the official format."""
    sizes = {"dec_layers": 3} if name == "sparse_rcnn" else {}
    model = tiny(name, num_logits=CLASSES if name != "detr" else CLASSES + 12, **sizes)
    config = model.network.config
    args = {"nheads": config.nheads, "dilation": False}
    args |= {n: getattr(config, n) for n in ("canonical_px", "samples") if hasattr(config, n)}
    state = {"model": model.network.state_dict(), "args": argparse.Namespace(**args)}
    torch.save(state, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    for name in (*TYPES, "detr"):
        saved(name, folder / f"{name}.pth")
    Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)).save(folder / "cat.png")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def argv(files, name: str, *more: str) -> list[str]:
    image = ["--image", str(files / "cat.png")]
    return ["--type", name, "--weights", str(files / f"{name}.pth"), *image, *more]


@pytest.mark.parametrize("name", TYPES)
def test_all_stages_are_shown_by_their_cells_without_being_asked_for(here, files, capsys, name):
    words = argv(files, name, "--size", "96", "--queries", "top:2", "--caption")
    assert cli.main([*words, "--out", "out"]) == 0
    out, _ = capsys.readouterr()
    assert f"wrote out/cat_{name}_combine.png" in out and "layer" not in out
    with Image.open(f"out/cat_{name}_combine.png") as picture:
        said = picture.text["Title"] + picture.text["Description"]
    stages = load_model(files / f"{name}.pth", device="cpu").info.num_layers
    assert f"stages 0\N{EN DASH}{stages - 1}" in said and "style cells" in said
    assert "decoder" not in said and "head" not in said
    caption = (here / f"out/cat_{name}_combine.tex").read_text()
    assert "signed share of the stage's pre-norm output; shares and bias share sum to 1" in caption
    # a style of one's own is another file, with the same stages
    assert cli.main([*words, "--style", "overlay", "--out", "out"]) == 0
    assert "combine_overlay.png" in capsys.readouterr().out


@pytest.mark.parametrize("name", TYPES)
def test_saved_cells_are_those_of_each_stage(here, files, capsys, name):
    words = argv(files, name, "--size", "96", "--queries", "1,3", "--format", "npz")
    assert cli.main([*words, "--out", "out"]) == 0
    model = load_model(files / f"{name}.pth", device="cpu")
    e = explain(model, files / "cat.png", size=96, layers="all")
    for stage in range(e.num_layers):
        kept = heatmaps.load(f"out/cat_{name}_combine_stage{stage}.npz")
        attention = e.attention_at(("cross", stage))
        share, boxes, bias = attention.cells([1, 3])
        np.testing.assert_allclose(kept.cells_share, share, atol=1e-6)
        np.testing.assert_allclose(kept.cells_bias_share, bias, atol=1e-6)
        total = kept.cells_share.sum((1, 2)) + kept.cells_bias_share
        np.testing.assert_allclose(total, 1, atol=1e-4)
        grid = attention.grids[0]
        x = np.array([150 * grid.input_hw[1] / grid.shown_hw[1]])
        np.testing.assert_allclose(kept.cells_boxes[:, 0], boxes[:, 0] * x, rtol=1e-4, atol=1e-3)
        positive = np.clip(share, 0, None)
        assert kept.maps["combine"].shape[:2] == (2, 1)
        whole = kept.maps["combine"].sum((1, 2, 3)) + kept.outside["combine"][:, 0]
        np.testing.assert_allclose(whole, positive.any((1, 2)), atol=1e-3)


REFUSED = {
    "--heads 0": "has no heads that look at the image: its panels are its",
    "--heads mean": "has no heads that look at the image",
    "--plot position": "has only combine, no 'position'",
    "--plot content": "has only combine, no 'content'",
    "--plot terms": "has only combine, no 'cq.ck'",
    "--layer 9": "no stage 9: this model has 0..",
    "--style cells --level 0": "read on one level",
    "--style points": "reads the cells of its boxes",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_stages_do_not_have_is_one_line(files, refused, words):
    refused(argv(files, "sparse_rcnn", "--size", "64", *words.split()), REFUSED[words])


def test_one_stage_and_a_biography(here, files, capsys):
    words = argv(files, "sparse_rcnn", "--size", "64")
    assert cli.main([*words, "--layer", "0", "--queries", "top:1", "--out", "a.png"]) == 0
    assert "box: left top right bottom (px) of stage 0" in capsys.readouterr().out
    with Image.open("a.png") as picture:
        assert "stage 0 of 0\N{EN DASH}2" in picture.text["Description"]
    assert cli.main([*words, "--biography", "1", "--out", "b.png"]) == 0
    with Image.open("b.png") as picture:
        said = picture.text["Description"]
        assert picture.text["Title"].endswith("a query's biography")
    assert "white: the box that enters the stage as its reference" in said and "layer" not in said


def test_proposals_look_at_proposals(here, files, capsys):
    words = argv(files, "sparse_rcnn", "--size", "64", "--attention", "decoder", "--heads", "1")
    assert cli.main([*words, "--queries", "0,1", "--out", "out"]) == 0
    (path,) = [p for p in (here / "out").glob("*decoder.png")]
    with Image.open(path) as picture:
        said = picture.text["Title"] + picture.text["Description"]
    assert "proposals' self-attention of head 1" in said and "stage 2 of 0" in said
    assert "decoder" not in said


def test_heads_and_stages_are_compared_by_the_mean_of_the_heads(here, files, capsys):
    both = ["--weights", str(files / "detr.pth"), str(files / "sparse_rcnn.pth")]
    words = [
        "--type",
        "detr",
        "sparse_rcnn",
        *both,
        "--image",
        str(files / "cat.png"),
        "--size",
        "64",
    ]
    assert cli.main([*words, "--queries", "top:1", "--out", "out"]) == 0
    assert "out/cat_detr_vs_sparse_rcnn_combine_heads_mean.png" in capsys.readouterr().out
    assert cli.main([*words, "--heads", "0", "--out", "out"]) == 2
    assert "are stages, those of the others heads" in capsys.readouterr().err
