"""Deformable DETR through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from family_tools import deformable_file, explained_at_all_sites, with_photo
from network_tools import tiny
from PIL import Image

from detr_viz import cli, explain, heatmaps, load_model
from detr_viz.attention.terms import MODES
from detr_viz.heatmaps import npz
from detr_viz.heatmaps.compare import judge


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return deformable_file(tmp_path_factory.mktemp("deformable"))


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    return with_photo(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def explained(weights):
    return explained_at_all_sites(weights, "deformable_detr")


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "deformable_detr", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


@pytest.mark.parametrize(
    ("plot", "style"),
    [("combine", "points"), ("position", "overlay"), ("content", "heat"), ("all", "contour")],
)
def test_every_mode_in_every_style(here, weights, capsys, plot, style):
    assert cli.main(argv(weights, "--plot", plot, "--style", style, "--out", "a.png")) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines()[-1] == "wrote a.png"
    with Image.open("a.png") as picture:
        assert picture.width > 1000 and "Deformable DETR" in picture.text["Title"]


def test_saved_maps_keep_levels_points_and_what_is_outside(here, weights, explained):
    assert cli.main(argv(weights, "--plot", "all", "--save-maps", "--out", "a.png")) == 0
    saved, e = heatmaps.load("a.npz"), explained
    assert saved.kind == "sampled" and len(saved.grid_hw) == 3
    ids = saved.query_ids.tolist()
    for mode in MODES:
        np.testing.assert_allclose(saved.maps[mode], e.maps(mode, ids), atol=1e-5)
        np.testing.assert_allclose(saved.outside[mode], e.outside(mode, ids), atol=1e-5)
        np.testing.assert_allclose(saved.samples[mode], e.samples(mode, ids)[0], atol=1e-5)
    whole = saved.maps["combine"].sum((-1, -2)) + saved.outside["combine"]
    np.testing.assert_allclose(whole, 1, atol=1e-4)


def test_a_batch_is_as_one_image_and_a_baseline_is_the_same_again(here, weights, capsys):
    (here / "in").mkdir()
    for name in "ab":
        (here / "in" / f"{name}.png").write_bytes((here / "cat.png").read_bytes())
    common = argv(weights)
    common[common.index("cat.png")] = "in"
    assert cli.main([*common, "--out", "out", "--format", "png,npz", "--jobs", "1"]) == 0
    assert cli.main(argv(weights, "--save-maps", "--out", "one/")) == 0
    one = heatmaps.load("one/cat_deformable_detr_combine.npz")
    many = heatmaps.load("out/b_deformable_detr_combine.npz")
    np.testing.assert_array_equal(one.maps["combine"], many.maps["combine"])
    record = argv(weights, "--plot", "all", "--out", "base")
    capsys.readouterr()
    assert cli.main(["record", *record]) == 0
    assert cli.main(["check", "base", "--anywhere"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 same"


def test_a_sample_that_moved_is_noticed_in_saved_maps(here, weights, capsys):
    """By compare, as a point, in cells of its level; and files of the same run are the same."""
    for name in ("a.png", "b.png"):
        assert cli.main(argv(weights, "--save-maps", "--quiet", "--out", name)) == 0
    assert cli.main(["compare", "a.npz", "b.npz"]) == 0
    saved = heatmaps.load("b.npz")
    assert saved.meta["schema_version"] == 3 and saved.samples["combine"].shape[2:] == (3, 2, 2)
    moved = saved.samples["combine"].copy()
    width = saved.grid_hw[2, 1]
    moved[1, 0, 2, 1, 0] += 1.5 / width
    npz.write("c.npz", replace(saved, samples={"combine": moved}))
    capsys.readouterr()
    assert cli.main(["compare", "a.npz", "c.npz"]) == 1
    out = capsys.readouterr().out
    assert f"  combine   {saved.query_ids[1]} " in out and "level 2, point 1: 1.5 cells" in out
    old, new = (heatmaps.load(name) for name in ("a.npz", "c.npz"))
    (change,) = [part for part in judge(old, new).parts if part.excess > 1]
    assert (change.part, change.level, change.point, change.head) == ("point", 2, 1, 0)
    assert change.change == pytest.approx(1.5, abs=1e-4)


def test_check_notices_a_sample_that_moved(here, weights, capsys):
    assert cli.main(["record", *argv(weights, "--out", "base")]) == 0
    assert cli.main(["check", "base", "--anywhere"]) == 0
    (path,) = (here / "base").glob("*.npz")
    saved = heatmaps.load(path)
    samples = {"combine": saved.samples["combine"] + np.float32(0.02)}
    npz.write(path, replace(saved, samples=samples))
    capsys.readouterr()
    assert cli.main(["check", "base", "--anywhere"]) == 1
    assert "point" in capsys.readouterr().out


def test_beside_detr_on_one_grid(here, weights):
    """Figures have the grid of the finest level; saved maps have each network's own."""
    torch.save({"model": tiny("detr", num_logits=92).network.state_dict()}, "detr.pth")
    common = argv(weights, "--save-maps", "--quiet", "--nheads", "2", "--out", "pair.png")
    common[1:4] = ["detr", "deformable_detr", "--weights", "detr.pth", str(weights)]
    assert cli.main(common) == 0
    fine, own = (heatmaps.load(f"pair_{name}.npz") for name in ("deformable_detr", "detr"))
    (h, w), (low, narrow) = fine.hw, own.hw
    assert h > low and w > narrow
    with Image.open("pair.png") as picture:
        rule = picture.text["Description"]
    times = "\N{MULTIPLICATION SIGN}"
    assert f"all models: map of {w} {times} {h} cells" in rule
    assert f"coarser cells spread evenly over these: DETR {narrow} {times} {low}" in rule


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--plot", "terms"], "sums of content, position, bias, not of products"),
        (["--terms", "cq.ck"], "sums of content, position, bias, not of products"),
        (["--ablate", "term:cq.pk"], "Deformable DETR has no term:cq.pk"),
        (["--ablate", "level:3"], "no level 3: this model has 0..2"),
        (["--ablate", "head:2"], "no head 2: this model has 0..1"),
        (["--ablate", "level:x"], "'level:x' cannot be removed"),
        (["--nheads", "4"], "set --nheads"),
        (["--nheads", "5"], "5 heads do not divide the model width 32"),
        (["--dilation"], "dilation (DC5) needs bottleneck blocks"),
        (["--style", "points", "--heads", "mean"], "single heads"),
        (["--style", "points", "--norm", "head"], "says nothing about points"),
        (["--level", "9"], "no level 9: Deformable DETR has 3 levels, 0..2"),
        (["--level", "0-3"], "no level 3: Deformable DETR has 3 levels, 0..2"),
        (["--level", "2", "--attention", "decoder"], "--level is not for --attention decoder"),
        (["--heads", "all-in-one", "--style", "contour"], "style contour draws none"),
        (["--style", "cells"], "the attention of Deformable DETR reads none"),
        (["--heads", "0,2"], "no head 2: Deformable DETR has 0..1"),
        (["--layer", "2"], "no decoder layer 2"),
        (["--size", "0"], "--size"),
    ],
)
def test_what_has_no_meaning_is_one_line(here, weights, capsys, more, says):
    try:
        code = cli.main(argv(weights, "--out", "x/", "--quiet", *more))
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err
    assert [path.name for path in here.iterdir()] == ["cat.png"]


