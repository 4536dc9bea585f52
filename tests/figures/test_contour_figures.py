"""Contour figures: what the drawn lines hold, which line is which, and that files have vectors."""

from __future__ import annotations

import base64
import io
import re
from functools import lru_cache
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake
from figure_tools import (
    Tile,
    captions_of,
    extent,
    lines_of,
    maps_of,
    photos_of,
    rows_of,
    sheet_of,
    tiles_of,
)
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from test_contours import INTERPOLATIONS, centers, inside, softmax_maps

from detr_viz import figures
from detr_viz.figures.page.artists import CONTOUR
from detr_viz.figures.styles import PageFormat, Style

SHARES = (50, 80, 95)
THREE = Style("contour", contours=(0.5, 0.8, 0.95))
GRIDS = {  # map, resized input, stride, photo
    "16x16": ((16, 16), (512, 512), 32, (128, 128)),
    "25x34": ((25, 34), (800, 1066), 32, (150, 200)),
}


def attentive(grid: str, heads: int = 4, sharpness: float = 1.5) -> FakeExplanation:
    """Two queries; heads look at the middle, a corner, an edge and somewhere else."""
    hw, input_hw, stride, image_hw = GRIDS[grid]
    example = fake(image_hw, input_hw, stride, heads=heads)
    peaks = [(8, 9), (0, hw[1] - 1), (hw[0] - 1, 4), (3, 12)] * 2
    made = [softmax_maps(hw, sharpness, peaks[:heads], seed) for seed in (3, 4)]
    example.made = np.stack([*made, made[0]])
    return example


def of_panels(fig: Figure, lines: LineCollection) -> bool:
    """Whether these are lines of panels, not samples of the key."""
    foot = max(tile.bottom for tile in tiles_of(fig))
    return max(line[:, 1].max() for line in lines.get_segments()) <= foot


def coloured(fig: Figure) -> list[LineCollection]:
    """The lines in colour in the panels, in the order of shares."""
    return [c for c in lines_of(fig) if c.get_zorder() >= 3.2 and of_panels(fig, c)]


def by_share(fig: Figure) -> dict[int, LineCollection]:
    """The lines in colour, by what the key says of each: the text right after its sample.

    The sample is drawn as the lines are.
    """
    found = {}
    samples = [c for c in lines_of(fig) if c.get_zorder() >= 3.2 and not of_panels(fig, c)]
    for lines in coloured(fig):
        (like,) = (c for c in samples if c.get_zorder() == lines.get_zorder())
        assert like.get_linestyle() == lines.get_linestyle()
        assert like.get_linewidth()[0] == lines.get_linewidth()[0]
        assert np.array_equal(like.get_color(), lines.get_color())
        (sample,) = like.get_segments()
        after = min(
            (extent(t).x0 - sample[:, 0].max(), t.get_text())
            for t in fig.axes[0].texts
            if t.get_text().endswith(" %")
            and extent(t).x0 > sample[:, 0].max()
            and extent(t).y0 < sample[0, 1] < extent(t).y1
        )
        found[int(after[1].removeprefix("holds ").removesuffix(" %"))] = lines
    return found


def drawn_in(tile: Tile, lines: LineCollection) -> list[np.ndarray]:
    """The lines in one panel, from its upper left corner."""
    segments, low, high = _extents(lines)
    held = (low >= (tile.left, tile.top)) & (high <= (tile.right, tile.bottom))
    return [segments[i] - (tile.left, tile.top) for i in np.flatnonzero(held.all(1))]


@lru_cache(maxsize=6)  # the lines of one figure, asked for panel by panel
def _extents(lines: LineCollection) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    segments = lines.get_segments()
    return (
        segments,
        np.array([line.min(0) for line in segments]),
        np.array([line.max(0) for line in segments]),
    )


def is_wide(weights: np.ndarray) -> bool:
    """Whether more than a third of the cells are needed for half of the mass."""
    ordered = np.sort(weights, axis=None)[::-1]
    needed = np.searchsorted(np.cumsum(ordered), 0.5 * ordered.sum()) + 1
    return needed > weights.size / 3


# --- what the lines hold ----------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sharpness", [1.2, 3])
def test_the_drawn_lines_hold_what_the_key_says(grid, interpolation, sharpness):
    """The cells inside a panel's lines, by their centres, have the share but for one cell."""
    example = attentive(grid, sharpness=sharpness)
    style = Style("contour", interpolation=interpolation, contours=(0.5, 0.8, 0.95))
    assert not any(is_wide(one) for query in example.made for one in query)
    fig = figures.head_grid(example, [0, 1], style=style)
    collections = by_share(fig)
    assert sorted(collections) == list(SHARES)
    place = example.grid()
    for q, row in enumerate(rows_of(fig)):
        for m, panel in enumerate(row[1:]):
            weights = example.made[q, m].astype(float)
            at = centers(weights.shape, place, panel.hw).reshape(-1, 2)
            for share, lines in collections.items():
                took = inside(at, at[weights.argmax()], drawn_in(panel, lines))
                within, without = weights.ravel()[took], weights.ravel()[~took]
                assert within.min() > without.max()  # the densest cells, and no other
                assert abs(within.sum() - share / 100) < within.min()


