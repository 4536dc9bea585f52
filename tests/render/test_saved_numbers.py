"""--save-maps of every view: the file holds the library's own numbers. And a caption of each."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from conftest import demo_model

from detr_viz import cli, explain
from detr_viz.common import assets
from detr_viz.explanation import rollout
from detr_viz.explanation.faithfulness import faithfulness

IMAGE = assets.find(assets.DEFAULT_IMAGE)
POINTS = [(100.0, 200.0), (300.0, 50.0)]
POINT_FLAGS = ["--points", "100,200", "300,50"]


@pytest.fixture(scope="module")
def e():
    """All of it."""
    sites = ["encoder", "decoder"]
    return explain(demo_model("cd_detr"), IMAGE, layers="all", sites=sites)


@pytest.fixture
def saved(tmp_path):
    """Run a command that writes numbers alone; the one file of them."""

    def run(*argv: str):
        argv = ["--type", "cd_detr", *argv, "--format", "csv", "--quiet"]
        assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
        (path,) = tmp_path.iterdir()
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    return run


def cells_of(e) -> list[int]:
    rows, columns = e.cell_centers_px()
    at = [(abs(rows - y).argmin(), abs(columns - x).argmin()) for x, y in POINTS]
    return [int(row * e.grid_hw[1] + column) for row, column in at]


def test_encoder(e, saved):
    found = saved("--attention", "encoder", *POINT_FLAGS, "--layer", "all", "--plot", "all")
    cells = cells_of(e)
    assert found["points_xy_px"].tolist() == [list(point) for point in POINTS]
    assert (found["cells"] @ [1, e.grid_hw[1]]).tolist() == cells
    assert found["layers"].tolist() == [0]
    for mode in e.modes:
        for layer, maps in zip(found["layers"], found[f"maps_{mode}"], strict=True):
            known = e.attention(("encoder", int(layer)), mode, cells)
            np.testing.assert_array_equal(maps.reshape(known.shape), known)
    meta = json.loads(str(found["meta"]))
    assert meta["view"] == "encoder" and re.fullmatch("[0-9a-f]{64}", meta["recipe_sha256"])


def test_decoder(e, saved):
    found = saved("--attention", "decoder", "--queries", "11,15", "--layer", "0,2")
    assert found["query_ids"].tolist() == [11, 15] and found["layers"].tolist() == [0, 2]
    for i, layer in enumerate((0, 2)):
        known = e.attention(("decoder", layer), "combine", [11, 15])
        np.testing.assert_array_equal(found["weights_combine"][i], known)
        np.testing.assert_array_equal(found["boxes_xyxy_px"][i], e.output(layer).boxes_xyxy_px)


def test_rollout(e, saved):
    found = saved("--rollout", "--queries", "11,15")
    known = rollout.of_queries(e, [11, 15])
    for name in ("last", "decoder", "both"):
        maps = found[f"maps_{name}"]
        assert maps.shape == (2, *e.grid_hw)
        np.testing.assert_array_equal(maps.reshape(2, -1), getattr(known, name))


def test_rollout_of_points(e, saved):
    found = saved("--rollout", "--attention", "encoder", *POINT_FLAGS)
    known = rollout.of_cells(e, cells_of(e), stays=False)
    np.testing.assert_array_equal(found["maps_rollout"].reshape(2, -1), known)
    last = e.attention(("encoder", 0), "combine", cells_of(e)).mean(1)
    np.testing.assert_allclose(found["maps_last"].reshape(2, -1), last, atol=1e-7)


def test_terms(e, saved):
    found = saved("--plot", "terms", "--queries", "11,15", "--layer", "1")
    book = e.logit_terms([11, 15], 1)
    assert {name[7:] for name in found if name.startswith("logits_")} == set(book.terms)
    for name, part in book.terms.items():
        np.testing.assert_array_equal(found[f"logits_{name}"], part)
        np.testing.assert_array_equal(found[f"shares_{name}"], book.shares[name])
    np.testing.assert_array_equal(found["total"], book.total)
    np.testing.assert_array_equal(found["weights"], book.weights)


def test_curves(e, saved):
    rows = saved("--faithfulness", "--queries", "11", "--plot", "position")
    known = faithfulness(e, [11], ["position"])
    by: dict[tuple[str, ...], list[float]] = {}
    shares: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        key = row["curve"], row["cells by"], row["order"]
        by.setdefault(key, []).append(float(row["score"]))
        shares.setdefault(key, []).append(float(row["share"]))
        assert row["query"] == "11" and row["class"] == e.label_name(11)
    assert len(by) == 2 + known.random.shape[1]
    assert by["deletion", "position", ""] == pytest.approx(known.deletion["position"][0], abs=1e-6)
    insertion = by["insertion", "position", ""]
    assert insertion == pytest.approx(known.insertion["position"][0], abs=1e-6)
    for k, curve in enumerate(known.random[0]):
        assert by["deletion", "random", str(k)] == pytest.approx(curve, abs=1e-6)
        assert shares["deletion", "random", str(k)] == pytest.approx(known.shares, abs=1e-6)


def test_ablations(e, saved):
    rows = saved("--ablate", "content", "head:3", "--ablate-in", "1", "--queries", "11,15")
    asked = [(q, part) for q in (11, 15) for part in ("content", "head:3")]
    assert [(int(row["query"]), row["without"]) for row in rows] == asked
    for row, (query, part) in zip(rows, asked, strict=True):
        known = e.ablate(part, 1)
        assert row["in layers"] == "1"
        assert float(row["score before"]) == pytest.approx(known.before.scores[query], abs=1e-6)
        assert float(row["score after"]) == pytest.approx(known.kept_scores()[query], abs=1e-6)
        assert float(row["box IoU"]) == pytest.approx(known.iou[query], abs=1e-6)
        box = [float(row[side]) for side in ("left", "top", "right", "bottom")]
        assert box == pytest.approx(known.after.boxes_xyxy_px[query], abs=0.051)
        assert row["class after"] == e.class_names[known.after.labels[query]]


# ---- captions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "ends", "says"),
    [
        (["--attention", "encoder"], [""], "encoder self-attention of each head"),
        (["--attention", "decoder"], ["", "_matrix"], "decoder self-attention"),
        (["--rollout"], [""], "rollout is an approximation"),
        (["--rollout", "--attention", "encoder"], [""], "what cells are made of"),
        (["--faithfulness"], [""], "deletion: those of most weight are hidden"),
        (["--ablate", "content"], [""], "combine attention of each head, without content"),
        (["--plot", "terms"], [""], "orange adds attention, blue takes it away"),
        (["--biography", "11"], [""], "a query's biography"),
        (["--heads", "max"], [""], "the largest weight of any head"),
    ],
)
def test_every_figure_has_a_caption(tmp_path, argv, ends, says):
    queries = [] if "--biography" in argv else ["--queries", "top:2"]
    argv = ["--type", "detr", *argv, *queries, "--dpi", "60", "--caption", "--quiet"]
    assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
    texts = {path.stem: path.read_text() for path in tmp_path.glob("*.tex")}
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert set(texts) == figures and len(texts) == len(ends)
    assert any(says in text for text in texts.values())
    for stem, text in texts.items():
        assert f"{{{stem}.png}}" in text
        (caption,) = re.findall(r"\\caption\{(.*)\}$", text, re.MULTILINE)
        assert caption.startswith("DETR") and r"\texttt{scene\_1.jpg}" in caption
        assert caption.count("{") == caption.count("}") and caption.count("$") % 2 == 0
        assert re.search(r"^% weights detr_demo\.pth sha256 [0-9a-f]{64}$", text, re.MULTILINE)
