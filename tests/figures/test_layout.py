"""Nothing is cut, nothing overlaps: the extents of what is drawn, for many shapes of figure."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake
from figure_tools import boxes_of, check_page, corners, extent, texts, ticks_of, tiles_of
from matplotlib.figure import Figure

from detr_viz import figures
from detr_viz.detections.matching import shared_objects
from detr_viz.figures.page import elements, ground
from detr_viz.figures.styles import PRESETS, FigureError, PageFormat, Style

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
    stretched = any("true proportions" in t.get_text() for t in fig.axes[0].texts)
    assert stretched == (shape in ("line", "column"))


@pytest.mark.parametrize("modes", ["combine", MODES[:2]], ids=["single", "stacked"])
@pytest.mark.parametrize("heads", [1, 2, 4, 16])
def test_every_number_of_heads(heads, modes):
    check_page(figures.head_grid(fake(heads=heads), [0, 1], modes))


@pytest.mark.parametrize("modes", ["combine", MODES], ids=["single", "stacked"])
@pytest.mark.parametrize(("width_in", "dpi"), [(3.25, 300), (5, 100), (6.875, 220), (13.3, 150)])
def test_every_width(width_in, dpi, modes):
    size = PageFormat.of(None, width_in, dpi)
    fig = figures.head_grid(fake(names=LONG), [0, 1, 2], modes, page_format=size)
    check_page(fig)
    assert width_in * 0.98 <= fig.get_figwidth() <= width_in + 0.01


@pytest.mark.parametrize("heads", [(0, 1, 2, 3, 4, 5, 6, 7), (3, 5), (6,), (0, 2, 4)])
def test_a_column_names_every_head_of_several_modes(heads):
    """The name of a row of panels stands beside those of the heads, never in place of one."""
    style, size = Style(heads=heads), PageFormat.of("column")
    fig = figures.head_grid(fake(), [0], MODES[:2], style=style, page_format=size)
    check_page(fig)
    shown = texts(fig)
    if len(heads) > 1:
        assert f"head {heads[0]}" in shown and set(map(str, heads[1:])) <= set(shown)
        assert fig.get_figwidth() >= 0.95 * size.width_in  # two heads fill a column


# --- presets ----------------------------------------------------------------------------------


def pair() -> list[FakeExplanation]:
    """Two models of six layers, 8 and 6 heads; the second has no match for the first's last box."""
    shape = {**SHAPES["photo"], "layers": tuple(range(6)), "residuals": {i: 1e-7 for i in range(6)}}
    a = fake(names=LONG, model_title="DETR with an unusually long title", **shape)
    b = fake(names=LONG, heads=6, **shape)
    b.image = a.image
    b.boxes_xyxy_px = a.boxes_xyxy_px + np.array([[9, 4, 12, -3], [0, 0, 0, 0], [150, 60, 9, 9]])
    b.labels = np.array([0, 2, 1])
    return [a, b]


def drawn(kind: str, page_format: PageFormat, style: Style) -> Figure:
    a, b = pair()
    if kind in ("single", "modes", "layers"):
        modes = MODES if kind == "modes" else "combine"
        layer = "all" if kind == "layers" else None
        return figures.head_grid(
            a, [0, 1, 2], modes, layer=layer, style=style, page_format=page_format
        )
    objects = shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], [[0, 1, 2], [0, 1, 2]])
    modes = MODES if kind == "compared modes" else "combine"
    layer = "all" if kind == "compared layers" else None
    return figures.compare_models(
        [a, b], objects, modes, layer=layer, style=style, page_format=page_format
    )


def coarse(preset: str) -> PageFormat:
    """The preset at a resolution where two and a half pixels are a point of its type."""
    page_format = PageFormat.of(preset)
    return replace(page_format, dpi=round(180 / page_format.type_size))


