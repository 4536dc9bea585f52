"""Levels of sampled maps, all heads in one panel, and reference boxes, of a hand-made example."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import fake
from figure_tools import (
    BOX,
    SAMPLES,
    TICK,
    at_order,
    captions_of,
    check_page,
    maps_of,
    photos_of,
    pixels,
    texts,
    widths_of,
)
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex

from detr_viz import figures
from detr_viz.attention.grids import Grid
from detr_viz.figures.latex_caption import latex
from detr_viz.figures.page.elements import Group, Label, MapRow
from detr_viz.figures.page.shares import captions
from detr_viz.figures.page.shown import SamplePoints
from detr_viz.figures.panel_rows import _entropy
from detr_viz.figures.styles import FigureError, PageFormat, Style

HW, STRIDES, HEADS = (96, 128), (8, 16, 32), 2
COLORS = ("#0072b2", "#009e73", "#e69f00")  # FIGURES.md, by stride
CELLS = ((4, 4), (3, 5), (0, 0))  # of each level, the one that has its weight; row, column
WEIGHTS = np.array([[0.5, 0.3, 0.0], [0.1, 0.2, 0.6]])  # head, level; the rest lies off the map
BOX_PX = (24.0, 24.0, 72.0, 72.0)  # holds the cells of levels 0 and 1's left half
REFERENCE_BOX = 4.38  # zorder


@pytest.fixture
def example():
    """Each head gives each level one sample, at the centre of one cell."""
    high, wide = HW
    grids = tuple(Grid((high // s, wide // s), HW, s, "centered") for s in STRIDES)
    e = fake(HW, HW, heads=HEADS, attention_kind="sampled", cell_rule="centered")
    e.boxes_xyxy_px[:] = BOX_PX
    levels = []
    for level, grid in enumerate(grids):
        one = np.zeros((3, HEADS, *grid.hw), np.float32)
        row, column = CELLS[level]
        one[:, :, row, column] = WEIGHTS[:, level]
        levels.append(one)

    def maps(mode, queries, layer=None, scale="mode", level="sum"):
        if level != "sum":
            return levels[level][list(queries)]
        fine, middle, coarse = (m[list(queries)] for m in levels)
        middle = np.kron(middle, np.full((2, 2), 1 / 4))
        coarse = np.kron(coarse, np.full((4, 4), 1 / 16))
        return (fine + middle + coarse).astype(np.float32)

    centres = (np.array(CELLS) + 0.5) * np.array(STRIDES)[:, None] / HW
    xy = centres[:, ::-1]
    xy = np.broadcast_to(xy[:, None], (3, HEADS, 3, 1, 2)).astype(np.float32)
    weights = np.broadcast_to(WEIGHTS[..., None], (3, HEADS, 3, 1)).astype(np.float32)
    e.maps = maps
    e.grids = lambda layer=None: grids
    e.samples = lambda mode, queries, layer=None: (xy[list(queries)], weights[list(queries)])
    return e


def drawn(fig):
    """(x, y, colour, area) of each circle of the panels, pixels."""
    (found,) = [
        c
        for c in fig.axes[0].collections
        if type(c) is EllipseCollection and c.get_zorder() == SAMPLES
    ]
    return [
        (x, y, to_hex(color), width**2)
        for (x, y), color, width in zip(
            found.get_offsets(), found.get_facecolors(), widths_of(found), strict=True
        )
    ]


def inside(circles, tile) -> list[tuple]:
    """Circles of a panel as (share of its width, of its height, colour), sorted."""
    high, wide = tile.hw
    return sorted(
        (round((x - tile.left) / wide, 3), round((y - tile.top) / high, 3), color)
        for x, y, color, _ in circles
        if tile.holds(np.array([x, y]))
    )


def places(*levels: int) -> list[tuple]:
    """What `inside` gives for a panel with the samples of these levels of one head."""
    return sorted(
        (
            round((CELLS[k][1] + 0.5) * STRIDES[k] / HW[1], 3),
            round((CELLS[k][0] + 0.5) * STRIDES[k] / HW[0], 3),
            COLORS[k],
        )
        for k in levels
    )


def coloured(fig, tile) -> np.ndarray:
    """Where a panel of style heat has anything but its light ground."""
    return (pixels(fig, tile) < 200).any(-1)


def shares(fig, tile) -> tuple[float, ...]:
    """Left, top, right and bottom of what is coloured in a panel, as shares of its sides."""
    shown = coloured(fig, tile)
    rows, columns = np.nonzero(shown)
    high, wide = shown.shape
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return tuple(edge / side for edge, side in zip(edges, (wide, high) * 2, strict=True))


def test_a_row_for_each_level_shows_its_own_cells(example):
    """The coloured square of a panel is the one cell of its level's grid that has weight."""
    page = PageFormat.of("page")
    style = Style("heat", zoom="none", levels="all", norm="head")
    fig = figures.head_grid(example, [0], style=style, page_format=page)
    check_page(fig)
    tiles = maps_of(fig)
    assert len(tiles) == 3 * HEADS
    for i, tile in enumerate(tiles):
        level, head = divmod(i, HEADS)
        if not WEIGHTS[head, level]:
            assert not coloured(fig, tile).any()
            continue
        (row, column), stride = CELLS[level], STRIDES[level]
        edges = (column * stride, row * stride, (column + 1) * stride, (row + 1) * stride)
        expected = [edge / side for edge, side in zip(edges, HW[::-1] * 2, strict=True)]
        np.testing.assert_allclose(shares(fig, tile), expected, atol=0.02)


