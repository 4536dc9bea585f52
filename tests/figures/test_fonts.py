"""Fonts in files: TrueType in a PDF, text as text, names in scripts that DejaVu Sans lacks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fake_explanation import MODES, fake
from figure_tools import check_page, texts
from fontTools import subset
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.boundsPen import ControlBoundsPen
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from matplotlib.backends import backend_ps
from matplotlib.font_manager import fontManager
from pypdf import PdfReader

from detr_viz import figures
from detr_viz.figures.page import fonts
from detr_viz.figures.page import text as lettering
from detr_viz.figures.styles import FigureError, PageFormat, Style

CAT, DOG = "\N{CJK UNIFIED IDEOGRAPH-732B}", "\N{CJK UNIFIED IDEOGRAPH-72D7}"
FAMILY = "Two Signs"


def build_font(path: Path, characters: str, truetype: bool = True) -> Path:
    """A font with a box of its own width for each of the characters, TrueType or CFF."""
    names = [".notdef", *(f"uni{ord(c):04X}" for c in characters)]
    glyphs, metrics = {}, {}
    for i, name in enumerate(names):
        right = 700 + 20 * i
        pen = TTGlyphPen(None) if truetype else T2CharStringPen(right + 100, None)
        pen.moveTo((100, 0))
        for corner in ((100, 800), (right, 800), (right, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph() if truetype else pen.getCharString()
        metrics[name] = right + 100, 100
    builder = FontBuilder(1000, isTTF=truetype)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    if truetype:
        builder.setupGlyf(glyphs)
    else:
        builder.setupCFF("TwoSigns", {"FullName": FAMILY}, glyphs, {})
    builder.setupHorizontalMetrics(metrics)
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular", "psName": "TwoSigns"})
    builder.setupOS2(sTypoAscender=880, usWinAscent=880, usWinDescent=120)
    builder.setupPost()
    builder.save(path)
    return path


def forget() -> None:
    fonts.font_file.cache_clear()
    lettering._properties.cache_clear()
    fonts.is_truetype.cache_clear()


@pytest.fixture
def only_dejavu(monkeypatch) -> Iterator[None]:
    """A machine where no font is installed but those that come with matplotlib."""
    own = [e for e in fontManager.ttflist if "mpl-data" in Path(e.fname).parts]
    assert own
    monkeypatch.setattr(fontManager, "ttflist", own)
    forget()
    yield
    forget()


@pytest.fixture
def two_signs(only_dejavu, tmp_path) -> Path:
    """The same with a font that has two Chinese characters."""
    path = build_font(tmp_path / "two-signs.ttf", CAT + DOG)
    fontManager.addfont(path)
    return path


def embedded(reader: PdfReader) -> dict[str, tuple[str, TTFont]]:
    """Base name (without the subset's tag) -> kind and file of every font of the one page."""
    return {name: (kind, font) for name, kind, font in embedded_parts(reader)}


def embedded_parts(reader: PdfReader) -> Iterator[tuple[str, str, TTFont]]:
    """The same for every part of a font: matplotlib embeds ligatures as a font of their own."""
    (page,) = reader.pages
    for font in page["/Resources"]["/Font"].values():
        font = font.get_object()
        inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        file = inner["/FontDescriptor"]["/FontFile2"].get_object().get_data()
        name = re.sub(r"^/([A-Z]{6}\+)?", "", str(font["/BaseFont"]))
        yield name, str(inner["/Subtype"]), TTFont(io.BytesIO(file))


def chinese(**more: object):
    return fake(names=(CAT, "dog", DOG + CAT), scores=(0.9, 0.8, 0.7), **more)


# --- what comes with matplotlib ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["combine", MODES], ids=["single", "stacked"])
@pytest.mark.parametrize("style", [Style(), Style("heat", "figure"), Style("contour")],
                         ids=["overlay", "heat", "contour"])  # fmt: skip
def test_a_pdf_has_nothing_but_truetype(only_dejavu, tmp_path, style, mode):
    example = fake(names=("cat", "K\u00e4se", "\u03bb-probe"))
    page = replace(PageFormat.of(), notes=True)
    fig = figures.head_grid(example, [0, 1, 2], mode, style=style, page_format=page)
    figures.save(fig, tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()
    reader = PdfReader(tmp_path / "a.pdf")
    fonts = embedded(reader)
    assert set(fonts) == {"DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"}
    for kind, font in fonts.values():
        assert kind in ("/CIDFontType2", "/TrueType")
        assert "glyf" in font and font["maxp"].numGlyphs < 400  # TrueType outlines, a subset
    words = reader.pages[0].extract_text()
    for name in ("cat", "K\u00e4se", "\u03bb-probe", "head 0", ".98", "query 0"):
        assert name in words


def test_an_embedded_font_has_the_outlines_of_its_file_and_no_layout(only_dejavu, tmp_path):
    """fi, ffi and an accent: what a table of layout would make other glyphs of."""
    names = ("office fi", "Ka\u0308se", "A\u0301 \u03bb")
    figures.save(figures.head_grid(fake(names=names), [0, 1, 2], "combine"), tmp_path / "a.pdf")
    reader, seen = PdfReader(tmp_path / "a.pdf"), set()
    for name, _, font in embedded_parts(reader):
        assert not {"GSUB", "GPOS", "GDEF", "kern"} & set(font.keys())
        with TTFont(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")) as whole:
            assert "GSUB" in whole
            own, ours = whole.getBestCmap(), font.getBestCmap()
            seen |= ours.keys()
            for code, glyph in ours.items():
                points = [f["glyf"][g].getCoordinates(f["glyf"]) for f, g in
                          ((whole, own[code]), (font, glyph))]  # fmt: skip
                assert points[0] == points[1]
                assert whole["hmtx"][own[code]] == font["hmtx"][glyph]
    assert seen >= set(map(ord, "query 0123456789"))
    assert "office" in reader.pages[0].extract_text()


def test_the_bounds_of_a_font_in_an_eps_are_those_of_its_glyphs(tmp_path):
    figures.save(figures.head_grid(fake(), [0], "combine"), tmp_path / "a.eps")
    eps = (tmp_path / "a.eps").read_text("latin-1")
    boxes = re.findall(r"/FontName /DejaVuSans-0 def.*?/FontBBox \[(.*?)\]", eps, re.DOTALL)
    with TTFont(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")) as font:
        pen = ControlBoundsPen(font.getGlyphSet())
        for glyph in font.getGlyphOrder():
            font.getGlyphSet()[glyph].draw(pen)
    assert [[float(edge) for edge in box.split()] for box in boxes] == [list(pen.bounds)]


def test_matplotlib_and_fonttools_keep_their_own_way_after_a_file_and_a_failure(tmp_path):
    own = subset.Options, backend_ps._bounds
    fig = figures.head_grid(fake(), [0], "combine")
    for kind in ("pdf", "eps"):
        figures.save(fig, tmp_path / f"a.{kind}")
        assert (subset.Options, backend_ps._bounds) == own
    fig.axes[0].add_artist(text := fig.axes[0].text(0, 0, "a"))
    text.draw = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        figures.save(fig, tmp_path / "a.pdf")
    assert (subset.Options, backend_ps._bounds) == own


def test_every_name_of_a_comparison_is_found_in_the_pdf(only_dejavu, tmp_path):
    from detr_viz.detections.matching import shared_objects

    a, b = fake(model_title="DETR"), fake(heads=4, names=("cat", "wolf", "teapot"))
    b.boxes_xyxy_px[2] += 60
    objects = shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], [[0, 1, 2], []])
    fig = figures.compare_models([a, b], objects, page_format=PageFormat.of("slide", dpi=72))
    figures.save(fig, tmp_path / "a.pdf")
    words = PdfReader(tmp_path / "a.pdf").pages[0].extract_text()
    for text in ("cat", "dog", "wolf", "teapot", "DETR", "no matching box"):
        assert text in words


# --- fonts by name ----------------------------------------------------------------------------


@pytest.mark.parametrize("font", ["serif", "STIXGeneral", "stixgeneral", "DejaVu Sans Mono"])
def test_a_figure_in_another_font(tmp_path, font):
    """Text is measured in the font that it is drawn in: nothing overlaps."""
    page = replace(PageFormat.of(), font=font, notes=True)
    fig = figures.head_grid(fake(), [0, 1, 2], MODES, page_format=page)
    check_page(fig)
    drawn = {t.get_fontproperties().get_name() for t in fig.axes[0].texts}
    wanted = {"serif": "DejaVu Serif", "stixgeneral": "STIXGeneral"}.get(font, font)
    assert wanted in drawn and len(drawn) <= 2
    # another only for what the font lacks
    other = [t.get_text() for t in fig.axes[0].texts
             if t.get_fontproperties().get_name() != wanted]  # fmt: skip
    assert all(any(c > "\u0100" for c in text) for text in other)
    plain = figures.head_grid(fake(), [0, 1, 2], MODES)
    assert {t.get_fontproperties().get_name() for t in plain.axes[0].texts} == {"DejaVu Sans"}
    figures.save(fig, tmp_path / "a.svg")
    assert wanted in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_font_that_is_not_installed_is_refused_before_anything_is_drawn():
    page = replace(PageFormat.of(), font="DejaVu Sanz")
    with pytest.raises(FigureError, match=r"^no font 'DejaVu Sanz' is installed: try DejaVu Sans"):
        figures.head_grid(fake(), [0], page_format=page)


# --- another script ---------------------------------------------------------------------------


def test_chinese_names_are_text_in_the_pdf(two_signs, tmp_path):
    fig = figures.head_grid(chinese(), [0, 1, 2])
    assert {CAT, "dog", DOG + CAT} <= set(texts(fig))
    check_page(fig)
    figures.save(fig, tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()
    reader = PdfReader(tmp_path / "a.pdf")
    lines = reader.pages[0].extract_text().split()
    assert CAT in lines and DOG + CAT in lines and "dog" in lines
    kind, font = embedded(reader)["TwoSigns"]
    assert kind == "/CIDFontType2" and "glyf" in font
    widths = sorted(width for width, _ in font["hmtx"].metrics.values())
    assert widths[-2:] == [820, 840]  # the two characters' own
    assert CAT in reader.metadata["/Subject"]


def test_chinese_names_are_text_in_the_svg(two_signs, tmp_path):
    figures.save(figures.head_grid(chinese(), [0, 1, 2]), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for name in (CAT, DOG + CAT):
        ((style, found),) = re.findall(rf'<text style="([^"]*)"[^>]*>({name})</text>', svg)
        assert found == name and FAMILY in style and "sans-serif" in style
    ((style, _),) = re.findall(r'<text style="([^"]*)"[^>]*>(dog)</text>', svg)
    assert FAMILY not in style and "DejaVu Sans" in style


def test_chinese_names_are_drawn_in_the_png(two_signs):
    """The label's width is that of the font's boxes: 0.82 and 0.84 em, at 7 points."""
    fig = figures.head_grid(chinese(), [0, 2])
    fig.canvas.draw()
    shown = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    em = 7 * fig.dpi / 72
    for name, ink_em in ((CAT, 0.62), (DOG + CAT, 0.84 + 0.62)):
        (text,) = (t for t in fig.axes[0].texts if t.get_text() == name)
        box = text.get_window_extent()
        rows = slice(shown.shape[0] - int(box.y1), shown.shape[0] - int(box.y0))
        ink = (shown[rows, int(box.x0) - 2 : int(box.x1) + 2] < 200).any(-1)
        columns = np.flatnonzero(ink.any(0))
        assert columns[-1] + 1 - columns[0] == pytest.approx(ink_em * em, abs=2)
        filled = ink[ink.any(1), columns[0] : columns[0] + int(0.6 * em)]
        assert filled.mean() > 0.95  # where no glyph is found, a hollow box is drawn


def test_without_a_font_for_a_name_the_figure_says_its_class_number(only_dejavu, tmp_path):
    with pytest.warns(UserWarning, match="no installed font has all characters") as caught:
        fig = figures.head_grid(chinese(), [0, 1, 2])
    said = [str(w.message) for w in caught]
    assert len(said) == 2 and f"{CAT!r}: the figure says class 0" in said[0]
    assert f"{DOG + CAT!r}: the figure says class 2" in said[1] and "Noto Sans SC" in said[1]
    found = texts(fig)
    assert {"class 0", "dog", "class 2"} <= set(found) and CAT not in "".join(found)
    figures.save(fig, tmp_path / "a.pdf")
    reader = PdfReader(tmp_path / "a.pdf")
    words = reader.pages[0].extract_text()
    assert "class 0" in words and "class 2" in words
    assert CAT in reader.metadata["/Subject"]  # metadata need no font


def test_a_font_that_has_only_a_part_of_a_name_is_not_enough(two_signs):
    example = fake(names=(CAT, f"{CAT} cat", f"{DOG}\N{CJK UNIFIED IDEOGRAPH-7334}"))
    with pytest.warns(UserWarning, match="no installed font") as caught:
        fig = figures.head_grid(example, [0, 1, 2])
    assert len(caught) == 2
    assert {CAT, "class 1", "class 2"} <= set(texts(fig))


def test_the_font_of_a_test_is_gone_after_it():
    assert FAMILY not in {entry.name for entry in fontManager.ttflist}
    assert "two-signs" not in str(fonts.font_file(frozenset(CAT)))


def test_truetype_goes_before_other_outlines(only_dejavu, tmp_path):
    other = build_font(tmp_path / "a.otf", CAT + DOG, truetype=False)
    fontManager.addfont(other)
    assert fonts.font_file(frozenset(CAT)) == str(other)
    forget()
    fontManager.addfont(build_font(tmp_path / "b.ttf", CAT + DOG))
    assert fonts.font_file(frozenset(CAT)) == str(tmp_path / "b.ttf")


def test_a_pdf_with_other_outlines_says_so(only_dejavu, tmp_path):
    fontManager.addfont(build_font(tmp_path / "a.otf", CAT + DOG, truetype=False))
    fig = figures.head_grid(chinese(), [0])
    figures.save(fig, tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"embeds a\.otf, which is not a TrueType font"):
        figures.save(fig, tmp_path / "a.pdf")
