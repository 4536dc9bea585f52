"""Styles, norms and colour maps: the pixels of panels against weights that are known."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake, one_hot, photo
from figure_tools import (
    Tile,
    at_centers,
    boxes_of,
    extent,
    lines_of,
    numbers_of,
    panels_of,
    pixels,
    plates_of,
    rows_of,
    texts,
    tiles_of,
)
from matplotlib.figure import Figure

from detr_viz import figures
from detr_viz.figures.page import paint
from detr_viz.figures.styles import NORMS, STYLES, FigureError, PageFormat, Style

COLUMN = PageFormat.of(width_in=3.25)  # 8 panels too small for numbers: only the maps are in them


def stepped() -> FakeExplanation:
    """Heads of 4 x 6 cells, in steps of 1 / 255 of each head's largest weight.

    That is 1 / 64 in query 1 and half of it, or a power of two less, elsewhere: exact in float32.
    """
    example = fake((96, 144), (96, 144), 24)
    steps = np.random.default_rng(5).integers(0, 255, (3, 8, 4, 6))
    steps[:, :, 0, 0], steps[:, :, 3, 5] = 255, 0
    largest = np.ldexp(1, -6 - np.array([[1, 2, 3, 4] * 2, [0, 1, 2, 3] * 2, [1] * 8]))
    example.made = (steps / 255 * largest[:, :, None, None]).astype(np.float32)
    return example


def flat_and_peaked() -> FakeExplanation:
    """Query 0: head 0 has 0.9 on a cell, the others are flat. Query 1: all flat."""
    example = fake(names=("cat", "dog"), scores=(0.98, 0.75))
    example.made = np.full((2, 8, 12, 16), 1 / 192, np.float32)
    example.made[0, 0] = one_hot((12, 16), (6, 8), 0.9)
    return example


# --- norms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_colours_are_those_of_the_weights_as_shares_of_what_the_norm_says(norm):
    example = stepped()
    ends = {
        "head": example.made[:2].max((2, 3)),
        "query": np.repeat(example.made[:2].max((1, 2, 3))[:, None], 8, 1),
        "figure": np.full((2, 8), example.made[:2].max()),
    }[norm]
    style = Style("heat", norm, "viridis")
    fig = figures.head_grid(example, [0, 1], style=style, page_format=COLUMN)
    for q, row in enumerate(panels_of(fig)[:2]):
        for m, panel in enumerate(row[1:]):
            shares = example.made[q, m] / ends[q, m]
            assert shares.max() in (1, 0.5, 0.25, 0.125, 0.0625)
            index = np.rint(255 * shares).astype(int)
            expected = matplotlib.colormaps["viridis"](index, bytes=True)[..., :3]
            assert np.array_equal(at_centers(panel, (4, 6)), expected)
            if shares.max() == 1:  # shares of 255ths: matplotlib's own scale agrees
                own = matplotlib.colormaps["viridis"](shares.astype(float), bytes=True)[..., :3]
                assert np.array_equal(expected, own)


@pytest.mark.parametrize("norm", NORMS)
def test_modes_are_rows_of_their_own_but_one_figure(norm):
    example = fake((96, 144), (96, 144), 24)
    flat = np.full((3, 8, 4, 6), 1 / 64, np.float32)
    example.made_by = {("combine", 5): flat, ("position", 5): flat / 2, ("content", 5): flat * 4}
    style = Style("heat", norm, "gray_r")
    example.image.rgb[:] = 120
    fig = figures.head_grid(example, [0], MODES, style=style, page_format=COLUMN)
    panels = [t for t in tiles_of(fig) if t not in bar_of(fig)][1:]  # without the photo
    levels = [np.unique(pixels(fig, t)).tolist() for t in panels]
    shares = (0.25, 0.125, 1) if norm == "figure" else (1, 1, 1)
    assert levels == [[255 - round(255 * share)] for share in shares for _ in range(8)]


@pytest.mark.parametrize("norm", ["query", "figure"])
@pytest.mark.parametrize("style", ["overlay", "heat"])
def test_a_flat_map_beside_a_peaked_one_has_almost_the_colour_of_nothing(style, norm):
    """1 / 192 of 0.9: at most a 170th of the way up."""
    example = flat_and_peaked()
    nothing = fake(made=np.zeros_like(example.made))
    style = Style(style, norm, interpolation="nearest")
    (bare, *_), (row, other, *_) = (
        panels_of(figures.head_grid(e, [0, 1], style=style, page_format=COLUMN))
        for e in (nothing, example)
    )
    assert np.ptp(row[1].astype(int) - bare[1].astype(int)) > 150  # the peak
    for panel in row[2:]:
        assert np.abs(panel.astype(int) - bare[2]).max() <= 4
    for panel in other[1:]:
        shown = np.abs(panel.astype(int) - bare[2]).max()
        assert shown <= 4 if norm == "figure" else shown > 100


def test_a_flat_map_by_its_own_maximum_is_full_everywhere():
    style = Style(norm="head", cmap="gray", interpolation="nearest")
    row = panels_of(figures.head_grid(flat_and_peaked(), [0], style=style, page_format=COLUMN))[0]
    for panel in row[2:]:
        assert panel.min() > 235  # 0.94 * 255 and some of the ground


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
def test_a_flat_map_looks_flat(norm, interpolation):
    style = Style("heat", norm, interpolation=interpolation)
    rows = panels_of(figures.head_grid(flat_and_peaked(), [0, 1], style=style, page_format=COLUMN))
    for panel in (*rows[0][2:], *rows[1][1:]):
        assert panel.std((0, 1)).max() == 0
    assert rows[0][1].std() > 0


@pytest.mark.parametrize(
    ("style", "words"),
    [
        (Style(), ", from 0 to the number in it"),
        (Style(norm="query"), ", from 0 to its largest number"),
        (Style("heat", "figure"), "; numbers: each one's largest weight"),
        (Style("contour"), "numbers: each map's largest weight"),
    ],
)
def test_the_corner_says_how_colours_compare_and_what_the_numbers_are(style, words):
    said = {
        "head": "each panel on its own scale",
        "query": "each row on one scale",
        "figure": "all panels on one scale",
    }
    with_numbers, without = (
        "".join(texts(figures.head_grid(fake(), [0], style=style, page_format=page)))
        for page in (PageFormat.of(), COLUMN)
    )
    assert with_numbers.count(words) == 1
    for text in (with_numbers, without):
        for norm, scale in said.items():
            assert text.count(scale) == (norm == style.scaling)
    if style.scaling:
        assert said[style.scaling] + words in with_numbers
    assert "number" not in without


@pytest.mark.parametrize(
    ("style", "parts"),
    [
        (
            Style(),
            (
                "normalisation head (each panel on a scale of its own, from 0 to its largest",
                "style overlay, cubic interpolation, colour map inferno",
            ),
        ),
        (
            Style("heat", "query", "viridis"),
            (
                "normalisation query (each row on one scale, from 0 to its largest weight)",
                "style heat, nearest interpolation, colour map viridis",
            ),
        ),
        (
            Style("overlay", "figure", "gray", "linear"),
            (
                "normalisation figure (all panels on one scale, with a colour bar)",
                "style overlay, linear interpolation, colour map gray",
            ),
        ),
        (
            Style("contour", interpolation="linear"),
            (
                "inside the lines lie 50, 80 and 95 % of each map's mass",
                "style contour, linear interpol",
            ),
        ),
    ],
)
def test_metadata_name_style_norm_colours_and_interpolation(style, parts):
    fig = figures.head_grid(fake(), [0], style=style)
    for part in parts:
        assert fig.facts["Description"].count(part) == 1
    assert fig.shown.style == style
    assert ("normalisation" in fig.facts["Description"]) == (style.name != "contour")


# --- the colour bar ---------------------------------------------------------------------------


def bar_of(fig: Figure) -> list[Tile]:
    return [t for t in tiles_of(fig) if t.hw[1] > 5 * t.hw[0]]


@pytest.mark.parametrize(
    ("style", "bars"),
    [
        (Style(norm="figure"), 1),
        (Style("heat", "figure"), 1),
        (Style(), 0),
        (Style(norm="query"), 0),
        (Style("heat", "head"), 0),
        (Style("contour"), 0),
    ],
)
@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
def test_only_a_scale_for_all_has_a_bar(style, bars, mode):
    fig = figures.head_grid(fake(), [0, 1], mode, style=style)
    assert len(bar_of(fig)) == bars
    assert sum("weight of a cell" in text for text in texts(fig)) == bars


@pytest.mark.parametrize("style", ["overlay", "heat"])
@pytest.mark.parametrize("cmap", ["viridis", "cividis"])
def test_the_bar_runs_along_the_colours_between_its_ends(style, cmap):
    example = fake()
    example.made[1, 3] *= 1.5  # 0.75 on a cell, the largest of all that are shown
    example.made[2] *= 2  # not shown
    fig = figures.head_grid(example, [0, 1], style=Style(style, "figure", cmap))
    (bar,) = bar_of(fig)
    colors = pixels(fig, bar)
    assert (colors == colors[:1]).all() and bar.hw[1] > 200
    lut = matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3].astype(float)
    if style == "overlay":  # over a middle grey, the more opaque the larger the weight
        opacity = 0.94 * np.arange(256)[:, None] / 255
        ground = colors[0, 0].astype(float)
        assert np.ptp(ground) == 0
        lut = opacity * lut + (1 - opacity) * ground
    along = np.rint(np.linspace(0, 255, bar.hw[1])).astype(int)
    assert np.abs(colors[0] - lut[along]).max() <= 0.5
    (zero,) = (extent(t) for t in fig.axes[0].texts if t.get_text() == "weight of a cell  0")
    (largest,) = (extent(t) for t in fig.axes[0].texts
                  if t.get_text() == ".75" and t not in numbers_of(fig))  # fmt: skip
    assert 0 < bar.left - zero.x1 < bar.hw[0] and 0 < largest.x0 - bar.right < bar.hw[0]
    for box in (zero, largest):
        assert box.y0 < (bar.top + bar.bottom) / 2 < box.y1


def test_the_bar_ends_at_the_largest_weight_of_all_modes():
    example = fake()
    example.made_by = {("content", 5): example.made * 1.9}
    fig = figures.head_grid(example, [0], MODES, style=Style(norm="figure"))
    (bar,) = bar_of(fig)
    beside = [extent(t).y0 < bar.bottom < extent(t).y1 + bar.hw[0] for t in fig.axes[0].texts]
    legend = [text for text, near in zip(texts(fig), beside, strict=True) if near]
    assert sorted(legend) == [".95", "weight of a cell  0"]


# --- styles -----------------------------------------------------------------------------------


def test_heat_shows_the_cells_and_nothing_of_the_photo():
    example = stepped()
    style = Style("heat", cmap="viridis")
    first = panels_of(figures.head_grid(example, [0, 1], style=style, page_format=COLUMN))
    example.image.rgb = photo(96, 144, seed=1)[::-1]
    second = panels_of(figures.head_grid(example, [0, 1], style=style, page_format=COLUMN))
    for q in (0, 1):
        assert not np.array_equal(first[q][0], second[q][0])
        for m in range(8):
            assert np.array_equal(first[q][1 + m], second[q][1 + m])
            colors = np.unique(first[q][1 + m].reshape(-1, 3), axis=0)
            assert len(colors) == len(np.unique(example.made[q, m]))


def test_overlay_shows_the_photo_between_the_peaks():
    example = fake()
    first = panels_of(figures.head_grid(example, [0], page_format=COLUMN))
    example.image.rgb = photo(96, 128, seed=1)[::-1]
    second = panels_of(figures.head_grid(example, [0], page_format=COLUMN))
    assert not np.array_equal(first[0][1], second[0][1])


def test_contours_leave_the_photo_as_it_is():
    """A photo of the panels' size: each panel is the photo, byte by byte."""
    example, style = fake(heads=4), Style("contour")
    hw = rows_of(figures.head_grid(example, [0], style=style))[0][0].hw
    example.image.rgb = photo(*hw, seed=2)
    fig = figures.head_grid(example, [0, 1], style=style)
    rows = panels_of(fig)
    assert [len(row) for row in rows] == [5, 5]
    for panel in (*rows[0], *rows[1]):
        assert np.array_equal(panel, example.image.rgb)