@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
def test_lines_are_in_maps_and_each_has_a_darker_one_under_it(mode):
    fig = figures.head_grid(attentive("16x16", 4, 3), [0, 1], mode, style=THREE)
    rows = 2 * (1 if mode == "combine" else 3)
    maps, collections = maps_of(fig), lines_of(fig)
    assert len(maps) == 4 * rows and len(photos_of(fig)) == 2
    assert len(collections) == 2 * 2 * len(SHARES)  # in the panels, and in the key
    shown = sorted(by_share(fig).items())
    assert [share for share, _ in shown] == list(SHARES)
    dashes = [lines.get_linestyle()[0][1] for _, lines in shown]
    assert dashes[0] is None and None not in dashes[1:] and dashes[1] != dashes[2]
    under = [c for c in collections if c.get_zorder() < 3.2 and of_panels(fig, c)]
    for (_, lines), dark in zip(shown, under, strict=True):
        (width,), (color,) = lines.get_linewidths(), lines.get_color()
        segments = lines.get_segments()
        assert len(dark.get_segments()) == len(segments)
        assert all(map(np.array_equal, dark.get_segments(), segments))
        assert dark.get_linewidth()[0] > width and dark.get_zorder() < lines.get_zorder()
        assert dark.get_color()[0, :3].mean() < color[:3].mean() - 0.2
        assert sum(len(drawn_in(tile, lines)) for tile in maps) == len(segments)
        assert all(drawn_in(tile, lines) for tile in maps)
        assert not any(drawn_in(photo, lines) for photo in photos_of(fig))


def test_one_line_holds_half_of_a_map_unless_other_shares_are_asked_for():
    fig = figures.head_grid(attentive("16x16", 4, 3), [0], style=Style("contour"))
    assert list(by_share(fig)) == [50]
    asked = Style("contour", contours=(0.9, 0.3))
    assert list(by_share(figures.head_grid(attentive("16x16", 4, 3), [0], style=asked))) == [90, 30]


def test_captions_are_what_part_of_the_image_the_first_line_holds():
    """By counting cells: the fewest that have half of the mass."""
    example = attentive("25x34", sharpness=2)
    found = captions_of(figures.head_grid(example, [0, 1], style=Style("contour")))
    for text, weights in zip(found, example.made[:2].reshape(-1, 25 * 34), strict=True):
        ordered = np.sort(weights.astype(float))[::-1]
        needed = int(np.searchsorted(np.cumsum(ordered), 0.5)) + 1
        # the last cell may be left out where it is all of a tie
        assert text in {f"{round(100 * n / (25 * 34))} %" for n in (needed - 1, needed)}


def test_a_wide_map_has_a_panel_in_colour_and_no_line():
    """A line around more than a third of the image says nothing; the panel says why."""
    example = attentive("16x16", sharpness=3)
    example.made[0, 2] = softmax_maps((16, 16), 0.3, [(8, 8)])[0]
    assert [is_wide(one) for one in example.made[0]] == [False, False, True, False]
    fig = figures.head_grid(example, [0], style=Style("contour"))
    (lines,) = coloured(fig)
    assert [bool(drawn_in(tile, lines)) for tile in maps_of(fig)] == [True, True, False, True]
    said = captions_of(fig)[2]
    assert said.startswith("spread, ") and 33 < int(said.split()[1]) < 60
    (photo,) = (sheet_of(fig)[t.top : t.bottom, t.left : t.right] for t in photos_of(fig))
    panels = [sheet_of(fig)[t.top : t.bottom, t.left : t.right] for t in maps_of(fig)]
    assert [np.array_equal(panel, photo) for panel in panels] == [True, True, False, True]


def test_a_flat_map_has_no_lines_but_the_key_stays():
    example = fake(heads=4, made=np.full((3, 4, 12, 16), 1 / 192, np.float32))
    fig = figures.head_grid(example, [0], style=THREE)
    assert [len(lines.get_segments()) for lines in lines_of(fig)] == [1] * 6
    assert not any(of_panels(fig, lines) for lines in lines_of(fig))
    assert captions_of(fig) == ["flat"] * 4
    key = [t.get_text() for t in fig.axes[0].texts if t.get_text().endswith(" %")]
    assert sorted(key) == ["80 %", "95 %", "holds 50 %"]


