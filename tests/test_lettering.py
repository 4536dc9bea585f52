from __future__ import annotations

from itertools import pairwise

import pytest

from detr_viz import lettering
from detr_viz.lettering import ELLIPSIS, Lettering


@pytest.fixture(scope="module")
def pen() -> Lettering:
    return Lettering(220)


def test_widths_are_those_that_matplotlib_draws(pen):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(4, 1), dpi=220)
    canvas = FigureCanvasAgg(fig)
    for text, style in (("baseball glove", "bold"), ("0.98 · query 17", ""), ("p", "italic")):
        drawn = fig.text(0.1, 0.5, text, fontproperties=pen.properties(text, 7, style))
        assert drawn.get_window_extent(canvas.get_renderer()).width == pen.width(text, 7, style)


def test_width_grows_with_size_and_resolution(pen):
    assert pen.width("head 0", 12) == pytest.approx(2 * pen.width("head 0", 6), rel=0.1)
    assert Lettering(440).width("head 0", 6) == pytest.approx(2 * pen.width("head 0", 6), rel=0.1)
    assert pen.width("", 6) == 0
    assert (pen.px(72), pen.px(0.01)) == (220, 1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat", ["cat"]),
        ("baseball glove", ["baseball", "glove"]),
        ("a very long name of a class", ["a very", f"long{ELLIPSIS}"]),
        ("Donaudampfschiff", [f"Donaud{ELLIPSIS}"]),
    ],
)
def test_long_names_are_broken_then_shortened(pen, text, lines):
    limit = pen.width("baseball", 7, "bold") + 1
    found = pen.fit(text, limit, 7, "bold")
    assert all(pen.width(line, 7, "bold") <= limit for line in found)
    assert [line[:4] for line in found] == [line[:4] for line in lines]
    assert [line.endswith(ELLIPSIS) for line in found] == [x.endswith(ELLIPSIS) for x in lines]


def test_no_room_at_all_ends(pen):
    assert pen.fit("cat", 0, 7) == [ELLIPSIS]


def test_formulas_have_subscripts(pen):
    runs = pen.runs("position  $p_q · p_k$", 6)
    assert [r.text for r in runs] == ["position", "p", "q", "·", "p", "k"]
    assert [r.style for r in runs] == ["", "italic", "italic", "", "italic", "italic"]
    assert [r.drop > 0 for r in runs] == [False, False, True, False, False, True]
    for a, b in pairwise(runs):
        assert b.left >= a.left + a.width - 1  # pieces follow each other
    assert pen.length("position  $p_q · p_k$", 6) == runs[-1].left + runs[-1].width


def test_underscores_outside_formulas_are_text(pen):
    assert [r.text for r in pen.runs("my_model · a_b", 6)] == ["my_model · a_b"]


def test_pieces_are_joined_into_few_lines(pen):
    pieces = ["DETR", "decoder layer 5", "position  $p_q · p_k$", "map of 4 cells"]
    assert pen.join(pieces, 10_000, 6, "  ·  ") == ["  ·  ".join(pieces)]
    assert pen.join(pieces, 1, 6, "  ·  ") == pieces
    limit = pen.length("  ·  ".join(pieces[:2]), 6)
    lines = pen.join(pieces, limit, 6, "  ·  ")
    assert lines[0] == "DETR  ·  decoder layer 5"
    assert "  ·  ".join(lines) == "  ·  ".join(pieces)


def test_fonts():
    plain = lettering.font_file(frozenset("cat Ünïcode · 0\N{EN DASH}5…"), "bold")
    assert plain and plain.endswith("DejaVuSans-Bold.ttf") and "mpl-data" in plain
    greek = lettering.font_file(frozenset("\N{GREEK SMALL LETTER LAMDA}"))
    assert greek and greek.endswith("DejaVuSans.ttf")


def test_every_sign_that_is_taken_for_granted_is_there():
    from matplotlib.font_manager import get_font

    sure = {chr(c) for c in range(32, 0x180) if chr(c).isprintable()} | set(lettering._OWN_SIGNS)
    for style in ("", "bold", "italic"):
        path = lettering.font_file(frozenset(), style)
        assert path and {ord(c) for c in sure} <= get_font(path).get_charmap().keys()


def test_a_character_no_font_has():
    """Matplotlib's Last Resort font has a box for every character: that is not drawing it."""
    unassigned = "\ue0ff\U000e01ef"
    assert not lettering.drawable(f"cat {unassigned}")
    assert lettering.drawable("cat")


def test_another_installed_font_is_found(monkeypatch, tmp_path):
    """STIX, which matplotlib brings too, has script letters that DejaVu Sans lacks."""
    from matplotlib.font_manager import get_font

    own = get_font(lettering.font_file(frozenset())).get_charmap()
    sign = next(
        chr(c) for c in range(0x2200, 0x2B00) if c not in own and lettering.drawable(chr(c))
    )
    path = lettering.font_file(frozenset(sign))
    assert path and ord(sign) in get_font(path).get_charmap()
    properties = Lettering(100).properties(f"a{sign}", 7)
    assert properties.get_file() == lettering.font_file(frozenset(f"a{sign}"))
    assert properties.get_family() != [lettering.FAMILY]


def test_clean():
    assert lettering.clean("  a\tb\n c\u200b\x07 ") == "a b c"