@pytest.mark.parametrize("style", STYLES)
def test_lines_belong_to_contours(style):
    fig = figures.head_grid(fake(), [0], style=Style(style))
    assert len(lines_of(fig)) == (6 if style == "contour" else 0)
    assert len(fig.axes[0].collections) == (3 + 6 if style == "contour" else 3)
    assert "50 %" in texts(fig) if style == "contour" else "50 %" not in texts(fig)


# --- colour maps ------------------------------------------------------------------------------


def test_every_colour_map_of_matplotlib():
    for name in matplotlib.colormaps:
        lut = paint.colors(Style(cmap=name))
        assert lut.shape == (256, 3) and lut.dtype == np.uint8
        for i, share in ((0, 0.0), (128, 128 / 255), (255, 1.0)):
            expected = matplotlib.colormaps[name](share, bytes=True)[:3]
            assert tuple(lut[i]) == tuple(expected), name


def test_colours_where_none_are_named():
    """inferno: whole for the map alone; over a photo without its end that is near black."""
    inferno = matplotlib.colormaps["inferno"]
    heat, overlay = paint.colors(Style("heat")), paint.colors(Style())
    assert np.array_equal(heat, inferno(np.arange(256), bytes=True)[:, :3])
    assert tuple(overlay[255]) == tuple(heat[255])
    assert tuple(overlay[0]) == tuple(inferno(0.18, bytes=True)[:3])
    assert overlay[0].max() > 50 > heat[0].max()


