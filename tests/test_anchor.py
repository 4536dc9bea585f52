"""Anchor DETR through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from conftest import ROOT
from figure_tools import check_texts, layout_of, segments, sheet_of, texts
from network_tools import TINY_ANCHOR, tiny
from PIL import Image

from detr_viz import cli, explain, figures, heatmaps, load_model
from detr_viz.attention.terms import MODES
from detr_viz.detections.queries import select
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.stored import store
from detr_viz.figures.page import scale
from detr_viz.figures.page.profiles import GROUND
from detr_viz.figures.styles import PageFormat, Style
from detr_viz.heatmaps.schema import HeatmapError

SIZES = {"num_queries": 12, "num_logits": 91}
ANCHORS = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model of random weights in the official format, which looks about itself."""
    model = tiny("anchor_detr", **SIZES)
    torch.manual_seed(3)
    state_dict = {k: v.clone() for k, v in model.network.state_dict().items()}
    for key, value in state_dict.items():
        if key.endswith("attn.in_proj_weight"):
            value.normal_(std=0.5)
    one = torch.empty_like(state_dict["transformer.class_embed.0.weight"]).normal_()
    for key in state_dict:
        if "class_embed" in key and key.endswith("weight"):
            state_dict[key] = one.clone()
    path = tmp_path_factory.mktemp("anchor") / "small.pth"
    args = argparse.Namespace(nheads=TINY_ANCHOR.nheads, dilation=False, num_query_position=4)
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
    model = load_model(weights, device="cpu")
    assert model.info.title == "Anchor DETR"
    return explain(model, photo, size=96, layers="all", sites=["encoder", "decoder"])


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "anchor_detr", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


@pytest.mark.parametrize(
    ("plot", "style"),
    [("combine", "contour"), ("position", "overlay"), ("content", "heat"), ("all", "overlay")],
)
def test_every_mode_in_every_style(here, weights, capsys, plot, style):
    assert cli.main(argv(weights, "--plot", plot, "--style", style, "--out", "a.png")) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines()[-1] == "wrote a.png"
    with Image.open("a.png") as picture:
        assert picture.width > 1000 and "Anchor DETR" in picture.text["Title"]
        assert "the row is the strip under it" in picture.text["Description"]


def test_saved_maps_have_their_axes(here, weights, explained):
    assert cli.main(argv(weights, "--plot", "all", "--save-maps", "--out", "a.png")) == 0
    saved, e = heatmaps.load("a.npz"), explained
    assert saved.kind == "factored" and saved.grid_hw.tolist() == [list(e.grid_hw)]
    ids = saved.query_ids.tolist()
    for mode in MODES:
        row, column = e.attention_at(("cross", 1)).axes(mode, ids)
        np.testing.assert_allclose(saved.rows[mode], row.transpose(0, 1), atol=1e-6)
        np.testing.assert_allclose(saved.columns[mode], column.transpose(0, 1), atol=1e-6)
        product = saved.columns[mode][..., :, None] * saved.rows[mode][..., None, :]
        np.testing.assert_allclose(product, saved.maps[mode], atol=1e-6)
        assert not saved.outside[mode].any()


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_axes_of_a_file_are_those_of_its_maps(explained, tmp_path, store):
    made = heatmaps.of(explained, [0, 5], ["combine"])
    path = heatmaps.write(tmp_path / "a.npz", made, store)
    back = heatmaps.load(path)
    np.testing.assert_allclose(back.rows["combine"], made.rows["combine"], atol=2.0**-11)
    made.rows["combine"][0, 0] = made.rows["combine"][0, 0, ::-1].copy()
    with pytest.raises(HeatmapError, match="is not its column times its row"):
        heatmaps.write(tmp_path / "b.npz", made, store)
    del made.rows["combine"]
    with pytest.raises(HeatmapError, match="lacks row_combine"):
        heatmaps.write(tmp_path / "b.npz", made, store)
    assert not (tmp_path / "b.npz").exists()


