"""A sentence under a query's label: there in every layout, whole, and over nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_explanation import MODES, fake
from figure_tools import check_page, texts

from detr_viz import figures
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.styles import PRESETS, PageFormat, Style

NOTE = (
    "wrong-class (bench, IoU .72); missed cat, suppressed by score: query 0 has the box (IoU .83) "
    "and the class, score .31 below .50"
)
SHAPES = {
    "portrait": {"image_hw": (128, 96), "input_hw": (1066, 800), "stride": 32},
    "panorama": {"image_hw": (40, 200), "input_hw": (267, 1334), "stride": 32},
}
LOOKS = {
    "heads": {},
    "modes": {"mode": MODES},
    "mean": {"style": Style(heads="mean")},
    "mean of modes": {"mode": MODES, "style": Style(heads="mean")},
    "layers": {"layer": [2, 5]},
}


def words_of(fig) -> str:
    return " ".join(texts(fig)).replace("- ", "-")


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.filterwarnings("ignore:the figure is .* high")
def test_a_note_is_in_every_layout(preset, shape, look):
    example = fake(layers=(2, 5), residuals={2: 0.0, 5: 0.0}, **SHAPES[shape])
    page = PageFormat.of(preset)
    page = replace(page, dpi=round(180 / page.type_size))
    objects = [SharedObject(0, (Match(query, 1.0),)) for query in (0, 1)]
    options = {"layer": 5, **LOOKS[look]}
    fig = figures.compare_models([example], objects, page_format=page, notes=[{0: NOTE}], **options)
    check_page(fig)
    shown = words_of(fig)
    assert "missed cat, suppressed by score" in shown.replace("…", "")
    if preset != "column" or look == "heads":
        assert shown.count("below .50") == 1
    plain = figures.compare_models([example], objects, page_format=page, **options)
    assert "suppressed" not in words_of(plain)


@pytest.mark.filterwarnings("ignore:the figure is .* high")
def test_models_side_by_side_have_their_own_notes():
    a, b = fake(), fake(model_title="DETR")
    b.image = a.image
    objects = [SharedObject(0, (Match(0, 1.0), Match(1, 0.8)))]
    notes = [{0: "first note", 1: "of no row"}, {1: "second note", 0: "of no row"}]
    fig = figures.compare_models([a, b], objects, notes=notes)
    check_page(fig)
    shown = words_of(fig)
    assert "first note" in shown and "second note" in shown and "of no row" not in shown


def test_a_note_that_no_font_has_is_left_out():
    objects = [SharedObject(0, (Match(0, 1.0),))]
    fig = figures.compare_models([fake()], objects, notes=[{0: "missed $x$ \U000e0001"}])
    assert not any("missed" in text and "$" in text for text in texts(fig))
    assert np.isfinite(fig.get_figheight())