KINDS = ("single", "modes", "layers", "compared", "compared modes", "compared layers")
LOOKS = {"even": Style(), "figure": Style("heat", "figure"), "contour": Style("contour")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("preset", "style", "least_pt"),
    [
        ("column", "contour", 5),
        ("page", "even", 5.5),
        ("slide", "contour", 12),
        ("poster", "figure", 21),
    ],
)
def test_every_preset_holds_every_kind_of_figure(preset, style, least_pt, kind):
    """In text that is legible where it will be read, with a warning where it is too high."""
    page_format = coarse(preset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fig = drawn(kind, page_format, LOOKS[style])
    check_page(fig)
    asked, room = PRESETS[preset].width_in, PRESETS[preset].height_in
    assert fig.get_figwidth() <= asked + 0.51 / fig.dpi  # the nearest whole pixel
    if fig.get_figwidth() < 0.98 * asked:  # smaller to fit the height, which it then fills
        assert 0.9 * room < fig.get_figheight() <= room + 1e-4
    too_high = fig.get_figheight() > room + 0.5 / fig.dpi  # half a pixel
    said = [re.match(r"the figure is ([\d.]+) in high", str(w.message)) for w in caught]
    assert len(said) == int(too_high)
    assert all(abs(float(m[1]) - fig.get_figheight()) < 0.06 for m in said)
    sizes = {t.get_text(): t.get_fontsize() for t in fig.axes[0].texts}
    assert len(sizes) >= 20
    assert min(sizes.values()) >= least_pt
    assert max(sizes.values()) < 2 * min(sizes.values())


@pytest.mark.parametrize(
    ("preset", "width_in", "pixels"),
    [
        ("column", 3.25, 1950),
        ("page", 6.875, 2062),
        ("slide", 13.3, 1995),
        ("poster", 23.4, 3510),
        (None, 4.6, 1541),
    ],
)
def test_presets_have_the_widths_they_are_named_for(preset, width_in, pixels):
    page_format = PageFormat.of(preset)
    assert page_format.width_in == width_in and round(width_in * page_format.dpi) == pixels
    fig = figures.head_grid(fake(), [0], page_format=page_format)
    width, height = fig.canvas.get_width_height()
    assert pixels - 16 <= width <= pixels  # whole pixels for 9 panels
    assert (height, width) == np.asarray(fig.axes[0].images[0].get_array()).shape[:2]
    assert fig.dpi == page_format.dpi and fig.get_figwidth() == pytest.approx(
        width / fig.dpi, abs=1e-4
    )
    other = figures.head_grid(fake(), [0], page_format=PageFormat.of(preset, 5.0, 120))
    assert 600 - 16 <= other.canvas.get_width_height()[0] <= 600
    mine = {t.get_fontsize() for t in other.axes[0].texts}
    assert mine == {t.get_fontsize() for t in fig.axes[0].texts}  # the preset's size of type


# --- height -----------------------------------------------------------------------------------


def both_heights(query_count: int, preset: str, **more: object) -> tuple[Figure, Figure, list[str]]:
    """The preset's figure, the same with all the height it wants, and what was warned of."""
    example = fake(names=["cat"] * query_count, scores=[0.9] * query_count, **more)
    page_format = coarse(preset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fig = figures.head_grid(example, range(query_count), page_format=page_format)
    tall = replace(page_format, height_in=math.inf)
    free = figures.head_grid(example, range(query_count), page_format=tall)
    return fig, free, [str(w.message) for w in caught]


@pytest.mark.parametrize("count", [7, 8])
def test_panels_shrink_until_the_figure_fits_a_slide(count):
    fig, free, warned = both_heights(count, "slide")
    assert free.get_figheight() > 7.51 > fig.get_figheight() > 6.9 and not warned
    check_page(fig)
    (height, width), (free_height, free_width) = (tiles_of(f)[1].hw for f in (fig, free))
    assert height < free_height and width < free_width
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    assert len(tiles_of(fig)) == len(tiles_of(free)) == 9 * count
    sizes = [{t.get_fontsize() for t in f.axes[0].texts} for f in (fig, free)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("count", "more"), [(1, {}), (2, SHAPES["panorama"])])
def test_a_figure_that_fits_is_left_alone(count, more):
    fig, free, warned = both_heights(count, "slide", **more)
    assert fig.get_figheight() < 7.5 and not warned
    assert texts(fig) == texts(free) and tiles_of(fig) == tiles_of(free)


def test_a_figure_exactly_as_high_as_its_room_fits():
    free = figures.head_grid(fake(), [0, 1])
    room = replace(PageFormat.of(), height_in=free.canvas.get_width_height()[1] / 335)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig = figures.head_grid(fake(), [0, 1], page_format=room)
    assert tiles_of(fig) == tiles_of(free)


@pytest.mark.parametrize(("preset", "count", "room"), [("slide", 20, "7.5"), ("column", 40, "8.2")])
def test_a_figure_that_cannot_fit_keeps_its_panels_and_is_said_to_be_high(preset, count, room):
    fig, free, warned = both_heights(count, preset)
    high = f"{fig.get_figheight():.1f}"
    assert fig.get_figheight() > float(room)
    assert warned == [
        f"the figure is {high} in high, more than the {room} in there is room for: "
        "choose fewer queries, or one mode"
    ]
    if preset == "slide":  # two queries abreast: less than two thirds of one below the other
        assert fig.get_figheight() < 0.66 * free.get_figheight()
    else:
        assert tiles_of(fig) == tiles_of(free)
    check_page(fig)


# --- many and few -----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["column", "page", "slide", "poster"])
@pytest.mark.filterwarnings("ignore:the figure is .* high")
def test_twenty_queries_in_every_preset(preset):
    names = [f"class {i}" for i in range(20)]
    example = fake(names=names, scores=np.linspace(0.99, 0.01, 20))
    fig = figures.head_grid(example, range(20), page_format=coarse(preset))
    check_page(fig)
    assert set(names) <= set(texts(fig)) and len(tiles_of(fig)) == 20 * 9
    at = {t.get_text(): extent(t) for t in fig.axes[0].texts}
    assert sorted(names, key=lambda name: (round(at[name].y0), at[name].x0)) == names


def test_one_query_and_twenty():
    names = [f"class {i}" for i in range(20)]
    example = fake(names=names, scores=np.linspace(0.99, 0.01, 20))
    check_page(figures.head_grid(example, [7]))
    fig = figures.head_grid(example, range(20))
    check_page(fig)
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert sum(t.startswith("head ") for t in texts) == 1
    assert all(texts.count(str(head)) == 1 for head in range(1, 8))


def test_short_names_are_never_cut():
    names = ("baseball glove", "hair drier", "TV")
    fig = figures.head_grid(fake(names=names), [0, 1, 2], page_format=PageFormat.of(width_in=7.0))
    assert {"baseball glove", "hair drier", "TV"} <= {t.get_text() for t in fig.axes[0].texts}


def test_letters_are_legible_in_print():
    """No letter is below 5 points, nor below 3.5 when a figure is shrunk to a column."""
    for mode in ("position", MODES):
        fig = figures.head_grid(fake(), [0, 1], mode)
        assert 1400 < fig.get_figwidth() * fig.dpi < 1600
        sizes = {t.get_text(): t.get_fontsize() for t in fig.axes[0].texts}
        for text, size in sizes.items():
            assert size >= 5, text
            assert size * min(1, 3.25 / fig.get_figwidth()) >= 3.5, text


def test_a_query_of_three_digits_stays_on_one_line():
    fig = figures.head_grid(fake(names=["cat"] * 120, scores=[0.98] * 120), [110])
    at = {t.get_text(): t.get_position()[1] for t in fig.axes[0].texts}
    assert at["cat"] == at[".98"] == at["query 110"]


@pytest.mark.parametrize("color", [elements.INK, elements.GRAY, elements.ALERT, elements.BOX_BLUE])
def test_inks_have_contrast(color):
    """WCAG 2: (1.05) / (L + 0.05) of at least 4.5 on white."""
    assert 1.05 / (ground.luminance(color) + 0.05) >= 4.5


def test_luminance():
    assert ground.luminance("#ffffff") == pytest.approx(1)
    assert ground.luminance("#000000") == 0
    assert ground.luminance("#00ff00") == pytest.approx(0.7152)
    assert ground.luminance("#808080") == pytest.approx(0.2159, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.994, ".99"),
        (0.62, ".62"),
        (0.0149, ".01"),
        (0.0094, ".009"),
        (0.0001, ".0001"),
        (0.0009, ".0009"),
        (0.00002, "<.0001"),
    ],
)
def test_numbers_are_short(value, text):
    assert elements.number(value) == text


@pytest.mark.parametrize("style", ["overlay", "contour"])
def test_all_boxes_stay_in_their_panels(style):
    """Larger than the photo, of no size in two corners: the lines with their halo are inside."""
    example = fake()
    example.boxes_xyxy_px[:] = [[-50, -50, 999, 999], [0, 0, 0, 0], [128, 96, 128, 96]]
    fig = figures.head_grid(example, [0, 1, 2], style=Style(style))
    check_page(fig)
    assert [len(corners(boxes)) for boxes in boxes_of(fig)] == [3, 3]
    assert [len(corners(ticks)) for ticks in ticks_of(fig)] == [3 * 8 * 4, 3 * 8 * 4]


def test_too_many_rows_are_refused_before_anything_is_drawn():
    example = fake(names=["x"] * 2, scores=[0.5] * 2, image_hw=(96, 96))
    with pytest.raises(
        FigureError,
        match=r"^250 rows make .* fewer queries or modes, a lower dpi or a smaller width$",
    ):
        figures.head_grid(example, [0] * 250, page_format=PageFormat.of(dpi=1200))
