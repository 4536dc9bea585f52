"""The look of figures in numbers of our own, from the design, not from the code that draws it."""

from __future__ import annotations

from itertools import product

import numpy as np
from figure_tools import Tile, at_centers, inked, sheet_of
from matplotlib.figure import Figure

_EMBER = {
    0.0: (0xFF, 0xF3, 0xDC),
    0.3: (0xFF, 0xB8, 0x4D),
    0.5: (0xEE, 0x6A, 0x1C),
    0.67: (0xCF, 0x2F, 0x1A),
    0.84: (0x8C, 0x0F, 0x48),
    1.0: (0x26, 0x07, 0x2F),
}
HEAT_GRAY = 244  # what lies under the maps of --style heat


def even_tone(times: np.ndarray) -> np.ndarray:
    """Tone of a weight so many times that of an even map: 0 up to x1, 1 at x256."""
    return 1 - (1 - np.log(np.clip(times, 1, 256)) / np.log(256)) ** 1.6


def ember_alone(tone: np.ndarray, ground: float = 255) -> np.ndarray:
    """Colours (..., 3) of tones without a photo under them; weak ones fade to white or a grey."""
    tone = np.asarray(tone, float)
    ramp = np.stack(
        [np.interp(tone, list(_EMBER), [rgb[k] for rgb in _EMBER.values()]) for k in range(3)], -1
    )
    share = np.clip(tone / 0.3, 0, 1)[..., None]
    return share * ramp + (1 - share) * ground


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


def share_in_box(
    one: np.ndarray, box_xyxy: np.ndarray, centers: tuple[np.ndarray, np.ndarray], hw: tuple
) -> float:
    """What a box holds of a map (h, w), cell by cell; a cell reaches halfway to its neighbours.

    centers: of rows and of columns, pixels of the photo; hw: the photo's size, without padding
    """
    ys, xs = ([0, *((at[1:] + at[:-1]) / 2), side] for at, side in zip(centers, hw, strict=True))
    x0, y0, x1, y1 = map(float, box_xyxy)
    held = 0.0
    for (i, k), weight in np.ndenumerate(one):
        high = max(min(y1, ys[i + 1]) - max(y0, ys[i]), 0) / (ys[i + 1] - ys[i])
        wide = max(min(x1, xs[k + 1]) - max(x0, xs[k]), 0) / (xs[k + 1] - xs[k])
        held += float(weight) * high * wide
    return held


def caption_of(one: np.ndarray, share: float | None = None) -> str:
    """What stands under a map (h, w): its share in the box, and whether it is flat."""
    words = [] if share is None else [f"{round(100 * share)} %"]
    if one.max() * one.size < 2:
        words.append("flat")
    return ", ".join(words)


def plain(captions: list[str]) -> list[str]:
    """Captions without the words that stand in the first one alone."""
    return [text.replace(" in box", "") for text in captions]


def check_heat(picture: np.ndarray, one: np.ndarray) -> None:
    """A panel (H, W, 3) of --style heat has the colours of a map (h, w), to one of 256 tones."""
    shown = at_centers(picture, one.shape).reshape(-1, 1, 3).astype(int)
    level = np.rint(255 * even_tone(one.ravel() * one.size))
    near = [ember_alone(np.clip(level + n, 0, 255) / 255, HEAT_GRAY) for n in (-1, 0, 1)]
    assert np.abs(shown - np.stack(near, 1)).max(-1).min(-1).max() <= 1
    assert len(set(level)) > 10  # not all alike
