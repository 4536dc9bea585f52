"""Sparse R-CNN through the whole tool: a small file, and every command that has a meaning."""

from __future__ import annotations

import csv
import pickle

import numpy as np
import pytest
import torch
from conftest import ROOT
from network_tools import TINY_ROI, tiny
from PIL import Image

from detr_viz import cli, explain, heatmaps, load_model
from detr_viz.common.errors import UserError
from detr_viz.detections.known_classes import COCO_80_NAMES
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.stored import store
from detr_viz.heatmaps.compare import judge
from detr_viz.heatmaps.limits import EXACT
from detr_viz.heatmaps.schema import HeatmapError
from detr_viz.images.preprocessing import ROUNDED, Preprocessing

WHY = "Sparse R-CNN has only combine"


def state_dict() -> dict[str, torch.Tensor]:
    """Random weights in the official format, of 80 classes."""
    model = tiny("sparse_rcnn", num_logits=80)
    torch.manual_seed(3)
    values = {k: v.clone() for k, v in model.network.state_dict().items()}
    for key, value in values.items():
        if key.endswith(("in_proj_weight", "dynamic_layer.weight", "class_logits.weight")):
            value.normal_(std=0.5)
    return values


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "small.pth"
    meta = {"type": "sparse_rcnn", "nheads": TINY_ROI.nheads, "canonical_px": 40.0}
    torch.save({"model": state_dict(), "meta": meta}, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)).save("cat.png")
    return tmp_path


@pytest.fixture(scope="module")
def explained(weights):
    photo = np.asarray(Image.open(ROOT / "image/photo_cat.jpg").resize((150, 110)))
    return explain(load_model(weights), photo, size=96, layers="all", sites=["decoder"])


def argv(weights, *more: str) -> list[str]:
    common = ["--type", "sparse_rcnn", "--weights", str(weights), "--image", "cat.png"]
    return [*common, "--size", "96", "--queries", "top:2", *more]