@pytest.mark.parametrize("cmap", ["viridis", "gray", "RdBu_r", "tab10"])
@pytest.mark.parametrize("style", STYLES)
def test_a_figure_in_any_colour_map(style, cmap):
    """The peak, or a line's colour, is the map's; that of its largest weight in the map styles."""
    example = fake()
    example.made[0] = one_hot((12, 16), (6, 8))
    fig = figures.head_grid(example, [0], style=Style(style, cmap=cmap))
    top = matplotlib.colormaps[cmap](1.0, bytes=True)[:3]
    colors = matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3]
    if style == "contour":
        drawn = [np.rint(c.get_color()[0, :3] * 255) for c in lines_of(fig)[3:]]
        assert all((line == colors).all(1).any() for line in drawn)
    else:
        panel = panels_of(fig)[0][1].astype(int)
        assert np.abs(panel - np.array(top, int)).max(-1).min() <= (0 if style == "heat" else 16)


def test_a_colour_map_of_ones_own(monkeypatch):
    from matplotlib.colors import ListedColormap

    mine = ListedColormap(["#102030", "#405060"], name="mine")
    with pytest.raises(FigureError, match="no colour map 'mine'"):
        paint.colors(Style(cmap="mine"))
    matplotlib.colormaps.register(mine)
    try:
        lut = paint.colors(Style(cmap="mine"))
    finally:
        matplotlib.colormaps.unregister("mine")
    assert np.array_equal(np.unique(lut, axis=0), [[16, 32, 48], [64, 80, 96]])


