"""Styles, norms and colour maps: the pixels of panels against weights that are known."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake, one_hot, photo
from figure_tools import (
    at_centers,
    captions_of,
    extent,
    lines_of,
    maps_of,
    panels_of,
    pixels,
    ramps_of,
    rows_of,
    texts,
)
from matplotlib.figure import Figure

from detr_viz import figures
from detr_viz.figures.page import scale
from detr_viz.figures.page.ground import luminance
from detr_viz.figures.styles import NORMS, RAMPS, FigureError, PageFormat, Style

COLUMN = PageFormat.of(width_in=3.25)
LINEAR = ("head", "query", "figure")
MAPS = ("overlay", "heat")
TIMES = "\N{MULTIPLICATION SIGN}"


def tone(times: float | np.ndarray) -> np.ndarray:
    """Of so many times an even spread, 1 - (1 - log r / log 256)^1.6, from 1 on."""
    return 1 - (1 - np.clip(np.log(np.maximum(times, 1e-30)) / np.log(256), 0, 1)) ** 1.6


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


def test_tones_relative_to_an_even_spread():
    """By hand: 4 is a quarter of log 256, 16 half, 64 three quarters."""
    found = scale.even_tone(np.array([0, 0.5, 1, 4, 16, 64, 256, 1000.0]))
    assert found == pytest.approx([0, 0, 0, 0.37, 0.67, 0.89, 1, 1], abs=0.01)
    exact = [1 - 0.75**1.6, 1 - 0.5**1.6, 1 - 0.25**1.6]
    assert found[3:6] == pytest.approx(exact, rel=1e-9)


def test_the_even_scale_is_the_same_for_all_figures_and_maps_of_any_size():
    """A weight of 8 times an even spread has one colour, whatever else there is."""
    seen = set()
    for stride, others in ((24, 0.0), (12, 0.5), (8, 0.9)):
        example = fake((96, 144), (96, 144), stride)
        cells = example.grid_hw[0] * example.grid_hw[1]
        example.made = np.zeros((3, 8, *example.grid_hw), np.float32)
        example.made[:, :, 1, 1] = 8 / cells
        example.made[:, 3, 2, 2] = others
        style = Style("heat", cmap="gray")
        for panel in panels_of(figures.head_grid(example, [0, 1], style=style))[1][1:]:
            seen.add(tuple(at_centers(panel, example.grid_hw)[1, 1]))
    assert seen == {(round(255 * float(tone(8))),) * 3}


@pytest.mark.parametrize("norm", LINEAR)
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


def test_colours_are_those_of_the_weights_relative_to_an_even_spread():
    example = stepped()
    fig = figures.head_grid(example, [0, 1], style=Style("heat", cmap="gray"), page_format=COLUMN)
    for q, row in enumerate(panels_of(fig)):
        for m, panel in enumerate(row[1:]):
            exact = 255 * tone(example.made[q, m].astype(float) * 24)
            assert np.abs(at_centers(panel, (4, 6))[..., 0] - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_modes_are_rows_of_their_own_but_one_figure(norm):
    example = fake((96, 144), (96, 144), 24)
    flat = np.full((3, 8, 4, 6), 1 / 64, np.float32)
    example.made_by = {("combine", 5): flat, ("position", 5): flat / 2, ("content", 5): flat * 4}
    style = Style("heat", norm, "gray_r")
    example.image.rgb[:] = 120
    fig = figures.head_grid(example, [0], MODES, style=style, page_format=COLUMN)
    levels = [np.unique(pixels(fig, t)).tolist() for t in maps_of(fig)]
    shares = {"figure": (0.25, 0.125, 1), "even": tone(np.array([24 / 64, 12 / 64, 96 / 64]))}
    shares = shares.get(norm, (1, 1, 1))
    assert levels == [[255 - round(255 * share)] for share in shares for _ in range(8)]


@pytest.mark.parametrize("norm", ["even", "query", "figure"])
@pytest.mark.parametrize("style", MAPS)
def test_a_flat_map_beside_a_peaked_one_has_almost_the_colour_of_nothing(style, norm):
    """1 / 192 of 0.9: at most a 170th of the way up; relative to an even spread nothing at all."""
    example = flat_and_peaked()
    nothing = fake(made=np.zeros_like(example.made))
    style = Style(style, norm, interpolation="nearest")
    (bare, *_), (row, other, *_) = (
        panels_of(figures.head_grid(e, [0, 1], style=style, page_format=COLUMN))
        for e in (nothing, example)
    )
    assert np.ptp(row[1].astype(int) - bare[1].astype(int)) > 150  # the peak
    for panel in row[2:]:
        shown = np.abs(panel.astype(int) - bare[2]).max()
        assert shown == 0 if norm == "even" else shown <= 4
    for panel in other[1:]:
        shown = np.abs(panel.astype(int) - other[1]).max()
        assert shown == 0  # its heads are alike
    full = (other[1] == scale.colors(style)[255]).all()
    if style.name == "heat":
        assert full == (norm == "query")


def test_an_even_map_draws_nothing():
    """The panel is the bare ground, bit by bit, and so is what a map may reach beyond it."""
    even, nothing = fake(), fake()
    even.made = np.full_like(even.made, 1 / 192)
    nothing.made = np.zeros_like(even.made)
    first, second = (figures.head_grid(e, [0, 1]) for e in (even, nothing))
    assert np.array_equal(first.axes[0].images[0].get_array(), second.axes[0].images[0].get_array())
    assert {text.rpartition(", ")[2] for text in captions_of(first)} == {"flat"}


def test_a_flat_map_by_its_own_maximum_is_full_everywhere():
    style = Style("heat", norm="head", interpolation="nearest")
    row = panels_of(figures.head_grid(flat_and_peaked(), [0], style=style, page_format=COLUMN))[0]
    for panel in row[2:]:
        assert (panel == (0x26, 0x07, 0x2F)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "smooth"])
def test_a_flat_map_looks_flat(norm, interpolation):
    style = Style("heat", norm, interpolation=interpolation)
    rows = panels_of(figures.head_grid(flat_and_peaked(), [0, 1], style=style, page_format=COLUMN))
    for panel in (*rows[0][2:], *rows[1][1:]):
        assert panel.std((0, 1)).max() == 0
    assert rows[0][1].std() > 0


@pytest.mark.parametrize(
    ("style", "words"),
    [
        (Style(), (f"attention: even spread {TIMES}1", f"{TIMES}256")),
        (Style("heat"), (f"attention: even spread {TIMES}1", f"{TIMES}256")),
        (Style(norm="head"), ("attention: 0", "largest of the panel")),
        (Style(norm="query"), ("attention: 0", "largest of the row")),
        (Style("heat", "figure"), ("attention: 0", ".50")),
        (Style("contour"), ("a line", "holds 50 %")),
    ],
)
@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
def test_the_key_says_how_colours_compare(style, words, mode):
    found = texts(figures.head_grid(fake(), [0], mode, style=style))
    others = {f"attention: even spread {TIMES}1", "attention: 0", "a line"} - {words[0]}
    assert all(found.count(word) == 1 for word in words)
    assert not others & set(found)


@pytest.mark.parametrize(
    ("style", "parts"),
    [
        (
            Style(),
            (
                "normalisation even (relative to an even spread, on one logarithmic scale for all",
                "smooth interpolation (large cells and views: cell by cell), colour map ember",
            ),
        ),
        (
            Style(norm="head"),
            (
                "normalisation head (each panel on a scale of its own, from 0 to its largest",
                "cubic interpolation (large cells and views: cell by cell), colour map ember",
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
                "normalisation figure (all panels on one scale, from 0 to the largest weight of",
                "style overlay, linear interpolation, colour map gray",
            ),
        ),
        (
            Style("contour", interpolation="linear", contours=(0.5, 0.8, 0.95)),
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


# --- the colours in the key -------------------------------------------------------------------


def beside(fig: Figure) -> tuple[list[str], list[str]]:
    """The texts in the key's ramp, and the nearest ones at its left and right."""
    (ramp,) = ramps_of(fig)
    on_line = [
        (extent(t), t.get_text())
        for t in fig.axes[0].texts
        if extent(t).y0 < (ramp.top + ramp.bottom) / 2 < extent(t).y1
    ]
    within = [text for box, text in on_line if ramp.left < box.x0 and box.x1 < ramp.right]
    left = max((box.x1, text) for box, text in on_line if box.x1 <= ramp.left)
    right = min((box.x0, text) for box, text in on_line if box.x0 >= ramp.right)
    for gap in (ramp.left - left[0], right[0] - ramp.right):
        assert 0 < gap < ramp.hw[0]
    return within, [left[1], right[1]]