def test_names_and_preprocessing(weights):
    info = load_model(weights).info
    assert info.class_names == COCO_80_NAMES and info.class_names[0] == "person"
    assert (info.num_heads, info.self_heads, info.num_levels) == (1, 2, 2)
    assert info.num_encoder_layers == 0 and info.modes == ("combine",)
    how = info.preprocessing_at()
    assert (how.size, how.max_size, how.rescale, how.multiple) == (800, 1333, 1.0, 32)
    x = load_model(weights).prepare(np.full((1, 33, 64, 3), 200, np.uint8))
    assert x.pixels.shape == (1, 3, 64, 64) and x.valid_hw == (33, 64)
    expected = (200 - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    assert np.allclose(x.pixels[0, :, 0, 0], expected, atol=1e-6)
    assert (x.pixels[0, :, 33:] == 0).all()


@pytest.mark.parametrize(
    ("hw", "expected"),
    # ResizeShortestEdge(800, 1333) of detectron2, by hand
    [
        ((480, 640), (800, 1067)),  # 1066.67: rounded, where DETR truncates
        ((640, 427), (1199, 800)),  # 1199.06
        ((200, 640), (417, 1333)),  # by the bound: 416.56
        ((100, 1000), (133, 1333)),
        ((1, 4000), (1, 1333)),
    ],
)
def test_detectron2_rounds_sizes(hw, expected):
    assert Preprocessing(rule=ROUNDED).input_hw(hw) == expected


def test_explanation(explained):
    e = explained
    assert e.attention_kind == "roi" and e.layers == (0, 1)
    assert all(r < 1e-5 for r in e.residuals.values())
    for layer in e.layers:
        share, boxes, bias_share = e.cells([4, 1], layer)
        assert share.shape == (2, 1, 7, 7)
        assert np.allclose(share.sum((1, 2, 3)) + bias_share, 1, atol=1e-4)
        # the box that enters the stage: the first ones, then the output of the stage before
        before = e.output(layer - 1).boxes_xyxy_px if layer else e.reference_boxes[0]
        assert np.allclose(boxes, before[[4, 1]], atol=1e-3)
        assert np.allclose(boxes, e.references(layer)[[4, 1]], atol=1e-3)
    maps = e.maps("combine", [4, 1])
    assert maps.shape == (2, 1, *e.grid_hw)
    assert np.allclose(maps.sum((2, 3)) + e.outside("combine", [4, 1]), 1, atol=1e-5)
    inside = e.attention(("decoder", 1), "combine", [0])
    assert inside.shape == (1, 2, 6) and np.allclose(inside.sum(-1), 1, atol=1e-5)
    with pytest.raises(UserError, match=f"{WHY}, no 'position': a box says where"):
        e.maps("position", [0])
    kept = store(e, [4], ["combine"])
    assert np.array_equal(kept.cells([4])[0], e.cells([4])[0])
    with pytest.raises(ValueError, match="not kept"):
        kept.cells([1])


def test_saved_numbers(explained, tmp_path):
    heatmaps.save(tmp_path / "a.npz", explained, [4, 1], ["combine"])
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["cells_share"].shape == (2, 7, 7)
        assert archive["cells_boxes"].shape == (2, 4)
        assert archive["cells_bias_share"].shape == (2,)
        assert str(archive["kind"]) == "roi"
    old = heatmaps.load(tmp_path / "a.npz")
    share, boxes, bias_share = explained.cells([4, 1])
    assert np.array_equal(old.cells_share, share[:, 0])
    assert np.array_equal(old.cells_boxes, boxes)
    assert np.array_equal(old.cells_bias_share, bias_share)
    assert judge(old, old, EXACT).same

    moved = old.cells_share.copy()
    moved[1, 2, 3] += 0.5
    moved[1, 4, 4] -= 0.3
    moved[1, 5, 5] -= 0.2
    other = type(old)(**{**vars(old), "cells_share": moved})
    (far,) = [c for c in judge(old, other, EXACT).parts if c.excess > 1]
    assert (far.part, far.query, far.point) == ("cell", 1, 2 * 7 + 3)
    assert abs(far.change - 0.5) < 1e-6

    wrong = type(old)(**{**vars(old), "cells_share": old.cells_share * 2 + 0.1})
    with pytest.raises(HeatmapError, match="do not sum to 1"):
        heatmaps.write(tmp_path / "b.npz", wrong)


def test_ablations(explained):
    e = explained
    before = e.ablate("cells:row:3", layers=0).before
    assert np.allclose(before.class_scores, e.class_scores, atol=1e-6)
    # the head's output is that of all cells: only the bias of the output layer is left
    every = torch.ones(1, 6, 49, dtype=torch.bool)
    scores = e.model.scores_with_hidden(e.memory, every, [0, 1])
    assert np.allclose(e.ablate("head:0").after.class_scores, scores[0], atol=1e-6)
    for side in ("inside", "outside"):
        assert np.abs(e.ablate(f"box:{side}").after.scores - e.scores).max() > 1e-4
    one = e.ablate("cells:column:6", layers=1)
    hidden = torch.zeros(6, 7, 7, dtype=torch.bool)
    hidden[:, :, 6] = True
    scores = e.model.scores_with_hidden(e.memory, hidden.flatten(1)[None], [1])
    assert np.allclose(one.after.class_scores, scores[0], atol=1e-6)


def test_faithfulness_goes_by_cells(explained):
    e = explained
    found = faithfulness(e, [4], ["combine"], orders=2)
    assert np.allclose(found.shares * 49, np.round(found.shares * 49))
    assert found.shares[-1] == 1
    ranked = np.argsort(-e.cells([4])[0].reshape(-1), kind="stable")
    hidden = torch.zeros(1, 6, 49, dtype=torch.bool)
    hidden[0, 4, ranked[:6]] = True
    scores = e.model.scores_with_hidden(e.memory, hidden, [0, 1])
    step = int(np.flatnonzero(found.shares * 49 == 6)[0])
    assert abs(found.deletion["combine"][0, step] - float(scores[0, 4, e.labels[4]])) < 1e-6


@pytest.mark.parametrize(
    "more",
    [
        ("--style", "cells", "--layer", "all"),
        (
            "--style",
            "heat",
        ),
        ("--attention", "decoder", "--heads", "1"),
        ("--ablate", "box:inside", "cells:row:0"),
        ("--level", "1"),
    ],
)
def test_commands(here, weights, capsys, more):
    assert cli.main(argv(weights, *more, "--out", "a.png")) == 0
    out, err = capsys.readouterr()
    assert err == "" and "wrote" in out.splitlines()[-1]
    assert list(here.glob("a*.png"))


REFUSED = {
    ("--plot", "position"): f"{WHY}, no 'position': a box says where its query reads",
    ("--plot", "content"): f"{WHY}, no 'content': a box says where its query reads",
    ("--plot", "terms"): f"{WHY}, no 'cq.ck': a box says where its query reads",
    ("--ablate", "content"): f"{WHY}, no 'content': a box says where",
    ("--ablate", "term:cq.pk"): f"{WHY}, no 'term:cq.pk'",
    ("--ablate", "level:0"): "no level:0: it does not sample levels",
    ("--ablate", "row"): "its maps are not the product of a row and a column",
    ("--ablate", "cells:row:7"): "no row 7 of cells: boxes have rows 0..6",
    ("--ablate", "cells:diagonal:1"): "cannot be removed",
    ("--style", "points"): "style points shows where heads sample the image",
    ("--heads", "1"): "Sparse R-CNN has no heads that look at the image",
    ("--attention", "encoder"): "this model has no encoder layers",
    ("--rollout",): "this model has no encoder layers",
    ("--layer", "2"): "no stage 2",
    ("--dilation",): "Sparse R-CNN has no dilation",
    ("--nheads", "3"): "3 heads do not divide the model width 16",
    ("--plot", "proposals"): "proposals",
    ("--plot", "salience"): "salience",
}


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_what_has_no_meaning_is_one_line(here, weights, capsys, flags):
    try:
        code = cli.main(argv(weights, *flags, "--out", "a.png"))
    except SystemExit as stop:  # of argparse
        code = stop.code
    assert code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert REFUSED[flags] in err
    assert not list(here.glob("a*"))


def numpy_file(path, change=None) -> str:
    values = {k: v.numpy() for k, v in state_dict().items()}
    if change is not None:
        change(values)
    path.write_bytes(pickle.dumps({"model": values, "__author__": "x"}, 4))
    return str(path)


def test_a_pickle_of_arrays_is_the_same_model(here, weights):
    a = load_model(weights, nheads=2)
    b = load_model(numpy_file(here / "small.pkl"), nheads=2)
    assert b.info.type == "sparse_rcnn" and b.info.class_names == COCO_80_NAMES
    for key, value in a.network.state_dict().items():
        assert torch.equal(value, b.network.state_dict()[key])


SERIES = "head.head_series.0.inst_interact."
DAMAGED = {
    "lacks 1 of": lambda v: v.pop(f"{SERIES}norm3.bias"),
    "has 1 tensors beyond those of Sparse R-CNN": lambda v: v.update(
        {"head.extra.weight": np.ones((2, 2), np.float32)}
    ),
    "NaN or infinite": lambda v: v["init_proposal_boxes.weight"].fill(np.nan),
    "not 2 filters of": lambda v: v.update(
        {f"{SERIES}dynamic_layer.weight": np.ones((100, 16), np.float32)}
    ),
    "init_proposal_boxes.weight has shape": lambda v: v.update(
        {"init_proposal_boxes.weight": np.ones((5, 4), np.float32)}
    ),
    "has no backbone.bottom_up.res2.0.conv1.weight": lambda v: [
        v.pop(k) for k in list(v) if ".res2." in k
    ],
    "they must follow each other": lambda v: [v.pop(k) for k in list(v) if "fpn_lateral" in k],
}


@pytest.mark.parametrize("words", DAMAGED)
def test_damaged_files(here, words):
    path = numpy_file(here / "x.pkl", DAMAGED[words])
    with pytest.raises(UserError, match=words) as error:
        load_model(path, nheads=2)
    assert "\n" not in str(error.value)


def test_a_file_of_another_type_is_refused(here, weights):
    with pytest.raises(UserError, match=r"Sparse R-CNN"):
        load_model(weights, "anchor_detr")


def test_batch_and_resume(here, weights, capsys):
    for i in range(3):
        Image.open("cat.png").rotate(5 * i).save(f"p{i}.png")
    run = ["--type", "sparse_rcnn", "--weights", str(weights), "--image", "p*.png", "--size", "64"]
    run += ["--queries", "top:1", "--layer", "all", "--save-maps", "--jobs", "1", "--quiet"]
    assert cli.main([*run, "--out", "all/"]) == 0
    files = sorted(p.name for p in (here / "all").rglob("p*.npz"))
    assert len(files) == 6
    before = {p: p.read_bytes() for p in (here / "all").rglob("p*.npz")}
    next(iter(before)).unlink()
    assert cli.main([*run, "--resume", "--out", "all/"]) == 0
    assert {p: p.read_bytes() for p in (here / "all").rglob("p*.npz")} == before
    capsys.readouterr()


def test_atlas(here, weights):
    run = ["atlas", "--type", "sparse_rcnn", "--weights", str(weights), "--image", "cat.png"]
    assert cli.main([*run, "--size", "64", "--queries", "top:3", "--out", "atlas/"]) == 0
    (path,) = (here / "atlas").glob("*.csv")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if "even" not in row["mode"]]
    (row,) = rows
    assert row["mode"] == "combine" and row["objects"] == "3"
    assert 0 < float(row["mass_in_box"]) < 1
