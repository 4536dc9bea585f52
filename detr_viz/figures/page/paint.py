"""A planned page as a matplotlib Figure: panels as one image, the rest as vector artists on it.

No pyplot, no rcParams: a figure looks the same whatever a user has configured, and matplotlib is
imported when one is drawn, not before.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import corners_in
from detr_viz.figures.page import contours, query_links, tiles
from detr_viz.figures.page.canvas import figure_of, write
from detr_viz.figures.page.elements import (
    FigureError,
    Group,
    MapRow,
    PageLayout,
    Section,
    all_groups,
    luminance,
)
from detr_viz.figures.page.layout import plan
from detr_viz.figures.page.legend import largest_weight
from detr_viz.figures.page.text import plain_settings
from detr_viz.figures.styles import CONTOUR_SHARES, PageFormat, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONTOUR_PT = (0.85, 0.6, 0.42)  # lines for 50, 80 and 95 % of the mass
_CONTOUR_TONES = (0.98, 0.74, 0.5)  # where in the colour map theirs are
_HALO_PT = 0.5  # what a dark line under a contour has more
_LEAST_PT = 0.25  # what is printed reliably
_HALO = (0.0, 0.0, 0.0, 0.55)
_PLATE = (0.15, 0.15, 0.15, 0.86)


def draw(
    sections: Sequence[Section],
    heads: Sequence[str],
    notes: Sequence[str],
    style: Style,
    page_format: PageFormat,
) -> Figure:
    """A page of sections; `heads`: a name a column, `notes`: pieces of the reading rule.

    The vector artists are in the image's pixels. Raises FigureError.
    """
    colors(style)  # a mistake in it, before anything is laid out
    with plain_settings():
        made = plan(sections, heads, notes, style, page_format)
    return paint(all_groups(sections), made, style, page_format)


def paint(
    groups: Sequence[Group], made: PageLayout, style: Style, page_format: PageFormat
) -> Figure:
    """A planned page: the photos and panels of its groups, boxes, marks and lines of text."""
    lut, dpi = colors(style), page_format.dpi
    among_queries = any(row.rivals for group in groups for row in group.rows)
    if among_queries:
        lut = query_links.one_color(lut)
    fig, ax = figure_of(_sheet(groups, made, lut, style), dpi)
    unit_px = page_format.type_size * dpi / 72
    if style.name == "contour":
        _add_contours(ax, groups, made, lut, style, unit_px, dpi)
    _add_boxes(ax, groups, made, style, unit_px, dpi)
    if among_queries:
        shared = largest_weight(groups) if style.norm == "figure" else None
        levels = [_relative(row, style, shared)[:, 0] for group in groups for row in group.rows]
        query_links.add(ax, groups, made, levels, lut[-1] / 255, unit_px, dpi)
    _add_marks(ax, groups, made, unit_px, dpi)
    _add_plates(ax, made)
    write(ax, made.lines, dpi)
    return fig


def colors(style: Style) -> np.ndarray:
    """256 colours of the look's map, (256, 3) uint8.

    None given: inferno; without its near-black end where it lies over a photo, for that would draw
    dark rims around what is attended. FigureError for a map that matplotlib does not have.
    """
    import matplotlib

    start = 0.0 if style.cmap is not None or style.name == "heat" else 0.18
    name = "inferno" if style.cmap is None else style.cmap
    if name not in matplotlib.colormaps:
        raise FigureError(f"no colour map {name!r}: try {_near(name)}")
    return matplotlib.colormaps[name](np.linspace(start, 1, 256), bytes=True)[:, :3]


def signed_colors(over_photo: bool) -> np.ndarray:
    """256 colours for values of both signs, blue below 0 and red above, (256, 3) uint8.

    Over a photo they are light at both ends, for the ground is dark, and fade by opacity.
    """
    import matplotlib

    if not over_photo:
        return matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256), bytes=True)[:, :3]
    ends = np.array([[86, 180, 255], [255, 120, 60]], np.float64)
    return ends[(np.arange(256) > 127).astype(int)].astype(np.uint8)


def _near(name: str) -> str:
    """Names of colour maps like this one, or else good ones."""
    import matplotlib

    known = {other.casefold(): other for other in matplotlib.colormaps}
    near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.75)
    return ", ".join(known[n] for n in near) or "inferno, magma, viridis or cividis"


# --- pixels -----------------------------------------------------------------------------------


def _sheet(groups: Sequence[Group], made: PageLayout, lut: np.ndarray, style: Style) -> np.ndarray:
    """All photos and panels on one white page, (height, width, 4) uint8."""
    sheet = tiles.blank_sheet(made.height, made.width)
    over_photo = style.name == "overlay"
    table = tiles.blend_table(lut) if over_photo else tiles.opaque_table(lut)
    signed = tiles.signed_table(signed_colors(over_photo), not over_photo)
    shared = largest_weight(groups) if style.norm == "figure" else None
    photos: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}  # once for all that share it
    for group, spot in zip(groups, made.spots, strict=True):
        if spot.photo_top is None:
            continue
        if id(group.photo) not in photos:
            under = tiles.resize_photo(group.photo, made.panel_hw)
            same = made.photo_hw == made.panel_hw
            photo = under if same else tiles.resize_photo(group.photo, made.photo_hw)
            photos[id(group.photo)] = photo, under, tiles.backdrop(under)
        photo, under, ground = photos[id(group.photo)]
        tiles.paste(sheet, photo, spot.photo_top, made.photo_left)
        for row, top in zip(group.rows, spot.row_tops, strict=True):
            if style.name == "contour":
                panels = np.repeat(under[None], len(row.maps), 0)
            elif row.rivals:
                bare = np.zeros((len(row.maps), *made.panel_hw))
                panels = tiles.colorize(bare, ground, table)
            else:
                levels = _relative(row, style, shared)
                levels = tiles.resample(levels, row.grid, made.panel_hw, style.smoothing)
                panels = tiles.colorize(levels, ground, signed if row.reach else table)
            for tile, left in zip(panels, made.panel_lefts, strict=False):
                tiles.paste(sheet, tile, top, left)
    if made.bar:
        top, left, height, width = made.bar
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


# --- vectors ----------------------------------------------------------------------------------


def _add_contours(
    ax: Axes,
    groups: Sequence[Group],
    made: PageLayout,
    lut: np.ndarray,
    style: Style,
    unit_px: float,
    dpi: float,
) -> None:
    """Lines that hold shares of each map's mass, over darker and wider ones: read on any photo."""
    from matplotlib.collections import LineCollection

    found: list[list[np.ndarray]] = [[] for _ in CONTOUR_SHARES]
    for group, spot in zip(groups, made.spots, strict=True):
        for row, top in zip(group.rows, spot.row_tops, strict=True):
            panels = contours.lines(
                row.maps, row.grid, made.panel_hw, CONTOUR_SHARES, style.smoothing
            )
            for panel, left in zip(panels, made.panel_lefts, strict=False):
                for lines, drawn in zip(panel, found, strict=True):
                    drawn += [line + np.array((left, top)) for line in lines]
    for drawn, (left, right, middle) in zip(found, made.samples, strict=True):
        drawn.append(np.array([(left, middle), (right, middle)]))
    unit_px = min(unit_px, min(made.panel_hw) / 32)  # thinner in small panels
    inks = [lut[round(tone * 255)] / 255 for tone in _CONTOUR_TONES]
    widths = [max(pt * unit_px * 72 / dpi, _LEAST_PT) for pt in _CONTOUR_PT]
    more = _HALO_PT * unit_px * 72 / dpi
    # from the outermost line in: the narrower lines lie on top where they meet
    for order, drawn, ink, width in reversed(
        list(zip(range(3, 0, -1), found, inks, widths, strict=True))
    ):
        for color, wide, z in ((_HALO, width + more, 2), ((*ink, 1.0), width, 3 + order * 0.1)):
            ax.add_collection(
                LineCollection(
                    drawn,
                    colors=[color],
                    linewidths=wide,
                    antialiaseds=True,
                    capstyle="butt",
                    joinstyle="round",
                    zorder=z,
                ),
                autolim=False,
            )


