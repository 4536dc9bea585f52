"""Photo and maps to pixels: where a cell lies, how much of it is where, what a tone looks like."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import one_hot, photo
from scipy import ndimage
from scipy.ndimage import map_coordinates

from detr_viz.attention.grids import Grid
from detr_viz.figures.page import ground, scale, tiles
from detr_viz.figures.page.crop import Crop

BETWEEN = ("cubic", "linear", "nearest")  # they keep the weights of cells at their centres


def resample(maps: np.ndarray, grid: Grid, out_hw: tuple[int, int], *args, **more) -> np.ndarray:
    """Panels of the whole photo, which has the size of the network's input."""
    photo_hw = grid.input_hw
    return tiles.resample(maps, grid, out_hw, Crop.whole(photo_hw), photo_hw, *args, **more)


def inferno_like() -> np.ndarray:
    ramp = np.linspace(0, 255, 256)
    return np.stack([ramp, ramp**2 / 255, 255 - ramp], -1).astype(np.uint8)


# --- where a cell lies: values worked out by hand ---------------------


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("interpolation", BETWEEN)
def test_cell_i_is_centred_on_pixel_stride_times_i_of_the_resized_image(stride, interpolation):
    """A panel as large as the network input has the peak on pixel stride * i, undiminished."""
    hw = (96 // stride, 160 // stride)
    grid = Grid(hw, (96, 160), stride)
    cell = (hw[0] - 1, hw[1] // 2)
    panel = resample(one_hot(hw, cell), grid, (96, 160), interpolation)
    assert panel[stride * cell[0], stride * cell[1]] == pytest.approx(1)
    assert panel.max() == pytest.approx(1)
    for other in range(hw[1]):
        if other != cell[1]:
            assert panel[stride * cell[0], stride * other] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("stride", "cell", "pixel", "value"),
    [
        # 640 input pixels on 160: pixel j shows x = 4 j + 1.5. Cell 5 of stride 32 is x = 160:
        # pixel 40 (x = 161.5) is the closest, u = 5 + 1.5 / 32.
        (32, 5, 40, 1 - 1.5 / 32),
        # DC5, stride 16: cell 5 is x = 80; pixel 20 (x = 81.5), u = 5 + 1.5 / 16.
        (16, 5, 20, 1 - 1.5 / 16),
        # Cell 0 is x = 0: pixel 0 shows x = 1.5.
        (32, 0, 0, 1 - 1.5 / 32),
        # The last cell, 19, is x = 608; beyond it the map is flat up to the edge.
        (32, 19, 159, 1.0),
    ],
)
def test_peak_in_a_smaller_panel(stride, cell, pixel, value):
    cells = 640 // stride
    grid = Grid((1, cells), (stride, 640), stride)
    row = resample(one_hot((1, cells), (0, cell)), grid, (1, 160))
    assert row[0, pixel] == pytest.approx(value)
    assert row[0].max() == pytest.approx(value)
    stretched = (cell + 0.5) * 160 / cells  # the plain stretch puts it elsewhere
    assert abs(pixel - stretched) > 1 or cell == 19


def test_cell_centres_in_the_original_photo():
    # 200 x 640 is resized to 417 x 1334, stride 32 gives 14 x 42 cells.
    grid = Grid((14, 42), (417, 1334), 32)
    x, y = grid.centers(640, axis=1), grid.centers(200, axis=0)
    assert x[0] == pytest.approx(0.5 * 640 / 1334 - 0.5)
    assert x[41] == pytest.approx(1312.5 * 640 / 1334 - 0.5)
    assert x[41] == pytest.approx(629.1852, abs=1e-4)
    assert y[13] == pytest.approx(416.5 * 200 / 417 - 0.5)
    centred = Grid((1, 4), (1, 1), 32, "centered").centers(200, axis=1)
    assert centred.tolist() == [24.5, 74.5, 124.5, 174.5]


def test_positions_agree_with_centres():
    """A panel of the photo's own size shows each cell at its centre in the photo."""
    for rule in ("aligned", "centered"):
        grid = Grid((14, 42), (417, 1334), 32, rule)
        u, x = grid.positions(640, axis=1), grid.centers(640, axis=1)
        inside = (u > 0) & (u < 41)
        assert np.allclose(np.interp(u, np.arange(42), x)[inside], np.arange(640)[inside])


def test_centered_rule_ignores_the_stride():
    grid = Grid((3, 4), (999, 999), 7, "centered")
    panel = resample(one_hot((3, 4), (2, 1)), grid, (15, 20))
    # 5 pixels a cell: centres on pixels 2, 7, 12, 17
    assert np.unravel_index(panel.argmax(), panel.shape) == (12, 7)
    assert panel[12, 7] == pytest.approx(1)


def test_linear_agrees_with_scipy():
    rng = np.random.default_rng(0)
    maps, grid = rng.random((3, 25, 34)).astype(np.float32), Grid((25, 34), (800, 1066), 32)
    panels = resample(maps, grid, (114, 152), "linear")
    y = ((np.arange(114) + 0.5) * 800 / 114 - 0.5) / 32
    x = ((np.arange(152) + 0.5) * 1066 / 152 - 0.5) / 32
    grid = np.meshgrid(y, x, indexing="ij")
    for panel, values in zip(panels, maps, strict=True):
        expected = map_coordinates(values, grid, order=1, mode="nearest")
        assert np.allclose(panel, expected, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_ramp_stays_a_ramp(interpolation):
    """Both reproduce straight lines, so nothing is shifted (away from the clamped border)."""
    grid = Grid((1, 20), (64, 320), 16)
    row = resample(np.arange(20.0)[None], grid, (1, 111), interpolation)[0]
    u = ((np.arange(111) + 0.5) * 320 / 111 - 0.5) / 16
    inside = (u > 1) & (u < 18)
    assert np.allclose(row[inside], u[inside], atol=1e-5)


def test_nearest_shows_cells_with_sharp_edges():
    grid = Grid((1, 4), (8, 64), 16)  # 4 cells centred on x = 0, 16, 32, 48: edges at 8, 24, 40
    row = resample(np.array([[1.0, 2, 3, 4]]), grid, (1, 64), "nearest")[0]
    assert row.tolist() == [1] * 8 + [2] * 16 + [3] * 16 + [4] * 24


def test_cubic_is_smoother_than_linear_and_keeps_the_cells():
    grid, cells = Grid((1, 10), (8, 160), 16), np.array([[0, 0, 0, 0.5, 1, 0.5, 0, 0, 0, 0]])
    rows = {i: resample(cells, grid, (1, 160), i)[0] for i in ("linear", "cubic")}
    kinks = {i: np.abs(np.diff(row, 2)).max() for i, row in rows.items()}
    assert kinks["cubic"] < kinks["linear"] / 3
    assert np.allclose(rows["cubic"][::16], cells[0], atol=1e-6)


@pytest.mark.parametrize("interpolation", tiles.INTERPOLATIONS)
@pytest.mark.parametrize(("out", "cells"), [(152, 34), (8, 84), (5, 1), (1, 7), (30, 31)])
def test_weights_sum_to_one_and_skip_no_cell(interpolation, out, cells):
    grid = Grid((cells, cells), (32 * cells - 9, 32 * cells - 9), 32)
    side = 32 * cells - 9
    weights = tiles.interpolation_weights(
        out, grid, 1, interpolation, Crop.whole((side, side)), side
    )
    assert weights.shape == (out, cells) and weights.dtype == np.float32
    assert np.allclose(weights.sum(1), 1, atol=1e-6)
    assert (weights.max(0) > 0).all()


def test_wrong_names_say_what_there_is():
    with pytest.raises(ValueError, match="aligned, centered"):
        Grid((1, 1), (8, 8), 8, "middle")
    with pytest.raises(ValueError, match="cubic, linear, nearest"):
        resample(np.ones((2, 2)), Grid((2, 2), (8, 8), 4), (4, 4), "lanczos")


# --- photo and colours ------------------------------------------------------------------------


@pytest.mark.parametrize("hw", [(1, 1), (300, 400), (1, 4000), (4000, 1), (20, 30)])
def test_photo_of_any_shape_fits_a_panel(hw):
    small = tiles.resize_photo(photo(*hw), (57, 76))
    assert small.shape == (57, 76, 3) and small.dtype == np.uint8
    assert np.allclose(small.mean((0, 1)), photo(*hw).mean((0, 1)), atol=4)


def test_photo_is_antialiased():
    stripes = np.zeros((64, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    small = tiles.resize_photo(stripes, (16, 100))
    assert np.abs(small.astype(int) - 127).max() < 24


def gray_of(photo_rgb: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    return ground.ground(ground.tones(photo_rgb), inside)


def lightness(gray: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB greys, by the formulas of IEC 61966-2-1 and CIE 1976."""
    c = np.asarray(gray, np.float64) / 255
    y = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize(("side", "sigma"), [(50, 3.1), (1, 2.0), (7, 8.4), (300, 0.9)])
def test_gaussian_as_a_product_is_scipys(side, sigma):
    values = np.random.default_rng(side).random((side, 4))
    expected = ndimage.gaussian_filter1d(values, sigma, axis=0, mode="nearest")
    np.testing.assert_allclose(ground._gaussian(side, sigma) @ values, expected, atol=1e-14)


def test_ground_is_pale_whatever_the_light():
    scene = photo(114, 152).astype(float)
    lights = {"day": scene, "night": scene * 0.2, "snow": 255 - (255 - scene) * 0.3}
    grounds = {k: lightness(gray_of(v.astype(np.uint8))) for k, v in lights.items()}
    for light in grounds.values():
        assert light.min() >= 59.5 and light.max() <= 97.5
        assert light.std() > 4  # and the objects can be made out
    medians = [np.median(light) for light in grounds.values()]
    assert max(medians) - min(medians) < 4


def test_ground_is_lighter_outside_the_box_by_its_share_of_what_is_missing():
    scene = photo(114, 152)
    bare = lightness(gray_of(scene))
    inside = ground.box_mask((30, 20, 90, 80), (114, 152), 5)
    lit = lightness(gray_of(scene, inside))
    rows, columns = np.mgrid[:114, :152] + 0.5
    box = (rows > 20) & (rows < 80) & (columns > 30) & (columns < 90)
    far = (rows < 14) | (rows > 86) | (columns < 24) | (columns > 96)
    assert np.abs(lit - bare)[box].max() < 0.3
    expected = bare + 0.35 * (97 - bare)
    assert np.abs(lit - expected)[far].max() < 0.5  # half a step of grey


def test_ground_keeps_the_order_of_tones():
    scene = photo(60, 80)
    gray = scene @ np.array([299, 587, 114]) / 1000
    assert np.corrcoef(gray.ravel(), gray_of(scene).ravel().astype(float))[0, 1] > 0.9


@pytest.mark.parametrize("level", [0, 128, 255])
def test_ground_of_an_even_photo(level):
    found = gray_of(np.full((4, 4, 3), level, np.uint8))
    assert found.min() == found.max() and 59.5 <= lightness(found[0, 0]) <= 97.5


def test_tone_zero_is_the_bare_ground_and_opacity_follows_the_tone():
    """Opacity .94 * clip(t / .55)^1.25; the ground's grain is in the colour: 1 + .7 (Y - .85)."""
    table, lut = scale.tone_table(inferno_like()), inferno_like().astype(float)
    assert np.array_equal(table[0, :, :3], np.arange(256)[:, None].repeat(3, 1))
    assert (table[..., 3] == 255).all()
    for level, gray in np.random.default_rng(1).integers(0, 255, (200, 2)):
        alpha = 0.94 * min(level / 255 / 0.55, 1) ** 1.25
        color = np.clip(lut[level] * (1 + 0.7 * (gray / 255 - 0.85)), 0, 255)
        expected = alpha * color + (1 - alpha) * gray
        assert np.abs(table[level, gray, :3] - expected).max() <= 0.5 + 1e-9


def test_overlay_looks_every_pixel_up():
    table = scale.tone_table(inferno_like())
    under = np.array([[10, 200], [90, 90]], np.uint8)
    tones = np.array([[[0, 1], [0.5, 2]], [[-1, 0.2], [1, 0]]])  # beyond [0, 1] is clipped
    panels = tiles.colorize(tones, under, table)
    assert panels.shape == (2, 2, 2, 4) and panels.dtype == np.uint8
    for index, cell in np.ndenumerate(np.clip(tones, 0, 1)):
        assert np.array_equal(panels[index], table[round(cell * 255), under[index[1:]]])


def test_a_map_alone_is_its_colours():
    lut = inferno_like()
    panels = tiles.colorize(
        np.linspace(0, 1, 256)[None, None],
        np.full((1, 256), 77, np.uint8),
        scale.opaque_table(lut, fades=False),
    )
    assert np.array_equal(panels[0, 0, :, :3], lut)


# --- smooth: mass is kept, an even map is even ------------------------------------------------

GRIDS = {
    "resnet": Grid((25, 38), (800, 1203), 32),
    "dc5": Grid((50, 76), (800, 1203), 16),
    "even": Grid((20, 30), (640, 960), 32, "centered"),
    "coarse": Grid((3, 4), (96, 128), 32),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("out_hw", [(160, 240), (53, 81)])
@pytest.mark.parametrize("least_px", [0, 2.8])
def test_a_smoothed_even_map_is_even(name, out_hw, least_px):
    grid = GRIDS[name]
    field = resample(np.ones(grid.hw), grid, out_hw, "smooth", beyond=6, least_px=least_px)
    assert field.shape == (out_hw[0] + 12, out_hw[1] + 12)
    assert np.abs(field - 1).max() < 1e-5


@pytest.mark.parametrize("out_hw", [(160, 240), (320, 480), (54, 80)])
@pytest.mark.parametrize("least_px", [0, 2.8])
@pytest.mark.parametrize("seed", range(4))
def test_a_smoothed_map_keeps_its_mass(out_hw, least_px, seed):
    """The sum of a field is the map's times the pixels of a cell, within a hundredth.

    For cells that cover the photo exactly; peaks lie inside, at edges and in corners.
    """
    grid, rng = GRIDS["even"], np.random.default_rng(seed)
    maps = [one_hot(grid.hw, cell) for cell in ((10, 15), (0, 0), (19, 7), (3, 29))]
    maps.append(rng.random(grid.hw) ** 8)
    maps.append(np.exp(rng.normal(size=grid.hw)))
    fields = resample(np.stack(maps), grid, out_hw, "smooth", least_px=least_px)
    per_cell = out_hw[0] * out_hw[1] / grid.cells
    for field, one in zip(fields, maps, strict=True):
        assert field.sum() == pytest.approx(one.sum() * per_cell, rel=0.01)


@pytest.mark.parametrize("name", ["resnet", "dc5"])
def test_a_smoothed_map_keeps_its_mass_where_cells_are_centred_on_pixels(name):
    """Away from the borders, where the outermost cells are cut by the photo's edge."""
    grid, out_hw = GRIDS[name], (160, 240)
    maps = np.zeros(grid.hw)
    maps[4:-4, 4:-4] = np.random.default_rng(3).random((grid.hw[0] - 8, grid.hw[1] - 8)) ** 6
    field = resample(maps, grid, out_hw, "smooth", least_px=2.8)
    per_cell = grid.stride**2 * (out_hw[0] / 800) * (out_hw[1] / 1203)
    assert field.sum() == pytest.approx(maps.sum() * per_cell, rel=0.01)


def test_a_smoothed_cell_is_a_gaussian_of_six_tenths_of_a_cell():
    """Far from the borders: the second moment is .36, and the middle 1 / (2 pi .36)."""
    grid = Grid((21, 21), (672, 672), 32, "centered")
    field = resample(one_hot((21, 21), (10, 10)), grid, (630, 630), "smooth").astype(float)
    at = (np.arange(630) + 0.5) / 30 - 10.5  # in cells from the middle
    spread = (field.sum(0) * at**2).sum() / field.sum()
    assert spread == pytest.approx(0.36, rel=0.02)
    assert field.max() == pytest.approx(1 / (2 * np.pi * 0.36), rel=0.02)


def test_small_cells_are_spread_by_so_many_pixels_at_least():
    grid = Grid((60, 60), (1920, 1920), 32, "centered")  # two pixels a cell
    field = resample(one_hot((60, 60), (30, 30)), grid, (120, 120), "smooth", least_px=3.0)
    at = np.arange(120) + 0.5 - 61
    spread = (field.sum(0, np.float64) * at**2).sum() / field.sum(dtype=np.float64)
    assert spread == pytest.approx(9, rel=0.03)


@pytest.mark.parametrize("interpolation", tiles.INTERPOLATIONS)
def test_a_view_is_a_part_of_the_whole_panel(interpolation):
    """A quarter of the photo at the same size of pixels: its pixels are the whole panel's."""
    grid, photo_hw = GRIDS["resnet"], (400, 600)
    maps = np.random.default_rng(2).random(grid.hw)
    whole = tiles.resample(maps, grid, photo_hw, Crop.whole(photo_hw), photo_hw, interpolation)
    crop = Crop(150, 100, 450, 300, is_part=True)
    view = tiles.resample(maps, grid, (200, 300), crop, photo_hw, interpolation)
    assert np.allclose(view, whole[100:300, 150:450], atol=1e-5)


def test_paste():
    sheet = tiles.blank_sheet(5, 6)
    tiles.paste(sheet, np.zeros((2, 3, 3), np.uint8), 1, 2)
    assert (sheet[1:3, 2:5, :3] == 0).all() and (sheet[..., 3] == 255).all()
    assert (sheet[..., :3] == 0).sum() == 2 * 3 * 3
