"""Deformable DETR through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from figure_tools import BOX, OLD_BOX, SAMPLES, check_page, rows_of, segments, texts
from matplotlib.collections import EllipseCollection
from network_tools import TINY_DEFORMABLE, hooks, tiny
from PIL import Image
from toys.sampled_adapter import splat

from detr_viz import cli, explain, figures, heatmaps, load_model
from detr_viz.attention.grids import on_one_grid
from detr_viz.attention.terms import MODES
from detr_viz.common.errors import UserError
from detr_viz.explanation.ablation import decoded
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.removals import NOTHING, parse
from detr_viz.explanation.stored import store
from detr_viz.figures.encoder import encoder_grid
from detr_viz.figures.styles import Style
from detr_viz.heatmaps import npz
from detr_viz.heatmaps.compare import judge

DEMO = ROOT / "weights/detr_demo.pth"
SIZES = {"num_queries": 12, "num_logits": 91, "refine": True}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A refining model of random weights in the official format, which looks about itself."""
    model = tiny("deformable_detr", **SIZES)
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
    path = tmp_path_factory.mktemp("deformable") / "small.pth"
    args = argparse.Namespace(nheads=TINY_DEFORMABLE.nheads, dilation=False)
    torch.save({"model": state_dict, "args": args}, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    image = Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110))
    image.save("cat.png")
    return tmp_path


@pytest.fixture(scope="module")
def explained(weights):
    photo = np.asarray(Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)))
    model = load_model(weights, "deformable_detr", device="cpu")
    return explain(model, photo, size=96, layers="all", sites=["encoder", "decoder"])


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
    assert cli.main(["check", "base"]) == 0
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
    assert cli.main(["check", "base"]) == 0
    (path,) = (here / "base").glob("*.npz")
    saved = heatmaps.load(path)
    samples = {"combine": saved.samples["combine"] + np.float32(0.02)}
    npz.write(path, replace(saved, samples=samples))
    capsys.readouterr()
    assert cli.main(["check", "base"]) == 1
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


def test_references_enter_a_layer_as_the_boxes_of_the_layer_before(explained):
    """Refined references are the middles of the boxes; the first are those of the queries."""
    e = explained
    np.testing.assert_allclose(e.layer_references[0], e.reference_px, atol=1e-3)
    left, top, right, bottom = e.output(0).boxes_xyxy_px.T
    middles = np.stack([(left + right) / 2, (top + bottom) / 2], -1)
    np.testing.assert_allclose(e.layer_references[1], middles, atol=1e-2)


def test_reference_boxes_are_those_of_the_layer_before(explained):
    """The first layer's references are points. Stored explanations keep the boxes."""
    e = explained
    assert set(e.reference_boxes) == {1}
    np.testing.assert_allclose(e.reference_boxes[1], e.output(0).boxes_xyxy_px, atol=1e-2)
    kept = store(e, [3], ["combine"], layers=[1])
    np.testing.assert_array_equal(kept.reference_boxes[1], e.reference_boxes[1])
    assert store(e, [3], ["combine"], layers=[0]).reference_boxes == {}


def test_proposals_are_boxes_from_the_first_layer_on():
    model = tiny("deformable_detr", refine=True, two_stage=True, num_queries=6)
    photo = np.zeros((40, 56, 3), np.uint8)
    e = explain(model, photo, layers="all")
    assert set(e.reference_boxes) == {0, 1}
    middles = (e.reference_boxes[0][:, :2] + e.reference_boxes[0][:, 2:]) / 2
    np.testing.assert_allclose(middles, e.reference_px, atol=1e-3)
    last = explain(model, photo)  # where references are not asked for layer by layer
    np.testing.assert_array_equal(last.reference_boxes[1], e.reference_boxes[1])


# ---- points as the usual style, levels, all heads in one panel ----------------------------------


def description(path: str) -> str:
    with Image.open(path) as picture:
        return picture.text["Description"]


@pytest.mark.parametrize(
    ("more", "style"),
    [
        ([], "points"),
        (["--layer", "all"], "points"),
        (["--heads", "1"], "points"),
        (["--heads", "all-in-one"], "points"),
        (["--level", "0,2"], "points"),
        (["--heads", "mean"], "overlay"),
        (["--norm", "head"], "overlay"),
        (["--cmap", "violet"], "overlay"),
        (["--ablate", "content"], "overlay"),
        (["--style", "overlay"], "overlay"),
    ],
)
def test_the_usual_style(here, weights, more, style):
    assert cli.main(argv(weights, "--out", "a.png", "--quiet", *more)) == 0
    assert f"style {style}, " in description("a.png")