def test_shares_of_levels_add_up_to_that_of_their_sum(example):
    page = PageFormat.of("page")
    by_level = figures.head_grid(example, [0], style=Style(levels="all"), page_format=page)
    # level 0's cell lies in the box, level 1's cell from column 80 px on does not
    assert captions_of(by_level) == ["50 % in box", "10 %", "0 %", "0 %", "0 %", "4 %"]
    whole = figures.head_grid(example, [0], style=Style(), page_format=page)
    assert captions_of(whole) == ["50 % in box", "14 %"]
    assert {"level 0", "level 1", "level 2"} <= set(texts(by_level))
    assert "level by level" in " ".join(texts(by_level))


def test_one_level_has_its_own_grid_and_is_named(example):
    fig = figures.head_grid(example, [0], style=Style(levels=(1,)))
    assert len(maps_of(fig)) == HEADS
    words = " ".join(texts(fig))
    assert "level 1" in words and "1 of 8 \N{MULTIPLICATION SIGN} 6 cells" in words
    assert fig.facts["Title"].endswith("attention of each head, level 1")
    about = fig.facts["Description"]
    assert "level 1 of 3 (stride 16) alone, on its own grid" in about
    assert "map of 8 \N{MULTIPLICATION SIGN} 6 cells" in about


@pytest.mark.parametrize(
    ("levels", "in_panels", "in_photo"),
    [
        ("sum", [(0, 1, 2)], (0, 1, 2)),
        ((1,), [(1,)], (1,)),
        ((2, 0), [(0, 2)], (0, 2)),
        ("all", [(0,), (1,), (2,)], (0, 1, 2)),
    ],
)
def test_points_are_those_of_the_levels(example, levels, in_panels, in_photo):
    fig = figures.head_grid(example, [1], style=Style("points", zoom="none", levels=levels))
    check_page(fig)
    circles = drawn(fig)
    tiles = maps_of(fig)
    assert len(tiles) == HEADS * len(in_panels)
    for i, tile in enumerate(tiles):
        row, head = divmod(i, HEADS)
        expected = places(*(k for k in in_panels[row] if WEIGHTS[head, k]))
        assert inside(circles, tile) == expected
    (photo,) = photos_of(fig)
    both = [p for head in range(HEADS) for p in places(*(k for k in in_photo if WEIGHTS[head, k]))]
    assert inside(circles, photo) == sorted(both)
    strides = {str(s) for s in STRIDES}
    assert set(texts(fig)) & strides == {str(STRIDES[k]) for k in in_photo}  # the key


def test_levels_of_points_are_named(example):
    def about(levels):
        fig = figures.head_grid(example, [1], style=Style("points", levels=levels))
        return fig.facts["Description"]

    assert "points of 3 levels (strides 8, 16 and 32)" in about("sum")
    assert "points of levels 0 and 2 of 3 (strides 8 and 32) alone" in about((0, 2))
    assert "levels 0, 1 and 2 of 3 (strides 8, 16 and 32), a row for each" in about("all")
    fig = figures.head_grid(example, [1], style=Style("points", levels=(0, 2)))
    caption = latex(fig.shown, "a.png")
    assert "Points of levels 0 and 2 of 3 (strides 8 and 32) alone." in caption
    assert "sum to 1 over all levels" in caption


