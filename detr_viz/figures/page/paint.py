"""A page layout as a matplotlib Figure: panels as one image, the rest as vector artists on it.

No pyplot, no rcParams: a figure looks the same whatever a user has configured, and matplotlib is
imported when one is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page import artists, query_links, tiles
from detr_viz.figures.page.canvas import figure_of, write
from detr_viz.figures.page.colors import colors, signed_colors
from detr_viz.figures.page.elements import Group, MapRow, PageLayout, Section, all_groups
from detr_viz.figures.page.layout import page_layout
from detr_viz.figures.page.legend import largest_weight
from detr_viz.figures.page.text import plain_settings
from detr_viz.figures.styles import PageFormat, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    sections: Sequence[Section],
    heads: Sequence[str],
    notes: Sequence[str],
    style: Style,
    page_format: PageFormat,
) -> Figure:
    """A page of sections.

    heads  a name for each column
    notes  pieces of the reading rule
    The vector artists are in the image's pixels. Raises FigureError.
    """
    colors(style)  # an unknown colour map is an error before anything is laid out
    with plain_settings():
        layout = page_layout(sections, heads, notes, style, page_format)
    return paint(all_groups(sections), layout, style, page_format)


def paint(
    groups: Sequence[Group], layout: PageLayout, style: Style, page_format: PageFormat
) -> Figure:
    """A page as it is laid out: photos and panels of its groups, boxes, marks, lines of text."""
    lut, dpi = colors(style), page_format.dpi
    among_queries = any(row.attended for group in groups for row in group.rows)
    if among_queries:
        lut = query_links.one_color(lut)
    fig, ax = figure_of(_sheet(groups, layout, lut, style), dpi)
    unit_px = page_format.type_size * dpi / 72
    if style.name == "contour":
        artists.add_contours(ax, groups, layout, lut, style, unit_px, dpi)
    artists.add_boxes(ax, groups, layout, style, unit_px, dpi)
    if among_queries:
        shared = largest_weight(groups) if style.norm == "figure" else None
        levels = [_relative(row, style, shared)[:, 0] for group in groups for row in group.rows]
        query_links.add(ax, groups, layout, levels, lut[-1] / 255, unit_px, dpi)
    artists.add_marks(ax, groups, layout, unit_px, dpi)
    artists.add_plates(ax, layout)
    write(ax, layout.lines, dpi)
    return fig


def _sheet(
    groups: Sequence[Group], layout: PageLayout, lut: np.ndarray, style: Style
) -> np.ndarray:
    """All photos and panels on one white page, (height, width, 4) uint8."""
    sheet = tiles.blank_sheet(layout.height, layout.width)
    over_photo = style.name == "overlay"
    table = tiles.blend_table(lut) if over_photo else tiles.opaque_table(lut)
    signed = tiles.signed_table(signed_colors(over_photo), not over_photo)
    shared = largest_weight(groups) if style.norm == "figure" else None
    # groups of the same photo share its pixels
    photos: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for group, position in zip(groups, layout.positions, strict=True):
        if position.photo_top is None:
            continue
        if id(group.photo) not in photos:
            under = tiles.resize_photo(group.photo, layout.panel_hw)
            same = layout.photo_hw == layout.panel_hw
            photo = under if same else tiles.resize_photo(group.photo, layout.photo_hw)
            photos[id(group.photo)] = photo, under, tiles.backdrop(under)
        photo, under, ground = photos[id(group.photo)]
        tiles.paste(sheet, photo, position.photo_top, layout.photo_left)
        for row, top in zip(group.rows, position.row_tops, strict=True):
            if style.name == "contour":
                panels = np.repeat(under[None], len(row.maps), 0)
            elif row.attended:
                bare = np.zeros((len(row.maps), *layout.panel_hw))
                panels = tiles.colorize(bare, ground, table)
            else:
                levels = _relative(row, style, shared)
                levels = tiles.resample(levels, row.grid, layout.panel_hw, style.smoothing)
                panels = tiles.colorize(levels, ground, signed if row.reach else table)
            for tile, left in zip(panels, layout.panel_lefts, strict=False):
                tiles.paste(sheet, tile, top, left)
    if layout.bar:
        top, left, height, width = layout.bar
        gray = np.full((height, width), tiles.MIDDLE_GRAY, np.uint8)
        ramp = np.broadcast_to(np.linspace(0, 1, width), (1, height, width))
        tiles.paste(sheet, tiles.colorize(ramp, gray, table)[0], top, left)
    return sheet


def _relative(row: MapRow, style: Style, shared: float | None) -> np.ndarray:
    """Maps as shares of the weight that has the last colour; signed ones around one half."""
    if row.reach:
        return 0.5 + row.maps / (2 * row.reach)
    if style.scaling == "head":
        largest = row.maps.max((1, 2), keepdims=True)
    else:
        largest = np.asarray(row.maps.max() if shared is None else shared)
    return row.maps / np.where(largest > 0, largest, 1)