def _add_plates(ax: Axes, made: PageLayout) -> None:
    """What numbers stand on, over maps and lines: near-white text is read on it anywhere.

    What is under it is darkened as it is, colours and all: a map that faded there would look like
    less attention.
    """
    from matplotlib.collections import PolyCollection

    tops, (panel_h, panel_w) = [t for spot in made.spots for t in spot.row_tops], made.panel_hw
    corners = []
    for top, plates in zip(tops, made.plates, strict=bool(made.plates)):
        for left, ((high, wide), (low, right)) in zip(made.panel_lefts, plates, strict=False):
            y, x = top + (panel_h - high) * low, left + (panel_w - wide) * right
            corners.append([(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)])
    if corners:
        plates = PolyCollection(corners, facecolors=[_PLATE], linewidths=0, zorder=5.5)
        ax.add_collection(plates, autolim=False)


def _add_boxes(
    ax: Axes, groups: Sequence[Group], made: PageLayout, style: Style, unit_px: float, dpi: float
) -> None:
    """The box: in the class colour on the photo, white on every panel.

    Each is drawn twice, first wider in the opposite lightness, so that it stands out on any ground.
    """
    from matplotlib.collections import PolyCollection

    # whole pixels: the lines stay sharp; thinner in small panels
    px = max(1, min(round(0.25 * unit_px), min(made.panel_hw) // 90))
    corners, colors, widths = [], [], []
    for group, spot in zip(groups, made.spots, strict=True):
        if spot.photo_top is None or group.box_xyxy_px is None:
            continue
        box, photo_hw, top = group.box_xyxy_px, group.photo.shape[:2], spot.photo_top
        corners.append(corners_in(box, photo_hw, top, made.photo_left, made.photo_hw, 5 * px))
        colors.append(group.label.color)
        widths.append(3 * px)
        for row, top in zip(group.rows, spot.row_tops, strict=True):
            inner = box if row.box_xyxy_px is None else row.box_xyxy_px
            for left in made.panel_lefts[: len(row.maps)]:
                corners.append(corners_in(inner, photo_hw, top, left, made.panel_hw, 4 * px))
                colors.append("#ffffff")
                widths.append(2 * px)
    dark = (0, 0, 0, 0.85 if style.name == "contour" else 0.6)  # untouched photos may be light
    halos = [(1, 1, 1, 0.8) if luminance(c) < 0.3 else dark for c in colors]
    for order, edges, extra in ((4, halos, 2 * px), (5, colors, 0)):
        boxes = PolyCollection(
            corners,
            closed=True,
            facecolors="none",
            edgecolors=edges,
            linewidths=[(w + extra) * 72 / dpi for w in widths],
            antialiaseds=True,
            joinstyle="miter",
            snap=False,
            zorder=order,
        )
        ax.add_collection(boxes, autolim=False)


def _add_marks(
    ax: Axes, groups: Sequence[Group], made: PageLayout, unit_px: float, dpi: float
) -> None:
    """A ring around each group's mark: in the class colour on the photo, white on every panel.

    All of it stays inside, so that one on the very edge is seen.
    """
    from matplotlib.collections import EllipseCollection

    panel = min(made.panel_hw)
    wide = min(max(2.2 * unit_px, panel / 18), panel / 7)  # pixels across
    thick = max(unit_px, wide / 2.2)
    places, colors = [], []
    for group, spot in zip(groups, made.spots, strict=True):
        if group.mark is None or spot.photo_top is None:
            continue
        inside = [(spot.photo_top, made.photo_left, made.photo_hw, group.label.color)]
        for row, top in zip(group.rows, spot.row_tops, strict=True):
            lefts = made.panel_lefts[: len(row.maps)]
            inside += [(top, left, made.panel_hw, "#ffffff") for left in lefts]
        for top, left, (high, across), color in inside:
            x = group.mark[0] * across / group.photo.shape[1]
            y = group.mark[1] * high / group.photo.shape[0]
            half = wide * 0.8
            places.append(
                (left + min(max(x, half), across - half), top + min(max(y, half), high - half))
            )
            colors.append(color)
    if not places:
        return
    halos = [(1, 1, 1, 0.9) if luminance(c) < 0.3 else (0, 0, 0, 0.7) for c in colors]
    for order, edges, width in ((5.1, halos, 0.46), (5.2, colors, 0.2)):
        rings = EllipseCollection(
            [wide] * len(places),
            [wide] * len(places),
            [0] * len(places),
            units="xy",
            offsets=places,
            transOffset=ax.transData,
            facecolors="none",
            edgecolors=edges,
            linewidths=max(width * thick * 72 / dpi, _LEAST_PT),
            zorder=order,
        )
        ax.add_collection(rings, autolim=False)