def test_the_sum_is_named_for_maps_of_several_levels_alone(example):
    fig = figures.head_grid(example, [1], style=Style())
    assert "sum of 3 levels (strides 8, 16 and 32), on the finest grid" in fig.facts["Description"]
    assert "levels" not in figures.head_grid(fake(), [1]).facts["Description"]


@pytest.mark.parametrize(
    ("levels", "says"),
    [((3,), "no level 3: Conditional DETR has 3 levels, 0..2"), ((0, 9), "no level 9")],
)
def test_a_level_that_is_not_there(example, levels, says):
    for style in ("points", "overlay"):
        with pytest.raises(FigureError, match=says):
            figures.head_grid(example, [0], style=Style(style, levels=levels))


def test_dense_maps_have_one_level():
    for levels, says in (("all", "all levels"), ((1,), "level 1"), ((0, 1), "level 1")):
        with pytest.raises(FigureError, match=f"{says}: Conditional DETR has 1 level; give sum"):
            figures.head_grid(fake(), [0], style=Style(levels=levels))
    e = fake()
    e.maps = lambda mode, queries, layer, scale, level: e.made[queries]
    alone = figures.head_grid(e, [0], style=Style(levels=(0,)))
    assert captions_of(alone) == captions_of(figures.head_grid(fake(), [0]))


@pytest.mark.parametrize("levels", ["most", (), (0, 0), (-1,), (True,), [0], None, 0])
def test_what_are_no_levels(levels):
    with pytest.raises(FigureError, match="levels"):
        Style(levels=levels)


# ---- all heads in one panel ---------------------------------------------------------------------


def test_all_heads_in_one_panel_beside_the_photo(example):
    style = Style("points", heads="all-in-one", zoom="none")
    fig = figures.head_grid(example, [0, 2], style=style)
    check_page(fig)
    circles, tiles = drawn(fig), maps_of(fig)
    assert len(tiles) == 2  # a query each
    expected = [p for m in range(HEADS) for p in places(*np.flatnonzero(WEIGHTS[m]))]
    for tile in tiles:
        assert inside(circles, tile) == sorted(expected)
    for photo in photos_of(fig):  # as it is, with the box
        assert inside(circles, photo) == []
    assert len(at_order(fig, BOX).get_segments()) == 2
    assert len(at_order(fig, TICK).get_segments()) == 2 * 4
    # the mean of both heads: (.5 + .14) / 2
    assert captions_of(fig)[0] == "32 % in box"
    assert "all heads" in " ".join(texts(fig))
    assert "of all heads in one panel" in fig.facts["Title"]


def test_an_area_is_a_weight_in_one_panel_too(example):
    style = Style("points", heads="all-in-one", zoom="none")
    areas = sorted(a for *_, a in drawn(figures.head_grid(example, [0], style=style)))
    weights = sorted(w for w in WEIGHTS.ravel() if w)
    ratios = np.divide(areas, areas[0])
    np.testing.assert_allclose(ratios, np.divide(weights, weights[0]), rtol=1e-4)


def test_all_heads_of_several_modes_or_levels_stand_side_by_side(example):
    page = PageFormat.of("page")
    style = Style("points", heads="all-in-one", levels="all", zoom="none")
    fig = figures.head_grid(example, [0], style=style, page_format=page)
    check_page(fig)
    tiles = maps_of(fig)
    assert len({tile.top for tile in tiles}) == 1 and len(tiles) == 3
    circles = drawn(fig)
    assert [{c for *_, c in inside(circles, tile)} for tile in tiles] == [{c} for c in COLORS]
    style = Style("points", heads="all-in-one")
    fig = figures.head_grid(example, [0], ["combine", "content"], style=style, page_format=page)
    assert {"combine", "content"} <= set(texts(fig)) and len(maps_of(fig)) == 2


def test_all_heads_in_one_panel_are_points():
    for name in ("overlay", "heat", "contour", "cells"):
        with pytest.raises(FigureError, match=f"style {name} draws none: take style points"):
            Style(name, heads="all-in-one")
    e = fake()
    e.samples = lambda *_: None
    with pytest.raises(FigureError, match="attends to all of it: name heads by number"):
        figures.head_grid(e, [0], style=Style("points", heads="all-in-one"))


# ---- what is drawn beside the points ------------------------------------------------------------