@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
@pytest.mark.parametrize("norm", [None, *NORMS])
@pytest.mark.parametrize("style", (*MAPS, "contour"))
def test_a_map_in_colour_always_has_a_key(style, norm, mode):
    if style == "contour" and norm:
        with pytest.raises(FigureError, match="says nothing about contours"):
            Style(style, norm)
        return
    fig = figures.head_grid(fake(), [0, 1], mode, style=Style(style, norm))
    assert len(ramps_of(fig)) == (style != "contour")


@pytest.mark.parametrize("style", MAPS)
@pytest.mark.parametrize("cmap", ["viridis", "cividis"])
def test_the_ramp_runs_along_the_colours_between_its_ends(style, cmap):
    example = fake()
    example.made[1, 3] *= 1.5  # 0.75 on a cell, the largest of all that are shown
    example.made[2] *= 2  # not shown
    fig = figures.head_grid(example, [0, 1], style=Style(style, "figure", cmap))
    (ramp,) = ramps_of(fig)
    colors = pixels(fig, ramp)
    assert (colors == colors[:1]).all() and ramp.hw[1] > 200
    lut = matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3].astype(float)
    if style == "overlay":  # over a light grey, nearly opaque from the middle on
        gray = colors[0, 0].astype(float)
        assert np.ptp(gray) == 0
        opacity = 0.94 * np.clip(np.arange(256)[:, None] / 255 / 0.55, 0, 1) ** 1.25
        grain = 1 + 0.7 * (gray / 255 - 0.85)
        lut = opacity * np.clip(lut * grain, 0, 255) + (1 - opacity) * gray
    along = np.rint(np.linspace(0, 255, ramp.hw[1])).astype(int)
    assert np.abs(colors[0] - lut[along]).max() <= 0.5 + 1e-9
    assert beside(fig) == ([], ["attention: 0", ".75"])


