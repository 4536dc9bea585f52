"""One loop: an image is read once, a detector runs once, a network is copied once."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from batch_tools import folder_of_scenes
from conftest import demo_model
from PIL import Image

from detr_viz import cli, explain
from detr_viz.common import assets
from detr_viz.render import views
from detr_viz.render.file_digests import carries
from detr_viz.render.recipe import Recipe, of_models
from detr_viz.render.run import measure, needs_of
from detr_viz.render.views import ViewEntry
from detr_viz.render.views.base import Needs

IMAGE = assets.find(assets.DEFAULT_IMAGE)


class Counts:
    """How often images were opened, networks were given pixels, networks were copied."""

    def __init__(self) -> None:
        self.opened = self.forward = self.copied = 0


@pytest.fixture
def counts(monkeypatch):
    made, true_open = Counts(), Image.open

    def opened(*args, **more):
        made.opened += 1
        return true_open(*args, **more)

    def before(module, args):
        made.forward += isinstance(module, torch.nn.Conv2d) and module.in_channels == 3

    from detr_viz.checkpoints import load_model

    true_copy = load_model.deepcopy

    def copied(what):
        made.copied += 1
        return true_copy(what)

    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr(load_model, "deepcopy", copied)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(before)
    yield made
    hook.remove()


RUNS = {
    "sites": (["--attention", "cross", "encoder", "decoder", "--layer", "0"], 4),
    "sites, ablated": (["--attention", "cross", "encoder", "decoder", "--ablate", "content"], 4),
    "numbers": (["--attention", "encoder", "decoder", "--save-maps", "--caption"], 8),
    "rollout": (["--rollout", "--save-maps"], 2),
    "faithfulness": (["--faithfulness", "--save-maps", "--plot", "all"], 2),
    "ablated": (["--ablate", "content", "head:3", "--save-maps"], 2),
}


@pytest.mark.parametrize("run", RUNS)
def test_an_image_is_read_once_and_the_network_runs_once(tmp_path, counts, run):
    argv, files = RUNS[run]
    argv = ["--type", "detr", "--queries", "top:2", "--dpi", "60", *argv]
    assert cli.main([*argv, "--quiet", "--out", f"{tmp_path}/"]) == 0
    assert len(list(tmp_path.iterdir())) == files
    assert (counts.opened, counts.forward, counts.copied) == (1, 1, 0)


def test_the_network_is_copied_once_for_another_precision(tmp_path, counts, capsys):
    """And runs once more, in float32, to compare with."""
    argv = ["--type", "detr", "--attention", "cross", "encoder", "decoder", "--queries", "top:2"]
    argv += ["--precision", "bfloat16", "--dpi", "60"]
    assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
    assert (counts.opened, counts.forward, counts.copied) == (1, 2, 1)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: bf")]
    assert len(notes) == 3  # of each view
    assert cli.main([*argv, "--out", f"{tmp_path}/", "--quiet"]) == 0
    assert (counts.opened, counts.forward, counts.copied) == (2, 3, 2)  # nobody would hear of it


def test_a_batch_copies_once_and_compares_its_first_image(tmp_path, counts, capsys):
    folder_of_scenes(tmp_path / "in", 3)
    argv = ["--type", "detr", "--attention", "cross", "encoder", "--queries", "top:1"]
    argv += ["--size", "64", "--precision", "bfloat16", "--dpi", "60", "--jobs", "1"]
    argv += ["--image", f"{tmp_path}/in", "--out", f"{tmp_path}/out"]
    assert cli.main(argv) == 0
    assert counts.copied == 1 and counts.forward == 3 + 1
    assert capsys.readouterr().err.count("bfloat16 moves the attention weights of") == 1


def test_the_union_of_needs():
    one = Needs("last", (("encoder", 0),))
    other = Needs((2, 0), (("encoder", 0), ("decoder", "all")), redecode=True)
    assert one | other == Needs(("last", 2, 0), (("encoder", 0), ("decoder", "all")), True)
    assert one | one == one
    recipe = Recipe((), layer=0, views=("cross", "encoder", "decoder"))
    assert needs_of(recipe) == Needs((0, "last"), (("encoder", 0), ("decoder", 0)))


def test_each_view_shows_its_own_layers_whatever_the_others_need(tmp_path):
    """Pixels and digests are those of a run of that view alone."""
    argv = ["--type", "cd_detr", "--queries", "top:2", "--layer", "0", "--dpi", "60", "--quiet"]
    names = ["cross", "encoder", "decoder"]
    cli.main([*argv, "--attention", *names, "--save-maps", "--out", f"{tmp_path}/all/"])
    for name in names:
        cli.main([*argv, "--attention", name, "--save-maps", "--out", f"{tmp_path}/alone/"])
    made = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}
    alone = {path.name: path.read_bytes() for path in (tmp_path / "alone").iterdir()}
    assert len(made) == 7 and made == alone


ALL = {
    "cross": {},
    "terms": {"plot": "terms"},
    "ablation": {"removed": ("content", "head:0")},
    "biography": {"biography": True, "queries": "9", "layer": "all"},
    "encoder": {"views": ("encoder",)},
    "decoder": {"views": ("decoder",)},
    "rollout": {"views": ("rollout",)},
    "rollout_encoder": {"views": ("rollout_encoder",)},
    "faithfulness": {"views": ("faithfulness",)},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What was measured, for each of ALL: its recipe; all drawn by one process without torch."""
    folder = tmp_path_factory.mktemp("drawn")
    model, made = demo_model("detr"), {}
    for what, more in ALL.items():
        recipe = of_models([model], Recipe((), **{"queries": "top:2"} | more))
        needs = needs_of(recipe)
        layers = list(needs.layers) if isinstance(needs.layers, tuple) else needs.layers
        e = explain(model, IMAGE, layers=layers, sites=list(needs.sites))
        made[what] = measure([e], recipe), recipe
    (folder / "in").write_bytes(pickle.dumps(list(made.items())))
    code = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from detr_viz.images.read import load_image\n"
        "from detr_viz.render.paths import OutputPaths\n"
        "from detr_viz.render.run import draw\n"
        "for what, (measured, recipe) in pickle.loads(Path('in').read_bytes()):\n"
        "    paths = OutputPaths(Path(what), '', ('.png', '.npz'), True)\n"
        f"    draw(measured, load_image({str(IMAGE)!r}), recipe, paths, 'a')\n"
        "    assert 'torch' not in sys.modules, what\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, made