def test_a_reference_box_is_dashed_where_it_lies(example):
    box = np.array([16.0, 12.0, 64.0, 48.0], np.float32)
    example.layer_references = {5: np.tile((box[:2] + box[2:]) / 2, (3, 1))}
    example.reference_boxes = {5: np.tile(box, (3, 1))}
    fig = figures.head_grid(example, [0], style=Style("points", zoom="none"))
    check_page(fig)
    lines = at_order(fig, REFERENCE_BOX)
    segments = lines.get_segments()
    assert len(segments) == 4 * (HEADS + 1)  # in each panel, and in the photo
    assert lines.get_linestyle()[0][1] is not None  # dashes
    for tile in [*maps_of(fig), *photos_of(fig)]:
        own = np.concatenate([s for s in segments if tile.holds(s, 0.01)])
        size = np.array(tile.hw[::-1])
        low, high = (own.min(0) - (tile.left, tile.top)) / size, own.max(0) - (tile.left, tile.top)
        np.testing.assert_allclose(low, box[:2] / HW[::-1], atol=1e-5)
        np.testing.assert_allclose(high / size, box[2:] / HW[::-1], atol=1e-5)
    about = fig.facts["Description"]
    assert "plus: the query's reference point" in about and "dashed: its reference box" in about


def test_a_reference_box_ends_with_the_photo(example):
    example.reference_boxes = {5: np.tile(np.float32([-20, 30, 40, 300]), (3, 1))}
    fig = figures.head_grid(example, [0], style=Style("points", zoom="none"))
    segments = at_order(fig, REFERENCE_BOX).get_segments()
    assert len(segments) == 2 * (HEADS + 1)  # the upper side and the right one
    tiles = [*maps_of(fig), *photos_of(fig)]
    assert all(any(tile.holds(s, 0.01) for tile in tiles) for s in segments)


def test_references_that_are_points_have_no_box(example):
    example.reference_px = np.full((3, 2), 40.0, np.float32)
    fig = figures.head_grid(example, [0], style=Style("points"))
    assert at_order(fig, REFERENCE_BOX) is None
    assert "reference box" not in fig.facts["Description"]
    assert "plus: the query's reference point" in fig.facts["Description"]


def test_a_circle_at_the_edge_of_a_photo_ends_there(example):
    fig = figures.head_grid(example, [0], style=Style("points", zoom="none"))
    (circles,) = [c for c in fig.axes[0].collections if c.get_zorder() == SAMPLES]
    path, _ = circles.get_clip_path().get_transformed_path_and_affine()
    assert len(path.to_polygons()) == HEADS + 1


# ---- words of maps with less than all of the weight ---------------------------------------------


def row_of(*maps: np.ndarray) -> MapRow:
    hw = maps[0].shape
    return MapRow(np.stack(maps).astype(np.float32), Grid(hw, HW, 8, "centered"))


def test_a_weak_map_is_flat_only_if_it_is_even():
    even = np.full((4, 4), 1 / 16)
    peak = np.zeros((4, 4))
    peak[1, 2] = 1
    group = Group(Label(""), np.zeros((*HW, 3), np.uint8), None, ())
    weak = row_of(even, 0.02 * even, 0.02 * peak, 0 * peak)
    assert captions(weak, group, Style()) == ("flat", "flat", "", "")


def test_heads_are_sorted_by_where_their_weight_is_not_by_how_much():
    even, peak = np.full((4, 4), 1 / 16), np.zeros((4, 4))
    peak[0, 0], peak[0, 1] = 0.75, 0.25
    entropies = _entropy(np.stack([0.1 * even, 0.9 * peak, peak, 0 * peak]))
    expected = [np.log(16), *[-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))] * 2, np.inf]
    np.testing.assert_allclose(entropies, expected, rtol=1e-6)


def test_points_know_the_number_of_their_level():
    points = SamplePoints(np.zeros((1, 1, 1, 2)), np.ones((1, 1, 1)), (32,), levels=(2,))
    assert points.numbered == [(2, 32)]


@pytest.mark.parametrize("style", ["points", "overlay"])
def test_a_narrow_panel_has_the_number_of_its_head_and_no_cut_word(example, style):
    page = PageFormat(width_in=6, dpi=100, height_in=2)
    fig = figures.head_grid(example, [0, 1], style=Style(style, levels="all"), page_format=page)
    assert {"0", "1"} <= {*texts(fig)}
    assert not [text for text in texts(fig) if text.startswith("h")]
