"""Full-size checkpoints of the family beyond the goldens' own: R101, 300 proposals, DC5, .pkl.

Their keys are those of the goldens' lists, with more blocks or rows; values are the fill rule's.
"""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from golden.famfill import fill
from network_tools import filled, filled_salience
from PIL import Image
from skimage import data

from detr_viz import cli, heatmaps, models
from detr_viz.checkpoints.fit import skeleton

BLOCKS = 23  # of the third stage of a ResNet-101


def shapes(depth: int = 50, proposals: int = 100) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a release of Sparse R-CNN."""
    lines = (GOLDEN / "family" / "keys_sparse.txt").read_text().splitlines()
    known = {key: tuple(map(int, dims.split("x"))) for key, dims, _ in map(str.split, lines)}
    found = {
        key: (proposals, *shape[1:]) if key.startswith("init_proposal_") else shape
        for key, shape in known.items()
    }
    last = {key: shape for key, shape in known.items() if ".res4.5." in key}
    for block in range(6, BLOCKS if depth == 101 else 6):
        found |= {key.replace(".5.", f".{block}.", 1): shape for key, shape in last.items()}
    return found


@pytest.mark.parametrize("proposals", [100, 300])
@pytest.mark.parametrize("depth", [50, 101])
def test_every_release_has_the_keys_and_shapes_of_its_network(depth, proposals):
    """Without their values: what is read off the shapes builds a network of the same shapes."""
    known, spec = shapes(depth, proposals), models.get("sparse_rcnn")
    meta = {key: torch.empty(shape, device="meta") for key, shape in known.items()}
    assert spec.matches(meta)
    config = spec.read_config(meta, 8, False)
    assert config.num_queries == proposals
    assert config.backbone.blocks == (3, 4, BLOCKS if depth == 101 else 6, 3)
    built = {k: tuple(v.shape) for k, v in skeleton(spec, config).state_dict().items()}
    assert built == known


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "proposals", "kind"), [(101, 300, "pkl"), (101, 100, "pth")])
def test_a_release_of_sparse_rcnn_on_a_photo(tmp_path, photo, capsys, depth, proposals, kind):
    """512 x 512 becomes 800 x 800; six stages, and shares that are 1 with the bias's."""
    known = shapes(depth, proposals)
    values = {key: fill(key, shape, "sparse") for key, shape in known.items()}
    weights = tmp_path / f"release.{kind}"
    if kind == "pkl":
        content = {"model": values, "__author__": "x", "matching_heuristics": True}
        weights.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save({"model": {k: torch.from_numpy(v) for k, v in values.items()}}, weights)
    out = tmp_path / "a.png"
    argv = ["--weights", str(weights), "--image", str(photo), "--queries", "top:2"]
    assert cli.main([*argv, "--save-maps", "--out", str(out)]) == 0
    assert capsys.readouterr().err == ""
    names = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert len(names) == 6  # a file a stage
    for name in names:
        saved = heatmaps.load(tmp_path / name)
        assert saved.hw == (200, 200) and saved.maps["combine"].shape == (2, 1, 200, 200)
        total = saved.cells_share.sum((1, 2)) + saved.cells_bias_share
        np.testing.assert_allclose(total, 1, atol=1e-4)
    with Image.open(out) as picture:
        assert picture.text["Title"].startswith("Sparse R-CNN: shares of the cells")


@pytest.mark.slow
@pytest.mark.parametrize(("dilation", "hw"), [(False, (25, 25)), (True, (50, 50))])
def test_anchor_detr_on_a_photo(tmp_path, photo, capsys, dilation, hw):
    """C5 and DC5, which their args alone tell apart; the three patterns of an anchor."""
    args = argparse.Namespace(nheads=8, dilation=dilation)
    torch.save({"model": filled("anchor", "anchor"), "args": args}, tmp_path / "a.pth")
    argv = ["--weights", str(tmp_path / "a.pth"), "--image", str(photo), "--queries", "anchor:17"]
    assert cli.main([*argv, "--save-maps", "--out", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().err == ""
    saved = heatmaps.load(tmp_path / "a.npz")
    assert saved.maps["combine"].shape == (3, 8, *hw)
    np.testing.assert_allclose(saved.maps["combine"].sum((-1, -2)), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("plot", ["combine", "salience", "proposals"])
def test_salience_detr_on_a_photo(tmp_path, photo, capsys, plot):
    torch.save(filled_salience(), tmp_path / "a.pth")
    argv = ["--weights", str(tmp_path / "a.pth"), "--image", str(photo), "--queries", "top:2"]
    assert cli.main([*argv, "--plot", plot, "--out", str(tmp_path / "a.png")]) == 0
    printed, err = capsys.readouterr()
    assert err == "" and "left aside: denoising_generator" in printed
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1200 and "Salience DETR" in picture.text["Title"]
