"""The look of figures in numbers of our own, from the design, not from the code that draws it."""

from __future__ import annotations

from itertools import product

import numpy as np
from figure_tools import Tile, inked, sheet_of
from matplotlib.figure import Figure

_EMBER = {
    0.0: (0xFF, 0xF3, 0xDC),
    0.3: (0xFF, 0xB8, 0x4D),
    0.5: (0xEE, 0x6A, 0x1C),
    0.67: (0xCF, 0x2F, 0x1A),
    0.84: (0x8C, 0x0F, 0x48),
    1.0: (0x26, 0x07, 0x2F),
}


def even_tone(times: np.ndarray) -> np.ndarray:
    """Tone of a weight so many times that of an even map: 0 up to x1, 1 at x256."""
    return 1 - (1 - np.log(np.clip(times, 1, 256)) / np.log(256)) ** 1.6


def ember_alone(tone: np.ndarray) -> np.ndarray:
    """Colours (..., 3) of tones without a photo under them; weak ones fade to white."""
    tone = np.asarray(tone, float)
    ramp = np.stack(
        [np.interp(tone, list(_EMBER), [rgb[k] for rgb in _EMBER.values()]) for k in range(3)], -1
    )
    share = np.clip(tone / 0.3, 0, 1)[..., None]
    return share * ramp + (1 - share) * 255


def matrix_cells(fig: Figure) -> list[Tile]:
    """The cells of all matrices of a page that have gaps, a line after the other; white ones too.

    Each column and each line has a cell that is not white.
    """
    found = inked(sheet_of(fig))
    lines = sorted({(tile.top, tile.bottom) for tile in found})
    columns = sorted({(tile.left, tile.right) for tile in found})
    return [
        Tile(top, left, bottom, right) for (top, bottom), (left, right) in product(lines, columns)
    ]
