"""Figures by their artists and files, not by their pixels' looks."""

from __future__ import annotations

from dataclasses import fields

import matplotlib
import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake, one_hot
from figure_tools import boxes_of, panels_of, plates_of, texts
from matplotlib.figure import Figure

from detr_viz import figures
from detr_viz.common.errors import UserError
from detr_viz.figures import labels
from detr_viz.figures.styles import FigureError, PageFormat, Style

INFERNO_TOP = (252, 255, 164)


def test_the_stand_in_is_like_an_explanation():
    from detr_viz.explanation.captured import Explanation

    real = {f.name for f in fields(Explanation)} | set(dir(Explanation))
    ours = {f.name for f in fields(FakeExplanation)} - {
        "made",
        "made_by",
        "labels_by",
        "calls",
        "cell_rule",
    }
    assert ours <= real
    assert {"maps", "pick_layer", "label_name"} <= real


# --- what stands in a figure ------------------------------------------------------------------


def test_every_fact_stands_once():
    fig = figures.head_grid(fake(), [0, 2, 1], "position")
    found = texts(fig)
    labels = ["cat", "0.98 · query 0", "teapot", "0.30 · query 2", "dog", "0.75 · query 1"]
    heads = [f"head {i}" for i in range(8)]
    for text in (*labels, *heads):
        assert found.count(text) == 1, text
    order = [found.index(name) for name in ("cat", "teapot", "dog")]
    assert order == sorted(order)
    rule = "".join(found)
    for part in (
        "Conditional DETR",
        "decoder layer 5 of 0\N{EN DASH}5",
        "position",
        "16 \N{MULTIPLICATION SIGN} 12 cells",
    ):
        assert rule.count(part) == 1
    assert "each panel on its own scale, from 0 to the number in it" in rule
    assert fig.axes[0].get_title() == "" and not fig.axes[0].axison


def test_the_reading_rule_has_the_formula_with_subscripts():
    fig = figures.head_grid(fake(), [0], "position")
    small = [t for t in fig.axes[0].texts if t.get_text() in ("q", "k")]
    assert [t.get_text() for t in small] == ["q", "k"]
    letters = [t for t in fig.axes[0].texts if t.get_text() == "p"]
    assert len(letters) == 2
    for letter, subscript in zip(letters, small, strict=True):
        assert subscript.get_fontsize() < letter.get_fontsize()
        assert subscript.get_position()[1] > letter.get_position()[1]  # y points down


def test_one_image_three_collections_and_a_box_in_every_panel():
    fig = figures.head_grid(fake(), [0, 1])
    (ax,) = fig.axes
    assert len(ax.images) == 1 and len(ax.collections) == 3 and not ax.patches and not ax.lines
    halos, boxes = boxes_of(fig)
    assert len(halos.get_paths()) == len(boxes.get_paths()) == 2 * (1 + 8)
    assert len(plates_of(fig).get_paths()) == 2 * 8
    assert plates_of(fig).get_zorder() > boxes.get_zorder()  # no line through a number
    assert (np.array(halos.get_linewidths()) > np.array(boxes.get_linewidths())).all()
    for halo, box in zip(halos.get_edgecolor(), boxes.get_edgecolor(), strict=True):
        assert abs(halo[:3].mean() - box[:3].mean()) > 0.3  # light on dark or dark on light


def test_panels_are_where_they_should_be():
    rows = panels_of(figures.head_grid(fake(), [0, 1, 2]))
    assert [len(row) for row in rows] == [9, 9, 9]
    shapes = {panel.shape for row in rows for panel in row}
    assert len(shapes) == 1
    height, width, _ = shapes.pop()
    assert width / height == pytest.approx(128 / 96, rel=0.01)


def test_the_photo_is_in_colour_and_the_ground_of_maps_is_grey():
    example = fake()
    example.made = np.zeros_like(example.made)  # nothing is attended: the bare ground
    (row, *_) = panels_of(figures.head_grid(example, [0]))
    assert np.ptp(row[0].astype(int), axis=-1).mean() > 20
    for panel in row[1:]:
        assert np.ptp(panel.astype(int), axis=-1).max() == 0