# --- numbers on plates ------------------------------------------------------------------------


@pytest.mark.parametrize("cmap", ["gray", "gray_r", None])
@pytest.mark.parametrize("style", ["overlay", "heat"])
@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
def test_numbers_stand_on_dark_plates(style, cmap, mode):
    example = flat_and_peaked()
    example.image.rgb[:] = 235
    fig = figures.head_grid(example, [0, 1], mode, style=Style(style, cmap=cmap))
    modes = 1 if mode == "combine" else 3
    found = numbers_of(fig)
    assert len(found) == 2 * 8 * modes
    boxes = [extent(text) for text in found]
    for artist in (*found, *boxes_of(fig)):
        artist.set_visible(False)
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    for box in boxes:
        under = drawn[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)]
        assert under.size and under.max() < 80  # #e0e0e0 on #505050: a contrast of 6


@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
def test_plates_lie_over_the_lines_of_contours(mode):
    fig = figures.head_grid(fake(), [0, 1], mode, style=Style("contour"))
    plates, numbers = plates_of(fig), numbers_of(fig)
    assert len(plates.get_paths()) == len(numbers) == 2 * 8 * (1 if mode == "combine" else 3)
    (color,) = plates.get_facecolor()
    assert color[:3].max() < 0.2 and color[3] > 0.8
    assert max(c.get_zorder() for c in lines_of(fig)) < plates.get_zorder()
    for text in numbers:
        assert text.get_zorder() > plates.get_zorder()
        ends = extent(text).get_points()
        around = [
            (path.vertices.min(0) <= ends[0]).all() and (path.vertices.max(0) >= ends[1]).all()
            for path in plates.get_paths()
        ]
        assert sum(around) == 1


def test_contours_in_small_panels_have_neither_numbers_nor_plates():
    fig = figures.head_grid(fake(), [0], style=Style("contour"), page_format=COLUMN)
    assert not numbers_of(fig)
    with pytest.raises(ValueError, match="not enough values"):
        plates_of(fig)
