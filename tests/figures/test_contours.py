from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_explanation import one_hot
from scipy.ndimage import map_coordinates

from detr_viz.attention.grids import Grid
from detr_viz.figures.page import contours, regions

INTERPOLATIONS = ("cubic", "linear", "nearest")  # those that keep the weights of cells
SHARES = (0.5, 0.8, 0.95)
CENTERED = Grid((1, 1), (1, 1), 32, "centered")


def lines(maps: np.ndarray, grid: Grid, panel_hw: tuple[int, int], *args, **options):
    """Of maps on a grid like this, of as many cells as they have; three shares by default."""
    if not args:
        options.setdefault("shares", SHARES)
    return contours.lines(maps, replace(grid, hw=maps.shape[-2:]), panel_hw, *args, **options)


def softmax_maps(
    hw: tuple[int, int], sharpness: float, peaks: list[tuple[int, int]], seed: int = 0
) -> np.ndarray:
    """A map of noise for every peak, which rises towards it, (M, h, w) float32; each sums to 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: hw[0], : hw[1]]
    towards = [np.exp(-((y - peak[0]) ** 2 + (x - peak[1]) ** 2) / 18) for peak in peaks]
    logits = sharpness * (rng.normal(size=(len(peaks), *hw)) + 2 * np.array(towards))
    weights = np.exp(logits)
    return (weights / weights.sum((1, 2), keepdims=True)).astype(np.float32)


def centers(hw: tuple[int, int], grid: Grid, panel_hw: tuple[int, int]) -> np.ndarray:
    """(x, y) of every cell's centre in panel pixels, (h, w, 2), by the rules as they are stated."""
    ys, xs = (
        (np.arange(cells) + 0.5) / cells * out
        if grid.rule == "centered"
        else (grid.stride * np.arange(cells) + 0.5) / length * out
        for cells, length, out in zip(hw, grid.input_hw, panel_hw, strict=True)
    )
    return np.stack(np.meshgrid(xs, ys), -1)


def inside(points: np.ndarray, known: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    """Which of points (P, 2) lie on the side of `known`: an even number of lines is between."""
    crossings = np.zeros(len(points), int)
    way = known - points
    across = np.stack([-way[:, 1], way[:, 0]], -1)
    for line in drawn:
        left = across @ line.T >= (across * points).sum(1, keepdims=True)  # (P, n)
        p, i = np.nonzero(left[:, 1:] != left[:, :-1])  # the whole line through both is crossed
        to, step = line[i] - points[p], line[i + 1] - line[i]
        at = to[:, 0] * step[:, 1] - to[:, 1] * step[:, 0]
        at /= way[p, 0] * step[:, 1] - way[p, 1] * step[:, 0]  # 0: at the point, 1: at the known
        crossings += np.bincount(p[(at > 0) & (at < 1)], minlength=len(points))
    return crossings % 2 == 0


def check_ends(drawn: list[np.ndarray], panel_hw: tuple[int, int]) -> None:
    """Every line is in the panel, and is closed or ends on the edge, exactly."""
    far = np.array(panel_hw[::-1])
    for line in drawn:
        assert line.ndim == 2 and line.shape[1] == 2 and line.dtype == np.float64
        assert (line >= 0).all() and (line <= far).all()
        assert (line[1:] != line[:-1]).any(1).all()
        if (line[0] == line[-1]).all():
            assert len(line) >= 4
        else:
            for end in line[[0, -1]]:
                assert (end == 0).any() or (end == far).any()


def radii(drawn: list[np.ndarray], center: tuple[float, float], cell_px: float) -> np.ndarray:
    """Distances of the points of the one line from a centre (x, y), in cells."""
    (line,) = drawn
    assert (line[0] == line[-1]).all()
    return np.hypot(*(line - center).T) / cell_px


# --- levels, worked out by hand ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "share", "expected"),
    [
        ([[0.1, 0.4], [0.2, 0.3]], 0.3, 0.35),  # one cell: 0.4
        ([[0.1, 0.4], [0.2, 0.3]], 0.5, 0.25),  # two: 0.7
        ([[0.1, 0.4], [0.2, 0.3]], 0.7, 0.25),  # just enough is enough
        (np.float32([[0.5, 0.3, 0.2]]), 0.5, 0.4),  # though 0.3 and 0.2 are a little over that
        ([[0.1, 0.4], [0.2, 0.3]], 0.71, 0.15),  # three: 0.9
        ([[0.1, 0.4], [0.2, 0.3]], 0.95, None),  # needs every cell
        ([[10, 40], [20, 30]], 0.5, 25.0),  # a share is of the map's own sum
        ([[0, 0, 1.0]], 0.95, 0.5),
        # ties are taken together, or not at all
        ([[4, 3, 3, 3, 3]], 0.5, 3.5),  # one cell has 4 of 16, all have 16; 8 is nearer to 4
        ([[4, 3, 3, 2]], 0.5, 3.5),  # one has 4 of 12, three have 10; 6 is nearer to 4
        ([[4, 3, 3, 2]], 0.6, 2.5),  # 7.2 is nearer to 10
        ([[2, 2, 2, 1, 1]], 0.5, 1.5),  # 4 of 8: none has 0, three have 6
        ([[2, 2, 2, 1, 1]], 0.3, None),  # 2.4 is nearer to none
        ([[1, 1, 0, 0]], 0.5, 0.5),  # 0 and 2 are as near to 1: taken
        ([[8, 1, 1, 1, 1]], 0.95, None),  # 11.4 of 12 is nearer to all
        # and so are weights that only rounding parts
        ([[4, 3 + 1e-8, 3, 2]], 0.5, 3.5),
        ([[0.25, 0.25 + 1e-9, 0.25, 0.25]], 0.5, None),
        ([[0.25] * 4], 0.5, None),
        ([[0.0] * 4], 0.5, None),
        ([[1.0]], 0.5, None),
    ],
)
def test_level_by_hand(weights, share, expected):
    found = regions.level(np.array(weights), share)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-7))


