"""Anchor DETR through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_tools import anchor_file, explained_at_all_sites, with_photo
from PIL import Image

from detr_viz import cli, heatmaps, load_model
from detr_viz.attention.terms import MODES
from detr_viz.heatmaps.schema import HeatmapError


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
    assert cli.main(["check", "base", "--anywhere"]) == 0
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
