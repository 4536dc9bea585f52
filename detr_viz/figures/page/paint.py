"""A page layout as a matplotlib Figure: panels as one image, the rest as vector artists on it.

No pyplot, no rcParams of a user's; matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page import (
    anchors,
    artists,
    contours,
    ground,
    head_lines,
    profiles,
    query_links,
    samples,
    scale,
    tiles,
    truth_boxes,
)
from detr_viz.figures.page.box_cells import cell_tones
from detr_viz.figures.page.canvas import figure_of, write
from detr_viz.figures.page.elements import (
    LOCATOR,
    PHOTO,
    Group,
    MapRow,
    PageLayout,
    Panel,
    Section,
    all_groups,
)
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.head_lines import HeadLines, has_head_lines
from detr_viz.figures.page.layout import Layout, page_layout
from detr_viz.figures.page.regions import is_spread
from detr_viz.figures.page.text import plain_settings
from detr_viz.figures.styles import PageFormat, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLEED_PT = 1.3  # how far a map may reach beyond the photo's border
_LARGE_CELL_PT = 6.0  # cells of this size are drawn as they are
_FEATHER_PT = 2.5  # of the lighter ground outside the box


def draw(
    sections: Sequence[Section],
    heads: Sequence[str],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
    arrange: Layout | None = None,
) -> Figure:
    """A page of sections.

    heads  a name for each column
    foot   what is written under the panels
    arrange  the layout; None: the one that suits
    The vector artists are in the image's pixels. Raises FigureError.
    """
    scale.colors(style)  # an unknown colour map is an error before anything is laid out
    with plain_settings():
        layout = page_layout(sections, heads, foot, style, page_format, arrange)
    return paint(all_groups(sections), layout, style, page_format)


@plain_settings()
def paint(
    groups: Sequence[Group], layout: PageLayout, style: Style, page_format: PageFormat
) -> Figure:
    """A page as it is laid out: photos and panels of its groups, boxes, marks, lines of text."""
    dpi = page_format.dpi
    unit_px = page_format.type_size * dpi / 72
    sheet = PanelSheet(groups, layout, style, unit_px)
    fig, ax = figure_of(sheet.pixels, dpi)
    fig.layout_ = layout  # where everything is, for tests
    pen = artists.Pen(ax, dpi, unit_px)
    if style.name == "contour":
        artists.add_contours(pen, sheet.curves)
        head_lines.add(pen, sheet.head_lines, page_format)
    query_links.add(pen, groups, layout, style)
    draw_marks(pen, groups, layout)
    artists.add_joins(pen, groups, layout)
    artists.add_crosses(pen, groups, layout)
    artists.add_marks(pen, groups, layout)
    artists.add_bars(ax, layout)
    artists.add_signs(pen, layout)
    write(ax, layout.lines, dpi, page_format.font)
    return fig


def draw_marks(pen: artists.Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """What each panel has for itself: samples, anchors, boxes and their corners."""
    samples.add(pen, groups, layout)
    anchors.add(pen, groups, layout)
    artists.add_boxes(pen, groups, layout)
    truth_boxes.add(pen, groups, layout)


class PanelSheet:
    """All photos and panels on one white page: pixels (height, width, 4) uint8, contour curves."""

    def __init__(
        self, groups: Sequence[Group], layout: PageLayout, style: Style, unit_px: float
    ) -> None:
        self.groups, self.layout, self.style, self.unit_px = groups, layout, style, unit_px
        self.pixels = tiles.blank_sheet(layout.height, layout.width)
        self.curves: list[tuple[list[np.ndarray], ...]] = []
        self.head_lines: list[HeadLines] = []
        self.table = scale.style_table(style)
        self.signed = scale.signed_table()
        weights = [row for g in groups for row in g.rows if not row.reach and row.attended is None]
        self.largest = max((float(row.maps.max()) for row in weights), default=0.0)
        self._photos: dict[object, np.ndarray] = {}
        self._tones: dict[object, np.ndarray] = {}
        self._paint()

    def _paint(self) -> None:
        rows: dict[tuple, list[Panel]] = {}
        for panel in self.layout.panels:
            if panel.row in (PHOTO, LOCATOR):
                self._photo(panel)
            else:
                row = self.groups[panel.group].rows[panel.row]
                own = panel.head if row.boxes_xyxy_px is not None else None  # a box and a view
                rows.setdefault((panel.group, panel.row, panel.hw, own), []).append(panel)
        for panels in rows.values():
            self._row(panels)
            self._profiles(panels)
        for ramp in self.layout.ramps:
            gray = np.full((ramp.height, ramp.width), scale.RAMP_GRAY, np.uint8)
            tone = np.broadcast_to(np.linspace(0, 1, ramp.width), (1, *gray.shape))
            table = self.signed if ramp.kind == "signed" else self.table
            tiles.paste(self.pixels, tiles.colorize(tone, gray, table)[0], ramp.top, ramp.left)

    def _resized(self, group: Group, crop, hw: tuple[int, int]) -> np.ndarray:
        key = id(group.photo), crop, hw
        if key not in self._photos:
            self._photos[key] = tiles.resize_photo(group.photo, hw, crop)
        return self._photos[key]

    def _photo(self, panel: Panel) -> None:
        group, crop = self.groups[panel.group], self.layout.crop_of(panel)
        if panel.row == LOCATOR:
            crop = type(crop).whole(group.photo.shape[:2])
            line = max(round(0.6 * self.unit_px), 1)
            white = np.full((panel.height + 2 * line, panel.width + 2 * line, 3), 255, np.uint8)
            tiles.paste(self.pixels, white, panel.top - line, panel.left - line)
        elif group.photo_samples is not None:
            gray = self._ground(group, group.rows[0], crop, panel.hw, 0)
            tiles.paste(self.pixels, np.repeat(gray[..., None], 3, -1), panel.top, panel.left)
            return
        tiles.paste(self.pixels, self._resized(group, crop, panel.hw), panel.top, panel.left)
        if panel.row == PHOTO and has_head_lines(group, panel, self.style, self.unit_px):
            self.head_lines.append(HeadLines.of(group, panel, crop, self.style))

    def _row(self, panels: list[Panel]) -> None:
        """The panels of one row of a group, which have one size."""
        group, hw = self.groups[panels[0].group], panels[0].hw
        row, crop = group.rows[panels[0].row], self.layout.crop_of(panels[0])
        heads = [panel.head for panel in panels]
        maps = row.maps[heads]
        if self.style.name == "contour" and not row.reach and row.attended is None:
            self._contours(panels, row, maps, group, crop)
            return
        ground_of = self._ground(group, row, crop, hw, heads[0])
        if row.attended is not None or row.samples is not None:
            gray = np.repeat(ground_of[..., None], 3, -1)
            for panel in panels:
                tiles.paste(self.pixels, gray, panel.top, panel.left)
            return
        if row.cells is not None:
            tone = cell_tones(row.cells, heads, crop, hw)
            tile, bleed = tiles.colorize(tone, ground_of, self.signed), 0
        else:
            tile, bleed = self._tiles(row, maps, group, crop, hw, ground_of)
        for pixels, panel in zip(tile, panels, strict=True):
            tiles.paste(self.pixels, pixels, panel.top - bleed, panel.left - bleed)

    def _profiles(self, panels: list[Panel]) -> None:
        """The strips of one row of a group, where its maps are products."""
        group, hw = self.groups[panels[0].group], panels[0].hw
        row, crop = group.rows[panels[0].row], self.layout.crop_of(panels[0])
        if row.profiles is None:
            return
        method, least = self._interpolation(row, group, crop, hw), tiles.SMOOTH_PT * self.unit_px
        strips = profiles.strips_of(
            row.profiles, row.grid, hw, crop, group.photo.shape[:2], method, least
        )
        tones = [
            profiles.tones(strip, whole.shape[1], row.reach, self._is_even(row))
            for strip, whole in zip(strips, row.profiles, strict=True)
        ]
        for panel in panels:
            pair = (tone[panel.head] for tone in tones)
            table = self.signed if row.reach else self.table
            profiles.paste(self.pixels, panel, *pair, table, self.unit_px)

    def _ground(
        self, group: Group, row: MapRow, crop, hw: tuple[int, int], head: int
    ) -> np.ndarray:
        """The pale photo, lighter outside the box."""
        if self.style.name == "heat" and row.attended is None and row.samples is None:
            return np.full(hw, scale.HEAT_GRAY, np.uint8)
        key = id(group.photo), crop, hw
        if key not in self._tones:
            self._tones[key] = ground.tones(self._resized(group, crop, hw))
        box = row.box_of(head, group)
        inside = None
        if box is not None and row.attended is None:
            low, high = crop.on_panel(np.reshape(box, (2, 2)), 0, 0, hw)
            inside = ground.box_mask((*low, *high), hw, _FEATHER_PT * self.unit_px)
        return ground.ground(self._tones[key], inside)

    def _tiles(
        self, row: MapRow, maps: np.ndarray, group: Group, crop, hw, under: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Coloured panels (N, H, W, 4), and how many pixels they reach beyond their panels."""
        method = self._interpolation(row, group, crop, hw)
        bleed = max(round(_BLEED_PT * self.unit_px), 1)
        if row.reach or crop.is_part or method == "nearest" or self.style.name == "heat":
            bleed = 0
        least = tiles.SMOOTH_PT * self.unit_px
        cells = row.grid.cells
        field = maps * np.float32(cells) if self._is_even(row) else maps
        photo_hw = group.photo.shape[:2]
        field = tiles.resample(field, row.grid, hw, crop, photo_hw, method, bleed, least)
        tone = self._tone(field, row)
        if bleed:
            tone *= tiles.fading(hw, bleed)
            under = np.pad(under, bleed, constant_values=255)
        return tiles.colorize(tone, under, self.signed if row.reach else self.table), bleed

    def _is_even(self, row: MapRow) -> bool:
        return not row.reach and self.style.scaling in ("even", None)

    def _tone(self, field: np.ndarray, row: MapRow) -> np.ndarray:
        """Values as tones in [0, 1]; signed ones around one half."""
        if row.reach:
            return 0.5 + field / (2 * row.reach)
        if self._is_even(row):
            return scale.even_tone(field)
        if self.style.scaling == "head":
            largest = field.max((1, 2), keepdims=True)
        elif self.style.scaling == "query":
            largest = np.float32(row.maps.max())  # of all its panels, shown here or not
        else:
            largest = np.float32(self.largest)
        return field / np.where(largest > 0, largest, 1)

    def _interpolation(self, row: MapRow, group: Group, crop, hw) -> str:
        """As the style says; else cells as they are in views and where they are large."""
        if self.style.interpolation or self.style.smoothing == "nearest":
            return self.style.smoothing
        if row.reach:
            return "cubic"
        if crop.is_part:
            return "nearest"
        cell_px = hw[1] / max(row.grid.hw[1], 1)
        large = cell_px > _LARGE_CELL_PT * self.unit_px
        return "nearest" if large else "smooth" if self._is_even(row) else "cubic"

    def _contours(self, panels: list[Panel], row: MapRow, maps, group: Group, crop) -> None:
        """The untouched photo with lines; a map in colour where a line would hold too much."""
        hw = panels[0].hw
        smoothing = self.style.smoothing
        spread = is_spread(maps, self.style.contours[0], smoothing)
        photo = self._resized(group, crop, hw)
        photo_hw = group.photo.shape[:2]
        curves = contours.lines(maps, row.grid, hw, self.style.contours, smoothing, crop, photo_hw)
        for panel, wide, curve, one in zip(panels, spread, curves, maps, strict=True):
            if wide:
                under = self._ground(group, row, crop, hw, panel.head)
                (pixels,), bleed = self._tiles(row, one[None], group, crop, hw, under)
                tiles.paste(self.pixels, pixels, panel.top - bleed, panel.left - bleed)
                continue
            tiles.paste(self.pixels, photo, panel.top, panel.left)
            first = np.array((panel.left, panel.top))
            self.curves.append(tuple([line + first for line in lines] for lines in curve))
