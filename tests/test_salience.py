"""Salience DETR through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT
from family_tools import explained_at_all_sites, salience_file, with_photo
from family_tools import photo as cat_photo
from network_tools import tiny
from PIL import Image

from detr_viz import cli, explain, heatmaps, load_model
from detr_viz.common.errors import UserError
from detr_viz.explanation.faithfulness import faithfulness

SIZES = {"num_queries": 12, "num_logits": 91}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return salience_file(tmp_path_factory.mktemp("salience"))


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    return with_photo(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def photo():
    return cat_photo()


@pytest.fixture(scope="module")
def explained(weights):
    return explained_at_all_sites(weights)


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "salience_detr", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


def test_what_is_left_aside_is_said_and_the_type_is_told_by_the_keys(weights):
    info = load_model(weights, device="cpu").info
    assert info.type == "salience_detr" and info.salience
    assert info.samples and info.num_levels == 3
    assert info.proposal_scores == "sigmoid of the encoder head's best class logit"
    assert [note for note in info.notes if "denoising_generator" in note]
    assert [note for note in info.notes if "position_embedding" in note]


@pytest.mark.parametrize(
    ("plot", "style"),
    [("combine", "points"), ("position", "overlay"), ("all", "contour")],
)
def test_every_mode(here, weights, capsys, plot, style):
    assert cli.main(argv(weights, "--plot", plot, "--style", style, "--out", "a.png")) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines()[-1] == "wrote a.png"
    with Image.open("a.png") as picture:
        assert picture.width > 1000 and "Salience DETR" in picture.text["Title"]


def test_the_canvas_is_padded_to_multiples_of_32_and_maps_know_it(explained):
    """110 x 150 become 96 x 130 (130.9, cut), on 96 x 160."""
    assert explained.input_hw == (96, 130)
    assert [grid.input_hw for grid in explained.grids()] == [(96, 160)] * 3
    assert [grid.hw for grid in explained.grids()] == [(24, 40), (12, 20), (6, 10)]
    how = explained.meta["preprocessing"]
    assert how["rounding"] == "truncated" and how["pad_multiple_px"] == 32
    assert how["resize"] == "Pillow bilinear on float32"


def test_padding_is_zeros_at_the_right_and_is_masked(weights, photo):
    model = load_model(weights, device="cpu")
    pixels = model.prepare(np.asarray(Image.fromarray(photo).resize((130, 96)))[None])
    assert pixels.pixels.shape == (1, 3, 96, 160) and pixels.valid_hw == (96, 130)
    assert pixels.mask.sum() == 96 * 30
    assert pixels.mask[0, :, 130:].all() and not pixels.pixels[..., 130:].any()


def test_tokens_of_layers_are_nested_and_the_shares_are_those_of_the_ratios(explained):
    salience = explained.salience
    assert len(salience.kept) == 3
    for more, fewer in zip(salience.kept, salience.kept[1:], strict=False):
        assert set(fewer.tolist()) < set(more.tolist())
    total = len(salience.kept[0])
    assert [len(kept) for kept in salience.kept] == [total, int(total * 0.6), int(total * 0.2)]
    # valid cells: columns whose first pixel shows the image
    cells = [24 * 33, 12 * 17, 6 * 9]
    assert salience.num_tokens == sum(cells)
    assert total == int(0.4 * cells[0]) + int(0.8 * cells[1]) + cells[2]
    flat = np.concatenate([scores.ravel() for scores in salience.scores])
    ranked = flat[salience.kept[0]]
    assert (np.diff(ranked) <= 1e-7).all()  # most salient first
    for mask, scores in zip(salience.masks(0), salience.scores, strict=True):
        inside = np.arange(scores.shape[1]) * 160 // scores.shape[1] < 130
        left = scores[:, inside][~mask[:, inside]]
        assert not mask[:, ~inside].any()
        assert not left.size or left.max() <= scores[mask].min() + 1e-7


def test_encoder_sites_are_those_of_the_kept_tokens(explained):
    for layer, kept in enumerate(explained.salience.kept):
        attention = explained.attention_at(("encoder", layer))
        assert attention.kind == "sampled" and attention.num_rows == len(kept)
        assert attention.tokens.tolist() == kept.tolist()
        first, all_rows = int(kept[7]), explained.attention(("encoder", layer))
        one = explained.attention(("encoder", layer), rows=first)
        np.testing.assert_array_equal(one[0], all_rows[7])
    left = sorted(set(explained.salience.kept[0].tolist()) - {*kept.tolist()})[0]
    with pytest.raises(ValueError, match=f"cell {left} is not one of the {len(kept)} that attend"):
        explained.attention(("encoder", 2), rows=[left])


def test_points_of_the_encoder_are_those_of_the_kept_tokens(explained):
    for layer, kept in enumerate(explained.salience.kept):
        site = ("encoder", layer)
        xy, weights = explained.samples_at(site, "combine", [int(kept[5]), int(kept[2])])
        all_xy, all_weights = explained.attention_at(site).samples("combine", None)
        np.testing.assert_array_equal(xy, all_xy[[5, 2]].numpy())
        np.testing.assert_array_equal(weights, all_weights[[5, 2]].numpy())


def test_proposals_are_the_tokens_whose_boxes_enter_the_decoder(explained):
    """They start from their token's cell; those that touch the border or padding are hatched."""
    known, encoded = explained.proposals, explained.memory
    assert known.tokens.tolist() == encoded.proposals[0].tolist()
    flat = np.concatenate([scores.ravel() for scores in known.scores])
    np.testing.assert_allclose(flat, encoded.scores[0].sigmoid().numpy(), atol=1e-6)
    assert sorted(known.ranks.tolist()) == [*range(1, 13)]
    np.testing.assert_allclose(known.boxes_xyxy_px, explained.reference_boxes[0], atol=1e-3)
    assert [level.shape for level in known.invalid] == [(24, 40), (12, 20), (6, 10)]
    first = known.invalid[0]  # boxes of .05, centres of 24 x 32.5 cells: only padding is invalid
    assert first[:, 33:].all() and not first[1:-1, 1:31].any()