def test_the_ramp_ends_at_the_largest_weight_of_all_modes():
    example = fake()
    example.made_by = {("content", 5): example.made * 1.9}
    fig = figures.head_grid(example, [0], MODES, style=Style(norm="figure"))
    assert beside(fig) == ([], ["attention: 0", ".95"])


@pytest.mark.parametrize("style", MAPS)
@pytest.mark.parametrize("cmap", [None, "violet", "viridis"])
@pytest.mark.parametrize("times", scale.EVEN_TICKS)
def test_ticks_stand_where_the_colour_is_that_of_such_a_weight(monkeypatch, style, cmap, times):
    """The colour of the ramp at a tick is that of a map, over the same grey."""
    example, look = fake(), Style(style, cmap=cmap, interpolation="nearest")
    example.image.rgb[:] = 120
    example.boxes_xyxy_px[0] = [0, 0, 128, 96]
    example.made = np.zeros((3, 8, 12, 16), np.float32)
    bare = at_centers(panels_of(figures.head_grid(example, [0], style=look))[0][1], (12, 16))
    (gray,) = {tuple(pixel) for pixel in bare.reshape(-1, 3)[20:40]}
    monkeypatch.setattr(scale, "RAMP_GRAY", gray[0])
    example.made[:, :, 6, 8] = times / 192
    fig = figures.head_grid(example, [0], style=look)
    color = at_centers(panels_of(fig)[0][1], (12, 16))[6, 8].astype(int)
    (ramp,) = ramps_of(fig)
    (tick,) = (t for t in fig.axes[0].texts if t.get_text() == f"{TIMES}{times}")
    along = pixels(fig, ramp)[0].astype(int)
    place = tick.get_position()[0] - ramp.left
    assert tick.get_horizontalalignment() == "center"
    off = np.abs(along - color).max(-1)
    alike = np.flatnonzero(off == off.min())
    assert off.min() <= 2 and np.abs(alike - place).min() <= 2  # a pixel, and half a tone


