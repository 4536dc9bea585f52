"""Numbers in panels: their plates keep off what a panel is about, its peak and the object's box."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import FakeExplanation, fake, one_hot
from figure_tools import Tile, boxes_of, corners, numbers_of, plates_of, rows_of
from matplotlib.figure import Figure
from test_contours import centers

from detr_viz import figures
from detr_viz.figures.styles import STYLES, PageFormat, Style

LANDSCAPE = {"image_hw": (300, 451), "input_hw": (800, 1203)}  # as DETR resizes a photo
SHAPES = {
    "demo": {"image_hw": (160, 160), "input_hw": (160, 160), "stride": 8},
    "landscape": {**LANDSCAPE, "stride": 32},  # 25 x 38 cells
    "dc5": {**LANDSCAPE, "stride": 16},
    "coarse": {**LANDSCAPE, "stride": 64, "cell_rule": "centered"},
    "portrait": {"image_hw": (640, 480), "input_hw": (1066, 800), "stride": 32},
}
CORNERS = [(0, 0), (0, -1), (-1, 0), (-1, -1)]  # of a map, of a box: rows, columns


def plates_by_panel(fig: Figure) -> list[list[tuple[Tile, Tile]]]:
    """(panel, its plate) of every panel, a list a row."""
    plates = [Tile(*p.min(0)[::-1], *p.max(0)[::-1]) for p in corners(plates_of(fig))]
    rows = [[(panel, own) for panel in row[1:] for own in plates if panel.holds(edges(own))]
            for row in rows_of(fig)]  # fmt: skip
    assert sum(map(len, rows)) == len(plates) == len(numbers_of(fig))
    return rows


def edges(tile: Tile) -> np.ndarray:
    return np.array([(tile.left, tile.top), (tile.right, tile.bottom)])


def cell_centers(example: FakeExplanation, panel: Tile) -> np.ndarray:
    """(x, y) of all cells on the page, (h, w, 2)."""
    place = example.grid()
    return edges(panel)[0] + centers(example.grid_hw, place, panel.hw)


def under(plate: Tile, points: np.ndarray, beyond: float = 0) -> np.ndarray:
    """Which of points (..., 2) lie under a plate, or so little beside it."""
    low, high = edges(plate)
    return ((points > low - beyond) & (points < high + beyond)).all(-1)


def outlines(fig: Figure) -> list[tuple[np.ndarray, float]]:
    """Of every box, with the line under it: upper left and lower right corner, half the width."""
    halos, _ = boxes_of(fig)
    widths = np.array(halos.get_linewidths()) * fig.dpi / 72 / 2
    return [(np.stack([p.min(0), p.max(0)]), half)
            for p, half in zip(corners(halos), widths, strict=True)]  # fmt: skip


def on_outline(plate: Tile, box: np.ndarray, half: float) -> bool:
    """Whether a plate covers any of a box's line: it meets the outside, and is not all inside."""
    (low, high), (x0, y0) = edges(plate), box[0] - half
    x1, y1 = box[1] + half
    apart = low[0] >= x1 or high[0] <= x0 or low[1] >= y1 or high[1] <= y0
    inner = (low >= box[0] + half).all() and (high <= box[1] - half).all()
    return not apart and not inner


def box_in(panel: Tile, fig: Figure) -> tuple[np.ndarray, float]:
    ((box, half),) = [(box, half) for box, half in outlines(fig) if panel.holds(box)]
    return box, half


