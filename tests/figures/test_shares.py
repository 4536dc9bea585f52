"""What stands under panels: the share of a map in the box, by counting pixels, and "flat"."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import fake, one_hot
from figure_tools import captions_of

from detr_viz import figures
from detr_viz.attention.grids import Grid
from detr_viz.figures.page import shares
from detr_viz.figures.page.elements import MapRow, percent
from detr_viz.figures.styles import Style

GRIDS = {
    "resnet": Grid((7, 9), (200, 260), 32),
    "dc5": Grid((13, 17), (200, 260), 16),
    "centered": Grid((5, 7), (160, 224), 32, "centered"),
    "padded": Grid((8, 8), (256, 256), 32, valid_hw=(160, 224)),
    "padded centered": Grid((8, 8), (256, 256), 32, "centered", valid_hw=(160, 224)),
    "one cell": Grid((1, 1), (200, 260), 64),
    "one row": Grid((1, 6), (32, 192), 32),
}
BOXES = [  # shares of the photo
    (0, 0, 1, 1),
    (0.21, 0.13, 0.66, 0.71),
    (0, 0, 0.05, 0.04),
    (0.93, 0.9, 1, 1),
    (0.4, 0.4, 0.402, 0.9),
    (0.3, 0.3, 0.3, 0.3),
]


def counted(grid: Grid, box: np.ndarray, photo_hw: tuple[int, int]) -> np.ndarray:
    """The part of each cell in a box, (h, w), by points: 64 a pixel of the input, either way.

    A point belongs to the cell whose centre is nearest, by the rules as they are stated. Along an
    axis a point is in or out on its own, so that points are counted by axis.
    """
    sides = []
    for axis in (0, 1):
        length, shown = grid.input_hw[axis], grid.shown_hw[axis]
        at = (np.arange(length * 64) + 0.5) / 64  # in pixels of the input
        cells = np.arange(grid.hw[axis])
        centers = (
            (cells + 0.5) / grid.hw[axis] * length
            if grid.rule == "centered"
            else grid.stride * cells + 0.5
        )
        owner = np.abs(at[:, None] - centers).argmin(1)
        in_photo = at / shown * photo_hw[axis]
        low, high = box[1 - axis], box[3 - axis]
        inside = (in_photo >= low) & (in_photo < high)
        counts = np.bincount(owner, minlength=grid.hw[axis])
        sides.append(np.bincount(owner, inside, grid.hw[axis]) / np.maximum(counts, 1))
    return sides[0][:, None] * sides[1][None]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("box", BOXES)
def test_the_part_of_each_cell_that_is_in_a_box(name, box):
    grid, photo_hw = GRIDS[name], (150, 190)
    edges = np.array(box) * np.array([190, 150, 190, 150])
    found = shares.cell_shares(grid, edges, photo_hw)
    assert found.shape == grid.hw
    assert np.abs(found - counted(grid, edges, photo_hw)).max() < 0.01


@pytest.mark.parametrize("name", GRIDS)
def test_the_sum_of_weights_in_a_box(name):
    grid, photo_hw = GRIDS[name], (150, 190)
    maps = np.random.default_rng(1).random((3, *grid.hw)).astype(np.float32) ** 4
    maps /= maps.sum((1, 2), keepdims=True)
    edges = np.array(BOXES[1]) * np.array([190, 150, 190, 150])
    found = shares.in_box(MapRow(maps, grid), edges, photo_hw)
    expected = (maps * counted(grid, edges, photo_hw)).sum((1, 2))
    assert found == pytest.approx(expected, abs=0.005)
    assert shares.in_box(MapRow(maps, grid), np.array([-9, -9, 999, 999]), photo_hw) == (
        pytest.approx(np.ones(3), abs=1e-6)
    )


@pytest.mark.parametrize("name", ["padded", "padded centered"])
def test_a_box_that_is_the_whole_photo_holds_nothing_of_the_padding(name):
    grid = GRIDS[name]
    maps = np.full((1, 8, 8), 1 / 64)
    found = shares.in_box(MapRow(maps, grid), np.array([0, 0, 190, 150]), (150, 190))
    area = (160 * 224) / (256 * 256)
    if grid.rule == "centered":
        assert found[0] == pytest.approx(area)
    assert found[0] < 0.8


@pytest.mark.parametrize(("peak", "flat"), [(1.0, True), (1.99, True), (2.01, False), (40, False)])
def test_a_map_is_flat_below_twice_an_even_spread(peak, flat):
    maps = np.stack([one_hot((12, 16), (3, 4), peak / 192)] * 2)
    assert shares.is_flat(maps).tolist() == [flat, flat]
    example = fake(heads=2)
    example.made[0] = maps
    said = captions_of(figures.head_grid(example, [0]))
    assert [text.endswith(", flat") for text in said] == [flat, flat]


def test_captions_say_what_is_in_the_box_by_counting():
    """The first says of what it is a share."""
    example = fake()
    example.made = np.random.default_rng(0).random((3, 8, 12, 16)).astype(np.float32) ** 9
    example.made /= example.made.sum((2, 3), keepdims=True)
    found = captions_of(figures.head_grid(example, [0, 1]))
    assert found[0].endswith(" % in box") and not any("in box" in text for text in found[1:])
    for q in (0, 1):
        part = counted(example.grid(), example.boxes_xyxy_px[q], (96, 128))
        for m in range(8):
            share = 100 * float((example.made[q, m] * part).sum())
            said = int(found[8 * q + m].split()[0])
            assert abs(said - share) <= 0.5 + 0.2


def test_all_of_a_map_in_the_box_and_none_of_it():
    example = fake(heads=2)
    example.boxes_xyxy_px[0] = [32, 24, 64, 72]
    inside, outside = one_hot((12, 16), (6, 6)), one_hot((12, 16), (0, 15))
    example.made[0] = np.stack([inside, outside])
    assert captions_of(figures.head_grid(example, [0])) == ["100 % in box", "0 %"]


def test_nothing_is_said_of_a_box_that_is_not_there():
    example = fake()
    example.boxes_xyxy_px[0] = np.nan
    example.made[0, 1] = 1 / 192
    found = captions_of(figures.head_grid(example, [0]))
    assert found == ["", "flat", *[""] * 6]


def test_sorted_heads_have_their_numbers_before_the_share():
    example = fake(heads=3)
    for head, peak in enumerate((0.3, 0.9, 0.6)):
        example.made[0, head] = one_hot((12, 16), (6, 3), peak)
    found = captions_of(figures.head_grid(example, [0], style=Style(heads="sort")))
    assert [text.partition(": ")[0] for text in found] == ["1", "2", "0"]
    assert all("%" in text for text in found)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "0 %"), (0.001, "<1 %"), (0.0049, "<1 %"), (0.006, "1 %"),
     (0.654, "65 %"), (0.996, "100 %"), (1, "100 %")],
)  # fmt: skip
def test_shares_are_whole_per_cents(share, text):
    assert percent(share) == text