@pytest.mark.parametrize("cmap", [None, "violet", "viridis", "gray", "gray_r", "RdBu_r"])
@pytest.mark.parametrize("style", MAPS)
def test_ticks_are_legible_in_the_ramp(style, cmap):
    """WCAG 2's contrast for large text, 3, between a tick and what is under it."""
    fig = figures.head_grid(fake(), [0], style=Style(style, cmap=cmap))
    (ramp,) = ramps_of(fig)
    along = pixels(fig, ramp)[0]
    for times in scale.EVEN_TICKS:
        (tick,) = (t for t in fig.axes[0].texts if t.get_text() == f"{TIMES}{times}")
        box = extent(tick)
        assert ramp.left < box.x0 and box.x1 < ramp.right
        for x in (box.x0, (box.x0 + box.x1) / 2, box.x1):
            under = "#" + "".join(f"{c:02x}" for c in along[round(x) - ramp.left])
            light, dark = sorted(map(luminance, (under, tick.get_color())), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (times, x)


# --- styles -----------------------------------------------------------------------------------


def test_heat_shows_the_cells_and_nothing_of_the_photo():
    example = stepped()
    style = Style("heat", "head", "viridis")
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
    """A photo of a panel's size: the panel is the photo, byte by byte; so is the large one."""
    example, style = fake(heads=4), Style("contour")
    sizes = {tile.hw for tile in rows_of(figures.head_grid(example, [0], style=style))[0]}
    assert len(sizes) == 2
    for hw, same in zip(sorted(sizes), (8, 2), strict=True):
        example.image.rgb = photo(*hw, seed=2)
        rows = panels_of(figures.head_grid(example, [0, 1], style=style))
        assert sum(np.array_equal(p, example.image.rgb) for row in rows for p in row) == same


@pytest.mark.parametrize("style", (*MAPS, "contour"))
def test_lines_belong_to_contours(style):
    fig = figures.head_grid(fake(), [0], style=Style(style))
    # two of each: a dark one under the one in colour, in the panels, in the key, on the photo
    assert len(lines_of(fig)) == (4 if style == "contour" else 0)
    assert len(fig.axes[0].collections) == (4 + 4 + 2 if style == "contour" else 4)
    assert ("holds 50 %" in texts(fig)) == (style == "contour")


# --- colour maps ------------------------------------------------------------------------------


def test_every_colour_map_of_matplotlib():
    for name in matplotlib.colormaps:
        lut = scale.colors(Style(cmap=name))
        assert lut.shape == (256, 3) and lut.dtype == np.uint8
        for i, share in ((0, 0.0), (128, 128 / 255), (255, 1.0)):
            expected = matplotlib.colormaps[name](share, bytes=True)[:3]
            assert tuple(lut[i]) == tuple(expected), name


def test_our_own_colours_are_those_of_the_stops():
    default = scale.colors(Style())
    assert np.array_equal(default, scale.colors(Style(cmap="ember")))
    for name, stops in RAMPS.items():
        lut = scale.colors(Style(cmap=name))
        assert lut.shape == (256, 3) and lut.dtype == np.uint8
        for place, color in stops:
            exact = np.array([*bytes.fromhex(color[1:])], int)
            assert np.abs(lut[round(place * 255)] - exact).max() <= 2
    assert tuple(default[0]) == (0xFF, 0xF3, 0xDC) and tuple(default[255]) == (0x26, 0x07, 0x2F)


@pytest.mark.parametrize("cmap", ["ember", "violet", "viridis", "gray", "RdBu_r", "tab10"])
@pytest.mark.parametrize("style", MAPS)
def test_a_figure_in_any_colour_map(style, cmap):
    """A cell of all the weight has the map's last colour; over the photo 94 % of it."""
    example = fake()
    example.image.rgb[:] = 120
    example.boxes_xyxy_px[0] = [0, 0, 128, 96]
    example.made[0] = 0
    bare = at_centers(panels_of(figures.head_grid(example, [0]))[0][1], (12, 16))
    gray = float(bare[6, 8, 0])
    example.made[0] = one_hot((12, 16), (6, 8), 2.0)
    look = Style(style, cmap=cmap, interpolation="nearest")
    panel = at_centers(panels_of(figures.head_grid(example, [0], style=look))[0][1], (12, 16))
    top = np.array([0x26, 0x07, 0x2F] if cmap == "ember" else [0x1B, 0x03, 0x38], float)
    if cmap in matplotlib.colormaps:
        top = np.array(matplotlib.colormaps[cmap](1.0, bytes=True)[:3], float)
    if style == "overlay":
        top = 0.94 * np.clip(top * (1 + 0.7 * (gray / 255 - 0.85)), 0, 255) + 0.06 * gray
    assert np.abs(panel[6, 8] - top).max() <= 0.5 + 1e-9


def test_a_colour_map_of_ones_own(monkeypatch):
    from matplotlib.colors import ListedColormap

    mine = ListedColormap(["#102030", "#405060"], name="mine")
    with pytest.raises(FigureError, match="no colour map 'mine'"):
        scale.colors(Style(cmap="mine"))
    matplotlib.colormaps.register(mine)
    try:
        lut = scale.colors(Style(cmap="mine"))
    finally:
        matplotlib.colormaps.unregister("mine")
    assert np.array_equal(np.unique(lut, axis=0), [[16, 32, 48], [64, 80, 96]])
