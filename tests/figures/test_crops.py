"""Views around small boxes: which part of the photo a panel shows, and that it is shown."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import FakeExplanation, fake, one_hot
from figure_tools import (
    FRAME,
    boxes_of,
    check_page,
    corners,
    layout_of,
    locators_of,
    maps_of,
    photos_of,
    pixels,
    segments,
    ticks_of,
)

from detr_viz import figures
from detr_viz.attention.grids import Grid
from detr_viz.figures.page.crop import Crop, crop_of
from detr_viz.figures.styles import Style

PHOTO_HW = (480, 640)
FINE = Grid((60, 80), (480, 640), 8)  # ten cells are 80 pixels, an eighth of the photo


def view(box: list[float], zoom: str | float = "auto", grid: Grid | None = FINE) -> Crop:
    return crop_of(np.array(box, np.float32), PHOTO_HW, grid, zoom)


def edges(crop: Crop) -> list[float]:
    return [crop.x0, crop.y0, crop.x1, crop.y1]


# --- which part -------------------------------------------------------------------------------


def test_a_view_is_the_box_and_nine_tenths_of_its_size_on_each_side():
    """100 x 30 about (300, 200): 280 wide, and 210 high by the photo's shape."""
    crop = view([250, 185, 350, 215])
    assert crop.is_part
    assert edges(crop) == pytest.approx([160, 95, 440, 305])


def test_the_larger_side_of_the_box_decides():
    """40 x 80 about (300, 200): 224 high, so 224 * 4 / 3 wide."""
    crop = view([280, 160, 320, 240])
    assert crop.size_hw == pytest.approx((224, 224 * 4 / 3))
    assert edges(crop) == pytest.approx([300 - 224 * 2 / 3, 88, 300 + 224 * 2 / 3, 312])