def test_the_usual_style_of_several_views_and_models(here, weights, capsys):
    assert cli.main(argv(weights, "--attention", "cross", "encoder", "--out", "x/")) == 0
    assert {path.name for path in (here / "x").iterdir()} == {
        "cat_deformable_detr_combine.png",
        "cat_deformable_detr_combine_encoder.png",
    }
    assert "style points, " in description("x/cat_deformable_detr_combine.png")
    assert "normalisation even" in description("x/cat_deformable_detr_combine_encoder.png")
    both = ["--type", "detr", "deformable_detr", "--weights", str(DEMO), str(weights)]
    common = ["--image", "cat.png", "--size", "96", "--queries", "top:1", "--quiet"]
    assert cli.main([*both, *common, "--out", "b.png"]) == 0
    assert "style overlay, " in description("b.png")
    capsys.readouterr()
    for more, says in (
        (["--level", "1"], "level 1: DETR has 1 level; give sum, or level 0"),
        (["--level", "all"], "all levels: DETR has 1 level; give sum, or level 0"),
        (["--style", "points"], "DETR attends to all of it: take overlay, heat or contour"),
        (["--heads", "all-in-one"], "DETR attends to all of it: name heads by number"),
    ):
        assert cli.main([*both, *common, "--out", "no/", *more]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1 and not (here / "no").exists()


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ([], "points of 3 levels (strides"),
        (["--level", "all", "--style", "heat"], "levels 0, 1 and 2 of 3 (strides"),
        (["--level", "1", "--style", "contour"], "level 1 of 3 (stride"),
        (["--level", "0", "2", "--heads", "all-in-one"], "points of levels 0 and 2 of 3 (strides"),
        (["--level", "all", "--layer", "all", "--style", "overlay"], "a row for each"),
        (["--level", "2", "--biography", "3"], "level 2 of 3 (stride"),
    ],
)
def test_levels_in_metadata_and_captions(here, weights, more, notes):
    chosen = argv(weights, "--out", "a.png", "--caption", "--quiet", *more)
    if "--biography" in more:
        chosen = [word for word in chosen if word not in ("--queries", "top:2")]
    assert cli.main(chosen) == 0
    assert notes in description("a.png")
    caption = (here / "a.tex").read_text()
    assert notes in caption or f"{notes[0].upper()}{notes[1:]}" in caption


def test_saved_maps_have_all_levels_whichever_are_drawn(here, weights):
    for level in ("sum", "1"):
        more = ["--save-maps", "--level", level, "--out", f"{level}.png", "--quiet"]
        assert cli.main(argv(weights, *more)) == 0
    one, other = heatmaps.load("sum.npz"), heatmaps.load("1.npz")
    np.testing.assert_array_equal(one.maps["combine"], other.maps["combine"])
    assert len(one.grid_hw) == len(other.grid_hw) == 3


def test_a_batch_goes_on_only_with_the_same_levels(here, weights, capsys):
    common = argv(weights, "--out", "out/", "--jobs", "1", "--resume", "--style", "overlay")

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (here / "out").glob("*.png")}

    assert cli.main([*common, "--level", "0"]) == 0
    first = written()
    assert list(first) == ["cat_deformable_detr_combine_level_0_overlay.png"]
    assert cli.main([*common, "--level", "0"]) == 0
    assert written() == first
    assert cli.main([*common, "--level", "all"]) == 0
    assert cli.main(common) == 0
    assert len(written()) == 3 and first.items() <= written().items()
    capsys.readouterr()


def test_another_level_replaces_a_file_of_one_name(here, weights, capsys):
    for level, replaces in (("0", False), ("0", False), ("1", True), ("all", True)):
        assert cli.main(argv(weights, "--level", level, "--out", "a.png")) == 0
        assert ("replaced a.png" in capsys.readouterr().out) == replaces


def test_a_biography_saves_and_draws_the_references_of_each_layer(here, weights, explained):
    """Of layer 1 the box that layer 0 put out; of layer 0 the query's own point."""
    flags = ["--biography", "3", "--save-maps", "--out", "b.png"]
    assert cli.main([*argv(weights)[:-2], "--quiet", *flags]) == 0
    first, second = (heatmaps.load(f"b_layer{n}.npz") for n in (0, 1))
    assert first.references_px.shape == (1, 2) and second.references_px.shape == (1, 4)
    np.testing.assert_allclose(first.references_px, explained.reference_px[[3]], atol=1e-3)
    np.testing.assert_allclose(second.references_px, first.boxes_xyxy_px, atol=1e-2)
    middle = second.references_px[0].reshape(2, 2).mean(0)
    np.testing.assert_allclose(explained.layer_references[1][3], middle, atol=0.1)

    style = Style(zoom="none", name="heat")
    fig = figures.head_grid(explained, [3], layer="all", biography=True, style=style)
    assert "the box that enters the layer as its reference" in fig.facts["Description"]
    (white,), (of_layer_0, _) = segments(fig, OLD_BOX), segments(fig, BOX)
    np.testing.assert_allclose(white[:, 0], of_layer_0[:, 0], atol=0.1)  # none enters layer 0
    lower = white[:, 1] - of_layer_0[:, 1]  # on the photo of the next row
    assert np.ptp(lower) < 0.1 and abs(lower[0]) > 20


