"""No text lies over another, or over a panel: names of any length, many queries, every preset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_explanation import MODES, fake
from figure_tools import check_page, texts

from detr_viz import figures
from detr_viz.figures.styles import PRESETS, PageFormat, Style

SHAPES = {
    "portrait": {"image_hw": (128, 96), "input_hw": (1066, 800), "stride": 32},
    "landscape": {"image_hw": (96, 144), "input_hw": (800, 1203), "stride": 32},
    "panorama": {"image_hw": (40, 200), "input_hw": (267, 1334), "stride": 32},
}
LENGTHS = (1, 4, 9, 14, 20, 27, 33, 40)
WORDS = "wide Mammoth jumping over illicit fjords in Wyoming "  # wide and narrow letters


def name(length: int, with_spaces: bool) -> str:
    text = (WORDS if with_spaces else WORDS.replace(" ", ""))[:length]
    return text if text[-1] != " " else text[:-1] + "s"


# Each row of a Latin square: all pairs of a preset and a shape, a shape and a number of queries.
CASES = [
    (preset, shape, (1, 3, 20)[(i + k) % 3], modes)
    for i, preset in enumerate((None, *PRESETS))
    for k, shape in enumerate(SHAPES)
    for modes in ("combine", MODES)
]


@pytest.mark.parametrize(("preset", "shape", "queries", "modes"), CASES)
@pytest.mark.filterwarnings("ignore:the figure is .* high")
def test_names_of_any_length(preset, shape, queries, modes):
    """Names of 1 to 40 characters, some of one word; letters and notes in every other figure."""
    case = CASES.index((preset, shape, queries, modes))
    lengths = np.roll(LENGTHS, case)
    names = [name(int(lengths[q % len(LENGTHS)]), q % 3 > 0) for q in range(queries)]
    scores = np.linspace(1, 0.01, queries)
    page = PageFormat.of(preset)
    page = replace(page, dpi=round(180 / page.type_size), letters=case % 2 == 1, notes=case % 4 > 1)
    example = fake(names=names, scores=scores, **SHAPES[shape])
    fig = figures.head_grid(example, range(queries), modes, page_format=page)
    check_page(fig)
    shown = texts(fig)
    for one in names:
        if len(one) <= 4:
            assert any(one in text for text in shown)


@pytest.mark.parametrize("length", [*range(1, 40, 4), 40])
@pytest.mark.parametrize("modes", ["combine", MODES], ids=["single", "stacked"])
def test_every_length(length, modes):
    page = replace(PageFormat.of(width_in=3.25 if length % 2 else 4.6), dpi=180)
    example = fake(names=[name(length, False), name(length, True)], scores=[0.98, 0.4])
    style = Style("contour", contours=(0.5, 0.8)) if length % 8 == 1 else Style(norm="head")
    check_page(figures.head_grid(example, [0, 1], modes, style=style, page_format=page))


def test_letters_stand_before_labels_in_their_order():
    page = replace(PageFormat.of(dpi=100), letters=True)
    count = 28
    example = fake(names=[f"n{i}" for i in range(count)], scores=np.full(count, 0.9))
    fig = figures.head_grid(example, range(count), page_format=page)
    letters = [t.partition(" ")[0] for t in texts(fig) if t.startswith("(")]
    assert letters == [*(f"({c})" for c in "abcdefghijklmnopqrstuvwxyz"), "(aa)", "(ab)"]
    plain = figures.head_grid(example, range(count), page_format=PageFormat.of(dpi=100))
    assert not any(t.startswith("(") for t in texts(plain))
