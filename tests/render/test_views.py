"""What all views owe: the scale that is asked for, and a digest of all that decides a figure."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import demo_model
from figure_tools import maps_of, pixels, texts
from look_tools import caption_of, check_heat, share_in_box
from PIL import Image

from detr_viz import cli, explain
from detr_viz.common import assets
from detr_viz.explanation import faithfulness
from detr_viz.figures.decoder import decoder_grid
from detr_viz.figures.decoder_matrix import query_matrix
from detr_viz.figures.encoder import encoder_grid
from detr_viz.figures.page.elements import number
from detr_viz.figures.styles import PageFormat, Style

# ---- --scale ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unlike():
    """Self-attention where position, attended on its own, has twice the layer's factor.

    In the models that there are the two are the same there: no number would tell them apart.
    """
    image, sites = assets.find(assets.DEFAULT_IMAGE), ["encoder", "decoder"]
    e = explain(demo_model("cd_detr"), image, sites=sites)
    calls = {}
    for where, call in e.calls.items():
        scales = {**call.attention.mode_scales, "position": 2 * call.attention.scale}
        calls[where] = SimpleNamespace(attention=replace(call.attention, mode_scales=scales))
    return replace(e, calls=calls)


@pytest.mark.parametrize(
    ("draw", "site", "rows"),
    [
        (decoder_grid, ("decoder", 2), [11, 15]),
        (query_matrix, ("decoder", 2), [11, 15]),
    ],
)
def test_the_scale_reaches_the_weights_of_self_attention(unlike, draw, site, rows):
    """The largest weight of each head is printed; in a matrix, the largest of its cells."""
    e, heads = unlike, [0, 3]
    asked = [(100, 200)] if draw is encoder_grid else rows
    style, page_format = Style(heads=tuple(heads)), PageFormat.of(width_in=9)
    known, printed = {}, {}
    for scale in ("mode", "layer"):
        fig = draw(e, asked, ["position"], scale=scale, style=style, page_format=page_format)
        weights = e.attention(site, "position", rows, scale)[:, heads]
        if draw is query_matrix:
            weights = weights[..., rows].max(0)
        known[scale] = {number(value) for value in weights.max(-1).ravel()}
        said = " ".join(texts(fig))
        printed[scale] = {*said.split()}
        assert known[scale] <= printed[scale]
        rule = fig.facts["Description"]
        assert ("logits at the layer's own scale" in rule) == (scale == "layer")
    assert not known["layer"] <= printed["mode"] and not known["mode"] <= printed["layer"]


def test_the_scale_reaches_the_maps_of_encoder_self_attention(unlike):
    e, heads = unlike, (0, 3)
    panels = {}
    for scale in ("mode", "layer"):
        style = Style("heat", heads=heads)
        fig = encoder_grid(e, [(100, 200)], ["position"], scale=scale, style=style)
        weights = e.attention(("encoder", 0), "position", [6 * 16 + 3], scale)[0, list(heads)]
        panels[scale] = [pixels(fig, tile) for tile in maps_of(fig)[:2]]  # of layer 0
        for picture, one in zip(panels[scale], weights, strict=True):
            check_heat(picture, one.reshape(e.grid_hw))
        rule = fig.facts["Description"]
        assert ("logits at the layer's own scale" in rule) == (scale == "layer")
    assert not any(np.array_equal(a, b) for a, b in zip(*panels.values(), strict=True))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_commands_of_self_attention_say_their_scale(tmp_path, kind):
    argv = ["--type", "cd_detr", "--attention", kind, "--queries", "top:2", "--plot", "position"]
    argv += ["--format", "svg", "--quiet"]
    for scale in ("mode", "layer"):
        assert cli.main([*argv, "--scale", scale, "--out", f"{tmp_path}/{scale}/"]) == 0
        paths = [*(tmp_path / scale).iterdir()]
        assert len(paths) == {"encoder": 1, "decoder": 2}[kind]
        for path in paths:
            assert ("logits at the layer" in path.read_text()) == (scale == "layer")


def test_the_scale_ranks_the_cells_of_faithfulness(tmp_path, capsys):
    """The areas that the command prints are those of curves by the maps of that scale."""
    e = explain(demo_model("cd_detr"), assets.find(assets.DEFAULT_IMAGE))
    query = e.by_score()[0]
    argv = ["--type", "cd_detr", "--faithfulness", "--plot", "position", "--queries", str(query)]
    printed = {}
    for scale in ("mode", "layer"):
        found = faithfulness.faithfulness(e, [query], ["position"], scale=scale)
        maps = e.maps("position", [query], scale=scale).mean(1)
        np.testing.assert_array_equal(found.maps["position"], maps)
        curves = found.deletion["position"][0], found.insertion["position"][0]
        areas = [faithfulness.area(curve, found.shares) for curve in curves]
        out = tmp_path / f"{scale}.svg"
        assert cli.main([*argv, "--scale", scale, "--out", str(out)]) == 0
        (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "0." in line]
        printed[scale] = [float(word) for word in row[-3:-1]]
        assert printed[scale] == pytest.approx(areas, abs=6e-4)
        one, centers = maps[0].reshape(e.grid_hw), e.cell_centers_px()
        share = share_in_box(one, e.boxes_xyxy_px[query], centers, e.image.hw)
        assert f">{caption_of(one, share)}<" in out.read_text()
    assert np.abs(np.subtract(*printed.values())).max() > 2e-3


# ---- the digest ---------------------------------------------------------------------------------


def recipe_of(folder, *argv: str) -> str:
    """The digest in the first file that a command writes."""
    folder.mkdir(exist_ok=True)
    path = folder / "a.png"
    assert cli.main(["--type", "detr", *argv, "--dpi", "60", "--quiet", "--out", str(path)]) == 0
    with Image.open(path) as image:
        return image.text["Recipe"]


HERE, THERE = ["--points", "100,200"], ["--points", "300,200"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--attention", "encoder", *HERE], ["--attention", "encoder", *THERE]),
        (["--attention", "encoder", *HERE], ["--attention", "encoder", *HERE, "--rollout"]),
        (
            ["--attention", "encoder", *HERE, "--rollout"],
            ["--attention", "encoder", *THERE, "--rollout"],
        ),
        (
            ["--attention", "decoder", "--queries", "13,2"],
            ["--attention", "decoder", "--queries", "2,13"],
        ),
        (["--attention", "decoder", "--queries", "13"], ["--queries", "13"]),
        (["--rollout", "--queries", "13"], ["--rollout", "--queries", "2"]),
        (["--faithfulness", "--queries", "13"], ["--rollout", "--queries", "13"]),
    ],
)
def test_two_commands_have_two_digests_and_one_has_one(tmp_path, one, other):
    known = recipe_of(tmp_path, *one)
    assert recipe_of(tmp_path / "again", *one) == known
    assert recipe_of(tmp_path, *other) != known