@pytest.mark.parametrize(
    ("input_hw", "stride", "rule", "cell"),
    [
        ((800, 1066), 32, "aligned", (12, 20)),
        ((800, 1066), 32, "aligned", (3, 32)),
        ((800, 1066), 16, "aligned", (9, 50)),  # DC5
        ((160, 160), 8, "aligned", (4, 11)),  # a demo at 160 px
        ((800, 1066), 32, "centered", (12, 20)),
    ],
)
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_a_peak_lands_on_its_pixel(input_hw, stride, rule, cell, interpolation):
    """Cell i: resized pixel stride * i, so panel pixel (stride * i + 0.5) * P / W - 0.5."""
    image_hw = (input_hw[0] // 2, input_hw[1] // 2)
    example = fake(image_hw, input_hw, stride, heads=8, cell_rule=rule)
    example.made = np.broadcast_to(one_hot(example.grid_hw, cell), (3, 8, *example.grid_hw))
    (row,) = panels_of(figures.head_grid(example, [0], style=Style(interpolation=interpolation)))
    height, width = row[0].shape[:2]
    expected = [
        (stride * i + 0.5) * p / n - 0.5
        for i, p, n in zip(cell, (height, width), input_hw, strict=True)
    ]
    if rule == "centered":
        expected = [
            (i + 0.5) * p / n - 0.5
            for i, p, n in zip(cell, (height, width), example.grid_hw, strict=True)
        ]
    for panel in row[1:]:
        distance = np.abs(panel.astype(int) - INFERNO_TOP).sum(-1)
        found = np.unravel_index(distance.argmin(), distance.shape)
        assert np.abs(np.array(found) - expected).max() <= 0.5 + 1e-9


def test_nearest_draws_cells_of_one_colour():
    example = fake((96, 128), (96, 128), 8)
    example.image.rgb[:] = 120
    example.made = np.broadcast_to(one_hot((12, 16), (5, 7)), (3, 8, 12, 16))
    (row,) = panels_of(figures.head_grid(example, [0], style=Style(interpolation="nearest")))
    colors = np.unique(row[1][:80, :100].reshape(-1, 3), axis=0)  # without the number's corner
    assert len(colors) == 2


def test_maxima_are_printed_in_the_panels():
    example = fake(heads=5)
    for head, top in enumerate((0.624, 0.0412, 0.0031, 0.00002, 1.0)):
        example.made[0, head] = one_hot(example.grid_hw, (6, 8), max(top, 0.006))
        example.made[0, head] *= min(1, top / 0.006)
    found = texts(figures.head_grid(example, [0]))
    for number in (".62", ".04", ".003", "<.0001", "1"):
        assert found.count(number) == 1


def test_numbers_give_way_where_panels_are_small():
    fig = figures.head_grid(fake(), [0], page_format=PageFormat.of(width_in=3.25))
    assert ".50" not in texts(fig)
    assert "the number in it" not in "".join(texts(fig))
    assert "the number in it" in "".join(texts(figures.head_grid(fake(), [0])))


def test_numbers_stay_clear_of_the_box():
    example = fake()
    example.boxes_xyxy_px[:2] = [[70, 50, 126, 94], [4, 4, 50, 40]]  # lower right, upper left
    fig = figures.head_grid(example, [0, 1])
    x = [t.get_position()[0] for t in fig.axes[0].texts if t.get_text() == ".50"]
    panel = panels_of(fig)[0][1]
    first, second = min(x[:8]), min(x[8:])
    assert second - first > panel.shape[1] / 2  # left in the first row, right in the second


def test_several_modes_are_stacked_by_query():
    fig = figures.head_grid(fake(), [1, 0], MODES)
    found = texts(fig)
    for mode in MODES:
        assert found.count(mode) == 2 + 1  # a row's name for each query, and the reading rule
    for once in ("cat", "dog", "0.98 · query 0", "head 3"):
        assert found.count(once) == 1
    assert len(fig.axes[0].collections[0].get_paths()) == 2 * (1 + 3 * 8)  # one photo a query
    y = {t.get_text(): t.get_position()[1] for t in fig.axes[0].texts}
    assert y["dog"] < y["cat"]


def test_layer_and_scale_reach_the_maps_and_the_reader():
    example = fake(layers=(0, 5))
    fig = figures.head_grid(example, [0], ["content", "position"], layer=0, scale="layer")
    assert example.calls == [("content", 0, "layer"), ("position", 0, "layer")]
    rule = "".join(texts(fig))
    assert "decoder layer 0 of" in rule and "the same for every query" in rule
    assert "the layer's own scale" in rule
    rule = "".join(texts(figures.head_grid(example, [0], "position", layer=0)))
    assert "the same for every query" not in rule and "layer's own scale" not in rule


def test_weak_detections_are_dimmed():
    fig = figures.head_grid(fake(), [0, 2])
    labels = {t.get_text(): t for t in fig.axes[0].texts}
    assert labels["cat"].get_fontweight() == "bold"
    assert labels["teapot"].get_fontweight() == "normal"
    rgb = {k: matplotlib.colors.to_rgb(labels[k].get_color()) for k in ("cat", "teapot")}
    assert np.ptp(rgb["teapot"]) < np.ptp(rgb["cat"])


def test_a_class_keeps_its_colour():
    a, b = fake(), fake(names=("teapot", "cat"), scores=(0.9, 0.8), labels=np.array([2, 0]))
    b.class_names = a.class_names
    colors = []
    for example in (a, b):
        fig = figures.head_grid(example, range(len(example.scores)))
        colors.append({t.get_text(): t.get_color() for t in fig.axes[0].texts})
    assert colors[0]["cat"] == colors[1]["cat"]
    assert len({colors[0][n] for n in ("cat", "dog")}) == 2


def test_a_name_that_no_font_has(monkeypatch):
    monkeypatch.setattr(labels, "drawable", lambda text: text.isascii())
    example = fake(names=("cat", "\N{CJK UNIFIED IDEOGRAPH-732B}"), scores=(0.9, 0.8))
    with pytest.warns(UserWarning, match="no installed font has all characters"):
        fig = figures.head_grid(example, [0, 1])
    assert "class 1" in texts(fig) and "cat" in texts(fig)


def test_names_are_text_not_formulas():
    names = ("$x_y$ 100%", "a\nb", "", r"$\frac{$")
    fig = figures.head_grid(fake(names=names, scores=(0.9, 0.8, 0.7, 0.6)), range(4))
    assert {"$x_y$ 100%", "a b", "class 2", r"$\frac{$"} <= set(texts(fig))
    fig.canvas.draw()  # a formula would fail here


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: figures.head_grid(fake(), [0], style=Style(cmap="infernal")), "no colour map"),
        (lambda: Style(interpolation="lanczos"), "cubic, linear, nearest"),
        (lambda: Style("sketch"), "style 'sketch' is not one of overlay, heat, contour"),
        (lambda: Style(norm="row"), "norm 'row' is not one of head, query, figure"),
        (lambda: Style("contour", "figure"), "says nothing about contours"),
        (lambda: PageFormat.of("banner"), "preset 'banner' is not one of column, page"),
        (lambda: PageFormat.of(width_in=0), "cannot be 0 in wide"),
        (lambda: PageFormat.of(dpi=-1), "-1 dpi"),
        (lambda: PageFormat.of(width_in=float("nan")), "nan"),
        (lambda: wide(0.5, 335), "too narrow"),
        (lambda: wide(500, 600), "more than 20000 pixels: lower the width or the dpi"),
        (lambda: figures.head_grid(fake(), []), "at least one query"),
        (lambda: figures.head_grid(fake(), [0], []), "one mode"),
        (lambda: figures.head_grid(fake(), [0], layer=[]), "one decoder layer"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(make, words):
    with pytest.raises(FigureError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value) and isinstance(caught.value, UserError)


def wide(width_in: float, dpi: float) -> Figure:
    return figures.head_grid(fake(), [0], page_format=PageFormat.of(None, width_in, dpi))
