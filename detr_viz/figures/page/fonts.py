"""Which font file has the characters of a text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from detr_viz.common.words import nearest
from detr_viz.figures.styles import FigureError

# An SVG names its font; Verdana has the widths of DejaVu Sans where that is missing.
FAMILY = "DejaVu Sans"
SVG_FALLBACKS = ("Verdana", "sans-serif")
# Tables that a viewer does not read in an embedded font: the page says which glyph stands where.
_LAYOUT_TABLES = ("BASE", "GDEF", "GPOS", "GSUB", "MATH", "kern")
_OWN_SIGNS = "\N{EN DASH}…"  # with all of Latin, what DejaVu Sans is known to have
FILES = {
    "sans": {
        "": "DejaVuSans.ttf",
        "bold": "DejaVuSans-Bold.ttf",
        "italic": "DejaVuSans-Oblique.ttf",
    },
    "serif": {
        "": "DejaVuSerif.ttf",
        "bold": "DejaVuSerif-Bold.ttf",
        "italic": "DejaVuSerif-Italic.ttf",
    },
}


@lru_cache(maxsize=256)
def font_file(characters: frozenset[str], style: str = "", font: str = "sans") -> str | None:
    """File of a font with all these characters; None where no font has them.

    The font that is asked for first (sans and serif are matplotlib's DejaVu), then installed fonts,
    TrueType before other outlines. FigureError where the font is not installed.
    """
    from matplotlib.font_manager import fontManager, get_font

    own = _named_file(font, style)
    if font in FILES and all(c < "\u0180" or c in _OWN_SIGNS for c in characters):
        return own
    codes = {ord(c) for c in characters}
    weight = 700 if style == "bold" else 400

    def unlike(entry) -> tuple[bool, bool, int]:  # upright sans near the weight first
        close = entry.weight if isinstance(entry.weight, int) else 400
        return entry.style != "normal", "serif" in entry.name.lower(), abs(close - weight)

    # Last Resort, which comes with matplotlib, has a box with a number for every character
    real = [e for e in fontManager.ttflist if not e.name.startswith("Last Resort")]
    installed = [e.fname for e in sorted(real, key=unlike)]
    other = None
    for path in (own, *installed):
        try:
            if codes <= get_font(path).get_charmap().keys():
                if is_truetype(path):
                    return path
                other = other or path
        except (OSError, RuntimeError):  # removed or damaged since matplotlib listed it
            continue
    return other


@lru_cache(maxsize=64)
def _named_file(font: str, style: str) -> str:
    """The file of "sans", "serif" or an installed font, in a style."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, fontManager

    if font in FILES:
        return str(Path(matplotlib.get_data_path(), "fonts", "ttf", FILES[font][style]))
    names = {entry.name for entry in fontManager.ttflist if not entry.name.startswith("Last Resor")}
    known = {name.casefold(): name for name in names}
    if font.casefold() not in known:
        near = nearest(font, known.values(), most=3, cutoff=0.5)
        have = ", ".join(near) or "sans or serif"
        raise FigureError(f"no font {font[:60]!r} is installed: try {have}")
    wanted = FontProperties(
        family=known[font.casefold()],
        weight="bold" if style == "bold" else "normal",
        style="italic" if style == "italic" else "normal",
    )
    return str(fontManager.findfont(wanted, fallback_to_default=False))


@lru_cache(maxsize=64)
def is_truetype(path: str) -> bool:
    """Whether a font has TrueType outlines: matplotlib embeds no others properly in a PDF."""
    from matplotlib.font_manager import get_font

    table = get_font(path).get_sfnt_table("maxp")
    return table is not None and table["version"] >= (1, 0)


def drawable(text: str) -> bool:
    """Whether some installed font has every character of the text."""
    return font_file(frozenset(text), "bold") is not None


@contextmanager
def drawn_glyphs_only() -> Iterator[None]:
    """Fonts that matplotlib embeds meanwhile hold the glyphs of the page and no tables of layout.

    fontTools would read these tables whole, in Python, to keep every ligature and accent that the
    glyphs of the page could become: that took two fifths of the time of a PDF.
    """
    from fontTools import subset

    default, own = _subset_options()
    subset.Options = own
    try:
        yield
    finally:
        subset.Options = default


@lru_cache(maxsize=1)
def _subset_options() -> tuple[type, type]:
    """(fontTools' options for a part of a font, the same without the tables of layout)."""
    from fontTools import subset

    class Options(subset.Options):
        def __init__(self, **settings) -> None:
            super().__init__(**settings)
            self.drop_tables = [*self.drop_tables, *_LAYOUT_TABLES]

    return subset.Options, Options