def in_the_middle(example: FakeExplanation) -> np.ndarray:
    h, w = example.grid_hw
    return one_hot((h, w), (h // 2, w // 2), 0.6)


# --- the peak ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plate_leaves_the_peak_in_sight(shape):
    """Each head looks into another corner, the box is in the middle."""
    example = fake(heads=8, **SHAPES[shape])
    peaks = [one_hot(example.grid_hw, corner, 0.6) for corner in CORNERS] * 2
    example.made = np.stack([peaks] * 3)
    height, width = example.image.rgb.shape[:2]
    example.boxes_xyxy_px[:] = np.array([0.42, 0.42, 0.58, 0.58]) * ([width, height] * 2)
    fig = figures.head_grid(example, [0], style=Style("contour"))
    (row,) = plates_by_panel(fig)
    assert len(row) == 8
    for m, (panel, plate) in enumerate(row):
        at = cell_centers(example, panel)
        cell_px = np.array([at[0, 1, 0] - at[0, 0, 0], at[1, 0, 1] - at[0, 0, 1]])
        peak = at[CORNERS[m % 4]]
        assert not under(plate, peak, cell_px.max() / 2)
        assert not on_outline(plate, *box_in(panel, fig))


def test_plates_share_a_corner_where_nothing_is_in_the_way():
    example = fake(heads=8)
    example.made = np.broadcast_to(in_the_middle(example), (3, 8, 12, 16)).copy()
    example.boxes_xyxy_px[:] = [54, 40, 74, 56]  # in the middle too
    fig = figures.head_grid(example, [0], style=Style("contour"))
    (row,) = plates_by_panel(fig)
    places = {(panel.right - plate.right, panel.bottom - plate.bottom) for panel, plate in row}
    assert places == {(0, 0)}
    example.made[0, 2:4] = one_hot((12, 16), (11, 15), 0.6), one_hot((12, 16), (11, 0), 0.6)
    (row,) = plates_by_panel(figures.head_grid(example, [0], style=Style("contour")))
    places = [(panel.right - plate.right, panel.bottom - plate.bottom) for panel, plate in row]
    common = max(set(places), key=places.count)
    assert all(place == common for m, place in enumerate(places) if m not in (2, 3))
    for (panel, plate), peak in zip(row[2:4], [(11, 15), (11, 0)], strict=True):
        assert not under(plate, cell_centers(example, panel)[peak])


# --- the box ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box",  # left, top, right, bottom: shares of the photo
    [
        (0, 0, 0.5, 0.5),
        (0.5, 0, 1, 0.5),
        (0, 0.5, 0.5, 1),
        (0.5, 0.5, 1, 1),
        (0, 0, 0.4, 1),
        (0.6, 0, 1, 1),
        (0, 0, 1, 0.5),
        (0, 0.5, 1, 1),
        (0.9, 0.9, 0.95, 0.95),
        (0.2, 0.2, 0.99, 0.99),
        (0.02, 0.02, 0.98, 0.98),
        (0.35, 0.2, 0.55, 0.7),
        (0.3, 0.2, 0.56, 0.72),
        (0.45, 0.3, 0.95, 0.85),
    ],
)
@pytest.mark.parametrize("shape", ["demo", "landscape"])
@pytest.mark.parametrize("width_in", [4.6, 7])
def test_a_plate_stays_clear_of_the_box_where_it_can(box, shape, width_in):
    example = fake(heads=6, **SHAPES[shape])
    example.made = np.broadcast_to(in_the_middle(example), (3, 6, *example.grid_hw))
    height, width = example.image.rgb.shape[:2]
    example.boxes_xyxy_px[:] = np.array(box) * [width, height, width, height]
    page = PageFormat.of(width_in=width_in)
    fig = figures.head_grid(example, [0], style=Style("contour"), page_format=page)
    (row,) = plates_by_panel(fig)
    for panel, plate in row:
        drawn = box_in(panel, fig)
        (high, wide), free = plate.hw, []
        for low, right in np.ndindex(2, 2):
            top, left = (panel.bottom - high if low else panel.top,
                         panel.right - wide if right else panel.left)  # fmt: skip
            free.append(not on_outline(Tile(top, left, top + high, left + wide), *drawn))
        assert on_outline(plate, *drawn) != any(free)


def test_a_plate_does_not_touch_the_boxs_line():
    """The box ends one pixel and a half before the plate, its line reaches further."""
    example = fake(heads=2)
    example.made = np.broadcast_to(in_the_middle(example), (3, 2, 12, 16))
    style = Style("contour")
    ((panel, plate), _) = plates_by_panel(figures.head_grid(example, [0], style=style))[0]
    assert (plate.right, plate.bottom) == (panel.right, panel.bottom)
    right, bottom = edges(plate)[0] - edges(panel)[0] + (-1.5, 10)
    scale = 128 / panel.hw[1]
    example.boxes_xyxy_px[0] = [40, 40, right * scale, bottom * scale]
    fig = figures.head_grid(example, [0], style=style)
    box, half = box_in(panel, fig)
    assert box[1, 0] <= plate.left < box[1, 0] + half  # it would be touched there
    for panel, plate in plates_by_panel(fig)[0]:
        assert not on_outline(plate, *box_in(panel, fig))


def test_the_box_and_the_peak_leave_one_corner():
    example = fake(heads=2)
    example.made[0] = np.maximum(one_hot((12, 16), (0, 15), 0.5), one_hot((12, 16), (11, 0), 0.45))
    example.boxes_xyxy_px[0] = [70, 50, 126, 94]
    (row,) = plates_by_panel(figures.head_grid(example, [0], style=Style("contour")))
    assert len(row) == 2
    for panel, plate in row:
        assert (plate.left, plate.top) == (panel.left, panel.top)


@pytest.mark.parametrize("shape", ["demo", "landscape", "dc5"])
def test_wherever_there_is_a_free_corner_it_is_taken(shape):
    """Random peaks and boxes; free: no tenth of the largest weight, nothing of the outline."""
    rng, count = np.random.default_rng(1), 12
    example = fake(names=["x"] * count, scores=[0.9] * count, **SHAPES[shape])
    y, x = np.mgrid[: example.grid_hw[0], : example.grid_hw[1]]
    h, w = example.grid_hw
    at = rng.random((count, 8, 2, 2)) * (h, w)  # two peaks a head
    away = ((y - at[..., 0, None, None]) / h) ** 2 + ((x - at[..., 1, None, None]) / w) ** 2
    example.made = np.exp(-away / 2 / 0.06**2).sum(2).astype(np.float32)
    low = rng.random((count, 2)) * 0.7
    high = np.minimum(low + 0.1 + rng.random((count, 2)) * 0.6, 1)
    height, width = example.image.rgb.shape[:2]
    example.boxes_xyxy_px = np.hstack([low, high]) * [width, height, width, height]
    fig = figures.head_grid(example, range(count), style=Style("contour"))
    had = 0
    for q, row in enumerate(plates_by_panel(fig)):
        for m, (panel, plate) in enumerate(row):
            weights, drawn = example.made[q, m], box_in(panel, fig)
            at = cell_centers(example, panel)
            cell_px = float(at[0, 1, 0] - at[0, 0, 0])
            (high_px, wide_px), free = plate.hw, False
            for down, right in np.ndindex(2, 2):
                top = panel.bottom - high_px if down else panel.top
                left = panel.right - wide_px if right else panel.left
                spot = Tile(top, left, top + high_px, left + wide_px)
                hidden = weights[under(spot, at, 1.5 * cell_px)]
                clear = hidden.size == 0 or hidden.max() < 0.1 * weights.max()
                free |= clear and not on_outline(spot, *drawn)
            if free:
                had += 1
                assert not under(plate, at[np.unravel_index(weights.argmax(), weights.shape)])
                assert not on_outline(plate, *drawn)
    assert had > 40


# --- all styles alike -------------------------------------------------------------------------


def test_numbers_are_at_the_same_place_in_every_style():
    example = fake(heads=4)
    example.boxes_xyxy_px[1] = [70, 50, 126, 94]
    places = []
    for style in STYLES:
        fig = figures.head_grid(example, [0, 1], style=Style(style))
        places.append([(t.get_text(), *t.get_position()) for t in numbers_of(fig)])
    assert len(places[0]) == 8 and places[0] == places[1] == places[2]
    assert len({x for _, x, _ in places[0]}) > 4  # not all in the same corner
