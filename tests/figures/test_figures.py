"""Figures by their artists and files, not by their pixels' looks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake, one_hot
from figure_tools import (
    boxes_of,
    captions_of,
    check_page,
    corners,
    panels_of,
    rows_of,
    texts,
    ticks_of,
)
from matplotlib.figure import Figure

from detr_viz import figures
from detr_viz.common.errors import UserError
from detr_viz.figures import labels
from detr_viz.figures.page.elements import BOX_BLUE, GRAY, INK
from detr_viz.figures.styles import FigureError, PageFormat, Style

NOTES = replace(PageFormat.of(), notes=True)


def test_the_stand_in_is_like_an_explanation():
    from detr_viz.explanation.captured import Explanation

    real = {f.name for f in fields(Explanation)} | set(dir(Explanation))
    ours = {f.name for f in fields(FakeExplanation)} - {
        "made",
        "made_by",
        "labels_by",
        "calls",
        "cell_rule",
        "shares",
    }
    assert ours <= real
    assert {"maps", "pick_layer", "label_name"} <= real


# --- what stands in a figure ------------------------------------------------------------------


def test_every_fact_stands_once():
    fig = figures.head_grid(fake(), [0, 2, 1], "position")
    found = texts(fig)
    of_queries = ["cat", ".98", "query 0", "teapot", ".30", "query 2", "dog", ".75", "query 1"]
    heads = ["head 0", *map(str, range(1, 8))]
    for text in (*of_queries, *heads):
        assert found.count(text) == 1, text
    order = [found.index(name) for name in of_queries]
    assert order == sorted(order)
    assert (
        found.count("Conditional DETR \N{MIDDLE DOT} last decoder layer \N{MIDDLE DOT} position")
        == 1
    )
    times = "\N{MULTIPLICATION SIGN}"
    for text in (
        "attention: even spread \N{MULTIPLICATION SIGN}1",
        *(f"{times}{n}" for n in (4, 16, 64, 256)),
    ):
        assert found.count(text) == 1
    assert fig.axes[0].get_title() == "" and not fig.axes[0].axison


def test_notes_are_printed_where_they_are_asked_for_and_known_anyhow():
    bare, noted = (
        figures.head_grid(fake(), [0], "position", page_format=page)
        for page in (PageFormat.of(), NOTES)
    )
    for part in (
        "decoder layer 5 of 0\N{EN DASH}5",
        "%: of a map's weight in the box",
        "16 \N{MULTIPLICATION SIGN} 12 cells, .005 each if even",
    ):
        assert part not in "".join(texts(bare)) and part in bare.facts["Description"]
        assert "".join(texts(noted)).count(part) == 1
    assert bare.facts == noted.facts


def test_the_notes_have_the_formula_with_subscripts():
    fig = figures.head_grid(fake(), [0], "position", page_format=NOTES)
    small = [t for t in fig.axes[0].texts if t.get_text() in ("q", "k")]
    assert [t.get_text() for t in small] == ["q", "k"]
    letters = [t for t in fig.axes[0].texts if t.get_text() == "p"]
    assert len(letters) == 2
    for letter, subscript in zip(letters, small, strict=True):
        assert subscript.get_fontsize() < letter.get_fontsize()
        assert subscript.get_position()[1] > letter.get_position()[1]  # y points down


def test_one_image_a_box_on_every_photo_and_its_corners_on_every_map():
    fig = figures.head_grid(fake(), [0, 1])
    (ax,) = fig.axes
    assert len(ax.images) == 1 and len(ax.collections) == 4 and not ax.patches and not ax.lines
    for (halos, lines), count in ((boxes_of(fig), 2), (ticks_of(fig), 2 * 8 * 4)):
        assert len(corners(halos)) == len(corners(lines)) == count
        assert (np.array(halos.get_linewidths()) > np.array(lines.get_linewidths())).all()
        assert (halos.get_colors()[:, :3] == 1).all()
        (ink,) = np.rint(lines.get_colors()[:, :3] * 255).astype(int)
        assert "#" + "".join(f"{c:02x}" for c in ink) == BOX_BLUE == "#0057b8"


def test_the_corners_on_a_map_are_those_of_the_box_on_the_photo():
    """Just outside of the box, within a point; their arms point into it."""
    fig = figures.head_grid(fake(), [0])
    ((photo, panel, *_),) = [row[:2] for row in rows_of(fig)]
    (box,) = (c - (photo.left, photo.top) for c in corners(boxes_of(fig)[1]))
    low, high = box.min(0), box.max(0)
    ticks = [t - (panel.left, panel.top) for t in corners(ticks_of(fig)[1])[:4]]
    for start, corner, end in ticks:
        nearest = np.where(corner < (low + high) / 2, low, high)
        assert np.abs(corner - nearest).max() < fig.dpi / 72
        assert ((corner <= low + 1) | (corner >= high - 1)).all()
        for arm in (start, end):
            along = np.abs(arm - corner)
            assert (along == 0).sum() == 1  # one along x, one along y
            assert 1.3 <= along.max() * 72 / fig.dpi <= 4.2
            assert (arm >= low - 5).all() and (arm <= high + 5).all()


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
    style = Style("heat", "head", "gray", interpolation)
    (row,) = panels_of(figures.head_grid(example, [0], style=style))
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
        found = np.unravel_index(panel[..., 0].argmax(), panel.shape[:2])
        assert np.abs(np.array(found) - expected).max() <= 0.5 + 1e-9


def test_nearest_draws_cells_of_one_colour():
    example = fake((96, 128), (96, 128), 8)
    example.made = np.broadcast_to(one_hot((12, 16), (5, 7)), (3, 8, 12, 16))
    (row,) = panels_of(figures.head_grid(example, [0], style=Style("heat")))
    colors = np.unique(row[1].reshape(-1, 3), axis=0)
    assert len(colors) == 2


@pytest.mark.parametrize("norm", ["head", "query", "figure"])
def test_maxima_are_printed_under_the_panels_where_each_figure_has_its_own_scale(norm):
    example = fake(heads=5)
    for head, top in enumerate((0.624, 0.0412, 0.0031, 0.00002, 1.0)):
        example.made[0, head] = one_hot(example.grid_hw, (6, 8), max(top, 0.006))
        example.made[0, head] *= min(1, top / 0.006)
    fig = figures.head_grid(example, [0], style=Style(norm=norm))
    found = [text.rpartition("%, ")[2] for text in captions_of(fig)]
    assert found == [".62", ".04", ".003", "<.0001", "1"]
    assert sum("% in box, largest weight" in text for text in texts(fig)) == 1
    assert not any("largest" in text for text in texts(figures.head_grid(example, [0])))


def test_captions_stay_whole_in_small_panels():
    page = PageFormat.of(width_in=3.25)
    fig = figures.head_grid(fake(), [0], style=Style(norm="head"), page_format=page)
    check_page(fig)
    assert captions_of(fig) == ["6 %, .50"] * 8


def test_several_modes_are_stacked_by_query():
    fig = figures.head_grid(fake(), [1, 0], MODES)
    found = texts(fig)
    for mode in MODES:
        assert found.count(mode) == 2
    for once in ("cat", "dog", "query 0", "3"):
        assert found.count(once) == 1
    assert len(corners(boxes_of(fig)[1])) == 2  # one photo a query
    assert len(corners(ticks_of(fig)[1])) == 2 * 3 * 8 * 4
    y = {t.get_text(): t.get_position()[1] for t in fig.axes[0].texts}
    assert y["dog"] < y["cat"]


def test_layer_and_scale_reach_the_maps_and_the_reader():
    example = fake(layers=(0, 5))
    fig = figures.head_grid(
        example, [0], ["content", "position"], layer=0, scale="layer", page_format=NOTES
    )
    assert example.calls == [("content", 0, "layer"), ("position", 0, "layer")]
    rule = "".join(texts(fig))
    assert "decoder layer 0 of" in rule and "the same for every query" in rule
    assert "the layer's own scale" in rule
    rule = "".join(texts(figures.head_grid(example, [0], "position", layer=0, page_format=NOTES)))
    assert "the same for every query" not in rule and "layer's own scale" not in rule


def test_weak_detections_are_dimmed():
    fig = figures.head_grid(fake(), [0, 2])
    labels = {t.get_text(): t for t in fig.axes[0].texts}
    assert labels["cat"].get_fontweight() == "bold"
    assert labels["teapot"].get_fontweight() == "normal"
    assert labels["cat"].get_color() == labels[".98"].get_color() == INK
    assert labels["teapot"].get_color() == labels[".30"].get_color() == GRAY


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
        (lambda: Style(norm="row"), "norm 'row' is not one of even, head, query, figure"),
        (lambda: Style(zoom="far"), "zoom 'far' is neither auto, none nor a factor from 1 on"),
        (lambda: Style(zoom=0.5), "zoom 0.5 is neither"),
        (lambda: Style(contours=(0.5, 1.0)), "shares of a map between 0 and 1"),
        (lambda: Style(contours=()), "shares of a map between 0 and 1"),
        (lambda: in_font("Comic Sens"), "no font 'Comic Sens' is installed"),
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


def in_font(name: str) -> Figure:
    return figures.head_grid(fake(), [0], page_format=replace(PageFormat.of(), font=name))


def wide(width_in: float, dpi: float) -> Figure:
    return figures.head_grid(fake(), [0], page_format=PageFormat.of(None, width_in, dpi))
