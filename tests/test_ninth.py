"""What is added in a file of its own and one registry line is a whole citizen.

The files are in tests/toys; here is each line, and what works from then on.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import demo_model
from PIL import Image
from toys.sampled_adapter import STRIDES, ToyDetector

from detr_viz import adapters, cli, explain, figures, heatmaps, load_model, models
from detr_viz.adapters import AdapterEntry
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.models.registry import ModelEntry

TOY = "toy_sampled"


@pytest.fixture
def adapter(monkeypatch):
    """The one line of an adapter."""
    entry = AdapterEntry("toys.sampled_adapter", "Toy sampler")
    monkeypatch.setitem(adapters.REGISTRY, TOY, entry)


@pytest.fixture
def ninth(monkeypatch, tmp_path):
    """The one line of a model, and a checkpoint of it: DETR's demo with a mark."""
    entry = ModelEntry("toys.ninth_model", "Toy DETR", demo=False)
    monkeypatch.setitem(models.REGISTRY, "toy_detr", entry)
    content = torch.load(assets.find("weights/detr_demo.pth"), weights_only=True)
    content["model"]["toy_mark"] = torch.zeros(1)
    content["meta"]["type"] = "toy_detr"
    path = tmp_path / "toy.pth"
    torch.save(content, path)
    return path