def test_saved_references_are_checked(here, weights):
    assert cli.main(argv(weights, "--save-maps", "--out", "a.png", "--quiet")) == 0
    saved = heatmaps.load("a.npz")
    points = saved.references_px
    assert points.shape == (2, 4)
    for wrong, says in ((points[:1], "references_px is"), (points * np.nan, "no numbers")):
        with pytest.raises(UserError, match=says):
            npz.write("b.npz", replace(saved, references_px=wrong))
    npz.write("c.npz", replace(saved, references_px=None))  # as of an earlier version
    assert heatmaps.load("c.npz").references_px is None


def test_the_self_check_holds_at_every_site(explained):
    assert set(explained.sites) >= {("encoder", 0), ("decoder", 1), ("cross", 1)}
    for site in explained.sites:
        value = explained._call(site).residual
        assert value < 1e-5 or np.isnan(value)


def encoder_samples(e, layer: int, points) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in pixels of the photo (heads, levels * samples, 2) and weights, by the module."""
    grid, attention = e.grids()[0], e.attention_at(("encoder", layer))
    found = []
    for x, y in points:
        column, row = int(x / 150 * grid.hw[1]), int(y / 110 * grid.hw[0])
        xy, weight = attention.samples("combine", [row * grid.hw[1] + column])
        flat = xy[0].flatten(1, 2).numpy() * (150, 110)
        found.append((flat, weight[0].flatten(1).numpy()))
    return found


def test_cells_of_the_encoder_are_drawn_with_their_samples(explained):
    e, points = explained, [(40, 30), (98, 84)]
    fig = encoder_grid(e, points, ["combine"], style=Style("points"))
    check_page(fig)
    (circles,) = [
        c
        for c in fig.axes[0].collections
        if type(c) is EllipseCollection and c.get_zorder() == SAMPLES
    ]
    drawn = np.asarray(circles.get_offsets())
    panels, count = rows_of(fig), 0  # a row for each point: the photo, then the heads
    assert len(panels) == len(points)
    for (xy, weight), (photo, *heads) in zip(encoder_samples(e, 0, points), panels, strict=True):
        assert len(heads) == len(xy) == 2
        for head, tile in enumerate(heads):
            for panel in (tile, photo):
                scale = np.divide(panel.hw[::-1], (150, 110))
                at = xy[head] * scale + (panel.left, panel.top)
                inside = np.array([panel.holds(one) for one in at]) & (weight[head] > 0.004)
                count += inside.sum()
                if not inside.any():
                    continue
                near = np.abs(at[inside][:, None] - drawn).max(-1).min(1)
                assert near.max() < 0.05
    assert count > 12 and {"stride", "reference"} <= {*texts(fig)}


def test_stored_samples_of_the_encoder_are_those_of_the_network(here, weights, explained):
    """The command draws them in another process, and saves them."""
    more = ["--attention", "encoder", "--points", "40,30", "98,84", "--style", "points"]
    common = [word for word in argv(weights, *more, "--save-maps", "--out", "a.png")]
    del common[common.index("--queries") : common.index("--queries") + 2]
    assert cli.main(common) == 0
    with np.load("a.npz") as saved:
        xy, weight = saved["samples_combine"], saved["sample_weights_combine"]
        layers = saved["layers"].tolist()
    assert xy.shape[:3] == weight.shape[:3] == (len(layers), 2, 2)
    known = encoder_samples(explained, layers[-1], [(40, 30), (98, 84)])
    for i, (places, weights_of) in enumerate(known):
        flat = xy[-1, i].reshape(2, -1, 2) * (150, 110)
        np.testing.assert_allclose(flat, places, atol=1e-3)
        np.testing.assert_allclose(weight[-1, i].reshape(2, -1), weights_of, atol=1e-5)


def test_dense_encoders_take_no_samples(capsys, tmp_path):
    command = ["--attention", "encoder", "--style", "points", "--out", f"{tmp_path}/", "--quiet"]
    assert cli.main(command) == 2
    err = capsys.readouterr().err
    assert "style points shows where heads sample the image" in err and not [*tmp_path.iterdir()]


def test_ablation_of_position_is_the_content_mode(explained):
    """In the first layer, whose queries no other removal has touched."""
    e = explained
    for part, mode in (("position", "content"), ("content", "position")):
        found = e.ablate(part, layers=0)
        expected = e.maps(mode, layer=0)
        np.testing.assert_allclose(found.weights[0].reshape(expected.shape), expected, atol=2e-5)
        assert np.abs(found.before.boxes_xyxy_px - found.after.boxes_xyxy_px).max() > 0.01


def test_ablation_of_a_level_reads_the_others_more(explained):
    e = explained
    attention = e.attention_at(("cross", 0))
    kept = attention.samples()[1].numpy()  # (Q, M, L, P)
    found = e.ablate("level:1", layers=0)
    total = found.weights[0].sum(-1)
    weights, _ = attention.without(parse("level:1"))
    flat = weights.transpose(0, 1).numpy()
    cells = [grid.cells for grid in e.grids(0)]
    assert not flat[..., cells[0] : cells[0] + cells[1]].any()
    np.testing.assert_allclose(on_one_grid(flat, e.grids(0)).sum((2, 3)), total, atol=1e-5)
    assert kept[:, :, 1].sum(-1).mean() > 0.05


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_boxes_are_removed_by_the_places_of_samples(explained, side):
    """In the first layer: the samples left, and their weights, worked out from saved points."""
    e = explained
    found = e.ablate(f"box:{side}", layers=0)
    xy, weight = e.samples(layer=0)  # (Q, M, L, P, 2), (Q, M, L, P)
    low, high = (e.boxes_xyxy_px[:, None, None, None, k : k + 2] for k in (0, 2))
    px = xy * np.array(e.image.hw[::-1])  # no padding
    within = ((low <= px) & (px <= high)).all(-1)
    assert 0.02 < within.mean() < 0.98
    left = np.where(within if side == "outside" else ~within, weight, 0)
    total = left.sum((2, 3), keepdims=True)
    left = np.divide(left, total, out=np.zeros_like(left), where=total > 0)
    flat = [
        splat(torch.from_numpy(xy[:, :, level]), torch.from_numpy(left[:, :, level]), grid.hw)
        for level, grid in enumerate(e.grids(0))
    ]
    expected = on_one_grid(torch.cat(flat, -1).numpy(), e.grids(0))
    np.testing.assert_allclose(found.weights[0].reshape(expected.shape), expected, atol=2e-5)


def test_hidden_cells_by_the_networks_own_kernel_are_those_of_ablations():
    model = tiny("deformable_detr")
    with torch.inference_mode():
        memory = model.network.encode(torch.rand(1, 3, 40, 56))
        cells = memory.shapes[0][0] * memory.shapes[0][1]
        hidden = torch.zeros(3, 4, cells, dtype=torch.bool)
        hidden[1, 2, : cells // 2] = True
        hidden[2, 2] = True
        scores = model.scores_with_hidden(memory, hidden, [0, 1])
        plain = model.decode(memory, [1]).class_scores[1]
    torch.testing.assert_close(scores[:1], plain, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(scores[0, 2], scores[1, 2])
    assert not torch.allclose(scores[1, 2], scores[2, 2])
    assert hooks(model) == 0


def test_faithfulness_hides_cells_of_all_levels(explained):
    """The map's own cells, largest first: each point of the curve by the kernel of ablations."""
    found = faithfulness(explained, [4], ["combine"])
    cells, e = explained.grid().cells, explained
    order = np.argsort(-e.maps(queries=[4])[0].mean(0).ravel(), kind="stable")
    assert sum(grid.cells for grid in e.grids()) > cells
    for share, score in zip(found.shares, found.deletion["combine"][0], strict=True):
        hidden = torch.zeros(12, cells, dtype=torch.bool)
        hidden[4, order[: round(share * cells)].copy()] = True
        out, _ = decoded(e.model, e.memory, NOTHING, found.layers, hidden)
        assert score == pytest.approx(float(out.class_scores[1][0, 4, e.labels[4]]), abs=1e-5)
    score = explained.class_scores[4, explained.labels[4]]
    np.testing.assert_allclose(found.deletion["combine"][0, 0], score, atol=1e-5)
    np.testing.assert_allclose(found.insertion["combine"][0, -1], score, atol=1e-5)
    # nothing left to read: the same end in every order
    ends = {*found.random[0, :, -1].tolist(), float(found.deletion["combine"][0, -1])}
    assert np.ptp(list(ends)) < 1e-6


def test_too_few_tokens_for_the_proposals(tmp_path):
    model = tiny("deformable_detr", refine=True, two_stage=True, num_queries=300)
    with pytest.raises(UserError, match=r"187 tokens, too few for 300 proposals"):
        model.network(torch.rand(1, 3, 40, 56))
