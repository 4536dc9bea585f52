"""Text of a figure: which font has the characters, how wide a line is, where to break it.

Everything is measured before it is placed, so nothing is cut and nothing overlaps. The fonts are files, not
names: DejaVu Sans comes with matplotlib, so that a figure is the same on every machine; another installed font
is looked for only where a text has characters (Chinese, say) that it lacks.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

FAMILY = "DejaVu Sans"
_FILES = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}
ELLIPSIS = "…"


def clean(text: str) -> str:
    """Text on one line: white space collapsed, control characters gone."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())


@lru_cache(maxsize=256)
def font_file(characters: frozenset[str], bold: bool = False) -> str | None:
    """File of a font that has all these characters: matplotlib's own DejaVu Sans if it can; None if none can."""
    import matplotlib
    from matplotlib.font_manager import fontManager, get_font

    own = str(Path(matplotlib.get_data_path(), "fonts", "ttf", _FILES[bold]))
    if all(c.isascii() for c in characters):
        return own
    codes = {ord(c) for c in characters}
    weight = 700 if bold else 400

    def unlike(entry) -> tuple[bool, bool, int]:  # upright sans near the weight first
        close = entry.weight if isinstance(entry.weight, int) else 400
        return entry.style != "normal", "serif" in entry.name.lower(), abs(close - weight)

    installed = [e.fname for e in sorted(fontManager.ttflist, key=unlike)]
    for path in (own, *installed):
        try:
            if codes <= get_font(path).get_charmap().keys():
                return path
        except (OSError, RuntimeError):  # removed or damaged since matplotlib listed it
            continue
    return None


def drawable(text: str) -> bool:
    """Whether some installed font has every character of the text."""
    return font_file(frozenset(text), True) is not None


@lru_cache(maxsize=256)
def _properties(size_pt: float, bold: bool, path: str) -> FontProperties:
    from matplotlib.font_manager import FontProperties, get_font

    family = FAMILY if Path(path).name in _FILES.values() else get_font(path).family_name
    # family and weight say again what the file is: an SVG names its font instead of carrying it
    return FontProperties(family=family, size=size_pt, weight="bold" if bold else "normal", fname=path)


class Lettering:
    """Measures and breaks text at one resolution. Sizes in points, widths in pixels."""

    def __init__(self, dpi: float) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self.dpi = dpi
        self._renderer = RendererAgg(8, 8, dpi)

    def px(self, pt: float) -> int:
        """Points to whole pixels, one at least."""
        return max(1, round(pt * self.dpi / 72))

    def properties(self, text: str, size_pt: float, bold: bool = False) -> FontProperties:
        """Font to draw this text with; DejaVu Sans where no font has it all."""
        path = font_file(frozenset(text), bold) or font_file(frozenset(), bold)
        assert path is not None
        return _properties(size_pt, bold, path)

    def width(self, text: str, size_pt: float, bold: bool = False, math: bool = False) -> float:
        """Width of one line in pixels; ``math``: parts between dollar signs are formulas."""
        if not text:
            return 0.0
        font = self.properties(text, size_pt, bold)
        return float(self._renderer.get_text_width_height_descent(text, font, math)[0])

    def shorten(self, text: str, limit_px: float, size_pt: float, bold: bool = False) -> str:
        """The text, or as much of its beginning as fits the limit, with an ellipsis."""
        if self.width(text, size_pt, bold) <= limit_px:
            return text
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            short = text[:middle].rstrip() + ELLIPSIS
            if self.width(short, size_pt, bold) <= limit_px:
                fits = middle
            else:
                too_long = middle
        return text[:fits].rstrip() + ELLIPSIS

    def fit(self, text: str, limit_px: float, size_pt: float, bold: bool = False, lines: int = 2) -> list[str]:
        """The text broken at spaces into at most so many lines, the last one shortened where it must be."""
        words, done = text.split(" "), []
        while words and len(done) < lines - 1:
            count = len(words)
            while count > 1 and self.width(" ".join(words[:count]), size_pt, bold) > limit_px:
                count -= 1
            done.append(" ".join(words[:count]))
            words = words[count:]
        if words:
            done.append(" ".join(words))
        return [self.shorten(line, limit_px, size_pt, bold) for line in done]

    def join(self, pieces: list[str], limit_px: float, size_pt: float, separator: str) -> list[str]:
        """Pieces (they may hold formulas) joined into as few lines as fit the limit; a piece is never broken."""
        between = self.width(f"{separator}x", size_pt) - self.width("x", size_pt)
        out: list[str] = []
        used = 0.0
        for piece in pieces:
            width = self.width(piece, size_pt, math="$" in piece)
            if out and used + between + width <= limit_px:
                out[-1] += separator + piece
                used += between + width
            else:
                out.append(piece)
                used = width
        return out
