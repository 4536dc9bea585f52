"""Row and column of maps that are their product: thin strips under and beside each panel.

The strips take their room from the panel, which keeps the photo's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.figures.page import scale, tiles
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import Group, PageLayout, Panel
from detr_viz.figures.page.metrics import PageMetrics

AXES_NOTE = (
    "each head's map is a column times a row of weights: the row is the strip under it, the column "
    "the strip beside it"
)
TERMS_AXES_NOTE = (
    "each term is a row's part, the strip under it, plus a column's, the strip beside it, each "
    "centred"
)
GROUND = 240  # grey under the colours of a strip
_STRIP_PT, _GAP_PT = 2.0, 0.8


def profiles_of(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (M, h, w) that are column times row -> row (M, w), column (M, h): their own sums."""
    return maps.sum(-2), maps.sum(-1)


def with_room(layout: PageLayout, groups: Sequence[Group], page: PageMetrics) -> PageLayout:
    """The layout with smaller panels, all of one size, if strips stand under and beside some."""
    if all(row.profiles is None for group in groups for row in group.rows):
        return layout
    taken = page.px(_STRIP_PT) + page.px(_GAP_PT)
    # as much as leaves a panel in its shape, at least the strips' own room either way
    wide = round(taken * max(page.aspect, 1.0))
    high = round(wide / page.aspect)

    def smaller(panel: Panel) -> Panel:
        if panel.row < 0:
            return panel
        return replace(panel, height=max(panel.height - high, 1), width=max(panel.width - wide, 1))

    return replace(layout, panels=tuple(map(smaller, layout.panels)))


def strips_of(
    profiles: tuple[np.ndarray, np.ndarray],
    grid: Grid,
    hw: tuple[int, int],
    crop: Crop,
    photo_hw: tuple[int, int],
    method: str,
    least_px: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Profiles at the pixels of a panel: row (N, W), column (N, H)."""
    row, column = profiles
    across, down = (
        tiles.interpolation_weights(hw[k], grid, k, method, crop, photo_hw[k], 0, least_px)
        for k in (1, 0)
    )
    return row @ across.T, column @ down.T


def tones(strip: np.ndarray, places: int, reach: float, even: bool) -> np.ndarray:
    """Tones of profiles (M, pixels), the mean of whose `places` is 1 / places.

    even: times an even spread; else of the largest of its own. Signed ones, whose colours end at
    `reach` either way, around one half.
    """
    if reach:
        return 0.5 + strip / (2 * reach)
    if even:
        return scale.even_tone(strip * np.float32(places))
    return strip / np.maximum(strip.max(1, keepdims=True), np.float32(1e-12))


def paste(
    sheet: np.ndarray,
    panel: Panel,
    row_tone: np.ndarray,
    column_tone: np.ndarray,
    table: np.ndarray,
    unit_px: float,
) -> None:
    """The strips of a panel on the sheet, from tones (W,) and (H,) in [0, 1]."""
    gap, thick = (max(round(pt * unit_px), 1) for pt in (_GAP_PT, _STRIP_PT))
    for tone, shape, top, left in (
        (row_tone[None], (thick, panel.width), panel.top + panel.height + gap, panel.left),
        (column_tone[:, None], (panel.height, thick), panel.top, panel.left + panel.width + gap),
    ):
        ground = np.full(shape, GROUND, np.uint8)
        pixels = tiles.colorize(np.broadcast_to(tone, shape)[None], ground, table)
        tiles.paste(sheet, pixels[0], top, left)
