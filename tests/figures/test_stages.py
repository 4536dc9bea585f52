"""Figures of stages: a panel each, the box that enters it, its cells by sign, its words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_explanation import FakeExplanation, fake
from figure_tools import (
    BOX,
    OLD_BOX,
    TICK,
    at_order,
    captions_of,
    check_page,
    layout_of,
    maps_of,
    photos_of,
    pixels,
    texts,
)

from detr_viz import figures
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.latex_caption import latex
from detr_viz.figures.styles import FigureError, PageFormat, Style

STAGES = 3
# x0, y0, x1, y1 of the only query's box as it enters each stage, pixels of a photo of 96 x 128
BOXES = ((0, 0, 128, 96), (24, 12, 104, 84), (36, 24, 92, 72))
CELLS, MAPS = Style("cells", zoom="none"), Style("overlay", zoom="none")


def staged(**more: object) -> FakeExplanation:
    """At stage k the cell (k, k) adds .4 and the cell (6, k) takes .2 away; the bias has the rest.

    Its map lies on the cell (k, k) of the grid, and a tenth of it is off the image.
    """
    shares, made = {}, {}
    for k, box in enumerate(BOXES):
        share = np.zeros((1, 1, 7, 7), np.float32)
        share[0, 0, k, k], share[0, 0, 6, k] = 0.4, -0.2
        shares[k] = share, np.array([box], np.float32), np.array([0.8], np.float32)
        made["combine", k] = np.zeros((1, 1, 12, 16), np.float32)
        made["combine", k][0, 0, k, k] = 0.9
    values = {
        "names": ("cat",),
        "scores": (0.9,),
        "heads": 1,
        "model_title": "Sparse R-CNN",
        "num_layers": STAGES,
        "layers": (0, 1, 2),
        "modes": ("combine",),
        "residuals": {0: 1e-7, 1: 1e-7, 2: 1e-7},
        "stages": True,
        "shares": shares,
        "made_by": made,
    }
    return fake(**{**values, **more})


def cell(fig, tile, box, row: int, column: int) -> np.ndarray:
    """The colour in the middle of a cell of a box, in a panel of the whole photo."""
    shown = pixels(fig, tile).astype(int)
    x = (box[0] + (column + 0.5) / 7 * (box[2] - box[0])) / 128
    y = (box[1] + (row + 0.5) / 7 * (box[3] - box[1])) / 96
    return shown[int(y * shown.shape[0]), int(x * shown.shape[1])]


def orange(colour: np.ndarray) -> bool:
    return colour[0] > colour[2] + 50


def blue(colour: np.ndarray) -> bool:
    return colour[2] > colour[0] + 15


def test_a_panel_for_each_stage_shows_the_cells_of_the_box_that_enters_it():
    fig = figures.head_grid(staged(), [0], layer="all", style=CELLS)
    check_page(fig)
    assert len(photos_of(fig)) == 1 and len(maps_of(fig)) == STAGES
    for k, tile in enumerate(maps_of(fig)):
        for row in range(7):
            for column in range(7):
                colour = cell(fig, tile, BOXES[k], row, column)
                assert orange(colour) == ((row, column) == (k, k)), (k, row, column)
                assert blue(colour) == ((row, column) == (6, k)), (k, row, column)
    assert [t for t in texts(fig) if t in ("stage 0", "1", "2")] == ["stage 0", "1", "2"]


def test_all_stages_have_one_scale_and_the_key_says_its_ends():
    strong = staged()
    share, box, bias = strong.shares[2]
    strong.shares[2] = 2 * share, box, bias
    fig = figures.head_grid(strong, [0], layer="all", style=CELLS)
    first, _, last = (cell(fig, tile, BOXES[k], k, k) for k, tile in enumerate(maps_of(fig)))
    assert first.sum() > last.sum() + 100  # half as large a share is lighter
    assert {"\N{MINUS SIGN}.8", "0", "+.8"} <= {*texts(fig)}
    assert [ramp.kind for ramp in layout_of(fig).ramps] == ["signed"]


def test_ticks_stand_at_the_box_that_enters_and_the_photo_has_the_one_that_leaves():
    example = staged()
    fig = figures.head_grid(example, [0], layer="all", style=CELLS)
    ticks = np.array([line[1] for line in at_order(fig, TICK).get_segments()])  # their corners
    for k, tile in enumerate(maps_of(fig)):
        inside = [p for p in ticks if tile.left <= p[0] <= tile.right]
        size = np.array([tile.right - tile.left, tile.bottom - tile.top])
        low = (np.min(inside, 0) - (tile.left, tile.top)) / size * (128, 96)
        high = (np.max(inside, 0) - (tile.left, tile.top)) / size * (128, 96)
        assert np.abs(np.concatenate([low, high]) - BOXES[k]).max() < 1.5
    (photo,) = photos_of(fig)
    (line,) = at_order(fig, BOX).get_segments()
    low = (line.min(0) - (photo.left, photo.top)) / (photo.right - photo.left) * 128
    assert np.abs(low - example.output(2).boxes_xyxy_px[0, :2]).max() < 1.5


def test_under_each_panel_stand_the_sum_of_the_cells_and_the_bias():
    fig = figures.head_grid(staged(), [0], layer="all", style=CELLS)
    assert captions_of(fig) == [".20 + bias .80"] * STAGES
    minus = staged()
    for k, (share, box, _) in minus.shares.items():
        minus.shares[k] = 5.2 * share, box, np.array([-0.04], np.float32)
    fig = figures.head_grid(minus, [0], layer="all", style=CELLS)
    assert captions_of(fig) == ["1.04 \N{MINUS SIGN} bias .04"] * STAGES
    narrow = figures.head_grid(
        minus, [0], layer="all", style=CELLS, page_format=PageFormat.of(width_in=2.4)
    )
    assert set(captions_of(narrow)) == {"1.04 \N{MINUS SIGN} .04"}


def test_maps_of_stages_say_what_falls_off_the_image():
    fig = figures.head_grid(staged(), [0], layer="all", style=MAPS)
    check_page(fig)
    # of the first box all, of the others nothing lies in the box
    assert captions_of(fig) == ["90 % in box, 10 % off", "0 %, 10 % off", "0 %, 10 % off"]
    fig = figures.head_grid(staged(), [0], layer="all", style=Style("heat", zoom="none"))
    for k, tile in enumerate(maps_of(fig)):
        shown = pixels(fig, tile).astype(int).sum(-1)
        y, x = (
            ((np.arange(n) + 0.5) * side / n).astype(int)
            for n, side in zip((12, 16), shown.shape, strict=True)
        )
        centres = shown[y][:, x]
        assert np.unravel_index(np.argmin(centres), centres.shape) == (k, k)
        assert (centres < centres.max()).sum() == 1


def test_one_stage_is_shown_alone_and_larger():
    six = staged(layers=tuple(range(6)), num_layers=6)
    six.shares |= {k: six.shares[0] for k in range(3, 6)}
    six.made_by |= {("combine", k): six.made_by["combine", 0] for k in range(3, 6)}
    all_of_them = maps_of(figures.head_grid(six, [0], layer="all", style=CELLS))
    fig = figures.head_grid(six, [0], layer=1, style=CELLS)
    (tile,) = maps_of(fig)
    assert tile.hw[1] > 1.5 * all_of_them[0].hw[1]
    assert orange(cell(fig, tile, BOXES[1], 1, 1)) and blue(cell(fig, tile, BOXES[1], 6, 1))
    assert "stage 1" in texts(fig) and "combine" not in texts(fig)


def test_small_boxes_are_shown_in_views_and_large_ones_in_the_photo():
    small = staged()
    share, _, bias = small.shares[2]
    small.shares[2] = share, np.array([[60, 40, 74, 52]], np.float32), bias
    fig = figures.head_grid(small, [0], layer="all", style=Style("cells"))
    layout = layout_of(fig)
    views = [layout.crop_of(panel) for panel in layout.maps]
    assert [view.is_part for view in views] == [False, False, True]
    assert views[2].x0 < 60 and views[2].x1 > 74 and views[2].x1 - views[2].x0 < 40
    tile = maps_of(fig)[2]
    at = views[2].on_panel(np.array([60 + 2.5 * 2, 40 + 2.5 * 12 / 7]), 0, 0, tile.hw)
    assert orange(pixels(fig, tile).astype(int)[int(at[1]), int(at[0])])


WORDS = ("cells", "overlay", "heat", "contour")


@pytest.mark.parametrize("style", WORDS)
@pytest.mark.parametrize("layer", ["all", 1, (0, 2)])
def test_layers_are_called_stages_and_there_are_no_heads(style, layer):
    fig = figures.head_grid(
        staged(),
        [0],
        layer=layer,
        style=Style(style),
        page_format=replace(PageFormat.of(), notes=True),
    )
    said = " ".join(
        [*texts(fig), *fig.facts.values(), latex(fig.shown, "cat.png"), fig.shown.title]
    )
    for word in ("layer", "head", "decoder", "softmax", "mode"):
        assert word not in said.replace("caption", ""), word
    assert "stage" in said


def test_a_caption_says_exactly_what_is_drawn():
    shown = figures.head_grid(staged(), [0], layer="all", style=CELLS).shown
    text = latex(shown, "cat.png")
    assert "signed share of the stage's pre-norm output; shares and bias share sum to 1" in text
    assert r"$\langle W_c x_c, y\rangle / |y|^2$" in text
    assert text.isascii()
    text = latex(figures.head_grid(staged(), [0], layer="all", style=MAPS).shown, "cat.png")
    assert "positive shares" in text and "adjoint of RoIAlign" in text
    assert "what of the map falls off the image" in text


def test_heads_and_levels_of_cells_are_one_line():
    with pytest.raises(FigureError, match=r"no heads that look at the image: .* 3 stages"):
        figures.head_grid(staged(), [0], layer="all", style=Style("cells", heads=(0,)))
    with pytest.raises(FigureError, match="no heads"):
        figures.head_grid(staged(), [0], style=Style("overlay", heads="mean"))
    with pytest.raises(FigureError, match="read on one level"):
        figures.head_grid(staged(), [0], style=Style("cells", levels=(0,)))


def test_stages_and_heads_are_compared_one_panel_a_model_on_one_grid():
    pair = [fake(names=("cat",), scores=(0.8,)), staged(layers=(2,))]
    objects = [SharedObject(0, (Match(0, 1.0), Match(0, 1.0)))]
    with pytest.raises(FigureError, match=r"stages, those of the others heads.*heads mean"):
        figures.compare_models(pair, objects)
    fig = figures.compare_models(pair, objects, style=Style(heads="mean"))
    check_page(fig)
    assert len(maps_of(fig)) == 2
    assert "Sparse R-CNN: one map a stage" in fig.facts["Description"]
    assert "Sparse R-CNN: stage 2 of 0\N{EN DASH}2" in fig.facts["Description"]
    assert "decoder layer 5" in fig.facts["Description"]


def test_models_with_stages_stand_under_each_other():
    shorter = staged(model_title="Dynamic DETR", layers=(0, 1), num_layers=2)
    objects = [SharedObject(0, (Match(0, 1.0), Match(0, 1.0)))]
    fig = figures.compare_models([staged(), shorter], objects, layer="all", style=CELLS)
    check_page(fig)
    assert len(maps_of(fig)) == 5
    last = maps_of(fig)[4]
    assert orange(cell(fig, last, BOXES[1], 1, 1))


def test_a_biography_has_a_block_for_each_stage_with_both_boxes():
    example = staged(
        reference_boxes={k: np.array([box], np.float32) for k, box in enumerate(BOXES)},
        reference_px=np.zeros((1, 2), np.float32),
    )
    plain = example.output
    example.output = lambda layer=None: SimpleNamespace(
        **vars(plain(layer)), class_scores=np.array([[0.9, 0.1, 0.0]], np.float32)
    )
    example.class_names = ("cat", "dog", "bird")
    fig = figures.head_grid(example, [0], layer="all", style=CELLS, biography=True)
    check_page(fig)
    assert len(photos_of(fig)) == len(maps_of(fig)) == STAGES
    for k, (photo, tile) in enumerate(zip(photos_of(fig), maps_of(fig), strict=True)):
        assert orange(cell(fig, tile, BOXES[k], k, k))
        for order, box in (
            (OLD_BOX, np.array(BOXES[k])),
            (BOX, plain(k).boxes_xyxy_px[0]),
        ):
            line = at_order(fig, order).get_segments()[k]
            scale = (photo.right - photo.left) / 128
            low = np.clip((line.min(0) - (photo.left, photo.top)) / scale, 0, None)
            assert np.abs(low - box[:2]).max() < 2
    assert {f"stage {k}" for k in range(STAGES)} <= {*texts(fig)}
    assert "white: the box that enters the stage" in fig.facts["Description"]
