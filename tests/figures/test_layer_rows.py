"""Several layers in one figure: a row each, with what that layer says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from comparison_tools import (
    A,
    B,
    all_text,
    check_boxes,
    photo_rows,
    placed,
    shared,
    two,
)
from fake_explanation import MODES, FakeExplanation, one_hot
from figure_tools import (
    captions_of,
    check_page,
    texts,
)

from detr_viz import figures

# --- layers -----------------------------------------------------------------------------------


def layered(example: FakeExplanation = A) -> FakeExplanation:
    """Every layer captured, layer 1 calls query 0 a tiger, and each has a peak of its own."""
    e = replace(example, layers=tuple(range(6)), residuals={i: 1e-7 for i in range(6)})
    e.labels_by = {1: np.array([3, *example.labels[1:]])}
    e.made_by = {
        (mode, i): np.broadcast_to(one_hot(e.grid_hw, (i, i), 0.3 + i / 10), e.made.shape)
        for mode in MODES
        for i in range(6)
    }
    return e


def share_in(box: np.ndarray, peak: int, weight: float) -> float:
    """What a box holds of a map of 12 x 16 cells with a peak on the diagonal, cell by cell.

    Cells are 8 pixels, but for the outermost: their centres are at 0.5, 8.5 and so on.
    """
    ys, xs = ([0, *np.arange(4.5, n - 8, 8), n] for n in (96, 128))
    held = 0.0
    for i in range(12):
        for k in range(16):
            high = max(min(box[3], ys[i + 1]) - max(box[1], ys[i]), 0) / (ys[i + 1] - ys[i])
            wide = max(min(box[2], xs[k + 1]) - max(box[0], xs[k]), 0) / (xs[k + 1] - xs[k])
            held += high * wide * (weight if i == k == peak else (1 - weight) / 191)
    return held


def test_all_layers_are_a_row_each_with_that_layers_box_class_and_score():
    example = layered()
    fig = figures.head_grid(example, [0], layer="all")
    found = texts(fig)
    assert [found.count(f"layer {i}") for i in range(7)] == [1] * 6 + [0]
    assert placed(fig, *(f"layer {i}" for i in range(6))) == [
        y for i in range(6) for y in placed(fig, f"layer {i}")
    ]
    # the stand-in's scores: 0.98 * (i + 1) / 6
    for i, score in enumerate((0.16, 0.33, 0.49, 0.65, 0.82, 0.98)):
        assert f"{'tiger' if i == 1 else 'cat'} {two(score)}" in found
    rows = photo_rows(fig)
    assert [len(row) for row in rows] == [9] * 6
    for i, row in enumerate(rows):
        check_boxes(row, fig, example.output(i).boxes_xyxy_px[0])
    shares = [share_in(example.output(i).boxes_xyxy_px[0], i, 0.3 + i / 10) for i in range(6)]
    assert shares[0] < 0.04 < 0.8 < shares[5]  # the peak is in the box or not
    captions = [f"{round(100 * share)} %" for share in shares for _ in range(8)]
    assert captions_of(fig) == [f"{captions[0]} in box", *captions[1:]]
    assert "box, class and score: that layer's own" in fig.facts["Description"]
    check_page(fig)


def test_some_layers_in_the_order_they_are_named():
    fig = figures.head_grid(layered(), [1], layer=[4, 0, 4])
    (four,), (zero,) = placed(fig, "layer 4"), placed(fig, "layer 0")
    assert four < zero and not placed(fig, "layer 5")
    assert "decoder layers 4 and 0 of 0\N{EN DASH}5" in all_text(fig)
    assert fig.shown.subjects[0].layers == (4, 0)


def test_the_heading_of_layers_is_what_the_last_shown_says():
    for layers, heading in (([0, 1], "tiger"), ([1, 2], "cat")):
        fig = figures.head_grid(layered(), [0], layer=layers)
        (line,) = placed(fig, heading)
        assert line < placed(fig, "layer 1")[0]
        score = 0.98 * (layers[-1] + 1) / 6
        assert {two(score), "query 0"} <= set(texts(fig))


def test_layers_and_modes_of_two_queries():
    fig = figures.head_grid(layered(), [0, 1], MODES, layer=[1, 5])
    found = texts(fig)
    assert found.count("layer 1") == found.count("layer 5") == 2
    assert [len(row) for row in photo_rows(fig)] == [1 + 3 * 8] * 4
    assert [found.count(mode) for mode in MODES] == [2 * 2] * 3  # a row each
    check_page(fig)


def test_several_layers_of_several_models_have_a_section_each():
    a, b = layered(A), layered(B)
    fig = figures.compare_models([a, b], shared(a, b)[:3], layer=[1, 5])
    said = all_text(fig)
    headings = re.findall(r"\.\d\d (?:Cond-)?DETR · query \d(?: · IoU \S+)?", said)
    assert headings == [
        ".98 DETR · query 0",
        ".97 Cond-DETR · query 0 · IoU .60",
        ".75 DETR · query 1",
        ".35 Cond-DETR · query 1 · IoU 1.00",
        ".62 DETR · query 2",
    ]
    assert said.count("no matching box (the nearest: query 1, tiger .35, IoU .33)") == 1
    rows = photo_rows(fig)
    assert [len(row) for row in rows] == [9, 9, 6, 6, 9, 9, 6, 6, 9, 9]
    order = [(a, 0), (b, 0), (a, 1), (b, 1), (a, 2)]
    for k, (example, query) in enumerate(order):
        for layer, row in zip((1, 5), rows[2 * k : 2 * k + 2], strict=True):
            check_boxes(row, fig, example.output(layer).boxes_xyxy_px[query])
    check_page(fig)