def test_dense_attention_has_no_levels(capsys, tmp_path):
    assert cli.main(["--ablate", "level:0", "--out", f"{tmp_path}/", "--quiet"]) == 2
    assert "DETR has no level:0: it does not sample levels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--ablate", "position", "content", "head:1", "level:2", "box:inside", "box:outside"],
        ["--faithfulness"],
        ["--rollout"],
        ["--attention", "encoder"],
        ["--attention", "decoder"],
        ["--layer", "all"],
    ],
)
def test_the_other_views(here, weights, more):
    assert cli.main(argv(weights, "--out", "x/", "--quiet", *more)) == 0
    assert {path.suffix for path in (here / "x").iterdir()} == {".png"}


def test_biography_and_atlas(here, weights):
    common = ["--type", "deformable_detr", "--weights", str(weights), "--image", "cat.png"]
    assert cli.main([*common, "--size", "96", "--biography", "3", "--out", "x/"]) == 0
    atlas = ["atlas", *common, "--size", "96", "--queries", "all", "--out", "y/", "--quiet"]
    assert cli.main(atlas) == 0
    assert sorted(path.suffix for path in (here / "y").iterdir()) == [".csv", ".png"]
    with (here / "y/small.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    e = explain(load_model(weights, device="cpu"), "cat.png", size=96)
    shares = e.samples()[1].sum(-1).mean(0)  # (M, L), all queries
    for head, of_levels in enumerate(shares):
        found = [float(rows[head][f"level_{level}"]) for level in range(3)]
        np.testing.assert_allclose(found, of_levels, atol=2e-4)
    left, top, right, bottom = e.boxes_xyxy_px.T
    small = (right - left) * (bottom - top) < 32**2
    assert rows[0]["objects_small"] == str(small.sum())
    with Image.open("y/small.png") as picture:
        assert "share of levels 0\N{EN DASH}2" in picture.text["Description"]