def test_faithfulness_begins_with_the_plain_score_and_ends_without_a_cell(photo):
    explained = explain(tiny("salience_detr", **SIZES), photo, size=96, layers="all")
    curves = faithfulness(explained, [3], orders=1)
    np.testing.assert_allclose(curves.scores, explained.scores[[3]], atol=1e-6)
    assert curves.shares[0] == 0 and curves.shares[-1] == 1
    ends = curves.deletion["combine"][0, [0, -1]]
    np.testing.assert_allclose(curves.insertion["combine"][0, [-1, 0]], ends, atol=1e-7)
    assert abs(ends[0] - ends[1]) > 1e-3  # what is hidden is missed
    h, w = explained.grid_hw
    assert curves.maps["combine"].shape == (1, h, w)


def test_the_self_check_holds_at_every_site(explained):
    for site in explained.sites:
        residual = explained._call(site).residual
        assert residual < 1e-5 or np.isnan(residual), site


def test_saved_maps_keep_levels_points_and_what_is_outside(here, weights, explained):
    assert cli.main(argv(weights, "--plot", "all", "--save-maps", "--out", "a.png")) == 0
    saved, e = heatmaps.load("a.npz"), explained
    assert saved.kind == "sampled" and len(saved.grid_hw) == 3
    ids = saved.query_ids.tolist()
    for mode in e.modes:
        np.testing.assert_allclose(saved.maps[mode], e.maps(mode, ids), atol=1e-5)


def test_a_batch_is_as_one_image_and_a_baseline_is_the_same_again(here, weights, capsys):
    (here / "in").mkdir()
    for name in "ab":
        (here / "in" / f"{name}.png").write_bytes((here / "cat.png").read_bytes())
    common = argv(weights)
    common[common.index("cat.png")] = "in"
    assert cli.main([*common, "--out", "out", "--format", "png,npz", "--jobs", "1"]) == 0
    assert cli.main(argv(weights, "--save-maps", "--out", "one/")) == 0
    one = heatmaps.load("one/cat_salience_detr_combine.npz")
    many = heatmaps.load("out/b_salience_detr_combine.npz")
    np.testing.assert_array_equal(one.maps["combine"], many.maps["combine"])
    record = argv(weights, "--plot", "all", "--out", "base")
    capsys.readouterr()
    assert cli.main(["record", *record]) == 0
    assert cli.main(["check", "base", "--anywhere"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 same"


def test_plot_salience_writes_a_figure_and_its_numbers(here, weights, explained):
    flags = ["--plot", "salience", "--save-maps", "--out", "s.png", "--quiet"]
    assert cli.main(argv(weights, *flags)) == 0
    with Image.open("s.png") as picture:
        assert "tokens of the image that the encoder refines" in picture.text["Title"]
    salience = explained.salience
    with np.load("s.npz") as saved:
        for level, scores in enumerate(salience.scores):
            np.testing.assert_allclose(saved[f"salience_level{level}"], scores, atol=1e-6)
        for layer, kept in enumerate(salience.kept):
            assert set(saved[f"kept_layer{layer}"].tolist()) == set(kept.tolist())
            for level, mask in enumerate(salience.masks(layer)):
                np.testing.assert_array_equal(saved[f"kept_layer{layer}_level{level}"], mask)
        assert saved["strides"].tolist() == [4, 8, 16]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--plot", "terms"], "sums of content, position, bias, not of products"),
        (["--ablate", "level:3"], "no level 3: this model has 0..2"),
        (["--nheads", "5"], "5 heads do not divide the model width 32"),
        (["--dilation"], "Salience DETR has no dilation (DC5)"),
        (
            ["--size", "800"],
            "learned positions for 40 rows and columns only: give a smaller --size",
        ),
        (["--plot", "salience,combine"], "salience"),
        (["--plot", "salience", "--heads", "mean"], "leave --heads out"),
        (["--plot", "salience", "--layer", "all"], "leave --layer out"),
        (["--plot", "salience", "--style", "points"], "--style overlay or heat"),
        (["--plot", "salience", "--attention", "encoder"], "leave --attention out"),
        (["--plot", "salience", "--norm", "head"], "leave --norm out"),
        (["--rollout"], "there is no rollout of Salience DETR"),
        (["--attention", "encoder", "--layer", "3"], "no encoder layer 3"),
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


def test_other_models_have_no_salience(capsys, tmp_path):
    assert cli.main(["--plot", "salience", "--out", f"{tmp_path}/", "--quiet"]) == 2
    assert "has no salience, its encoder refines all tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--ablate", "position", "content", "head:1", "level:2", "box:inside", "box:outside"],
        ["--faithfulness"],
        ["--attention", "encoder"],
        ["--attention", "encoder", "--layer", "all", "--points", "20,20", "140,100"],
        ["--attention", "encoder", "--style", "points"],
        ["--attention", "decoder"],
        ["--layer", "all"],
        ["--level", "all"],
        ["--style", "points", "--heads", "all-in-one"],
        ["--plot", "proposals"],
    ],
)
def test_the_other_views(here, weights, more):
    argv_ = argv(weights, "--out", "x/", "--quiet", *more)
    if "--points" in more:
        del argv_[argv_.index("--queries") : argv_.index("--queries") + 2]
    assert cli.main(argv_) == 0
    assert {path.suffix for path in (here / "x").iterdir()} == {".png"}