def test_a_batch_is_as_one_image_and_a_baseline_is_the_same_again(here, weights, capsys):
    (here / "in").mkdir()
    for name in "ab":
        (here / "in" / f"{name}.png").write_bytes((here / "cat.png").read_bytes())
    common = argv(weights)
    common[common.index("cat.png")] = "in"
    assert cli.main([*common, "--out", "out", "--format", "png,npz", "--jobs", "1"]) == 0
    assert cli.main(argv(weights, "--save-maps", "--out", "one/")) == 0
    one = heatmaps.load("one/cat_anchor_detr_combine.npz")
    many = heatmaps.load("out/b_anchor_detr_combine.npz")
    np.testing.assert_array_equal(one.maps["combine"], many.maps["combine"])
    record = argv(weights, "--plot", "all", "--out", "base")
    capsys.readouterr()
    assert cli.main(["record", *record]) == 0
    assert cli.main(["check", "base"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 same"
    assert cli.main(["compare", *["one/cat_anchor_detr_combine.npz"] * 2]) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--queries", "anchor:4"], "no anchor 4: this model has 4, 0..3"),
        (["--queries", "anchor:900"], "no anchor 900: this model has 4, 0..3"),
        (["--queries", "anchor:x"], "anchor:x needs whole numbers from 0"),
        (["--queries", "anchor:"], "cannot read 'anchor:' in --queries"),
        (["--queries", "ancor:1"], "cannot read 'ancor:1' in --queries"),
        (["--ablate", "level:0"], "Anchor DETR has no level:0: it does not sample levels"),
        (["--ablate", "row:2"], "'row:2' cannot be removed"),
        (["--ablate", "head:2"], "no head 2: this model has 0..1"),
        (["--nheads", "5"], "5 heads do not divide the model width 32"),
        (["--dilation"], "dilation (DC5) needs bottleneck blocks"),
        (["--style", "points"], "Anchor DETR attends to all of it"),
        (["--style", "cells"], "the attention of Anchor DETR reads none"),
        (["--layer", "2"], "no decoder layer 2"),
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


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--queries", "anchor:1"], "anchor:1: no two queries of this model share a point"),
        (["--ablate", "row"], "DETR has no row to remove"),
        (["--ablate", "column"], "DETR has no column to remove"),
    ],
)
def test_what_other_models_do_not_have(here, capsys, more, says):
    common = ["--type", "detr", "--image", "cat.png", "--out", "x/", "--quiet"]
    assert cli.main([*common, *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err
    assert [path.name for path in here.iterdir()] == ["cat.png"]


def damaged(weights, change) -> str:
    content = torch.load(weights, weights_only=False)
    change(content["model"])
    torch.save(content, "bad.pth")
    return "bad.pth"


@pytest.mark.parametrize(
    ("key", "shape", "says"),
    [
        ("transformer.position.weight", (4, 3), "3 numbers an anchor"),
        ("transformer.position.weight", None, "lacks 0 of"),
        ("transformer.pattern.weight", (3, 16), "no multiple of 32"),
        ("transformer.adapt_pos1d.0.weight", (32, 16), "adapt_pos1d.0.weight has shape (32, 16)"),
        ("transformer.decoder_layers.0.cross_attn.in_proj_weight", (96, 32), "MultiheadAttention"),
        ("input_proj.1.0.weight", (32, 8, 3, 3), "2 feature levels"),
    ],
)
def test_files_with_other_shapes(here, weights, capsys, key, shape, says):
    def change(state_dict):
        if shape is None:
            state_dict.pop(key)
            state_dict.pop("transformer.encoder_layers.0.norm1.weight")
        else:
            state_dict[key] = torch.zeros(shape)

    bad = damaged(weights, change)
    says = "lacks 1 of" if shape is None else says  # without learned anchors they lie on a grid
    assert cli.main(argv(bad, "--out", "x/", "--quiet")) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and "bad.pth" in err


def test_a_file_with_anchors_on_a_grid(here, weights, capsys):
    """Four anchors by its args; the note is not needed then."""
    bad = damaged(weights, lambda state_dict: state_dict.pop("transformer.position.weight"))
    model = load_model(bad)
    assert model.info.num_queries == 12 and model.info.anchors == 4
    assert not [note for note in model.info.notes if "grid" in note]


@pytest.mark.parametrize(
    "more",
    [
        ["--ablate", "row", "column", "position", "content", "head:1", "box:inside"],
        ["--plot", "terms"],
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


def test_points_of_the_encoder(here, weights):
    """Where a cell looks along its own row and column; beside it the strips of both."""
    common = ["--type", "anchor_detr", "--weights", str(weights), "--image", "cat.png"]
    more = ["--attention", "encoder", "--points", "20,30", "100,80", "--heads", "mean"]
    assert cli.main([*common, "--size", "96", *more, "--out", "a.png"]) == 0
    with Image.open("a.png") as picture:
        assert "the row is the strip under it" in picture.text["Description"]


def test_beside_another_type(here, weights, capsys):
    """The objects of the first are matched with those of the second, whose maps have no strips."""
    detr = ROOT / "weights/detr_demo.pth"
    common = ["--type", "anchor_detr", "detr", "--weights", str(weights), str(detr)]
    more = ["--image", "cat.png", "--queries", "anchor:1", "--size", "96", "--out", "a.png"]
    assert cli.main([*common, *more]) == 0
    with Image.open("a.png") as picture:
        assert picture.text["Title"].startswith("Anchor DETR and DETR")


def test_biography_and_atlas(here, weights):
    common = ["--type", "anchor_detr", "--weights", str(weights), "--image", "cat.png"]
    assert cli.main([*common, "--size", "96", "--biography", "3", "--out", "x/"]) == 0
    atlas = ["atlas", *common, "--size", "96", "--queries", "all", "--out", "y/", "--quiet"]
    assert cli.main(atlas) == 0
    assert sorted(path.suffix for path in (here / "y").iterdir()) == [".csv", ".png"]


def test_queries_of_an_anchor_are_its_patterns(explained):
    e = explained
    assert select(e, "anchor:1") == [1, 5, 9]
    assert select(e, "anchor:2,0") == [2, 6, 10, 0, 4, 8]
    assert select(e, "anchor:0-1") == [0, 4, 8, 1, 5, 9]
    points = e.reference_px
    assert np.array_equal(points[[1, 5, 9]], points[[1, 1, 1]])
    assert len(np.unique(points, axis=0)) == ANCHORS
    words = texts(figures.head_grid(e, [5]))
    assert "query 5 · anchor 1 · pattern 1" in words


def test_maps_are_products_at_every_layer_of_encoder_and_decoder(explained):
    e = explained
    assert e.has_axes and e.kind() == "factored"
    for site in (("cross", 0), ("cross", 1), ("encoder", 0)):
        flat = e.attention(site)
        row, column = e.attention_at(site).axes()
        product = (column[..., :, None] * row[..., None, :]).flatten(-2).transpose(0, 1)
        np.testing.assert_allclose(flat, product.numpy(), atol=1e-6)
    for site in e.sites:
        value = e._call(site).residual
        assert value < 1e-5 or np.isnan(value)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_an_axis_made_even(explained, axis):
    found = explained.ablate(axis, layers=1)
    h, w = explained.grid_hw
    maps = found.weights[1].reshape(12, 2, h, w)
    along = maps.sum(2 if axis == "row" else 3)
    np.testing.assert_allclose(along, 1 / (w if axis == "row" else h), atol=1e-6)
    assert np.abs(found.before.boxes_xyxy_px - found.after.boxes_xyxy_px).max() > 1e-3


def test_terms_make_the_map(explained):
    """The sum of both axes' terms is what the map is the softmax of."""
    terms = explained.logit_terms([3], 1)
    assert terms.residual < 1e-5
    np.testing.assert_allclose(terms.weights, explained.maps(queries=[3], layer=1), atol=1e-6)
    total = sum(terms.terms.values())
    np.testing.assert_allclose(total, terms.total, atol=1e-5)


def test_faithfulness_ends_where_it_should(explained):
    found = faithfulness(explained, [4], ["combine"])
    score = explained.class_scores[4, explained.labels[4]]
    np.testing.assert_allclose(found.deletion["combine"][0, 0], score, atol=1e-5)
    np.testing.assert_allclose(found.insertion["combine"][0, -1], score, atol=1e-5)


class TestStrips:
    """The colours under and beside each panel are those of its row and its column."""

    def strips(self, e, style, **more) -> list[tuple[np.ndarray, np.ndarray]]:
        """Grey levels of the strips of each panel, (H or W,), where they are 2 points thick."""
        fig = figures.head_grid(e, [2], style=style, **more)
        sheet, found = sheet_of(fig).astype(int), []
        for panel in layout_of(fig).maps:
            below = sheet[panel.top + panel.height + 6, panel.left : panel.left + panel.width]
            beside = sheet[panel.top : panel.top + panel.height, panel.left + panel.width + 6]
            found.append((below[:, :3], beside[:, :3]))
        return found

    def test_of_their_axes(self, explained):
        style = Style(interpolation="nearest", zoom="none")
        maps = explained.maps("combine", [2])[0]
        table = scale.tone_table(scale.colors(style))
        for (below, beside), one in zip(self.strips(explained, style), maps, strict=True):
            for pixels, axis in ((below, one.sum(0)), (beside, one.sum(1))):
                grid = (np.arange(len(pixels)) + 0.5) / len(pixels) * len(axis)
                tone = scale.even_tone(axis * len(axis))[grid.astype(int)]
                expected = table[np.rint(tone * 255).astype(int), GROUND, :3]
                same = np.abs(pixels - expected).max(1) <= 3
                assert same.mean() > 0.9  # at the borders of cells a pixel may be the next cell's

    def test_only_where_maps_are_products(self, explained):
        """Dense maps have none, and keep their size."""
        model = load_model(type="detr", device="cpu")
        e = explain(model, explained.image.rgb, size=96)
        photo, panel = layout_of(figures.head_grid(e, [2])).panels[:2]
        assert photo.hw == panel.hw
        photo, panel = layout_of(figures.head_grid(explained, [2])).panels[:2]
        assert panel.height < photo.height and panel.width < photo.width

    @pytest.mark.parametrize("name", ["column", "page", "slide"])
    @pytest.mark.parametrize("modes", [["combine"], [*MODES]])
    def test_pages_hold_together(self, explained, name, modes):
        """Nothing lies on anything else, and nothing beyond the page."""
        page_format = PageFormat.of(name)
        for style in (Style(), Style("contour"), Style(heads="mean")):
            fig = figures.head_grid(explained, [2, 6], modes, style=style, page_format=page_format)
            layout = layout_of(fig)
            for panel in layout.maps:
                assert panel.left + panel.width + 2 < layout.width
            check_texts(fig)

    def test_of_terms_are_signed_and_on_the_scale_of_their_maps(self, explained):
        style = Style(interpolation="nearest", zoom="none")
        fig = figures.head_grid(explained, [2], "terms", style=style)
        sheet, terms = sheet_of(fig).astype(int), explained.logit_terms([2])
        reach = max(np.abs(part).max() for part in (*terms.terms.values(), terms.total))
        panels = layout_of(fig).maps
        shown = [*terms.axes.values(), terms.axes_total]
        for k, (rows, columns) in enumerate(shown):
            for panel in (p for p in panels if p.row == k):
                below = sheet[panel.top + panel.height + 6, panel.left : panel.left + panel.width]
                beside = sheet[panel.top : panel.top + panel.height, panel.left + panel.width + 6]
                for pixels, axis in ((below, rows), (beside, columns)):
                    values = axis[0, panel.head] / reach
                    at = (np.arange(len(pixels)) + 0.5) / len(pixels) * len(values)
                    inside = np.abs(at - np.rint(at)) > 1.5 * len(values) / len(pixels)
                    at = at.astype(int)
                    warm = pixels[:, 0] - pixels[:, 2]  # orange adds, blue takes away
                    strong = inside & (np.abs(values[at]) > 0.05)
                    np.testing.assert_array_equal(
                        np.sign(warm)[strong], np.sign(values[at])[strong]
                    )
        assert len(panels) == 6 * explained.num_heads
        assert "the strip under it" in fig.facts["Description"]

    def test_of_stored_maps_are_the_same(self, explained):
        stored = store(explained, [2], ["combine"])
        style = Style(zoom="none")
        for a, b in zip(self.strips(explained, style), self.strips(stored, style), strict=True):
            np.testing.assert_array_equal(a[0], b[0])

    def test_of_a_mean_and_not_of_a_largest_weight(self, explained):
        mean = figures.head_grid(explained, [2], style=Style(heads="mean"))
        largest = figures.head_grid(explained, [2], style=Style(heads="max"))
        for fig, smaller in ((mean, True), (largest, False)):
            photo, panel = layout_of(fig).panels[:2]
            assert (panel.height < photo.height) == smaller

    def test_the_anchor_is_marked_once_a_panel(self, explained):
        fig = figures.head_grid(explained, [2], style=Style(zoom="none"))
        layout = layout_of(fig)
        crosses = segments(fig, 5.6)
        assert len(crosses) == 2 * len(layout.panels)
        x, y = explained.reference_px[2] / explained.image.hw[::-1]
        for panel, line in zip(layout.panels, crosses[::2], strict=True):
            middle = line.mean(0)
            expected = panel.left + x * panel.width, panel.top + y * panel.height
            np.testing.assert_allclose(middle, expected, atol=0.6)
