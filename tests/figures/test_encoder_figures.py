"""Where points look in the encoder: whose maps are drawn, where the marks are, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import demo_model
from figure_tools import maps_of, pixels, texts, tiles_of
from look_tools import check_heat
from matplotlib.collections import EllipseCollection

from detr_viz import cli, explain
from detr_viz.common import assets
from detr_viz.detections.points import parse
from detr_viz.explanation.cells import nearest_cell
from detr_viz.figures.encoder import encoder_grid
from detr_viz.figures.styles import FigureError, Style


@pytest.fixture(scope="module")
def explained():
    image = assets.find(assets.DEFAULT_IMAGE)
    return explain(demo_model("detr"), image, sites=["encoder"])


def test_the_cell_is_the_one_whose_centre_is_nearest(explained):
    """512 x 512 pixels, 128 x 128 input, stride 8: centres at (8 i + 0.5) * 4."""
    assert explained.image.hw == (512, 512) and explained.input_hw == (128, 128)
    assert nearest_cell(explained, 0, 0) == 0
    assert nearest_cell(explained, 17, 19) == 16  # row 1; halfway is at 18
    assert nearest_cell(explained, 512, 100) == 3 * 16 + 15


def test_maps_are_the_layers_own(explained):
    e = explained
    fig = encoder_grid(e, [(100, 200), (0, 0)], ["content"], style=Style("heat"))
    said = texts(fig)
    assert [t for t in said if t.startswith("cell ")] == ["cell 3, 6", "cell 0, 0"]
    assert "100, 200" in said and "encoder self-attention" in " ".join(said)
    assert "encoder layers 0 and 1 of 0\N{EN DASH}1" in fig.facts["Description"]
    panels = [pixels(fig, tile) for tile in maps_of(fig)]
    expected = []
    for layer in (0, 1):
        assert said.count(f"layer {layer}") == 2
        expected.append(e.attention(("encoder", layer), "content", [6 * 16 + 3, 0]))
    maps = np.stack(expected, 1).reshape(-1, 16, 16)  # points, layers, heads
    for panel, one in zip(panels, maps, strict=True):
        check_heat(panel, one)
    captions = " ".join(said).split().count("flat")
    assert captions == sum(one.max() * 256 < 2 for one in maps)


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_one_panel_says_of_which_heads_it_is(explained, heads):
    fig = encoder_grid(explained, [(100, 200)], ["content"], style=Style(heads=heads))
    assert any(f"content · {heads} of heads" in text for text in texts(fig))


def test_marks_lie_on_the_cell_and_inside(explained):
    """In the photo and in each panel; one on the corner is pulled in, so that it is seen."""
    fig = encoder_grid(explained, [(258, 290), (0, 0)], ["combine"], style=Style(heads=(0, 5)))
    (rings,) = {
        tuple(map(tuple, np.round(c.get_offsets(), 3)))
        for c in fig.axes[0].collections
        if isinstance(c, EllipseCollection)
    }
    assert len(rings) == 2 * (1 + 2 * 2)  # photo, two layers of two heads
    middle = np.array([(8 * 8 + 0.5) * 4 / 512, (9 * 8 + 0.5) * 4 / 512])  # of cell 8, 9
    found = []
    for x, y in rings:
        (tile,) = [t for t in tiles_of(fig) if t.holds(np.array([[x, y]]))]
        high, wide = tile.hw
        share = np.array([(x - tile.left) / wide, (y - tile.top) / high])
        found.append("middle" if np.abs(share - middle).max() < 0.02 else "corner")
        if found[-1] == "corner":
            assert (share > 0.01).all() and (share < 0.12).all()
    assert found == ["middle"] * 5 + ["corner"] * 5


@pytest.mark.parametrize(("points", "modes"), [([], ["combine"]), ([(1, 1)], [])])
def test_nothing_to_draw(explained, points, modes):
    with pytest.raises(FigureError, match="nothing to draw"):
        encoder_grid(explained, points, modes)


def test_without_the_encoder(explained):
    e = explain(demo_model("detr"), assets.find(assets.DEFAULT_IMAGE))
    with pytest.raises(FigureError, match="an encoder layer"):
        encoder_grid(e, [(1, 1)], ["combine"])


def test_points_and_grids():
    assert parse(" 300,200.5 ").on((400, 500)) == [(300, 200.5)]
    assert parse("grid:2x1").on((100, 400)) == [(100, 50), (300, 50)]
    with pytest.raises(ValueError, match="outside the image, which is 500 x 400 pixels"):
        parse("501,3").on((400, 500))


@pytest.mark.parametrize(
    "text",
    ["", "3", "3,", "1,2,3", "a,b", "nan,1", "inf,1", "grid:", "grid:3", "grid:0x2", "grid:99x99"],
)
def test_what_is_no_point(text):
    with pytest.raises(ValueError, match="is not a point: write x,y"):
        parse(text)


# ---- the command --------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    argv = ["--type", "cd_detr", "--attention", "encoder", "--queries", "top:2"]
    assert cli.main([*argv, "--out", f"{tmp_path}/", "--format", "png,svg", "--quiet"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"scene_1_cd_detr_combine_encoder{s}" for s in (".png", ".svg")]
    svg = (tmp_path / names[1]).read_text()
    assert "triangle" in svg and "encoder self-attention" in svg
    first = (tmp_path / names[0]).read_bytes()
    cli.main([*argv, "--out", str(tmp_path / "b.png"), "--quiet"])
    assert (tmp_path / "b.png").read_bytes() == first


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--points", "3,4"], "are for --attention encoder"),
        (["--attention", "encoder", "--points", "900,4"], "outside the image, which is 512 x 512"),
        (["--attention", "encoder", "--points", "x"], "is not a point"),
        (["--attention", "encoder", "--layer", "5"], "no encoder layer 5: this model has 0..1"),
        (["--attention", "encoder", "--plot", "terms"], "leave one of them out"),
        (["--attention", "encoder", "--ablate", "content"], "--ablate is not for"),
        (["--attention", "encoder", "--type", "cd_detr"], "is for one model"),
        (["--attention", "encoder", "--heads", "8"], "no head 8"),
        (["--attention", "encoder", "--queries", "99"], "99"),
        (["--attention", "eyes"], "invalid choice"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", *argv], says)