def test_biography_and_atlas(here, weights):
    common = ["--type", "salience_detr", "--weights", str(weights), "--image", "cat.png"]
    assert cli.main([*common, "--size", "96", "--biography", "3", "--out", "x/"]) == 0
    atlas = ["atlas", *common, "--size", "96", "--queries", "all", "--out", "y/", "--quiet"]
    assert cli.main(atlas) == 0
    assert sorted(path.suffix for path in (here / "y").iterdir()) == [".csv", ".png"]


def test_beside_another_type(here, weights):
    both = ["--type", "salience_detr", "cd_detr", "--weights", str(weights)]
    demo = str(ROOT / "weights" / "cd_detr_demo.pth")
    more = ["--image", "cat.png", "--size", "96", "--queries", "top:1", "--out", "x/", "--quiet"]
    assert cli.main([*both, demo, *more]) == 0
    assert [path.suffix for path in (here / "x").iterdir()] == [".png"]


def test_an_encoder_point_means_the_nearest_token_that_is_refined(explained):
    from detr_viz.explanation.cells import nearest_cell

    kept = explained.salience.kept[2]
    kept = kept[kept < 24 * 40]
    x, y = 75.0, 55.0
    cell = nearest_cell(explained, x, y, [0, 2])
    centres = ((kept % 40 + 0.5) * 150 / 130 * 4, (kept // 40 + 0.5) * 110 / 96 * 4)
    away = (centres[0] - x) ** 2 + (centres[1] - y) ** 2
    assert cell == kept[away.argmin()]


def test_ablation_of_position_is_the_content_mode(explained):
    without = explained.ablate("position", layers="last")
    expected = explained.maps("content", None, 1)
    weights = without.weights[1]
    np.testing.assert_allclose(weights.reshape(expected.shape), expected, atol=1e-5)


def test_a_file_whose_wavelengths_are_others_is_refused(weights, tmp_path):
    content = torch.load(weights, weights_only=False)
    content["model"]["position_embedding.dim_tx"] = 20.0 ** (torch.arange(16) / 16)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the wavelengths of a position encoding"):
        load_model(tmp_path / "other.pth", device="cpu")


def test_too_few_tokens_for_the_proposals():
    model = tiny("salience_detr", num_queries=300)
    with pytest.raises(UserError, match=r"187 tokens, too few for 300 proposals"):
        model.network(torch.rand(1, 3, 40, 56))


def test_an_image_does_not_depend_on_its_neighbours(weights, photo):
    """Alone, and in a batch with another one of its size: the same to rounding."""
    model = load_model(weights, device="cpu", precision="float64")
    pixels = np.asarray(Image.fromarray(photo).resize((130, 96)))
    both = np.stack([pixels, pixels[::-1, ::-1]])
    with torch.inference_mode():
        alone = model.forward(model.prepare(both[:1]), [1])
        among = model.forward(model.prepare(both), [1])
    assert alone.selected.tokens[0].tolist() == among.selected.tokens[0].tolist()
    torch.testing.assert_close(alone.boxes[1][0], among.boxes[1][0], rtol=0, atol=1e-9)