@pytest.mark.parametrize("what", ALL)
def test_what_was_measured_is_drawn_without_torch(drawn, what):
    folder, made = drawn
    measured, recipe = made[what]
    files = list((folder / what).iterdir())
    assert {path.suffix for path in files} >= {".png", ".tex"} and len(files) >= 3
    digest = recipe.of_view(recipe.views[0]).digest_of(measured_sha(measured), str(IMAGE))
    assert all(carries(path, digest) for path in files)


def measured_sha(measured) -> str:
    (result,) = measured.results.values()
    return result.shown[0].image.sha256


# ---- a view of one's own ------------------------------------------------------------------------


def test_a_toy_view_is_a_file_and_a_line_of_the_registry(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(views.REGISTRY, "toy", ViewEntry("toy_view"))
    argv = ["--type", "detr", "--attention", "toy", "--queries", "top:2", "--out", f"{tmp_path}/"]
    assert cli.main([*argv, "--save-maps", "--caption"]) == 0
    stem = f"{tmp_path}/scene_1_detr_combine_toy"
    e = explain(demo_model("detr"), IMAGE)
    best = e.by_score()[:2]
    maps = e.maps("combine", best).mean(1)
    known = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    with np.load(f"{stem}.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["peaks"], known)
        assert json.loads(str(saved["meta"]))["queries"] == best
    with Image.open(f"{stem}.png") as picture:
        assert picture.text["Title"] == "DETR: peaks" and picture.size == (100, 100)
    assert "DETR: peaks" in (tmp_path / "scene_1_detr_combine_toy.tex").read_text()
    out = capsys.readouterr().out
    assert f"peak of query {best[0]}: {known[0][0]}, {known[0][1]}" in out
    assert f"wrote {stem}.npz" in out
