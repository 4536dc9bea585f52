"""Dynamic DETR through the whole tool: a small file, and what it shows beside its cells."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from conftest import ROOT
from network_tools import tiny
from PIL import Image

from detr_viz import cli, explain, load_model
from detr_viz.common.errors import UserError
from detr_viz.explanation.rollout import of_cells

META = {"nheads": 2, "levels": 3, "canonical_px": 32.0, "samples": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights with boxes that differ, offsets of some cells, scales away from a half."""
    network = tiny("dynamic_detr", enc_layers=2).network
    torch.manual_seed(3)
    network.init_proposal_boxes.weight.uniform_(0.2, 0.8)
    for key, value in network.named_parameters():
        if key.endswith("offset.weight") or "AttnConv" in key:
            value.normal_(std=0.3)
    path = tmp_path_factory.mktemp("dynamic") / "small.pth"
    torch.save({"model": network.state_dict(), "meta": META}, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)).save("cat.png")
    return tmp_path


@pytest.fixture(scope="module")
def explained(weights):
    model = load_model(weights, device="cpu")
    photo = np.asarray(Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)))
    return explain(model, photo, size=96, layers="all", sites=["encoder", "decoder"])


def argv(weights, *more: str) -> list[str]:
    common = ["--weights", str(weights), "--image", "cat.png", "--size", "96"]
    return [*common, "--device", "cpu", *more]


def test_the_type_is_told_by_the_keys(weights):
    info = load_model(weights, device="cpu").info
    assert info.type == "dynamic_detr" and info.scales
    assert info.num_encoder_layers == 2 and info.num_layers == 2
    assert [note for note in info.notes if "reconstruction" in note]


def test_cells_fill_the_pixels_from_stride_times_i_on(explained):
    """96 x 130 pixels at strides 8, 16 and 32; the last column lies partly beyond."""
    grids = explained.grids()
    assert [grid.hw for grid in grids] == [(12, 17), (6, 9), (3, 5)]
    assert explained.input_hw == (96, 130)
    for grid in grids:
        centers = grid.centers(150, 1)
        wanted = (np.arange(grid.hw[1]) + 0.5) * grid.stride * 150 / 130 - 0.5
        np.testing.assert_allclose(centers, wanted)
        assert grid.borders(1)[0] == 0 and grid.borders(1)[-1] == 1
        np.testing.assert_allclose(grid.borders(1)[1], grid.stride / 130)
        middle = grid.positions(130, 1)[grid.stride]  # panel pixel = input pixel
        assert middle == pytest.approx((grid.stride + 0.5) / grid.stride - 0.5)


def test_the_self_check_holds_at_every_site(explained):
    assert {kind for kind, _ in explained.sites} == {"cross", "encoder", "decoder"}
    for site in explained.sites:
        residual = explained._call(site).residual
        assert residual < 1e-5 or np.isnan(residual), site
    for layer in range(2):
        assert explained._call(("encoder", layer)).residual < 1e-5
        assert explained._call(("cross", layer)).residual < 1e-5


def test_scales_are_those_of_the_network(explained):
    scales, encoded = explained.scales, explained.memory
    assert scales.strides == (8, 16, 32) and scales.num_blocks == 2
    np.testing.assert_array_equal(scales.weights, encoded.scale_weights[0].numpy())
    assert np.isnan(scales.weights[:, 0, 0]).all() and np.isnan(scales.weights[:, 2, 2]).all()
    assert np.isfinite(scales.weights).sum() == 14
    np.testing.assert_allclose(np.nansum(scales.shares, -1), 1, atol=1e-5)
    for level, maps in enumerate(scales.maps):
        assert maps.shape == (2, 3, *explained.grids()[level].hw)
        np.testing.assert_allclose(np.nansum(maps, 1), 1, atol=1e-4)


