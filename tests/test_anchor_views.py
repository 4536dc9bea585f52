"""Other views of Anchor DETR, and what must be equal in its maps."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT
from family_tools import anchor_file, explained_at_all_sites, with_photo
from figure_tools import check_texts, layout_of, segments, sheet_of, texts
from PIL import Image

from detr_viz import cli, explain, figures, load_model
from detr_viz.attention.terms import MODES
from detr_viz.detections.queries import select
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.stored import store
from detr_viz.figures.page import scale
from detr_viz.figures.page.profiles import GROUND
from detr_viz.figures.styles import PageFormat, Style

ANCHORS = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return anchor_file(tmp_path_factory.mktemp("anchor"))


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    return with_photo(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def explained(weights):
    return explained_at_all_sites(weights)


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "anchor_detr", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


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


def test_a_biography_marks_the_anchor(explained):
    """With the sign of the key in every panel, and no ring; the query has its anchor's name."""
    fig = figures.head_grid(explained, [7], layer="all", biography=True)
    words = " ".join(texts(fig))
    assert "query 7" in words and "anchor 3" in words and "pattern 1" in words
    assert "anchor" in texts(fig)  # the key
    assert "the ring" not in fig.facts["Description"]


def test_queries_of_an_anchor_are_its_patterns(explained):
    assert explained.model_title == "Anchor DETR"  # told by the file's keys
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
