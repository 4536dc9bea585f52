"""Saved maps compared: verdicts on files whose difference is known, and the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import demo_explanation, demo_model

from detr_viz import cli, explain, heatmaps
from detr_viz.common import assets
from detr_viz.heatmaps.compare import judge
from detr_viz.heatmaps.limits import COARSE, EXACT, Limits, between
from detr_viz.heatmaps.npz import Heatmaps
from detr_viz.regression.tables import lines
from detr_viz.render.numbers import Arrays

HW, HEADS = (5, 8), 4


def saved(queries: int = 3, modes=("combine", "position"), **meta) -> Heatmaps:
    """Made-up maps of queries 10, 11, ... whose boxes do not touch."""
    drawn = np.random.default_rng(7).random((queries, HEADS, *HW)) ** 6
    drawn /= drawn.sum((-2, -1), keepdims=True)
    left = 50.0 * np.arange(queries)
    boxes = np.stack([left, 0 * left, left + 40, 0 * left + 40], -1)
    return Heatmaps(
        maps={mode: drawn.astype(np.float32) for mode in modes},
        outside={mode: np.zeros((queries, HEADS), np.float32) for mode in modes},
        query_ids=np.arange(10, 10 + queries),
        scores=np.linspace(0.9, 0.5, queries).astype(np.float32),
        labels=np.arange(queries),
        label_names=np.asarray([f"class {i}" for i in range(queries)]),
        boxes_xyxy_px=boxes.astype(np.float32),
        image_hw_px=np.asarray([100, 200]),
        grid_hw=np.asarray([HW]),
        strides=np.asarray([16]),
        kind="dense",
        valid_hw_px=np.asarray([80, 128]),
        input_hw_px=np.asarray([80, 128]),
        layers=np.asarray([5]),
        meta={"weights_sha256": "ab" * 32, "image_sha256": "cd" * 32, "layer": 5, **meta},
    )


def with_map(maps: Heatmaps, mode: str, query: int, head: int, change) -> Heatmaps:
    """The same but for one map."""
    made = {name: array.copy() for name, array in maps.maps.items()}
    made[mode][query, head] = change(made[mode][query, head])
    return replace(maps, maps=made)


def test_equal_files_are_the_same():
    verdict = judge(saved(), saved(), Limits(0, 0, 0, 1, 0))
    assert verdict.same and verdict.changed == ()
    assert len(verdict.heads) == 3 * HEADS * 2 and len(verdict.queries) == 3
    assert {change.excess for change in (*verdict.heads, *verdict.queries)} == {0.0}


def test_the_map_that_changed_is_named_first():
    verdict = judge(saved(), with_map(saved(), "position", 1, 2, lambda m: m[::-1]))
    worst = verdict.heads[0]
    assert not verdict.same
    assert (worst.mode, worst.query, worst.label, worst.head) == ("position", 11, "class 1", 2)
    assert [change.excess > 1 for change in verdict.heads] == [True] + [False] * 23
    a = saved().maps["position"][1, 2].astype(float)
    assert worst.max_abs == pytest.approx(np.abs(a - a[::-1]).max())
    assert worst.total_variation == pytest.approx(np.abs(a - a[::-1]).sum() / 2)


def test_what_is_less_exact_has_limits_of_its_own():
    exact, coarse = {"precision": "float32"}, {"precision": "bfloat16"}
    assert between(exact, exact) == between({}, exact) == EXACT
    assert between(exact, coarse) == between(coarse, exact) == COARSE
    assert between(exact, {"precision": ["bfloat16"]}) == EXACT  # a file that makes things up
    assert between(coarse, coarse, atol=0.5) == replace(COARSE, atol=0.5)
    a, b = saved(precision="bfloat16"), saved(precision="bfloat16")
    near = with_map(b, "combine", 0, 0, lambda m: 0.9 * m + 0.1 * m[::-1])
    assert judge(a, near).same
    assert not judge(
        replace(a, meta={**a.meta, **exact}), replace(near, meta={**near.meta, **exact})
    ).same


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        (Limits(0.02, 1, 9, 0, 1), True),
        (Limits(0.005, 1, 9, 0, 1), False),  # atol
        (Limits(1, 0.02, 9, 0, 1), True),
        (Limits(1, 0.005, 9, 0, 1), False),  # total variation
        (Limits(1, 1, 0.5, 0, 1), True),
        (Limits(1, 1, 0.001, 0, 1), False),  # the centre of mass has moved a little
    ],
)
def test_each_limit_by_itself(limits, same):
    def moved(cells):
        made = cells.copy()
        made.flat[cells.argmax()] -= 0.01
        made.flat[cells.argmin()] += 0.01
        return made

    assert judge(saved(), with_map(saved(), "combine", 0, 0, moved), limits).same is same


@pytest.mark.parametrize(("min_iou", "same"), [(0.9, False), (0.8, True), (0, True)])
def test_boxes(min_iou, same):
    new = saved()
    boxes = new.boxes_xyxy_px.copy()
    boxes[1, 2] += 6  # 40 of 46 px: an overlap of 0.87
    verdict = judge(saved(), replace(new, boxes_xyxy_px=boxes), replace(EXACT, min_iou=min_iou))
    assert verdict.same is same
    assert verdict.queries[0].query == 11
    assert verdict.queries[0].iou == pytest.approx(40 / 46)


def test_another_class_is_another_answer():
    names = saved().label_names.copy()
    names[2] = "dog"
    verdict = judge(saved(), replace(saved(), label_names=names), Limits(1, 1, 99, 0, 1))
    assert not verdict.same and verdict.queries[0].labels == ("class 2", "dog")


def test_order_and_count_of_queries():
    old = saved()
    turned = {name: getattr(old, name)[::-1] for name in ("query_ids", "scores", "labels")}
    turned |= {name: getattr(old, name)[::-1] for name in ("label_names", "boxes_xyxy_px")}
    maps = {mode: array[::-1] for mode, array in old.maps.items()}
    assert judge(old, replace(old, maps=maps, **turned), Limits(0, 0, 0, 1, 0)).same
    verdict = judge(old, saved(2))
    assert not verdict.same and verdict.gone == (12,) and verdict.new == ()
    verdict = judge(saved(2), old)
    assert not verdict.same and verdict.gone == () and verdict.new == (12,)


def test_other_weights_are_matched_by_their_boxes():
    """Ids are turned round, the image is twice as large; one query lies elsewhere."""
    old = saved()
    new = replace(
        saved(weights_sha256="ef" * 32),
        query_ids=np.asarray([3, 2, 1]),
        boxes_xyxy_px=old.boxes_xyxy_px[::-1] * 2,
        label_names=old.label_names[::-1],
        labels=old.labels[::-1],
        scores=old.scores[::-1],
        maps={mode: array[::-1] for mode, array in old.maps.items()},
        image_hw_px=np.asarray([200, 400]),
    )
    verdict = judge(old, new, Limits(0, 0, 0, 1, 0))
    assert verdict.same  # the numbers are; what has changed is said all the same
    assert verdict.changed == (
        "weights file changed (abababab to efefefef)",
        "image size changed (200 x 100 to 400 x 200 px)",
    )
    assert {(q.query, q.other) for q in verdict.queries} == {(10, 1), (11, 2), (12, 3)}
    boxes = new.boxes_xyxy_px.copy()
    boxes[0] += 200
    verdict = judge(old, replace(new, boxes_xyxy_px=boxes))
    assert verdict.gone == (12,) and verdict.new == (3,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"maps": {"combine": saved().maps["combine"]}}, "only one of them has maps of position"),
        ({"grid_hw": np.asarray([[8, 5]])}, "their maps have 8 x 5 and 5 x 8 cells"),
        ({"maps": {m: a[:, :3] for m, a in saved().maps.items()}}, "they have 4 and 3 heads"),
    ],
)
def test_maps_that_cannot_be_compared(change, says):
    verdict = judge(saved(), replace(saved(), **change))
    assert not verdict.same and verdict.cannot == says and verdict.heads == ()


def test_what_has_changed_is_said_in_the_order_in_which_it_explains():
    old = saved(versions={"torch": "2.5.1", "numpy": "2.0"}, device="cpu", scale="mode")
    new = saved(
        versions={"torch": "2.6.0", "numpy": "2.0"},
        device="cuda",
        scale="mode",
        image_sha256="12" * 32,
        layer=4,
    )
    assert judge(old, new).changed == (
        "image changed (cdcdcdcd to 12121212)",
        "recipe changed (layer 5 to 4)",
        "device changed (cpu to cuda)",
        "torch 2.5.1 became 2.6.0",
    )


def test_rounding_of_float16_is_no_change(tmp_path):
    e = demo_explanation("detr")
    modes = list(e.modes)
    exact = heatmaps.load(heatmaps.save(tmp_path / "a.npz", e, range(20), modes))
    half = heatmaps.save(tmp_path / "b.npz", e, range(20), modes, store="float16")
    verdict = judge(exact, heatmaps.load(half), Limits(0, 0, 0.01, 1, 0))
    assert verdict.same and 0 < verdict.heads[0].excess <= 1
    assert not judge(
        exact, replace(heatmaps.load(half), meta=exact.meta), Limits(0, 0, 0.01, 1, 0)
    ).same


# ---- what is printed ----------------------------------------------------------------------------


def test_lines_fit_a_terminal_and_name_the_worst():
    old = saved(40, weights_sha256="ef" * 32, versions={f"library{i}": "1" for i in range(9)})
    new = saved(40, versions={f"library{i}": "2.13.4" for i in range(9)})
    names = np.asarray([f"a class\nof a very long name {i}" for i in range(40)])
    maps = {mode: array[..., ::-1] for mode, array in new.maps.items()}
    verdict = judge(old, replace(new, maps=maps, label_names=names))
    told = list(lines("x.npz", verdict))
    assert told[0] == "different  x.npz"
    assert max(map(len, told)) <= 79 and not any("\n" in line for line in told)
    assert any(line.strip() == "and 28 more" for line in told)  # queries: all have another class
    assert any(line.strip() == f"and {40 * HEADS * 2 - 12} more" for line in told)
    worst = verdict.heads[0]
    row = next(line for line in told if line.split()[:2] == [worst.mode, str(worst.query)])
    assert f"{worst.max_abs:.2g}" in row.split() and f"{worst.total_variation:.2g}" in row.split()


def test_what_lies_behind_nothing_that_is_known():
    verdict = judge(saved(), with_map(saved(), "combine", 0, 1, lambda m: m[:, ::-1]))
    told = list(lines("x.npz", verdict))
    assert told[1].strip() == "same inputs, different numbers"
    assert len(told) == 5 and told[4].split()[:6] == ["combine", "10", "class", "0", "5", "1"]


def test_the_same_is_one_line():
    (told,) = lines("x.npz", judge(saved(), saved()))
    assert told == "same       x.npz (0% of the limits used)"


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """a.npz and b.npz of one image, with a layer between them; a folder with a copy of a.npz."""
    monkeypatch.chdir(tmp_path)
    e = demo_explanation("detr")
    heatmaps.save("a.npz", e, [2, 5], ["combine", "position"])
    heatmaps.save("b.npz", e, [2, 5], ["combine", "position"], layer=1)
    for name in ("one/a.npz", "two/a.npz", "one/deep/b.npz", "two/deep/b.npz"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(name).name, name)
    return tmp_path


def compare(capsys, *argv: str) -> tuple[int, list[str]]:
    code = cli.main(["compare", *argv])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out.splitlines()


def test_two_files(here, capsys):
    assert compare(capsys, "a.npz", "a.npz") == (
        0,
        ["same       a.npz and a.npz (0% of the limits used)"],
    )
    code, told = compare(capsys, "a.npz", "b.npz")
    assert code == 1 and told[0] == "different  a.npz and b.npz"
    assert told[1] == "  recipe changed (layer 2 to 1)"
    assert compare(capsys, "a.npz", "a.npz", "--quiet") == (0, [])
    lax = ["--atol", "1", "--max-tv", "1", "--max-shift", "99", "--min-iou", "0"]
    assert compare(capsys, "a.npz", "b.npz", *lax)[0] == 0


def test_two_folders(here, capsys):
    code, told = compare(capsys, "one", "two")
    assert code == 0 and told[-1] == "2 same"
    shutil.copy("a.npz", "two/deep/b.npz")
    shutil.copy("a.npz", "two/new.npz")
    code, told = compare(capsys, "one", "two")
    assert code == 1 and told[-1] == "1 same, 2 different"
    assert "different  deep/b.npz" in told and "different  new.npz: only in two" in told
    code, told = compare(capsys, "one", "two", "--quiet")
    assert code == 1 and not any(line.startswith("same") for line in told)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["a.npz"], "the following arguments are required: B"),
        (["a.npz", "none.npz"], "no file or folder 'none.npz'"),
        (["a.npz", "one"], "give two files or two folders"),
        (["empty", "empty"], "no saved maps (.npz) in empty"),
        (["a.npz", "text.npz"], "text.npz is not a file of saved maps"),
        (["a.npz", "b.npz", "--max-tv", "2"], "'2' is not a number from 0 to 1"),
        (["a.npz", "b.npz", "--atol", "nan"], "'nan' is not a number from 0 to 1"),
        (["a.npz", "b.npz", "--max-shift", "-1"], "'-1' is not a distance in cells"),
        (["a.npz", "b.npz", "--max-shift", "inf"], "'inf' is not a distance in cells"),
        (["a.npz", "b.npz", "--min-iou", "x"], "'x' is not a number from 0 to 1"),
        (["a.npz", "b.npz", "--type", "detr"], "unrecognized arguments"),
    ],
)
def test_mistakes_are_one_line(here, capsys, argv, says):
    Path("empty").mkdir()
    Path("text.npz").write_text("text")
    try:
        code = cli.main(["compare", *argv])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert says in err


def test_a_pair_of_real_runs(tmp_path):
    """Other weights on one image: the objects that both found are compared."""
    image = assets.find(assets.DEFAULT_IMAGE)
    paths = []
    for name in ("detr", "cd_detr"):
        e = explain(demo_model(name), image)
        paths.append(heatmaps.save(tmp_path / f"{name}.npz", e, e.by_score()[:5], ["combine"]))
    old, new = map(heatmaps.load, paths)
    verdict = judge(old, new, EXACT)
    assert not verdict.same and verdict.changed[0].startswith("weights file changed")
    assert len(verdict.queries) >= 3  # both find the scene's objects
    assert all(q.labels[0] == q.labels[1] and q.iou > 0.5 for q in verdict.queries)
    json.dumps([vars(change) for change in verdict.heads])  # plain numbers


# ---- never a wrong "same" -----------------------------------------------------------------------


@pytest.mark.parametrize("where", [np.s_[:], np.s_[0, 0], np.s_[1, 2, 0, 0]])
def test_what_is_no_number_is_different(where):
    made = {mode: array.copy() for mode, array in saved().maps.items()}
    made["position"][where] = np.nan
    with np.errstate(invalid="ignore"):
        verdict = judge(saved(), replace(saved(), maps=made))
    assert not verdict.same and verdict.used == np.inf
    assert verdict.heads[0].mode == "position"


def test_boxes_and_scores_that_are_no_numbers_are_different():
    for name in ("boxes_xyxy_px", "scores"):
        wrong = getattr(saved(), name).copy()
        wrong[0] = np.nan
        with np.errstate(invalid="ignore"):
            assert not judge(saved(), replace(saved(), **{name: wrong})).same


def test_another_score_is_different():
    lower = replace(saved(), scores=saved().scores - np.float32(0.02))
    verdict = judge(saved(), lower)
    assert not verdict.same and verdict.queries[0].excess == pytest.approx(20, rel=1e-3)
    assert judge(saved(), lower, replace(EXACT, max_score=0.03)).same
    assert any("0.900 > 0.880" in line for line in lines("x", verdict))


def test_a_moved_peak_is_different_by_itself():
    """Two cells change places, by so much that only the peak's shift is a limit."""

    def swapped(cells):
        cells = cells.copy()
        flat = cells.ravel()
        first, second = np.argsort(flat)[[-1, -2]]
        flat[[first, second]] = flat[[second, first]]
        return cells

    moved = with_map(saved(), "combine", 0, 0, swapped)
    lax = replace(EXACT, max_tv=1, max_shift=0.99)
    (worst, *_) = judge(saved(), moved, lax).heads
    assert worst.peak_shift >= 1 and worst.excess >= 1
    assert not judge(saved(), moved, replace(lax, atol=0.001)).same


