"""Text that was drawn before is stamped: figures of a run share most of their words.

remember_text(canvas.get_renderer())    # in plain_settings

A stamp is a text drawn once by matplotlib alone, on nothing, at the same fraction of a pixel.
Laying out and drawing glyphs is a third of drawing a figure, and nine of ten texts of a batch are
known.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.backend_bases import GraphicsContextBase
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

_AROUND = 8  # pixels around the extents of a text: glyphs may reach beyond them
_LONGEST = 200  # characters; a longer text is seldom drawn twice
_STAMPS = 2_000


class Stamp(NamedTuple):
    """Pixels (h, w, 4) uint8, the lowest row first; their left and upper edge from the anchor."""

    pixels: np.ndarray
    left: int
    top: int


def remember_text(renderer: RendererAgg) -> None:
    """Let it take a text that an earlier figure had, too, from there; its extents likewise.

    Every text is stamped, also the first of its kind: edges where glyphs overlap are rounded once
    more in a stamp, and the same figure must be the same pixels in every process.
    """
    measure, draw, dpi = renderer.get_text_width_height_descent, renderer.draw_text, renderer.dpi

    def measured(s: str, prop: FontProperties, ismath: object) -> tuple[float, float, float]:
        return measure(s, prop, ismath) if ismath else extents(s, prop.copy(), dpi)

    def stamped(
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: object = False,
        mtext: Text | None = None,
    ) -> None:
        if ismath or len(s) > _LONGEST or not _is_plain(gc, mtext):
            return draw(gc, x, y, s, prop, angle, ismath, mtext)
        # even steps: matplotlib before 3.11 rounds a half to the nearest even pixel
        column, row = 2 * math.floor(x / 2), 2 * math.floor(y / 2)
        color = tuple(gc.get_rgb()[:3])
        stamp = _stamp(s, prop.copy(), angle, dpi, color, x - column, y - row)
        if stamp is not None:
            below = renderer.height - (row + stamp.top + len(stamp.pixels))
            renderer.draw_image(gc, column + stamp.left, below, stamp.pixels)

    renderer.get_text_width_height_descent = measured
    renderer.draw_text = stamped


def _is_plain(gc: GraphicsContextBase, text: Text | None) -> bool:
    """Whether only the colour is special: no transparency, features of a font, or language."""
    ask = (getattr(text, name, None) for name in ("get_fontfeatures", "get_language"))
    asked = any(get is not None and get() is not None for get in ask)  # matplotlib 3.11 on
    return not asked and gc.get_alpha() == 1 and bool(gc.get_antialiased())


@lru_cache(maxsize=8)
def measuring(dpi: float) -> RendererAgg:
    """A renderer that draws nothing: for the extents of texts."""
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(8, 8, dpi)


@lru_cache(maxsize=20_000)
def extents(s: str, prop: FontProperties, dpi: float) -> tuple[float, float, float]:
    """Width, height and descent of one line in pixels, by matplotlib."""
    return measuring(dpi).get_text_width_height_descent(s, prop, False)


@lru_cache(maxsize=_STAMPS)
def _stamp(
    s: str,
    prop: FontProperties,
    angle: float,
    dpi: float,
    color: tuple[float, ...],
    right: float,
    down: float,
) -> Stamp | None:
    """The text drawn with its anchor `right` and `down` of a whole pixel; None: nothing is seen."""
    from matplotlib.backends.backend_agg import RendererAgg

    width, height, _ = extents(s, prop, dpi)
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    across = 2 * math.ceil((width * cos + height * sin + _AROUND) / 2)
    along = 2 * math.ceil((width * sin + height * cos + _AROUND) / 2)
    renderer = RendererAgg(2 * across, 2 * along, dpi)
    gc = renderer.new_gc()
    gc.set_foreground(color)
    renderer.draw_text(gc, across + right, along + down, s, prop, angle)
    gc.restore()
    pixels = np.asarray(renderer.buffer_rgba())
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    top, left = rows[0], columns[0]
    shown = pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    return Stamp(shown[::-1].copy(), int(left) - across, int(top) - along)
