"""Nothing is cut, nothing overlaps: the extents of what is drawn, for many shapes of figure."""

from __future__ import annotations

import numpy as np
import pytest
from fake_explanation import MODES, fake
from figure_tools import boxes_of, check_page, corners

from detr_viz import figures, page
from detr_viz.styles import FigureError, Look, page_format

LONG = ("baseball glove", "an exceedingly long class name that never ends", "Donaudampfschifffahrt")
SHAPES = {
    "demo": {"image_hw": (512, 512), "input_hw": (160, 160)},
    "photo": {"image_hw": (300, 451), "input_hw": (800, 1203), "stride": 32},
    "panorama": {"image_hw": (200, 640), "input_hw": (417, 1334), "stride": 32},
    "portrait": {"image_hw": (640, 360), "input_hw": (1334, 750), "stride": 32},
    "dot": {"image_hw": (1, 1), "input_hw": (800, 800), "stride": 32},
    "line": {"image_hw": (1, 10_000), "input_hw": (1, 1333), "stride": 32},
    "column": {"image_hw": (10_000, 1), "input_hw": (1333, 1), "stride": 32},
}


@pytest.mark.parametrize("modes", ["combine", MODES[:2], MODES], ids=["single", "two", "three"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_photo(shape, modes):
    fig = figures.head_grid(fake(names=LONG, **SHAPES[shape]), [0, 1, 2], modes)
    check_page(fig)
    width, height = fig.canvas.get_width_height()
    assert width <= round(4.6 * 335) and height < 4 * width
    stretched = any("stretched" in t.get_text() for t in fig.axes[0].texts)
    assert stretched == (shape in ("line", "column"))


@pytest.mark.parametrize("modes", ["combine", MODES[:2]], ids=["single", "stacked"])
@pytest.mark.parametrize("heads", [1, 2, 4, 16])
def test_every_number_of_heads(heads, modes):
    check_page(figures.head_grid(fake(heads=heads), [0, 1], modes))


@pytest.mark.parametrize("modes", ["combine", MODES], ids=["single", "stacked"])
@pytest.mark.parametrize(("width_in", "dpi"), [(3.25, 300), (5, 100), (6.875, 220), (13.3, 150)])
def test_every_width(width_in, dpi, modes):
    size = page_format(None, width_in, dpi)
    fig = figures.head_grid(fake(names=LONG), [0, 1, 2], modes, page=size)
    check_page(fig)
    assert width_in * 0.98 <= fig.get_figwidth() <= width_in + 0.01


def test_one_query_and_twenty():
    names = [f"class {i}" for i in range(20)]
    example = fake(names=names, scores=np.linspace(0.99, 0.01, 20))
    check_page(figures.head_grid(example, [7]))
    fig = figures.head_grid(example, range(20))
    check_page(fig)
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert sum(t.startswith("head ") for t in texts) == 8


def test_short_names_are_never_cut():
    names = ("baseball glove", "hair drier", "TV")
    fig = figures.head_grid(fake(names=names), [0, 1, 2], page=page_format(width_in=7.0))
    assert {"baseball glove", "hair drier", "TV"} <= {t.get_text() for t in fig.axes[0].texts}


def test_letters_are_legible_in_print():
    """Subscripts aside no letter is below 6 points, nor below 4 when shrunk to a column."""
    for mode in ("position", MODES):
        fig = figures.head_grid(fake(), [0, 1], mode)
        assert 1400 < fig.get_figwidth() * fig.dpi < 1600
        sizes = {t.get_text(): t.get_fontsize() for t in fig.axes[0].texts}
        for text, size in sizes.items():
            if text not in ("q", "k"):
                assert size >= 6, text
                assert size * min(1, 3.25 / fig.get_figwidth()) >= 4, text


def test_a_query_of_three_digits_stays_on_one_line():
    fig = figures.head_grid(fake(names=["cat"] * 120, scores=[0.98] * 120), [110])
    assert "0.98 · query 110" in {t.get_text() for t in fig.axes[0].texts}


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("color", [*figures.PALETTE, "#ffffff", "#000000"])
def test_labels_have_contrast(color, weak):
    """WCAG 2: (1.05) / (L + 0.05) of at least 4.5 on white."""
    assert 1.05 / (page.luminance(page.legible(color, weak)) + 0.05) >= 4.5


def test_luminance():
    assert page.luminance("#ffffff") == pytest.approx(1)
    assert page.luminance("#000000") == 0
    assert page.luminance("#00ff00") == pytest.approx(0.7152)
    assert page.luminance("#808080") == pytest.approx(0.2159, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (0.994, ".99"), (0.62, ".62"), (0.0149, ".01"), (0.0094, ".009"), (0.0001, "<.001")],
)
def test_numbers_are_short(value, text):
    assert page.number(value) == text


@pytest.mark.parametrize("style", ["overlay", "contour"])
def test_all_boxes_stay_in_their_panels(style):
    """Larger than the photo, of no size in two corners: the lines with their halo are inside."""
    example = fake()
    example.boxes_xyxy_px[:] = [[-50, -50, 999, 999], [0, 0, 0, 0], [128, 96, 128, 96]]
    fig = figures.head_grid(example, [0, 1, 2], look=Look(style))
    check_page(fig)
    assert [len(corners(boxes)) for boxes in boxes_of(fig)] == [3 * 9, 3 * 9]


def test_too_many_rows_are_refused_before_anything_is_drawn():
    example = fake(names=["x"] * 2, scores=[0.5] * 2, image_hw=(96, 96))
    with pytest.raises(FigureError, match=r"^900 rows make .* fewer queries, or one mode$"):
        figures.head_grid(example, [0] * 900)
