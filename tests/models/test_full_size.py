"""Full-size ResNet-50 checkpoints in the official format, a photo, and the six commands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import filled_state_dict
from PIL import Image
from skimage import data

from detr_viz import cli, heatmaps
from detr_viz.attention.terms import MODES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """detr.pth, cd_detr.pth and cat.png (300 x 451)."""
    path = tmp_path_factory.mktemp("full")
    torch.save({"model": filled_state_dict("detr_r50")}, path / "detr.pth")
    torch.save({"model": filled_state_dict("cond_r50")}, path / "cd_detr.pth")
    Image.fromarray(data.chelsea()).save(path / "cat.png")
    return path


@pytest.mark.parametrize("plot", MODES)
@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_the_six_commands_on_a_photo(folder, capsys, name, plot):
    argv = ["--type", name, "--plot", plot, "--image", str(folder / "cat.png")]
    argv += ["--weights", str(folder / f"{name}.pth"), "--queries", "top:3", "--save-maps"]
    out = folder / f"{name}_{plot}.png"
    assert cli.main([*argv, "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert err == "" and "assumed 8 heads" in printed and "demo" not in printed
    saved = heatmaps.load(out.with_suffix(".npz"))
    # 300 x 451 is resized to 800 x 1202, stride 32
    assert saved.maps[plot].shape == (3, 8, 25, 38)
    assert saved.hw == (25, 38)
    np.testing.assert_allclose(saved.maps[plot].sum((-1, -2)), 1, atol=1e-5)
    assert saved.meta["residuals"]["5"] < 1e-5
    with Image.open(out) as picture:
        assert picture.width > 1200


def test_dc5_doubles_the_grid(folder, capsys):
    argv = ["--weights", str(folder / "detr.pth"), "--image", str(folder / "cat.png")]
    out = folder / "dc5.png"
    assert cli.main([*argv, "--dilation", "--size", "256", "--out", str(out), "--save-maps"]) == 0
    saved = heatmaps.load(out.with_suffix(".npz"))
    assert saved.hw == (16, 24)  # 256 x 384 at stride 16
    assert saved.meta["dilation"] is True