def widths(page_format: PageFormat, heads: int = 2) -> np.ndarray:
    """Of the lines in points, from the lowest."""
    fig = figures.head_grid(fake(heads=heads), [0], style=Style("contour"), page_format=page_format)
    return np.array([lines.get_linewidth()[0] for lines in lines_of(fig)])


@pytest.mark.parametrize(("preset", "times"), [("column", 1), ("page", 1.1), ("poster", 4.2)])
def test_lines_grow_with_the_type(preset, times):
    """Points, not pixels: as wide on paper at any resolution, wider on a poster."""
    fine = widths(PageFormat.of(preset, dpi=200))
    assert np.allclose(fine, widths(PageFormat.of(preset, dpi=100)))
    assert np.allclose(fine, times * widths(PageFormat.of()))
    assert fine.min() >= 0.25  # thinner ones do not print


# --- files ------------------------------------------------------------------------------------


YELLOW = tuple(bytes.fromhex(CONTOUR[1:]))


def yellow_lines(fig: Figure) -> list[np.ndarray]:
    """All lines in colour, from the lowest, with those of the key."""
    found = [c for c in lines_of(fig) if c.get_zorder() >= 3.2]
    for lines in found:
        assert tuple(np.rint(lines.get_color()[0, :3] * 255).astype(int)) == YELLOW
    return [line for lines in found for line in lines.get_segments()]


@pytest.fixture(scope="module")
def contour_figure() -> Figure:
    return figures.head_grid(attentive("25x34"), [0, 1], style=THREE)


def test_an_svg_has_the_lines_as_paths_and_none_in_its_picture(contour_figure, tmp_path):
    figures.save(contour_figure, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    strokes: dict[tuple[int, ...], list[str]] = {}
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        hexed = re.search(r"stroke: #([0-9a-f]{6})", path.get("style", ""))
        if hexed:
            strokes.setdefault(tuple(bytes.fromhex(hexed[1])), []).append(path.get("d"))
    (picture,) = root.iter("{http://www.w3.org/2000/svg}image")
    encoded = picture.get("{http://www.w3.org/1999/xlink}href").partition("base64,")[2]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    assert np.array_equal(sheet, sheet_of(contour_figure))
    drawn, segments = strokes[YELLOW], yellow_lines(contour_figure)
    assert len(drawn) == len(segments) > 24
    starts = [np.array(re.findall(r"-?\d+\.?\d*", d)[:2], float) for d in drawn]
    expected = [segment[0] * 72 / contour_figure.dpi for segment in segments]  # pixels to points
    order = [sorted(range(len(at)), key=lambda i, at=at: tuple(np.round(at[i], 1))) for at in (
        starts, expected)]  # fmt: skip
    for i, k in zip(*order, strict=True):
        assert np.allclose(starts[i], expected[k], atol=0.1)
    assert not (sheet == YELLOW).all(-1).any()


def test_a_pdf_has_the_lines_as_paths_and_none_in_its_picture(contour_figure, tmp_path):
    from pypdf import PdfReader
    from pypdf.generic import ContentStream

    figures.save(contour_figure, tmp_path / "a.pdf")
    reader = PdfReader(tmp_path / "a.pdf")
    (page,) = reader.pages
    stroked: dict[tuple[int, ...], int] = {}
    color, starts = (0, 0, 0), 0
    for operands, operator in ContentStream(page.get_contents(), reader).operations:
        if operator in (b"RG", b"G"):
            color = tuple(round(float(v) * 255) for v in operands) * (3 // len(operands))
        elif operator == b"m":
            starts += 1
        elif operator in (b"S", b"s"):
            stroked[color] = stroked.get(color, 0) + starts
            starts = 0
        elif operator in (b"f", b"F", b"f*", b"B", b"n", b"b"):
            starts = 0
    assert stroked[YELLOW] == len(yellow_lines(contour_figure)) > 24
    (image,) = page.images
    sheet = np.asarray(image.image.convert("RGB"))
    assert np.array_equal(sheet[::-1], sheet_of(contour_figure))


def test_a_png_shows_the_lines_in_the_colour_of_the_key(contour_figure):
    contour_figure.canvas.draw()
    shown = np.asarray(contour_figure.canvas.buffer_rgba())[..., :3].astype(int)
    panel = rows_of(contour_figure)[0][1]
    inner = shown[panel.top : panel.bottom, panel.left : panel.right]
    assert (np.abs(inner - YELLOW).max(-1) <= 3).sum() > 30