@pytest.mark.parametrize(("stride", "wide"), [(8, 80), (16, 160), (24, 240)])
def test_a_view_is_at_least_ten_cells_wide(stride, wide):
    grid = Grid((480 // stride, -(-640 // stride)), PHOTO_HW, stride)
    crop = view([300, 200, 304, 203], grid=grid)
    assert crop.size_hw == pytest.approx((wide * 3 / 4, wide))


@pytest.mark.parametrize(
    ("box", "stride"),
    [
        ([200, 200, 315, 210], 8),  # 115 * 2.8 is more than 320
        ([200, 100, 210, 187], 8),  # 87 * 2.8 is more than 240
        ([300, 200, 304, 203], 32),  # ten cells are 320
        ([0, 0, 640, 480], 8),
        ([300, 200, 300, 200], 32),
    ],
)
def test_a_view_of_half_of_the_photo_or_more_is_all_of_it(box, stride):
    grid = Grid((480 // stride, 640 // stride), PHOTO_HW, stride)
    assert view(box, grid=grid) == Crop.whole(PHOTO_HW)


def test_just_under_half_is_a_view():
    assert view([200, 200, 314, 210]).is_part and not view([200, 200, 314.5, 210]).is_part


@pytest.mark.parametrize("center", [(0, 0), (640, 480), (3, 470), (639, 240), (320, 1)])
def test_a_view_stays_inside_the_photo_and_holds_the_box(center):
    x, y = center
    box = np.clip([x - 20, y - 15, x + 20, y + 15], 0, [640, 480, 640, 480])
    crop = view(list(box))
    assert crop.x0 >= 0 and crop.y0 >= 0 and crop.x1 <= 640 and crop.y1 <= 480
    assert crop.x0 <= box[0] and crop.y0 <= box[1] and crop.x1 >= box[2] and crop.y1 >= box[3]
    high, wide = crop.size_hw
    assert wide / high == pytest.approx(4 / 3)


@pytest.mark.parametrize("factor", [1.5, 2, 5])
def test_a_factor_is_the_photo_divided_around_the_box(factor):
    crop = view([200, 150, 400, 330], factor)
    assert crop.size_hw == pytest.approx((480 / factor, 640 / factor))
    assert edges(crop) == pytest.approx(
        [300 - 320 / factor, 240 - 240 / factor, 300 + 320 / factor, 240 + 240 / factor]
    )


@pytest.mark.parametrize("zoom", ["none", 1, 1.0])
def test_no_zoom_is_the_whole_photo(zoom):
    assert view([300, 200, 304, 203], zoom) == Crop.whole(PHOTO_HW)


@pytest.mark.parametrize("zoom", ["auto", 3])
def test_without_a_box_all_is_shown(zoom):
    assert crop_of(None, PHOTO_HW, FINE, zoom) == Crop.whole(PHOTO_HW)
    assert view([np.nan, 0, 1, 1], zoom) == Crop.whole(PHOTO_HW)


# --- what the panels show ---------------------------------------------------------------------


def small() -> FakeExplanation:
    """A box of 24 x 18 pixels about (420, 132); x and y of the photo are its red and green."""
    example = fake(PHOTO_HW, PHOTO_HW, 8, heads=4)
    y, x = np.mgrid[:480, :640]
    example.image.rgb[:] = np.stack([x * 255 / 640, y * 255 / 480, np.full(x.shape, 90)], -1)
    example.boxes_xyxy_px[0] = [408, 123, 432, 141]
    return example


def test_a_pixel_of_a_view_shows_the_right_place():
    """By the colours of the photo, which say where a pixel is from."""
    fig = figures.head_grid(small(), [0])
    check_page(fig)
    crop = layout_of(fig).crops[0]
    assert edges(crop) == pytest.approx([380, 102, 460, 162])  # ten cells of 8
    panel = pixels(fig, photos_of(fig)[0]).astype(float)
    height, width = panel.shape[:2]
    for i, k in ((2, 2), (5, width // 2), (height // 2, width // 3), (10, width - 3)):
        x = 380 + (k + 0.5) / width * 80
        y = 102 + (i + 0.5) / height * 60
        assert panel[i, k, :2] == pytest.approx([x * 255 / 640, y * 255 / 480], abs=1.1)


def test_the_locator_is_the_whole_photo_with_the_view_framed():
    fig = figures.head_grid(small(), [0])
    (photo,), (locator,) = photos_of(fig), locators_of(fig)
    assert locator.hw[1] / photo.hw[1] == pytest.approx(0.36, abs=0.01)
    assert locator.hw[1] / locator.hw[0] == pytest.approx(4 / 3, rel=0.03)
    whole = pixels(fig, locator).astype(float)
    for i, k in ((1, 1), (1, -2), (-2, 1), (-2, -2)):
        x, y = ((n % side + 0.5) / side for n, side in ((k, locator.hw[1]), (i, locator.hw[0])))
        assert whole[i, k, :2] == pytest.approx([x * 255, y * 255], abs=4)
    (frame,) = segments(fig, FRAME)
    shown = (frame - (locator.left, locator.top)) / locator.hw[::-1] * (640, 480)
    assert [*shown.min(0), *shown.max(0)] == pytest.approx([380, 102, 460, 162], abs=1e-6)


def test_a_view_moves_the_box_and_its_corners():
    fig = figures.head_grid(small(), [0])
    (photo, panel) = photos_of(fig)[0], maps_of(fig)[0]
    (box,) = corners(boxes_of(fig)[1])
    expected = ((np.array([[408, 123], [432, 141]]) - (380, 102)) / (80, 60)) * photo.hw[::-1]
    line = fig.dpi / 72  # a point
    found = np.stack([box.min(0), box.max(0)]) - (photo.left, photo.top)
    assert np.abs(found - expected).max() < line
    ticks = np.concatenate(corners(ticks_of(fig)[1])[:4]) - (panel.left, panel.top)
    assert np.abs([ticks.min(0), ticks.max(0)] - expected).max() < line


@pytest.mark.parametrize("cell", [(16, 52), (13, 48), (19, 56)])
def test_cells_of_a_view_are_squares_in_their_places(cell):
    """A cell reaches half a stride around its centre, stride * i + 0.5 of the photo's pixels."""
    example = small()
    example.made[:] = one_hot((60, 80), cell)
    first, bare = (
        figures.head_grid(e, [0], style=Style(zoom="auto")) for e in (example, nothing())
    )
    panel = maps_of(first)[0]
    changed = (pixels(first, panel) != pixels(bare, panel)).any(-1)
    height, width = changed.shape
    x = 380 + (np.arange(width) + 0.5) / width * 80
    y = 102 + (np.arange(height) + 0.5) / height * 60
    inside = (np.abs(y[:, None] - (8 * cell[0] + 0.5)) < 4) & (np.abs(x - (8 * cell[1] + 0.5)) < 4)
    assert inside.any() and np.array_equal(changed, inside)


def nothing() -> FakeExplanation:
    example = small()
    example.made[:] = 0
    return example


def test_without_zoom_a_small_box_is_shown_in_the_whole_photo():
    fig = figures.head_grid(small(), [0], style=Style(zoom="none"))
    check_page(fig)
    assert not locators_of(fig) and not layout_of(fig).crops[0].is_part
    panel = pixels(fig, photos_of(fig)[0]).astype(float)
    assert panel[1, 1, :2] == pytest.approx([2, 3], abs=3)
    assert panel[-2, -2, 0] > 250


def test_a_factor_applies_to_every_box():
    fig = figures.head_grid(small(), [0, 1], style=Style(zoom=2))
    check_page(fig)
    assert len(locators_of(fig)) == 2
    for crop in layout_of(fig).crops:
        assert crop.size_hw == pytest.approx((240, 320))


@pytest.mark.parametrize("style", ["overlay", "heat", "contour"])
@pytest.mark.parametrize("modes", ["combine", ("combine", "position", "content")])
def test_views_in_every_style(style, modes):
    fig = figures.head_grid(small(), [0, 1], modes, style=Style(style))
    check_page(fig)
    assert len(locators_of(fig)) == 1
