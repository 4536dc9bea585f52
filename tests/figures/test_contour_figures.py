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
from figure_tools import Tile, extent, lines_of, rows_of, sheet_of, tiles_of
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from test_contours import centers, inside, softmax_maps

from detr_viz import figures
from detr_viz.figures.styles import INTERPOLATIONS, PageFormat, Style

SHARES = (50, 80, 95)
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


def by_share(fig: Figure) -> dict[int, LineCollection]:
    """The lines in colour, by what the key says of each: the text right after its sample."""
    found = {}
    for lines in lines_of(fig)[3:]:
        sample = lines.get_segments()[-1]
        after = min(
            (extent(t).x0 - sample[:, 0].max(), t.get_text())
            for t in fig.axes[0].texts
            if t.get_text().endswith(" %") and extent(t).x0 > sample[:, 0].max()
        )
        found[int(after[1].removesuffix(" %"))] = lines
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


# --- what the lines hold ----------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sharpness", [0.5, 3])
def test_the_drawn_lines_hold_what_the_key_says(grid, interpolation, sharpness):
    """The cells inside a panel's lines, by their centres, have the share but for one cell."""
    example = attentive(grid, sharpness=sharpness)
    style = Style("contour", interpolation=interpolation)
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
def test_lines_are_in_panels_and_each_has_a_darker_one_under_it(mode):
    fig = figures.head_grid(attentive("16x16", 4, 3), [0, 1], mode, style=Style("contour"))
    rows = 2 * (1 if mode == "combine" else 3)
    tiles, collections = tiles_of(fig), lines_of(fig)
    assert len(tiles) == 2 + 4 * rows and len(collections) == 2 * len(SHARES)
    shown = sorted(by_share(fig).items())
    assert [lines.get_zorder() for _, lines in shown] == sorted(
        (lines.get_zorder() for _, lines in shown), reverse=True
    )  # the densest on top
    for _, lines in shown:
        (width,), (color,) = lines.get_linewidths(), lines.get_color()
        segments = lines.get_segments()
        (under,) = (
            c for c in collections[:3]
            if all(map(np.array_equal, c.get_segments(), segments))
        )  # fmt: skip
        assert len(under.get_segments()) == len(segments)
        assert under.get_linewidth()[0] > width and under.get_zorder() < lines.get_zorder()
        assert under.get_color()[0, :3].mean() < color[:3].mean() - 0.2
        with_lines = [tile for tile in tiles if drawn_in(tile, lines)]
        assert sum(len(drawn_in(tile, lines)) for tile in tiles) == len(segments) - 1
        photos = [tile for tile in tiles if tile.left == tiles[0].left]
        assert len(photos) == 2 and not set(photos) & set(with_lines)
        assert len(with_lines) == len(tiles) - 2


def test_a_flat_map_has_no_lines_but_the_key_stays():
    example = fake(heads=4, made=np.full((3, 4, 12, 16), 1 / 192, np.float32))
    fig = figures.head_grid(example, [0], style=Style("contour"))
    assert [len(lines.get_segments()) for lines in lines_of(fig)] == [1] * 6
    assert sorted(by_share(fig)) == list(SHARES)


def widths(page_format: PageFormat, heads: int = 2) -> np.ndarray:
    """Of the lines in points, from the lowest."""
    fig = figures.head_grid(fake(heads=heads), [0], style=Style("contour"), page_format=page_format)
    return np.array([lines.get_linewidth()[0] for lines in lines_of(fig)])


@pytest.mark.parametrize(("preset", "times"), [("column", 0.92), ("poster", 4.2)])
def test_lines_grow_with_the_type(preset, times):
    """Points, not pixels: as wide on paper at any resolution, wider on a poster."""
    fine = widths(PageFormat.of(preset, dpi=200))
    assert np.allclose(fine, widths(PageFormat.of(preset, dpi=100)))
    assert np.allclose(fine, times * widths(PageFormat.of()))


def test_lines_are_thinner_in_small_panels_but_never_too_thin_to_print():
    small, large = widths(PageFormat.of("column"), heads=16), widths(PageFormat.of("column"))
    assert (small < large).all() and small.min() == 0.25 < large.min()


# --- files ------------------------------------------------------------------------------------


def rgb(lines: LineCollection) -> tuple[int, ...]:
    return tuple(np.rint(lines.get_color()[0, :3] * 255).astype(int).tolist())


@pytest.fixture(scope="module")
def contour_figure() -> Figure:
    return figures.head_grid(attentive("25x34"), [0, 1], style=Style("contour"))


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
    for lines in by_share(contour_figure).values():
        drawn, segments = strokes[rgb(lines)], lines.get_segments()
        assert len(drawn) == len(segments) > 8
        for d, segment in zip(drawn, segments, strict=True):  # ends: pixels to points of 1 / 72 in
            numbers = np.array(re.findall(r"-?\d+\.?\d*", d), float).reshape(-1, 2)
            assert np.allclose(numbers[0], segment[0] * 72 / contour_figure.dpi, atol=0.01)
        assert not (sheet == rgb(lines)).all(-1).any()


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
    for lines in by_share(contour_figure).values():
        assert stroked[rgb(lines)] == len(lines.get_segments()) > 8
    (image,) = page.images
    sheet = np.asarray(image.image.convert("RGB"))
    assert np.array_equal(sheet[::-1], sheet_of(contour_figure))


def test_a_png_shows_the_lines_in_the_colours_of_the_key(contour_figure):
    contour_figure.canvas.draw()
    shown = np.asarray(contour_figure.canvas.buffer_rgba())[..., :3].astype(int)
    panel = rows_of(contour_figure)[0][1]
    inner = shown[panel.top : panel.bottom, panel.left : panel.right]
    for lines in by_share(contour_figure).values():
        assert (np.abs(inner - rgb(lines)).max(-1) <= 3).sum() > 10
