"""--plot proposals through the whole tool: a small two-stage file, and models without proposals."""

from __future__ import annotations

import argparse
import csv

import numpy as np
import pytest
import torch
from conftest import ROOT
from network_tools import TINY_DEFORMABLE, tiny
from PIL import Image

from detr_viz import cli, explain, load_model, models
from detr_viz.cli.settings import expand_biography
from detr_viz.render import views

QUERIES = 12


def save(path, two_stage: bool):
    """A model of random weights in the official format; its class 0 tells tokens apart."""
    sizes = {"num_queries": QUERIES, "num_logits": 91, "refine": True, "two_stage": two_stage}
    model = tiny("deformable_detr", **sizes)
    torch.manual_seed(3)
    state_dict = {k: v.clone() for k, v in model.network.state_dict().items()}
    for key, value in state_dict.items():
        if key.endswith(("sampling_offsets.weight", "attention_weights.weight")):
            value.normal_(std=0.3)
        if "class_embed" in key and value.ndim == 2:
            value.normal_()
    for name in ("class_embed", "bbox_embed"):  # heads under both of their names
        for key in [k for k in state_dict if k.startswith(f"transformer.decoder.{name}")]:
            state_dict[key] = state_dict[key.removeprefix("transformer.decoder.")]
    args = argparse.Namespace(nheads=TINY_DEFORMABLE.nheads, dilation=False, num_queries=QUERIES)
    torch.save({"model": state_dict, "args": args}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("two_stage") / "two.pth", True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)).save("cat.png")
    return tmp_path


def argv(weights, *more: str, image: str = "cat.png") -> list[str]:
    common = ["--type", "deformable_detr", "--weights", str(weights), "--image", image]
    return [*common, "--size", "96", "--plot", "proposals", "--queries", "top:2", *more]


def test_one_image_with_its_numbers_and_its_caption(here, weights, capsys):
    more = ["--save-maps", "--caption", "--format", "png,svg,pdf", "--out", "x/"]
    assert cli.main(argv(weights, *more)) == 0
    out, err = capsys.readouterr()
    stem = "cat_deformable_detr_proposals"
    assert err == "" and [line for line in out.splitlines() if "wrote" in line] == [
        f"wrote x/{stem}{end}" for end in (".png", ".pdf", ".svg", ".tex", ".npz")
    ]
    model = load_model(weights, "deformable_detr", device="cpu")
    e = explain(model, "cat.png", size=96)
    known, best = e.proposals, e.by_score()[:2]
    with np.load(f"x/{stem}.npz") as saved:
        assert saved["query_ids"].tolist() == best
        assert saved["tokens"].tolist() == known.tokens.tolist()
        assert saved["ranks"].tolist() == [*range(1, QUERIES + 1)]
        assert saved["cells"].tolist() == known.cells.tolist()
        np.testing.assert_allclose(saved["token_scores"], known.token_scores, atol=1e-6)
        np.testing.assert_allclose(saved["proposals_xyxy_px"], known.boxes_xyxy_px, atol=1e-3)
        np.testing.assert_allclose(saved["boxes_xyxy_px"], e.boxes_xyxy_px, atol=1e-3)
        for level, (scores, invalid) in enumerate(zip(known.scores, known.invalid, strict=True)):
            np.testing.assert_allclose(saved[f"scores_level{level}"], scores, atol=1e-6)
            np.testing.assert_array_equal(saved[f"invalid_level{level}"], invalid)
        assert '"score": "sigmoid of the encoder\'s class 0 logit"' in str(saved["meta"])
    lines = out.splitlines()
    for query in best:
        level, row, column = known.cells[query]
        (line,) = [one for one in lines if one.split()[:1] == [str(query)]]
        words = line.replace(",", "").split()
        assert words[-5:-3] == [str(query + 1), f"{known.token_scores[query]:.3f}"]
        assert words[-3:] == [str(level), str(column), str(row)]
    assert "score of tokens: sigmoid of the encoder's class 0 logit" in lines
    caption = (here / f"x/{stem}.tex").read_text()
    assert "sigmoid of the encoder's class 0 logit" in caption and f"{stem}.pdf" in caption
    svg = (here / f"x/{stem}.svg").read_text()
    assert "from proposal to box" in svg and "level 1, stride" in svg