@pytest.fixture
def image(tmp_path):
    """50 x 70 pixels: the shorter side goes to 64, and is padded to multiples of 16."""
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 255, (50, 70, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    return path


def deposited(xy, weight, hw) -> np.ndarray:
    """Points (q, M, P, 2), weight (q, M, P) on a grid: bilinear sampling's adjoint."""
    grid = np.zeros((*weight.shape[:2], *hw))
    for place in np.ndindex(weight.shape):
        x, y = xy[place] * np.array(hw[::-1]) - 0.5
        for row in range(hw[0]):
            for column in range(hw[1]):
                share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                grid[(*place[:2], row, column)] += weight[place] * share
    return grid


# ---- an adapter: two levels of sampled attention, no content and position -----------------------


def test_maps_of_two_levels(adapter, image):
    e = explain(load_model(type=TOY), image, layers="all")
    fine, coarse = e.grids()
    assert (fine.hw, coarse.hw) == ((8, 12), (4, 6)) and fine.input_hw == (64, 96)
    assert e.input_hw == fine.valid_hw == (64, 89) and e.kind() == "sampled"
    xy, weight = e.samples("combine", [0, 5], 1)
    levels = [e.maps("combine", [0, 5], 1, level=level) for level in (0, 1)]
    for level, grid in enumerate((fine, coarse)):
        expected = deposited(xy[:, :, level], weight[:, :, level], grid.hw)
        np.testing.assert_allclose(levels[level], expected, atol=1e-6)
    # 8 x 12 over 4 x 6: each coarse cell is four fine ones
    spread = levels[1].repeat(2, -1).repeat(2, -2) / 4
    whole = e.maps("combine", [0, 5], 1)
    np.testing.assert_allclose(whole, levels[0] + spread, atol=1e-6)
    outside = e.outside("combine", [0, 5], 1)
    np.testing.assert_allclose(whole.sum((2, 3)) + outside, 1, atol=1e-5)
    assert 0.01 < outside.max() < 0.9  # a point lies beyond the edge
    assert max(e.residuals.values()) < 1e-5
    with pytest.raises(ValueError, match="level 2"):
        e.maps(level=2)


def test_a_cell_is_where_the_photo_has_it(adapter, image):
    """The padding is no part of the photo: cell 11 of 12 lies beyond its 89 of 96 pixels."""
    e = explain(load_model(type=TOY), image)
    x = e.cell_centers_px()[1]
    np.testing.assert_allclose(x, (np.arange(12) + 0.5) * 8 * 70 / 89)
    assert x[-1] > 70 > x[-2]


@pytest.mark.parametrize(("says", "style"), [(True, "points"), (None, "overlay")])
def test_what_a_detector_says_of_itself_decides_its_usual_style(
    adapter, image, tmp_path, monkeypatch, capsys, says, style
):
    """None: it is not known before an image is seen; levels and points are checked then."""
    monkeypatch.chdir(tmp_path)
    made = ToyDetector.__init__

    def declared(self, device):
        made(self, device)
        self.info = replace(self.info, samples=says, num_levels=says and len(STRIDES))

    monkeypatch.setattr(ToyDetector, "__init__", declared)
    argv = ["--type", TOY, "--queries", "top:1", "--image", str(image), "--quiet"]
    assert cli.main([*argv, "--out", "a.png"]) == 0
    with Image.open("a.png") as picture:
        assert f"style {style}, " in picture.text["Description"]
    assert cli.main([*argv, "--heads", "all-in-one", "--level", "1", "--out", "b.png"]) == 0
    with Image.open("b.png") as picture:
        assert "points of level 1 of 2 (stride 16) alone" in picture.text["Description"]
    assert cli.main([*argv, "--level", "2", "--out", "c.png"]) == 2
    err = capsys.readouterr().err
    assert err == "error: no level 2: Toy sampler has 2 levels, 0..1\n"
    assert not (tmp_path / "c.png").exists()


def test_figure_npz_batch_check_and_atlas(adapter, image, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    e = explain(load_model(type=TOY), image)
    fig = figures.head_grid(e, [2, 4])
    assert "Toy sampler" in fig.facts["Title"]
    heatmaps.save("one.npz", e, [2, 4], ["combine"])
    saved = heatmaps.load("one.npz")
    np.testing.assert_allclose(saved.maps["combine"], e.maps("combine", [2, 4]), atol=1e-7)
    assert saved.kind == "sampled" and saved.grid_hw.tolist() == [[8, 12], [4, 6]]
    np.testing.assert_allclose(saved.outside["combine"], e.outside("combine", [2, 4]), atol=1e-7)
    np.testing.assert_allclose(saved.samples["combine"], e.samples("combine", [2, 4])[0], atol=1e-7)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(image.read_bytes())
    one = ["--type", TOY, "--queries", "top:2"]
    assert cli.main([*one, "--image", str(image), "--out", "one/", "--save-maps"]) == 0
    batch = [*one, "--image", "in", "--out", "out", "--format", "png,npz", "--jobs", "1"]
    assert cli.main(batch) == 0
    stem = f"a_{TOY}_combine"
    assert (tmp_path / "out" / f"{stem}.png").read_bytes()[:4] == b"\x89PNG"
    alone, many = (heatmaps.load(f"{folder}/{stem}.npz") for folder in ("one", "out"))
    np.testing.assert_array_equal(alone.maps["combine"], many.maps["combine"])
    assert cli.main([*batch, "--resume"]) == 0
    capsys.readouterr()
    assert cli.main(["record", "--type", TOY, "--image", "in/a.png", "--out", "base"]) == 0
    assert cli.main(["check", "base"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 same"
    atlas = ["atlas", "--type", TOY, "--image", "in", "--out", "atlas", "--plot", "combine"]
    assert cli.main([*atlas, "--queries", "all", "--quiet"]) == 0
    assert [path.suffix for path in sorted((tmp_path / "atlas").iterdir())] == [".csv", ".png"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ablate", "head:0"], "ablations run the decoder again, which Toy sampler does not"),
        (["--faithfulness"], "which Toy sampler does not offer here"),
        (["--plot", "position"], "Toy sampler has no mode 'position'; it has combine"),
        (["--plot", "terms"], "not a sum of terms"),
        (["--terms", "cq.ck"], "not a sum of terms"),
        (["--precision", "bfloat16"], "runs in float32 here"),
        (["--attention", "encoder"], "no encoder layers"),
    ],
)
def test_what_it_does_not_offer_is_one_line(adapter, image, refused, tmp_path, argv, says):
    image = image.rename(image.parent.parent / f"{image.parent.name}.png")  # refused() looks there
    refused(["--type", TOY, "--image", str(image), *argv], says)


def test_the_library_refuses_in_one_line(adapter, image):
    e = explain(load_model(type=TOY), image)
    for call in (
        lambda: e.ablate("head:0"),
        lambda: e.logit_terms([0]),
        lambda: e.maps("content"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)


# ---- a ninth model ------------------------------------------------------------------------------


def test_a_ninth_model(ninth, tmp_path, capsys):
    model = load_model(ninth, "toy_detr", device="cpu")
    assert model.info.title == "Toy DETR" and model.info.pairwise
    scene = assets.find(assets.DEFAULT_IMAGE)
    e, detr = explain(model, scene), explain(demo_model("detr"), scene)
    np.testing.assert_allclose(e.maps(), detr.maps(), atol=1e-7)  # the same decoder
    assert not np.allclose(e.scores, detr.scores)  # read in another way
    out = tmp_path / "a.png"
    argv = ["--type", "toy_detr", "--weights", str(ninth), "--out", str(out)]
    assert cli.main([*argv, "--save-maps"]) == 0 and out.exists()
    assert json.loads(str(np.load(tmp_path / "a.npz")["meta"]))["model_title"] == "Toy DETR"
    assert cli.main(["--list-models"]) == 0
    assert "toy_detr" in capsys.readouterr().out
