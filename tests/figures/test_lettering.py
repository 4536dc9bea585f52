from __future__ import annotations

from itertools import pairwise

import pytest

from detr_viz.figures.page import fonts
from detr_viz.figures.page import text as lettering
from detr_viz.figures.page.text import ELLIPSIS, Lettering


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


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("detr_r50_epoch_50", ["detr_r50_", "epoch_50"]),
        ("detr-r50-epoch-50", ["detr-r50-", "epoch-50"]),
        ("detr r50_epoch-50", ["detr r50_", "epoch-50"]),
        ("a b_c-d", ["a b_c-d"]),
        ("detr_r50_", ["detr_r50_"]),
        ("tennis_racket_", ["tennis_", "racket_"]),
        ("Donaudampfschiff_", [f"Donaud{ELLIPSIS}"]),  # no line for nothing
        ("", [""]),
    ],
)
def test_names_of_files_are_broken_where_their_words_end(pen, text, lines):
    limit = max(pen.width(words, 7) for words in ("detr_r50_", "epoch_50", "epoch-50")) + 1
    found = pen.fit(text, limit, 7)
    assert all(pen.width(line, 7) <= limit for line in found)
    if lines[0].endswith(ELLIPSIS):
        assert len(found) == 1 and found[0].endswith(ELLIPSIS)
    else:
        assert found == lines


def test_a_name_is_broken_into_as_many_lines_as_allowed(pen):
    limit = pen.width("epoch_50_", 7) + 1
    name = "detr_r50_epoch_50_seed_1"
    assert pen.fit(name, limit, 7, lines=3) == ["detr_r50_", "epoch_50_", "seed_1"]
    assert pen.fit(name, limit, 7, lines=2)[1].endswith(ELLIPSIS)
    (only,) = pen.fit(name, limit, 7, lines=1)
    assert only.startswith("detr_") and only.endswith(ELLIPSIS)


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


def test_pieces_longer_than_a_line_are_parted_at_spaces(pen):
    pieces = ["DETR", "queries matched by box IoU", "a  $(c_q + p_q) · (c_k + p_k)$", "end"]
    assert pen.broken(pieces, 10_000, 6) == pieces
    limit = max(pen.length(pieces[2][3:], 6), pen.length("queries matched by", 6)) + 1
    assert pen.length("queries matched by", 6) < limit < pen.length(pieces[1], 6)
    assert pen.broken(pieces, limit, 6) == [
        "DETR",
        "queries matched by",
        "box IoU",
        "a",
        "$(c_q + p_q) · (c_k + p_k)$",
        "end",
    ]
    assert pen.broken(pieces[1:2], 1, 6) == pieces[1].split()


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_parting_loses_nothing_and_keeps_formulas_whole(pen, share):
    piece = "combine  my_model $(c_q + p_q) · (c_k + p_k)$ another-model $c_q · c_k + p_q · p_k$"
    limit = share * pen.length(piece, 6)
    found = pen.broken([piece], limit, 6)
    assert " ".join(found) == " ".join(piece.split()) and len(found) > 1
    assert all(line.count("$") % 2 == 0 for line in found)
    for line in found:
        alone = not set(line) & {"$"} and " " not in line
        alone |= line.startswith("$") and line.count("$") == 2
        assert pen.length(line, 6) <= limit or alone


def test_fonts():
    plain = fonts.font_file(frozenset("cat Ünïcode · 0\N{EN DASH}5…"), "bold")
    assert plain and plain.endswith("DejaVuSans-Bold.ttf") and "mpl-data" in plain
    greek = fonts.font_file(frozenset("\N{GREEK SMALL LETTER LAMDA}"))
    assert greek and greek.endswith("DejaVuSans.ttf")


def test_every_sign_that_is_taken_for_granted_is_there():
    from matplotlib.font_manager import get_font

    sure = {chr(c) for c in range(32, 0x180) if chr(c).isprintable()} | set(fonts._OWN_SIGNS)
    for style in ("", "bold", "italic"):
        path = fonts.font_file(frozenset(), style)
        assert path and {ord(c) for c in sure} <= get_font(path).get_charmap().keys()


def test_a_character_no_font_has():
    """Matplotlib's Last Resort font has a box for every character: that is not drawing it."""
    unassigned = "\ue0ff\U000e01ef"
    assert not fonts.drawable(f"cat {unassigned}")
    assert fonts.drawable("cat")


def test_another_installed_font_is_found(monkeypatch, tmp_path):
    """STIX, which matplotlib brings too, has script letters that DejaVu Sans lacks."""
    from matplotlib.font_manager import get_font

    own = get_font(fonts.font_file(frozenset())).get_charmap()
    foreign = (chr(c) for c in range(0x2200, 0x2B00) if c not in own)
    sign = next(filter(fonts.drawable, foreign))
    path = fonts.font_file(frozenset(sign))
    assert path and ord(sign) in get_font(path).get_charmap()
    properties = Lettering(100).properties(f"a{sign}", 7)
    assert properties.get_file() == fonts.font_file(frozenset(f"a{sign}"))
    assert properties.get_family() != [fonts.FAMILY]


def test_clean():
    assert lettering.clean("  a\tb\n c\u200b\x07 ") == "a b c"