def test_a_batch_with_resume_and_shards_is_as_one_image(here, weights, capsys):
    (here / "in").mkdir()
    for name in "abc":
        (here / "in" / f"{name}.png").write_bytes((here / "cat.png").read_bytes())
    rest = ["--format", "png,npz", "--jobs", "1"]
    assert cli.main(argv(weights, *rest, "--out", "out", image="in")) == 0
    assert cli.main(argv(weights, "--save-maps", "--out", "one/")) == 0
    stem = "deformable_detr_proposals"
    with np.load(f"one/cat_{stem}.npz") as one, np.load(f"out/b_{stem}.npz") as many:
        assert {*one} == {*many}
        for name in {*one} - {"meta"}:
            np.testing.assert_array_equal(one[name], many[name])
    capsys.readouterr()
    before = (here / f"out/a_{stem}.png").stat().st_mtime_ns
    (here / f"out/b_{stem}.png").unlink()
    assert cli.main(argv(weights, *rest, "--out", "out", "--resume", image="in")) == 0
    assert "2 images done by an earlier run" in capsys.readouterr().out
    assert (here / f"out/a_{stem}.png").stat().st_mtime_ns == before
    assert (here / f"out/b_{stem}.png").exists()
    for shard in ("0/2", "1/2"):
        assert cli.main(argv(weights, *rest, "--out", "parts", "--shard", shard, image="in")) == 0
    assert len([*(here / "parts").glob(f"*_{stem}.png")]) == 3
    with (here / "out/index.csv").open() as file:
        rows = [row for row in csv.DictReader(file)]
    assert {row["image"] for row in rows} >= {f"in/{name}.png" for name in "abc"}


@pytest.mark.parametrize(
    "more",
    [
        ["--style", "heat", "--cmap", "viridis", "--interpolation", "linear"],
        ["--preset", "column", "--letters", "--notes"],
        ["--queries", "all", "--preset", "slide"],
        ["--precision", "float64"],
        ["--queries", "objects"],
        ["--font", "serif", "--width", "2"],
    ],
    ids=" ".join,
)
def test_the_flags_of_other_views(here, weights, capsys, more):
    assert cli.main(argv(weights, "--out", "a.png", *more)) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines()[-1] == "wrote a.png"
    if "--precision" in more:
        assert "float64 moves scores of tokens by up to" in out
    with Image.open("a.png") as picture:
        assert picture.width > 300 and "became queries" in picture.text["Title"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--plot", "proposals", "combine"], "proposals stands alone: leave the others out"),
        (["--plot", "all,proposals"], "stands alone: leave the others out"),
        (["--plot", "proposal"], "did you mean proposals"),
        (["--attention", "cross"], "leave --attention out"),
        (["--attention", "encoder"], "leave --attention out"),
        (["--layer", "0"], "leave --layer out"),
        (["--layer", "all"], "leave --layer out"),
        (["--heads", "0"], "leave --heads out"),
        (["--heads", "mean"], "leave --heads out"),
        (["--scale", "layer"], "leave --scale out"),
        (["--norm", "head"], "leave --norm out"),
        (["--style", "contour"], "--style overlay or heat"),
        (["--style", "points"], "--style overlay or heat"),
        (["--style", "cells"], "--style cells is not for --plot proposals"),
        (["--zoom", "3"], "leave --zoom out"),
        (["--contours", "50,80"], "give both"),
        (["--points", "3,4"], "--points are for --attention encoder"),
        (["--ablate", "content"], "leave"),
        (["--ablate-in", "0"], "give one of them too"),
        (["--rollout"], "leave --plot and --terms out"),
        (["--faithfulness"], "leave --plot proposals out"),
        (["--list-queries"], "--list-queries is not for --plot proposals"),
        (["--weights", "other.pth"], "--plot proposals is for one model"),
        (["--cmap", "embers"], "no colour map 'embers'"),
        (["--queries", "400"], "400"),
    ],
)
def test_what_has_no_meaning_is_one_line(here, weights, capsys, more, says):
    try:
        code = cli.main(argv(weights, "--out", "x/", "--quiet", *more))
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err, err
    assert [path.name for path in here.iterdir()] == ["cat.png"]


def test_biography_has_no_proposals():
    args = argparse.Namespace(biography=3, queries=None, layer="last")
    expand_biography(args)
    assert (args.queries, args.layer) == ("3", "all")  # so the rule of --layer refuses it


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", ["detr", "cd_detr", "deformable_detr"])
def test_models_with_learned_queries_say_which_have_proposals(
    here, capsys, monkeypatch, tmp_path_factory, kind, many
):
    """Before an image is read."""
    command = ["--type", kind, "--plot", "proposals", "--out", "x/"]
    if kind == "deformable_detr":
        plain = save(tmp_path_factory.mktemp("plain") / "plain.pth", False)
        command += ["--weights", str(plain)]
    command += ["--image", "cat.png", *(["--resume", "--jobs", "1"] if many else [])]
    monkeypatch.setattr("detr_viz.explanation.explain_image.explain_batch", None)
    assert cli.main(command) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "has no proposals" in err[0]
    assert err[0].endswith(
        "models with proposals: two-stage Deformable DETR, Efficient DETR, Salience DETR"
    )
    assert models.get(kind).title in err[0]
    assert not [*here.glob("x/*.png")]


def test_other_commands_have_no_such_plot(here, weights, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["record", *argv(weights, "--out", "base")])
    assert stop.value.code == 2
    assert "invalid choice: 'proposals'" in capsys.readouterr().err


def test_the_view_needs_nothing_of_the_network_but_one_pass():
    needs = views.view("proposals").needs(None)
    assert needs.proposals and not needs.sites and not needs.redecode
    other = views.view("proposals").needs(None) | type(needs)()
    assert other.proposals
