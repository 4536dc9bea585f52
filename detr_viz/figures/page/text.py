"""Text of a figure: how wide a line is, where to break it.

Everything is measured before it is placed, so nothing is cut and nothing overlaps. Fonts are files,
not names: DejaVu Sans comes with matplotlib, so that a figure is the same on every machine; another
installed font is looked for only where a text has characters (Chinese, say) that it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detr_viz.figures.page.fonts import FAMILY, FILES, font_file
from detr_viz.figures.page.stamps import measuring

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

ELLIPSIS = "…"
_LONGEST = 2_000  # characters of a text in a figure
_FORMULA = re.compile(r"(.*?)(?:([A-Za-z])_([A-Za-z0-9])|$)")  # text, letter, subscript
_BREAKS = re.compile(r"(?<=[ _-])(?=.)")
_WORDS = re.compile(r"\$[^$]*\$|[^\s$]+")
_WIDE_GAP = re.compile(r"( {2,})")
_GUESSES = 8  # of where a text is cut
# of matplotlib's settings: they choose where a figure is shown, not what it looks like
_OF_WINDOWS = ("backend", "interactive", "toolbar", "keymap.", "tk.", "macosx.", "webagg.")
_SUBSCRIPT_SIZE, _SUBSCRIPT_DROP = 0.8, 0.18  # of the font size


class Run(NamedTuple):
    """A piece of a line that has one font: `left` from the line's start, `drop` below its base."""

    text: str
    left: float
    width: float
    drop: float
    size_pt: float
    style: str


@contextmanager
def plain_settings() -> Iterator[None]:
    """matplotlib's default settings inside the block, whatever a user has configured.

    Those of windows, which draw nothing, stay. Some are read when an artist is made, others when it
    is drawn, so both happen in such a block; functions can be decorated with it.
    """
    import matplotlib

    default, of_name = matplotlib.rcParamsDefault, partial(dict.__getitem__, matplotlib.rcParams)
    own = {
        name: value
        for name, value in dict.items(default)  # matplotlib's own access asks more each time
        if of_name(name) != value and not name.startswith(_OF_WINDOWS)
    }
    if not own:  # as in a block within a block: a context copies all settings
        yield
        return
    with matplotlib.rc_context(own):
        yield


def clean(text: str) -> str:
    """Text on one line: white space collapsed, control characters gone, cut at _LONGEST."""
    whole = str(text)
    if len(whole) > _LONGEST:  # to fit a text takes time by the square of its words
        whole = whole[: _LONGEST - 1] + ELLIPSIS
    return "".join(c for c in " ".join(whole.split()) if c.isprintable())


@lru_cache(maxsize=256)
def _properties(size_pt: float, style: str, path: str) -> FontProperties:
    from matplotlib.font_manager import FontProperties, get_font

    own = Path(path).name in FILES["sans"].values()
    family = FAMILY if own else get_font(path).family_name
    # family, weight and style repeat what the file is: an SVG names its font and embeds none
    return FontProperties(
        family=family,
        size=size_pt,
        weight="bold" if style == "bold" else "normal",
        style="oblique" if style == "italic" else "normal",
        fname=path,
    )


@lru_cache(maxsize=20_000)
def _width(text: str, size_pt: float, style: str, dpi: float, hinting: str, face: str) -> float:
    """Width of one line in pixels. Figures of a run share most of their words."""
    path = font_file(frozenset(text), style, face) or font_file(frozenset(), style, face)
    assert path is not None
    font = _properties(size_pt, style, path)
    measured = measuring(dpi).get_text_width_height_descent(text, font, False)
    return float(measured[0]) if text else 0.0


