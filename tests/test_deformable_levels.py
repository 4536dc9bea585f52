"""Levels, styles and references of Deformable DETR in figures and files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from family_tools import deformable_file, explained_at_all_sites, with_photo
from figure_tools import BOX, OLD_BOX, segments
from network_tools import tiny
from PIL import Image

from detr_viz import cli, explain, figures, heatmaps
from detr_viz.common.errors import UserError
from detr_viz.explanation.stored import store
from detr_viz.figures.styles import Style
from detr_viz.heatmaps import npz

DEMO = ROOT / "weights/detr_demo.pth"


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
