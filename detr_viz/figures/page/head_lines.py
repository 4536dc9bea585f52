"""The contours of all heads of a query on its photo, each with the number of its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_viz.figures.page import contours
from detr_viz.figures.page.artists import Pen, add_contours
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import CAP, TEXT_PT, Group, Panel
from detr_viz.figures.page.regions import is_spread, region
from detr_viz.figures.page.text import Lettering
from detr_viz.figures.styles import PageFormat, Style

_LEAST_PT = 60.0  # the width of a photo, from which on numbers are read in it
_CASING_PT = 0.8
_LINE = 1.2  # height of a number with its casing, in font sizes


@dataclass(frozen=True, eq=False)
class HeadLines:
    """Lines in the page's pixels, and for each number where it may stand, the best place first.

    places: head -> (n, 2) x, y of the centres of cells inside its line, then of points on the line
    """

    panel: Panel
    lines: list[np.ndarray]
    places: dict[int, np.ndarray]

    @classmethod
    def of(cls, group: Group, panel: Panel, crop: Crop, style: Style) -> HeadLines:
        """Of a group's one row of maps, on the panel of its photo. No line for a spread map."""
        (row,) = group.rows
        share, how = style.contours[0], style.smoothing
        heads = np.flatnonzero(~is_spread(row.maps, share, how))
        photo_hw = group.photo.shape[:2]
        drawn = contours.lines(row.maps[heads], row.grid, panel.hw, (share,), how, crop, photo_hw)
        first = np.array((panel.left, panel.top))
        centers = [row.grid.centers(photo_hw[k], k) + 0.5 for k in (1, 0)]
        xy = crop.on_panel(np.stack(np.meshgrid(*centers), -1).reshape(-1, 2), *first, panel.hw)
        numbers = style.heads if isinstance(style.heads, tuple) else range(len(row.maps))
        lines, places = [], {}
        for head, (around,) in zip(heads, drawn, strict=True):
            held = region(row.maps[head], share, how)
            order = np.argsort(-held.field, axis=None, kind="stable")
            inside = xy[order[held.inside.ravel()[order]]]
            around = [line + first for line in around]
            lines += around
            on_line = np.concatenate(around) if around else np.empty((0, 2))
            places[numbers[head]] = np.concatenate([inside, on_line])
        return cls(panel, lines, places)


def has_head_lines(group: Group, panel: Panel, style: Style, unit_px: float) -> bool:
    """Whether the photo shows the lines of all heads: of one row of weights, where it is large."""
    if style.name != "contour" or len(group.rows) != 1 or panel.width < _LEAST_PT * unit_px:
        return False
    row = group.rows[0]
    plain = (
        row.boxes_xyxy_px is None
        and not row.reach
        and row.attended is None
        and row.cells is None
        and row.samples is None
    )
    return plain and len(row.maps) > 1


def add(pen: Pen, photos: Sequence[HeadLines], page_format: PageFormat) -> None:
    """The lines, and each head's number in or on its line where no other number is."""
    if not photos:
        return
    add_contours(pen, [(photo.lines,) for photo in photos], above=2.6)
    font, size = Lettering(pen.dpi, page_format.font), TEXT_PT * pen.unit_px * 72 / pen.dpi
    for photo in photos:
        low = np.array((photo.panel.left, photo.panel.top), float)
        high = low + photo.panel.hw[::-1]
        taken = np.empty((0, 4))  # x, y, half of width and height
        # the heads of few places first, so that one is left for them
        for head, places in sorted(photo.places.items(), key=lambda item: len(item[1])):
            wide = font.width(str(head), size, "bold") / 2 + _CASING_PT * pen.unit_px + 1
            half = np.array((wide, _LINE / 2 * TEXT_PT * pen.unit_px + 1))
            shown = places[((places >= low) & (places <= high)).all(1)]
            shown = np.clip(shown, low + half, high - half)
            apart = np.abs(shown[:, None] - taken[:, :2]) >= half + taken[:, 2:]
            free = np.flatnonzero(apart.any(-1).all(1))
            if free.size:  # else it would lie on another: its own panel shows what it is
                at = shown[free[0]]
                taken = np.concatenate([taken, [[*at, *half]]])
                _number(pen, font, str(head), at, size)


def _number(pen: Pen, font: Lettering, text: str, at: np.ndarray, size_pt: float) -> None:
    from matplotlib.patheffects import withStroke

    pen.ax.text(
        at[0],
        at[1] + CAP / 2 * TEXT_PT * pen.unit_px,
        text,
        fontproperties=font.properties(text, size_pt, "bold"),
        color="white",
        ha="center",
        va="baseline",
        zorder=4.9,
        gid="head",
        path_effects=[withStroke(linewidth=pen.width(2 * _CASING_PT), foreground="black")],
    )