def shorten_middle(text: str, limit: float, width: Callable[[str], float]) -> str:
    """The text, or as much of it as fits: its beginning, an ellipsis, twice as much of its end."""

    def short(count: int) -> str:
        return text[: count // 3].rstrip() + ELLIPSIS + text[len(text) - count + count // 3 :]

    whole = width(text)
    if whole <= limit:
        return text
    return short(_most(len(text), whole, limit, lambda count: width(short(count))))


def _most(length: int, whole: float, limit: float, width: Callable[[int], float]) -> int:
    """The most characters, fewer than all, whose width is within the limit; 0 where none is.

    whole: the width of all. Measuring is slow: the next count to try is told by the last width,
    as if all characters were alike, and only where that is far off by halving.
    """
    if whole <= 0:
        return 0
    most, too_many = 0, length
    each, tried = whole / length, 0
    count = int(limit / each)
    while too_many - most > 1:
        if tried >= _GUESSES:
            count = (most + too_many) // 2
        count = min(max(count, most + 1), too_many - 1)
        left = limit - width(count)
        tried += 1
        if left >= 0:
            most, count = count, count + max(int(left / each), 1)
        else:
            too_many, count = count, count - max(int(-left / each), 1)
    return most


class Lettering:
    """Measures and breaks text of a font at one resolution. Sizes in points, widths in pixels."""

    def __init__(self, dpi: float, font: str = "sans") -> None:
        import matplotlib

        self.dpi, self.font = dpi, font
        self._hinting = str(matplotlib.rcParams["text.hinting"])

    def px(self, pt: float) -> int:
        """Points to whole pixels, one at least."""
        return max(1, round(pt * self.dpi / 72))

    def properties(self, text: str, size_pt: float, style: str = "") -> FontProperties:
        """Font to draw this text with; DejaVu Sans where no font has all its characters."""
        path = font_file(frozenset(text), style, self.font)
        path = path or font_file(frozenset(), style, self.font)
        assert path is not None
        return _properties(size_pt, style, path)

    def width(self, text: str, size_pt: float, style: str = "") -> float:
        """Width of one line in pixels."""
        return _width(text, size_pt, style, self.dpi, self._hinting, self.font)

    def _advance(self, text: str, size_pt: float, style: str = "") -> float:
        """Where the next text begins: the width with the spaces at both ends."""
        return self.width(f"|{text}|", size_pt, style) - self.width("||", size_pt, style)

    def runs(self, text: str, size_pt: float) -> list[Run]:
        """One line as pieces of one font each. Between dollar signs c_q is c with a subscript q.

        Wide gaps (two spaces and more) separate pieces too: text is slightly wider in a vector
        file, and with short, centred pieces that is not visible.
        """
        small, drop = size_pt * _SUBSCRIPT_SIZE, size_pt * _SUBSCRIPT_DROP * self.dpi / 72
        pieces: list[tuple[str, float, float, str]] = []
        for i, part in enumerate(text.split("$")):
            if i % 2:
                for plain, letter, subscript in _FORMULA.findall(part):
                    pieces.append((plain, size_pt, 0, ""))
                    pieces.append((letter, size_pt, 0, "italic"))
                    pieces.append((subscript, small, drop, "italic"))
            else:
                pieces += [(words, size_pt, 0, "") for words in _WIDE_GAP.split(part)]
        out, x = [], 0.0
        for piece, size, drop, style in pieces:
            lead = piece[: len(piece) - len(piece.lstrip())]
            if piece.strip():
                start = x + self._advance(lead, size, style)
                text = piece.strip()
                out.append(Run(text, start, self.width(text, size, style), drop, size, style))
            x += self._advance(piece, size, style)
        return out

    def shorten(self, text: str, limit_px: float, size_pt: float, style: str = "") -> str:
        """The text, or as much of its beginning as fits the limit, with an ellipsis."""
        whole = self.width(text, size_pt, style)
        if whole <= limit_px:
            return text

        def short(count: int) -> str:
            return text[:count].rstrip() + ELLIPSIS

        def width(count: int) -> float:
            return self.width(short(count), size_pt, style)

        return short(_most(len(text), whole, limit_px, width))

    def fit(
        self, text: str, limit_px: float, size_pt: float, style: str = "", lines: int = 2
    ) -> list[str]:
        """The text broken into at most so many lines; the last is shortened where it is too long.

        Lines break after spaces, and after _ and - inside words, for names of files.
        """
        words, out = _BREAKS.split(text), []
        while words and len(out) < lines - 1:
            count = len(words)
            while (
                count > 1 and self.width("".join(words[:count]).strip(), size_pt, style) > limit_px
            ):
                count -= 1
            out.append("".join(words[:count]).strip())
            words = words[count:]
        if words:
            out.append("".join(words).strip())
        return [self.shorten(line, limit_px, size_pt, style) for line in out]

    def join(self, pieces: list[str], limit_px: float, size_pt: float, separator: str) -> list[str]:
        """Pieces (some with $formulas$) joined into few lines that fit; no piece is broken."""
        out: list[str] = []
        for piece in pieces:
            longer = f"{out[-1]}{separator}{piece}" if out else ""
            if out and self.length(longer, size_pt) <= limit_px:
                out[-1] = longer
            else:
                out.append(piece)
        return out

    def broken(self, pieces: list[str], limit_px: float, size_pt: float) -> list[str]:
        """The pieces; those too long for a line are broken at spaces. Formulas stay whole."""
        out: list[str] = []
        for piece in pieces:
            if self.length(piece, size_pt) <= limit_px:
                out.append(piece)
            else:
                out += self.join(_WORDS.findall(piece), limit_px, size_pt, " ")
        return out

    def length(self, text: str, size_pt: float) -> float:
        """Width in pixels of a line that may hold $formulas$."""
        last = self.runs(text, size_pt)[-1]
        return last.left + last.width