def test_a_box_without_area_is_itself():
    boxes = saved().boxes_xyxy_px.copy()
    boxes[0, 2] = boxes[0, 0]
    thin = replace(saved(), boxes_xyxy_px=boxes)
    assert judge(thin, thin, Limits(0, 0, 0, 1, 0)).same


def test_a_query_whose_box_has_moved_far_is_told_as_that():
    """After other weights, and not as gone and new."""
    boxes = saved().boxes_xyxy_px.copy()
    boxes[1] += 500
    new = replace(saved(weights_sha256="ef" * 32), boxes_xyxy_px=boxes)
    verdict = judge(saved(), new)
    assert (verdict.gone, verdict.new) == ((), ())
    assert (verdict.queries[0].query, verdict.queries[0].iou) == (11, 0.0)


# ---- words --------------------------------------------------------------------------------------


def test_other_queries_alone_are_no_other_numbers():
    whole, names = saved(), ("query_ids", "scores", "labels", "label_names", "boxes_xyxy_px")
    maps = {mode: array[:2] for mode, array in whole.maps.items()}
    fewer = replace(whole, maps=maps, **{name: getattr(whole, name)[:2] for name in names})
    told = list(lines("x", judge(saved(), fewer)))
    assert told[1].strip() == "other queries" and told[2].strip() == "gone: query 12"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_heads": 4}, "recipe changed (heads 8 to 4)"),
        ({"dilation": True}, "recipe changed (dilation False to True)"),
        ({"remake": {"queries": "top:9"}}, "recipe changed (queries top:5 to top:9)"),
    ],
)
def test_the_recipe(change, says):
    said = {"num_heads": 8, "dilation": False, "remake": {"queries": "top:5"}}
    assert judge(saved(**said), saved(**{**said, **change})).changed == (says,)


