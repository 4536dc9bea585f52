"""Stamped text against text that matplotlib draws anew."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detr_viz.figures.page import stamps
from detr_viz.figures.page.stamps import remember_text
from detr_viz.figures.page.text import plain_settings

TEXTS = {
    "a word": {"s": "query 14"},
    "turned": {"s": "last layer", "rotation": 90, "va": "center", "ha": "right"},
    "slanted": {"s": "AVATAR fj", "rotation": 31},
    "coloured": {"s": "97 % in box", "color": "#c0392b", "weight": "bold"},
    "below the line": {"s": "gjpqy|", "style": "italic"},
    "accents": {"s": "Ångström Ž"},
    "small": {"s": "...", "fontsize": 4},
    "blank": {"s": "   "},
    "pale": {"s": "half seen", "alpha": 0.4},
    "formula": {"s": "$q^2$", "parse_math": True},
}


def drawn(where: tuple[float, float], stamped: bool, **text: object) -> np.ndarray:
    """(100, 200, 4) uint8: the text on grey, cut off by the axes where it leaves them."""
    fig = Figure(figsize=(2, 1), dpi=100, facecolor="0.6")
    canvas = FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 200), ylim=(100, 0))
    ax.set_axis_off()
    ax.text(*where, clip_on=True, **text)
    with plain_settings():
        if stamped:
            remember_text(canvas.get_renderer())
        canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("where", [(60, 50), (61, 51), (60.5, 50.5), (61.5, 49.25), (160.3, 96.8)])
@pytest.mark.parametrize("name", TEXTS)
def test_a_stamp_equals_the_text(name, where):
    expected = drawn(where, False, **TEXTS[name]).astype(int)
    assert name == "blank" or expected.std() > 0
    for _ in range(2):  # when it is made, and when it is known
        found = drawn(where, True, **TEXTS[name])
        # where glyphs overlap their edges are rounded once more
        assert np.abs(found - expected).max() <= 4


def test_a_known_text_is_not_drawn_again():
    drawn((40, 40), True, s="known words")
    made = stamps._stamp.cache_info().misses
    first = drawn((40, 40), True, s="known words")
    assert stamps._stamp.cache_info().misses == made
    elsewhere = drawn((52, 20), True, s="known words")  # whole pixels away
    assert stamps._stamp.cache_info().misses == made
    assert np.array_equal(first[20:60, 30:150], elsewhere[:40, 42:162])
    drawn((40, 40), True, s="known words", color="red")
    assert stamps._stamp.cache_info().misses == made + 1


def test_known_and_new_words_are_the_same_pixels():
    """So a figure does not depend on those that a process has drawn before."""
    for name, text in TEXTS.items():
        known = drawn((61.5, 40.25), True, **text)
        known = drawn((61.5, 40.25), True, **text)
        stamps._stamp.cache_clear()
        assert np.array_equal(drawn((61.5, 40.25), True, **text), known), name


def test_another_size_or_weight_is_another_stamp():
    plain, bold = (drawn((40, 40), True, s="weight", weight=w) for w in ("normal", "bold"))
    large = drawn((40, 40), True, s="weight", fontsize=17)
    assert len({plain.tobytes(), bold.tobytes(), large.tobytes()}) == 3
