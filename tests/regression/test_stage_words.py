"""Reports on models with stages: they say stage, and no head, in tables, pages and file names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, demo_model
from PIL import Image

from detr_viz import cli, explain, heatmaps
from detr_viz.heatmaps import npz
from detr_viz.heatmaps.compare import Outcome, judge
from detr_viz.regression.page import page
from detr_viz.regression.tables import lines, worst

SCENE = ROOT / "image/scene_1.jpg"


@pytest.fixture(scope="module")
def saved():
    e = explain(demo_model("sparse_rcnn"), np.asarray(Image.open(SCENE)), layers="all")
    return npz.of(e, e.by_score()[:2], ["combine"], layer=1)


def moved(saved):
    """Its first query's map lies elsewhere, and one cell of its box has more."""
    maps, share = saved.maps["combine"].copy(), saved.cells_share.copy()
    maps[0] = maps[0, :, ::-1]
    share[0, 0, 0] += 0.25
    return replace(saved, maps={"combine": maps}, cells_share=share)


def test_a_change_is_of_a_stage(saved):
    verdict = judge(saved, moved(saved))
    assert verdict.stages and not verdict.same
    assert worst(verdict).startswith("worst: combine, stage 1, query ")
    text = "\n".join(lines("a.npz", verdict))
    assert "stage" in text and "head" not in text and "layer" not in text
    assert "share of cell 0 of the box" in text


def test_columns_stand_under_their_titles(saved):
    verdict = judge(saved, moved(saved))
    rows = [*lines("a.npz", verdict)]
    (title,) = [i for i, row in enumerate(rows) if "max |d|" in row]
    end = rows[title].index("max |d|") + len("max |d|")
    value = rows[title + 2][:end].split()[-1]
    assert float(value) == pytest.approx(verdict.heads[0].max_abs, rel=0.05)
    start = rows[title].index("stage")
    assert rows[title + 2][start : start + 10].strip() == "1"


def test_other_models_have_heads():
    e = explain(demo_model("detr"), np.asarray(Image.open(SCENE)))
    one = npz.of(e, e.by_score()[:1], ["combine"])
    other = replace(one, maps={"combine": one.maps["combine"][:, :, ::-1]})
    assert not judge(one, other).stages
    assert ", layer 2, head " in worst(judge(one, other))


def test_the_page_says_stage(saved):
    verdict = judge(saved, moved(saved))
    text = page([Outcome("a.npz", verdict=verdict, old=saved, new=moved(saved))])
    assert "combine, stage 1</b>" in text and "<th>stage<th>query" in text
    assert "head 0" not in text and "<th>layer" not in text


@pytest.mark.parametrize(("name", "end"), [("sparse_rcnn", "stage"), ("detr", "layer")])
def test_names_of_baselines(tmp_path, name, end, capsys):
    argv = ["record", "--type", name, "--image", str(SCENE), "--plot", "combine"]
    argv += ["--queries", "top:1", "--layer", "0", "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    (path,) = tmp_path.glob("*.npz")
    assert path.name.endswith(f"_combine_{end}0.npz")
    assert heatmaps.load(path).meta["layer"] == 0
    assert cli.main(["check", str(tmp_path)]) == 0
    capsys.readouterr()