def test_class_names():
    names = np.asarray(["class 0", "Klasse 1", "class 2"])
    verdict = judge(saved(), replace(saved(), label_names=names))
    assert verdict.changed == ("class names changed (class 1 to Klasse 1)",) and not verdict.same


def test_wide_signs_and_long_modes_fit_a_terminal():
    old = saved(modes=("encoder_self_attention_of_all",))
    names = np.asarray(["\u7ea2\u7eff\u706f" * 5, "a\x1b[31mb", "c" * 90])
    old = replace(old, label_names=names, labels=np.arange(3))
    made = {mode: array[..., ::-1] for mode, array in old.maps.items()}
    new = replace(old, maps=made, label_names=names[[1, 2, 0]], labels=np.asarray([1, 2, 0]))
    for line in lines("evil\n::error::x", judge(old, new)):
        wide = sum(2 if ord(sign) > 0x2E80 else 1 for sign in line)
        assert wide <= 80 and line.isprintable(), line


@pytest.mark.parametrize(
    ("view", "flags"), [("rollout", "--rollout"), ("terms", "--plot terms"), ("x", "a view")]
)
def test_the_numbers_of_a_view_are_no_maps(tmp_path, capsys, view, flags):
    """Such a file is named by the flags that wrote it, on both sides."""
    arrays = {"query_ids": np.arange(2), "maps_last": np.zeros((2, 5, 8), np.float32)}
    path = tmp_path / "view.npz"
    Arrays(arrays, {"view": view, "layer": 5}).write(path, "ab" * 32)
    maps = heatmaps.npz.write(tmp_path / "maps.npz", saved(num_heads=HEADS))
    for pair in ((path, maps), (maps, path), (path, path)):
        assert cli.main(["compare", *map(str, pair)]) == 2
        err = capsys.readouterr().err
        assert f"error: {path} holds the numbers of {flags}" in err and err.count("\n") == 1
        assert "not maps of heads: read it with numpy, or save maps without that" in err