def test_the_plot_of_scales_and_its_numbers(here, weights, explained, capsys):
    assert cli.main(argv(weights, "--plot", "scales", "--out", "o/", "--format", "png,npz")) == 0
    names = ["cat_dynamic_detr_scales.npz", "cat_dynamic_detr_scales.png"]
    names += ["cat_dynamic_detr_scales_maps.png", "cat_dynamic_detr_scales_table.csv"]
    assert sorted(path.name for path in (here / "o").iterdir()) == names
    with np.load("o/cat_dynamic_detr_scales.npz") as saved:
        np.testing.assert_allclose(saved["scale_weights"], explained.scales.weights, atol=1e-6)
        assert saved["parts"].tolist() == ["finer", "own", "coarser"]
        for level, maps in enumerate(explained.scales.maps):
            np.testing.assert_allclose(saved[f"scale_maps_level{level}"], maps, atol=1e-5)
        assert saved["strides"].tolist() == [8, 16, 32]
    with open("o/cat_dynamic_detr_scales_table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    for row in rows:
        part = ["finer", "own", "coarser"].index(row["part"])
        place = int(row["block"]), int(row["level"]), part
        assert float(row["weight"]) == pytest.approx(
            float(explained.scales.weights[place]), rel=1e-4
        )
        assert float(row["share"]) == pytest.approx(float(explained.scales.shares[place]), rel=1e-3)


def test_an_encoder_of_taps_draws_points(here, weights):
    """Without --style; a flag of colours, or the style itself, asks for maps."""
    words = ["--attention", "encoder", "--points", "75,55", "--quiet"]
    for out, more in {
        "a": [],
        "b": ["--style", "points"],
        "c": ["--style", "overlay"],
        "d": ["--cmap", "viridis"],
    }.items():
        assert cli.main(argv(weights, *words, *more, "--out", f"{out}.png")) == 0
    pictures = {name: np.asarray(Image.open(f"{name}.png")) for name in "abcd"}
    assert np.array_equal(pictures["a"], pictures["b"])
    assert pictures["a"].shape != pictures["c"].shape == pictures["d"].shape


def test_points_of_the_encoder_are_those_of_its_taps(here, weights, explained):
    words = ["--attention", "encoder", "--style", "points", "--points", "75,55", "--layer", "1"]
    assert cli.main(argv(weights, *words, "--save-maps", "--out", "a.png")) == 0
    with np.load("a.npz") as saved:
        xy, weight = saved["samples_combine"], saved["sample_weights_combine"]
        column, row = saved["cells"][0].tolist()
    assert xy.shape == (1, 1, 3, 3, 9, 2)  # layer, point, panel, level, tap
    attention = explained.attention_at(("encoder", 1))
    wanted, shares = attention.samples("combine", [row * 17 + column])
    np.testing.assert_allclose(xy[0], wanted.numpy(), atol=1e-5)
    np.testing.assert_allclose(weight[0], shares.numpy(), atol=1e-6)
    np.testing.assert_allclose(weight.sum((-2, -1)), 1, atol=1e-5)
    with Image.open("a.png") as picture:
        assert "deformable convolution" in picture.text["Title"]
        assert "nine taps" in picture.text["Description"]


def test_cells_of_the_box_that_enters_each_stage(explained):
    """Shares are 1 in all with the bias's; boxes are the image first, then the last stage's."""
    assert explained.attention_kind == "roi" and explained.num_heads == 1
    for layer in range(2):
        share, boxes, bias_share = explained.cells([4, 1], layer)
        assert share.shape == (2, 1, 7, 7)
        np.testing.assert_allclose(share.sum((1, 2, 3)) + bias_share, 1, atol=1e-4)
        before = explained.output(0).boxes_xyxy_px if layer else explained.reference_boxes[0]
        np.testing.assert_allclose(boxes, before[[4, 1]], atol=1e-3)
    maps, outside = explained.maps("combine", [4, 1]), explained.outside("combine", [4, 1])
    np.testing.assert_allclose(maps.sum((2, 3)) + outside, 1, atol=1e-5)
    between = explained.attention(("decoder", 1), "combine", [0])
    assert between.shape == (1, 2, 5)  # heads of the self-attention are its own
    np.testing.assert_allclose(between.sum(-1), 1, atol=1e-5)


def test_ablation_by_cells(explained):
    """A row and another differ; without any row only the bias is left, whatever is in the box."""
    found = [explained.ablate(f"cells:row:{row}", layers=[1]) for row in (0, 3)]
    for one in found:
        before, after = one.before.class_scores, one.after.class_scores
        np.testing.assert_allclose(before, explained.class_scores, atol=1e-6)
        assert np.abs(after - before).max() > 1e-5
    assert not np.allclose(found[0].after.class_scores, found[1].after.class_scores, atol=1e-6)


def test_a_batch_of_scales_is_as_one_image(here, weights):
    (here / "in").mkdir()
    for name in "ab":
        (here / "in" / f"{name}.png").write_bytes((here / "cat.png").read_bytes())
    common = argv(weights, "--plot", "scales", "--format", "npz", "--jobs", "1", "--out", "many")
    common[common.index("cat.png")] = "in"
    assert cli.main(common) == 0
    assert cli.main(argv(weights, "--plot", "scales", "--format", "npz", "--out", "one/")) == 0
    alone = np.load("one/cat_dynamic_detr_scales.npz")["scale_weights"]
    files = sorted((here / "many").rglob("*_scales.npz"))
    assert len(files) == 2
    for path in files:
        np.testing.assert_allclose(np.load(path)["scale_weights"], alone, atol=1e-6)


def test_bfloat16_is_the_backbone_alone(weights, explained):
    photo = np.asarray(explained.image.rgb)
    e = explain(load_model(weights, device="cpu", precision="bfloat16"), photo, size=96)
    network = e.model.network
    assert next(network.backbone.parameters()).dtype == torch.bfloat16
    assert {p.dtype for p in network.encoder.parameters()} == {torch.float32}
    apart = np.abs(e.boxes_xyxy_px - explained.boxes_xyxy_px).max()
    assert 0 < apart < 15


def test_there_is_no_rollout_through_a_convolution(explained):
    with pytest.raises(UserError, match="no rollout of Dynamic DETR through its encoder"):
        of_cells(explained, [3])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "position"], "has only combine|has no mode"),
        (["--attention", "encoder", "--points", "9,9", "--heads", "0"], "has no heads"),
        (["--attention", "encoder", "--points", "9,9", "--layer", "2"], "no encoder layer 2"),
        (["--layer", "2"], "no stage 2"),
        (["--plot", "salience"], "has no salience"),
        (["--plot", "proposals"], "has no proposals"),
        (["--plot", "scales", "--heads", "0"], "levels have no heads"),
        (["--nheads", "5"], "5 heads do not divide"),
        (["--dilation"], "has no dilation"),
    ],
)
def test_bad_flags_are_refused_in_one_line(here, weights, capsys, words, message):
    import re

    assert cli.main(argv(weights, *words, "--out", "bad.png")) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert not (here / "bad.png").exists()


def test_other_models_have_no_scales(here, capsys):
    assert cli.main(["--image", "cat.png", "--plot", "scales", "--device", "cpu"]) == 2
    assert "has no scale attention in its encoder" in capsys.readouterr().err
