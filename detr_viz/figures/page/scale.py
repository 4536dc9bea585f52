"""What the colours of maps mean: attention relative to an even spread, a linear scale, or signs.

r = weight * cells       1 is the weight of a cell in an even map
t = even_tone(r)         0 at an even spread and below, 1 at 256 times that
table = tone_table(lut)  (256 tones, 256 greys, 4): the colour of each over each ground
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.common.words import nearest
from detr_viz.figures.styles import RAMPS, FigureError, Style

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

MOST = 256.0  # times an even spread: where the colours end
FLAT = 2.0  # a map whose maximum is below this many times an even spread is called flat
EVEN_TICKS = (4, 16, 64)
HEAT_GRAY = 244  # of a map without a photo: its extent is seen where there is no attention
RAMP_GRAY = 0xDC  # what lies under the colours of the key
_BEND = 1.6
_OPACITY, _FULL_AT, _RISE = 0.94, 0.55, 1.25  # opacity .94 * clip(t / .55) ** 1.25
_GRAIN, _MIDDLE = 0.7, 0.85  # how far colours follow the ground's light, around which grey
# Of both signs: below 0 the attention is taken away, above it is added. Blue and orange differ
# for every kind of colour vision.
_NEGATIVE = ((0.0, "#eef4fb"), (0.35, "#8fbdea"), (0.7, "#3f86cf"), (1.0, "#123f7d"))
_POSITIVE = ((0.0, "#fff3dc"), (0.35, "#ffb84d"), (0.7, "#ee6a1c"), (1.0, "#a3211b"))


def even_tone(r: np.ndarray) -> np.ndarray:
    """Tones in [0, 1] of weights relative to an even spread: 0 up to x1, .37 at x4, 1 at x256."""
    r = np.clip(r, 1, MOST)
    np.log(r, out=r)
    r *= -1 / math.log(MOST)
    r += 1
    with np.errstate(divide="ignore"):  # exp and log are quicker than a power; 0 stays 0 in both
        np.log(r, out=r)
    r *= _BEND
    np.exp(r, out=r)
    np.subtract(1, r, out=r)
    return r


def even_times(t: np.ndarray) -> np.ndarray:
    """Times an even spread (1 to 256) of tones, the inverse of `even_tone`."""
    return MOST ** (1 - (1 - np.clip(t, 0, 1)) ** (1 / _BEND))


def color_key(style: Style, reach: float, largest: float) -> tuple[Colormap, Normalize]:
    """matplotlib's colour map and norm of panels drawn so, for a colour bar.

    reach: where signed colours end either way, or 0. largest: where a linear scale ends.
    """
    from matplotlib.colors import ListedColormap, Normalize

    table = signed_table() if reach else style_table(style)
    cmap = ListedColormap(table[:, RAMP_GRAY, :3] / 255)
    if reach:
        return cmap, Normalize(-reach, reach)
    if style.scaling not in ("even", None):
        return cmap, Normalize(0, largest)
    from detr_viz.figures.page.even_norm import EvenNorm  # which is matplotlib's

    return cmap, EvenNorm()


def _ramp(stops: tuple[tuple[float, str], ...], at: np.ndarray) -> np.ndarray:
    """Colours (n, 3) between stops of (tone, "#rrggbb")."""
    places = [place for place, _ in stops]
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for _, c in stops], np.float64)
    return np.stack([np.interp(at, places, rgb[:, k]) for k in range(3)], -1)


def colors(style: Style) -> np.ndarray:
    """256 colours of the style's ramp or colour map, (256, 3) uint8.

    FigureError for a map that neither we nor matplotlib have.
    """
    name = style.cmap or next(iter(RAMPS))
    if name in RAMPS:
        return np.rint(_ramp(RAMPS[name], np.arange(256) / 255)).astype(np.uint8)
    import matplotlib

    if name not in matplotlib.colormaps:
        raise FigureError(f"no colour map {name!r}: try {_near(name)}")
    return matplotlib.colormaps[name](np.linspace(0, 1, 256), bytes=True)[:, :3]


def _near(name: str) -> str:
    """Names of colour maps similar to this one; without any, some good ones."""
    import matplotlib

    near = nearest(name, (*RAMPS, *matplotlib.colormaps), most=3, cutoff=0.75)
    return ", ".join(near) or f"{', '.join(RAMPS)}, viridis or cividis"


def plain_colors(style: Style, ground: float = 255) -> np.ndarray:
    """256 colours (256, 3) uint8 over white or a grey, for tables and maps without a photo."""
    fades = style.cmap is None or style.cmap in RAMPS
    return opaque_table(colors(style), fades, ground)[:, 0, :3]


def opacity(tone: np.ndarray) -> np.ndarray:
    """Opacity of a tone in [0, 1]: nothing at 0, nearly all from the middle on."""
    return _OPACITY * np.clip(np.asarray(tone, np.float64) / _FULL_AT, 0, 1) ** _RISE


def tone_table(lut: np.ndarray) -> np.ndarray:
    """A map's colour over grey, every case: (256 tones, 256 greys, 4) uint8 RGBA.

    lut: (256, 3). The ground shows through weak tones; its grain stays in strong ones. One look-up
    a pixel then replaces the arithmetic.
    """
    return _table(np.asarray(lut, np.float64), opacity(np.arange(256) / 255))


def style_table(style: Style) -> np.ndarray:
    """The table of a style's weights: as `tone_table`, or of a map alone for style heat."""
    if style.name == "heat":
        return opaque_table(plain_colors(style, HEAT_GRAY), False)
    return tone_table(colors(style))


def opaque_table(lut: np.ndarray, fades: bool, ground: float = 255) -> np.ndarray:
    """The same for a map alone, whatever lies under it; fades: weak tones fade to a grey ground."""
    colours = np.asarray(lut, np.float64)
    if fades:
        alpha = np.clip(np.arange(256) / 255 / 0.3, 0, 1)[:, None]
        colours = alpha * colours + (1 - alpha) * ground
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.rint(colours)[:, None]
    return table


def signed_lut() -> np.ndarray:
    """256 colours of values of both signs, (256, 3): 127.5 is zero."""
    value = np.arange(256) / 127.5 - 1
    return np.where(
        (value < 0)[:, None], _ramp(_NEGATIVE, np.abs(value)), _ramp(_POSITIVE, np.abs(value))
    )


def signed_table() -> np.ndarray:
    """The same for values of both signs: tone 127.5 is 0 and the bare ground."""
    return _table(signed_lut(), opacity(np.abs(np.arange(256) / 127.5 - 1)))


def _table(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return _table_of(*(np.asarray(part, np.float64).tobytes() for part in (colours, alpha)))


@lru_cache(maxsize=8)
def _table_of(colour_bytes: bytes, alpha_bytes: bytes) -> np.ndarray:
    """The table of 256 colours and opacities, read-only: most figures share one or two."""
    colours, alpha = np.frombuffer(colour_bytes).reshape(256, 3), np.frombuffer(alpha_bytes)
    gray = np.arange(256, dtype=np.float64)[None, :, None]
    grain = 1 + _GRAIN * (gray / 255 - _MIDDLE)
    grain[:, 255] = 1  # the margin of a panel is white, not light
    over = np.clip(colours[:, None] * grain, 0, 255)
    alpha = alpha[:, None, None]
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.rint(alpha * over + (1 - alpha) * gray)
    table.flags.writeable = False
    return table