@pytest.mark.parametrize("share", [0, -0.5, 1.01, 50])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        regions.level(np.ones((2, 2)), share)


# --- what the lines hold ----------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("hw", "grid", "panel_hw"),
    [
        ((16, 16), Grid((16, 16), (512, 512), 32), (114, 114)),
        ((16, 16), CENTERED, (61, 83)),
        ((25, 34), Grid((25, 34), (800, 1066), 32), (114, 152)),
        ((25, 34), CENTERED, (20, 21)),  # a panel with fewer pixels than the map has cells
    ],
)
@pytest.mark.parametrize("sharpness", [0.3, 1.5, 6])
def test_the_cells_inside_hold_the_share(hw, grid, panel_hw, interpolation, sharpness):
    """Peaks lie in the middle, at two edges and in every corner."""
    peaks = [
        (8, 9),
        (0, hw[1] // 2),
        (hw[0] - 1, 5),
        (0, 0),
        (0, hw[1] - 1),
        (hw[0] - 1, 0),
        (hw[0] - 1, hw[1] - 1),
    ]
    maps, grid = softmax_maps(hw, sharpness, peaks), replace(grid, hw=hw)
    at = centers(hw, grid, panel_hw).reshape(-1, 2)
    for map_hw, drawn in zip(
        maps, lines(maps, grid, panel_hw, interpolation=interpolation), strict=True
    ):
        weights = map_hw.ravel().astype(np.float64)
        assert len(drawn) == len(SHARES)
        for share, found in zip(SHARES, drawn, strict=True):
            check_ends(found, panel_hw)
            took = inside(at, at[weights.argmax()], found)
            held, last = weights[took].sum(), weights[took].min()
            assert weights[~took].max() < last  # the densest cells, and no other
            assert share - 1e-5 <= held < share + last


def test_a_share_is_in_its_place_whatever_the_others_are():
    maps = softmax_maps((16, 16), 1.5, [(8, 9), (0, 3)])
    grid = Grid((16, 16), (512, 512), 32)
    both = lines(maps, grid, (114, 114), (0.9, 0.2))
    for share, k in ((0.9, 0), (0.2, 1)):
        alone = lines(maps[1:], grid, (114, 114), (share,))[0][0]
        assert len(alone) == len(both[1][k]) > 0
        assert all(map(np.array_equal, alone, both[1][k]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    "even", [np.ones((3, 4)), np.zeros((3, 4)), np.ones((1, 1)), 1 + 1e-8 * np.eye(5)]
)
def test_an_even_map_has_no_lines(even, interpolation):
    grid = Grid((3, 4), (96, 128), 32)
    maps = np.stack([even, one_hot(even.shape, (0, 0))]) if even.size > 1 else even[None]
    drawn = lines(maps, grid, (30, 40), interpolation=interpolation)
    assert drawn[0] == ([], [], [])
    assert all(len(found) == 1 for found in drawn[1]) if even.size > 1 else len(drawn) == 1
    assert lines(maps[:0], grid, (30, 40)) == []


# --- where the lines run ----------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_gaussian_has_the_radius_that_holds_the_share(share, interpolation):
    """share = 1 - exp(-r^2 / 2 sigma^2), 10 pixels a cell; off the grid, so that no two tie."""
    sigma, (cx, cy) = 3.0, (19.83, 21.29)
    y, x = np.mgrid[:41, :41]
    weights = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    drawn = lines(weights[None], CENTERED, (410, 410), (share,), interpolation)[0][0]
    found = radii(drawn, ((cx + 0.5) * 10, (cy + 0.5) * 10), 10)
    expected = sigma * np.sqrt(-2 * np.log(1 - share))
    assert found.mean() == pytest.approx(expected, abs=0.1)
    assert np.ptp(found) < 0.15


def test_cubic_lines_are_rounder_than_straight_ones():
    """Keys' cubic is exact for a paraboloid, so its lines are circles but for their chords."""
    y, x = np.mgrid[:31, :31]
    weights = 500.0 - (x - 14.8) ** 2 - (y - 15.3) ** 2
    share = weights[weights > 450].sum() / weights.sum()
    drawn = {
        i: radii(lines(weights[None], CENTERED, (310, 310), (share,), i)[0][0], (153, 158), 10)
        for i in ("cubic", "linear")
    }
    expected = np.sqrt(500 - regions.level(weights, share))
    assert np.abs(drawn["cubic"] - expected).max() < 0.002
    assert np.abs(drawn["linear"] - expected).max() > 0.01


def test_linear_lines_are_at_the_level():
    maps, grid = softmax_maps((25, 34), 1.5, [(3, 30)]), Grid((25, 34), (800, 1066), 32)
    for share, found in zip(
        SHARES,
        lines(maps, grid, (114, 152), interpolation="linear")[0],
        strict=True,
    ):
        at = np.concatenate(found)
        u = (at[:, 0] / 152 * 1066 - 0.5) / 32
        v = (at[:, 1] / 114 * 800 - 0.5) / 32
        values = map_coordinates(maps[0].astype(np.float64), (v, u), order=1, mode="nearest")
        assert np.allclose(values, regions.level(maps[0], share), rtol=1e-6)


@pytest.mark.parametrize(
    ("interpolation", "x"),
    [
        # 4 cells of 20 pixels have 16, 12, 8 and 4 of 40. Half is between one and two, nearer to
        # one: 3.5, midway between the centres at 10 and 30. The border is there too.
        ("linear", 20),
        ("nearest", 20),
        # Keys from (4, 4, 3, 2): at f = 1/2 (-4 + 36 + 27 - 2) / 16 = 456 / 128, at f = 3/4
        # (-12 + 116 + 333 - 18) / 128 = 419 / 128; 3.5 is 8 of the 37 on.
        ("cubic", 10 + 20 * (1 / 2 + 8 / 37 / 4)),
    ],
)
def test_a_straight_line_has_two_points(interpolation, x):
    weights = np.tile([4.0, 3, 2, 1], (4, 1))
    drawn = lines(weights[None], CENTERED, (60, 80), (0.5,), interpolation)
    ((line,),) = drawn[0]
    assert line[np.argsort(line[:, 1])] == pytest.approx(np.array([[x, 0], [x, 60]]))
    assert sorted(line[:, 1]) == [0, 60]  # exactly


@pytest.mark.parametrize(
    ("interpolation", "reach"),
    # in cells, of half the weight; Keys has 72 / 128 at f = 1/2 and 29 / 128 at 3/4
    [("nearest", 1 / 2), ("linear", 1 / 2), ("cubic", 1 / 2 + 8 / 43 / 4)],
)
@pytest.mark.parametrize("grid", [Grid((1, 1), (96, 160), 16), CENTERED])
def test_one_cell_has_a_loop_around_it(grid, interpolation, reach):
    hw, panel_hw, cell, step = (6, 10), (90, 300), (3, 7), np.array([30, 15])
    grid = replace(grid, hw=hw)
    drawn = lines(one_hot(hw, cell)[None], grid, panel_hw, (0.5, 0.95), interpolation)
    center = centers(hw, grid, panel_hw)[cell]
    for (loop,) in drawn[0]:
        assert (loop[0] == loop[-1]).all()
        assert loop.max(0) == pytest.approx(center + reach * step)
        assert loop.min(0) == pytest.approx(center - reach * step)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("hw", [(1, 5), (5, 1), (2, 2), (1, 2)])
def test_small_maps(hw, interpolation):
    """One row of cells: the line crosses the panel from edge to edge beside the cell."""
    maps = one_hot(hw, (0, 0))[None]
    ((found,),) = lines(maps, CENTERED, (40, 40), (0.5,), interpolation)[0]
    check_ends([found], (40, 40))
    assert (found[0] != found[-1]).any()
    for axis, cells in enumerate(hw[::-1]):
        along = found[:, axis]
        if cells == 1:
            assert sorted(along[[0, -1]]) == [0, 40]
        else:
            assert along.max() == pytest.approx(40 / cells, abs=0.1 * 40 / cells)


@pytest.mark.parametrize("below", [0, 0.01])
@pytest.mark.parametrize(
    ("block", "rise"), [((2, 2), (9 / 8) ** 2), ((1, 2), 9 / 8), ((2, 1), 9 / 8)]
)
def test_a_rise_between_the_cells_has_no_line(block, rise, below):
    """Keys' cubic rises to 9 / 8 between two equal cells; the level is a bit or more under it."""
    weights = np.zeros((5, 9))
    weights[1 : 1 + block[0], 1 : 1 + block[1]] = 1
    weights[2, 7] = 2 * (np.nextafter(rise, 1) - below) - 1
    assert 0 < rise - regions.level(weights, 0.2) < below + 1e-15
    ((loop,),) = lines(weights[None], CENTERED, (50, 90), (0.2,))[0]
    assert loop.mean(0) == pytest.approx(np.array([75, 25]), abs=2)


def test_a_sharp_peak_has_no_islands_beside_it():
    """Keys' cubic is 1 / 16 below zero 1.5 cells off, so (1 / 16)^2 above it on the diagonals."""
    weights = np.full((12, 16), 1e-5)
    weights[5, 6], weights[2, 12] = 1, 0.004
    share = 1.002 / weights.sum()
    assert regions.level(weights, share) < 1 / 256
    (loops,) = lines(weights[None], CENTERED, (120, 160), (share,))[0]
    middles = sorted((loop.max(0) + loop.min(0)).tolist() for loop in loops)
    assert np.array(middles) / 2 == pytest.approx(np.array([[65, 55], [125, 25]]), abs=0.1)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_map_that_is_larger_than_the_photo_is_cut(interpolation):
    """Ten cells of 32 pixels on an input of 100: cells from the fourth on are out of sight."""
    grid = Grid((10, 10), (100, 100), 32)
    drawn = lines(
        softmax_maps((10, 10), 1.5, [(1, 1), (2, 9)]), grid, (50, 50), (0.5, 0.8), interpolation
    )
    for found in (*drawn[0], *drawn[1]):
        check_ends(found, (50, 50))
    assert drawn[0][0]


def test_points_on_a_straight_way_are_left_out_wherever_a_line_starts():
    corners = [[0, 0], [4, 0], [4, 3], [0, 3]]
    ring = np.array([[0, 0], [1, 0], [4, 0], [4, 0], [4, 3], [2, 3], [1, 3], [0, 3], [0, 2]], float)
    loops = [np.roll(ring, -k, axis=0)[[*range(9), 0]] for k in range(9)]
    way = np.array([[0, 5], [1, 5], [2, 5], [2, 6], [2, 6], [2, 5], [9, 5]], float)  # and back
    lines = [*loops, way, loops[0]]
    thin = contours._thinned(np.concatenate(lines), np.array([len(line) for line in lines]))
    assert len(thin) == len(lines)
    for loop in (*thin[:9], thin[10]):
        assert len(loop) == 5 and (loop[0] == loop[-1]).all()
        start = corners.index(loop[0].tolist())
        assert loop[:-1].tolist() == corners[start:] + corners[:start]
    assert thin[9].tolist() == [[0, 5], [2, 5], [2, 6], [2, 5], [9, 5]]


# --- nearest: the outlines of cells -----------------------------------------------------------


def test_the_outline_of_a_cell():
    # stride 16 on 64 input pixels, 2 panel pixels each: centre x = 16 i + 0.5, edges 8 off
    drawn = lines(one_hot((4, 4), (2, 1))[None], Grid((4, 4), (64, 64), 16), (128, 128),
                           (0.5,), "nearest")  # fmt: skip
    ((loop,),) = drawn[0]
    corners = {(17, 49), (49, 49), (49, 81), (17, 81)}
    assert len(loop) == 5 and set(map(tuple, loop.tolist())) == corners


@pytest.mark.parametrize("grid", [Grid((25, 34), (800, 1066), 32), CENTERED])
@pytest.mark.parametrize("sharpness", [0.3, 3])
def test_outlines_are_the_borders_between_inside_and_outside(grid, sharpness):
    maps, panel_hw = softmax_maps((25, 34), sharpness, [(4, 4), (24, 20)]), (114, 152)
    grid = replace(grid, hw=(25, 34))
    xs, ys = (
        centers((25, 34), grid, panel_hw)[0, :, 0],
        centers((25, 34), grid, panel_hw)[:, 0, 1],
    )
    borders = [(xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2]
    widths, heights = (
        np.diff(np.concatenate([[0], b, [far]]))
        for b, far in zip(borders, panel_hw[::-1], strict=True)
    )
    for map_hw, drawn in zip(
        maps, lines(maps, grid, panel_hw, interpolation="nearest"), strict=True
    ):
        for share, found in zip(SHARES, drawn, strict=True):
            check_ends(found, panel_hw)
            length = 0.0
            for line in found:
                steps = np.diff(line, axis=0)
                assert ((steps == 0).sum(1) == 1).all()  # along one axis, exactly
                closed = (line[0] == line[-1]).all()
                turns = (steps == 0) != np.roll(steps == 0, 1, axis=0)
                assert turns[0 if closed else 1 :].all()  # at every point, a loop's first as well
                for axis in (0, 1):
                    across = line[:-1][steps[:, axis] == 0, axis]
                    gap = np.abs(across[:, None] - borders[axis]).min(1)
                    assert (gap < 1e-9).all()
                length += np.abs(steps).sum()
            above = map_hw > regions.level(map_hw, share)
            expected = ((above[1:] != above[:-1]) * widths).sum()
            expected += ((above[:, 1:] != above[:, :-1]) * heights[:, None]).sum()
            assert length == pytest.approx(expected)


def test_a_wrong_name_says_what_there_is():
    with pytest.raises(ValueError, match="cubic, linear, nearest"):
        lines(np.eye(3)[None], CENTERED, (9, 9), interpolation="lanczos")
