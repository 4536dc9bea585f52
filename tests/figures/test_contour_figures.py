"""Contour figures: what the drawn lines hold, which line is which, and that files have vectors."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from functools import lru_cache
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake
from figure_tools import (
    HEAD_LINES,
    Tile,
    at_order,
    check_page,
    extent,
    lines_of,
    maps_of,
    photos_of,
    points_of,
    rows_of,
    sheet_of,
    tiles_of,
)
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from pdf_tools import only_picture, operations
from PIL import Image
from scipy import ndimage
from test_contours import INTERPOLATIONS, centers, inside, softmax_maps

from detr_viz import figures
from detr_viz.figures.page import regions
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
    return max(line[:, 1].max() for line in points_of(lines)) <= foot


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
        (sample,) = points_of(like)
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
    segments = points_of(lines)
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
        segments = points_of(lines)
        assert len(points_of(dark)) == len(segments)
        assert all(map(np.array_equal, points_of(dark), segments))
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


def said_of(fig: Figure) -> list[str]:
    """What is written at the right over or under each map, in the order of maps_of."""
    found = []
    for tile in maps_of(fig):
        beside = [
            (min(abs(box.y1 - tile.top), abs(box.y0 - tile.bottom)), text.get_text())
            for text in fig.axes[0].texts
            if abs((box := extent(text)).x1 - tile.right) <= 1.5
        ]
        found.append(min(beside)[1])
    return found


def test_captions_are_what_part_of_the_image_the_first_line_holds():
    """By counting cells: the fewest that have half of the mass."""
    example = attentive("25x34", sharpness=2)
    style = Style("contour", interpolation="cubic")
    found = said_of(figures.head_grid(example, [0, 1], style=style))
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
    said = said_of(fig)[2]
    assert said.startswith("spread, ") and 33 < int(said.split()[1]) < 60
    panels = [sheet_of(fig)[t.top : t.bottom, t.left : t.right] for t in maps_of(fig)]
    assert [np.array_equal(panel, panels[0]) for panel in panels] == [True, True, False, True]
    colours = [len(np.unique(panel.max(-1) - panel.min(-1))) for panel in panels]
    assert min(colours[0], colours[1], colours[3]) > 1  # the photo, which is not grey


def test_a_flat_map_has_no_lines_but_the_key_stays():
    example = fake(heads=4, made=np.full((3, 4, 12, 16), 1 / 192, np.float32))
    fig = figures.head_grid(example, [0], style=THREE)
    assert [len(points_of(lines)) for lines in lines_of(fig)] == [1] * 6
    assert not any(of_panels(fig, lines) for lines in lines_of(fig))
    assert said_of(fig) == ["flat"] * 4
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
    return [line for lines in found for line in points_of(lines)]


# --- the default: cells in the order of the smoothed map ---------------------------------------


def test_smooth_lines_hold_their_share_of_the_weights_themselves():
    """The cells inside are in the order of the map under a Gaussian of .8 of a cell, by scipy; what
    is missing to the share are whole islands, 6 % of it at most."""
    example = attentive("25x34", sharpness=1.5)
    fig = figures.head_grid(example, [0, 1], style=Style("contour"))
    (lines,) = coloured(fig)
    dropped = 0
    for q, row in enumerate(rows_of(fig)):
        for m, panel in enumerate(row[1:]):
            weights = example.made[q, m].astype(float)
            field = ndimage.gaussian_filter(weights, 0.8, mode="reflect").ravel()
            at = centers(weights.shape, example.grid(), panel.hw).reshape(-1, 2)
            took = inside(at, at[field.argmax()], drawn_in(panel, lines))
            order = np.argsort(-field)
            needed = np.searchsorted(np.cumsum(weights.ravel()[order]), 0.5) + 1
            wanted = np.zeros(field.size, bool)
            wanted[order[:needed]] = True
            assert not (took & ~wanted).any()
            missing = weights.ravel()[wanted & ~took].sum()
            assert missing <= 0.06 * weights.ravel()[wanted].sum()
            islands, count = ndimage.label(wanted.reshape(weights.shape), np.ones((3, 3)))
            kept = islands.ravel()[took]
            for island in range(1, count + 1):  # inside as a whole or not at all
                part = (islands.ravel() == island).sum()
                assert (kept == island).sum() in (0, part)
                dropped += (kept == island).sum() == 0
    assert dropped > 0


def test_specks_by_hand():
    """Three blocks far apart with 80, 15 and 5 of 100: of the line of 99 % the last one goes."""
    weights = np.zeros((20, 40))
    for x, mass in ((5, 80), (18, 15), (32, 5)):
        weights[8:11, x : x + 3] = mass / 9
    for share, expected in ((0.99, 95), (0.945, 95), (0.795, 80)):
        held = regions.region(weights, share, "smooth").inside
        assert weights[held].sum() == pytest.approx(expected)
    assert regions.region(weights, 0.99, "cubic").inside.sum() == 27


# --- all heads on the photo -------------------------------------------------------------------


def numbers_of(fig: Figure) -> dict[str, np.ndarray]:
    """The middle of each number on a photo."""
    numbered = [text for text in fig.axes[0].texts if text.get_gid() == "head"]
    return {t.get_text(): np.array([extent(t).x0 + extent(t).x1, extent(t).y0 + extent(t).y1]) / 2
            for t in numbered}  # fmt: skip


@pytest.mark.parametrize("heads", [None, (3, 1, 2, 0)])
def test_the_photo_has_the_lines_of_all_heads_with_their_numbers(heads):
    """A line of a panel, made larger, is a line of the photo; its number is by it."""
    example = attentive("16x16", 4, 3)
    fig = figures.head_grid(example, [0], style=Style("contour", heads=heads))
    (photo,), (lines,) = photos_of(fig), coloured(fig)
    together = drawn_in(photo, at_order(fig, HEAD_LINES + 0.2))
    numbers = numbers_of(fig)
    assert sorted(numbers) == list("0123")
    count = 0
    for head, tile in zip(heads or range(4), maps_of(fig), strict=True):
        larger = np.array(photo.hw[::-1]) / tile.hw[::-1]
        own = [line * larger for line in drawn_in(tile, lines)]
        for line in own:
            assert any(
                len(line) == len(other) and np.allclose(line, other, atol=0.3) for other in together
            )
            count += 1
        at = numbers[str(head)] - (photo.left, photo.top)
        near = min(np.hypot(*(line - at).T).min() for line in own)
        peak = centers((16, 16), example.grid(), photo.hw)[
            np.unravel_index(example.made[0, head].argmax(), (16, 16))
        ]
        assert min(near, np.hypot(*(peak - at))) < photo.hw[0] / 16
    assert count == len(together)


def test_heads_that_look_at_one_place_have_their_numbers_side_by_side():
    """Numbers never lie on each other; a number without a place is left out."""
    example = fake(heads=8, made=np.full((3, 8, 12, 16), 1e-4, np.float32))
    example.made[:, :, 5:7, 8] = 0.5
    for heads in (None, (0, 1)):
        fig = figures.head_grid(example, [0], style=Style("contour", heads=heads))
        check_page(fig)
    wide = figures.head_grid(example, [0], style=Style("contour"))
    assert 2 <= len(numbers_of(wide)) <= 8


@pytest.fixture(scope="module")
def contour_figure() -> Figure:
    style = replace(THREE, interpolation="cubic")  # many lines
    return figures.head_grid(attentive("16x16"), [0], MODES, style=style)


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

    figures.save(contour_figure, tmp_path / "a.pdf")
    (page,) = PdfReader(tmp_path / "a.pdf").pages
    stroked: dict[tuple[int, ...], int] = {}
    color, starts = (0, 0, 0), 0
    for operands, operator in operations(page):
        if operator in (b"RG", b"G"):
            color = tuple(round(v * 255) for v in operands) * (3 // len(operands))
        elif operator == b"m":
            starts += 1
        elif operator in (b"S", b"s"):
            stroked[color] = stroked.get(color, 0) + starts
            starts = 0
        elif operator in (b"f", b"F", b"f*", b"B", b"n", b"b"):
            starts = 0
    assert stroked[YELLOW] == len(yellow_lines(contour_figure)) > 24
    assert np.array_equal(only_picture(page)[::-1], sheet_of(contour_figure))


def test_a_png_shows_the_lines_in_the_colour_of_the_key(contour_figure):
    contour_figure.canvas.draw()
    shown = np.asarray(contour_figure.canvas.buffer_rgba())[..., :3].astype(int)
    panel = rows_of(contour_figure)[0][1]
    inner = shown[panel.top : panel.bottom, panel.left : panel.right]
    assert (np.abs(inner - YELLOW).max(-1) <= 3).sum() > 30
