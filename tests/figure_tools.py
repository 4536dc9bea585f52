"""What tests read off a figure: its texts, where its panels are, whether anything is in the way."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import EllipseCollection, LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy import ndimage

from detr_viz.figures.page.elements import LOCATOR, PHOTO, PageLayout, Panel

# The order of drawing tells what a collection of lines is.
OLD_HALO, OLD_BOX, HALO, BOX, TICK_HALO, TICK = 4.0, 4.1, 4.2, 4.3, 4.4, 4.5
FRAME_HALO, FRAME, CROSS = 4.6, 4.7, 5.0
SAMPLES = 5.4
HEAD_LINES = 2.6  # contours of all heads on a photo, in the dark; in colour .2 above
_KEY = 6  # the small drawings of the key
_TOUCH = 1  # pixel that extents may share, by rounding


class Tile(NamedTuple):
    """A photo, a panel or a ramp: its edges in pixels from the page's top left corner."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def hw(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def holds(self, points: np.ndarray, beyond: float = 0) -> bool:
        """Whether all points (..., 2), x before y, lie in it, or as little beyond its edges."""
        low, high = (self.left - beyond, self.top - beyond), (self.right, self.bottom)
        return bool((points >= low).all() and (points <= np.add(high, beyond)).all())


# --- texts ------------------------------------------------------------------------------------


def texts(fig: Figure) -> list[str]:
    return [t.get_text() for t in fig.axes[0].texts]


def extent(text: Text, height: int | None = None) -> Bbox:
    """Of a drawn text, in pixels; y counts down, as a figure's other artists do.

    height: of the sheet; looking for it takes as long as the figure has artists. The extent of an
    upright text is that of its ink from top to bottom, not of the tallest letters of its font.
    """
    fig = text.get_figure()
    height = height or sheet_of(fig).shape[0]
    x, base = text.get_position()
    if text.get_rotation():
        box = text.get_window_extent(fig.canvas.get_renderer())
        return Bbox.from_extents(box.x0, height - box.y1, box.x1, height - box.y0)
    font = text.get_fontproperties()
    wide, high, deep = _ink(text.get_text(), font.get_file(), font.get_size_in_points(), fig.dpi)
    left = x - wide * {"left": 0, "center": 0.5, "right": 1}[text.get_horizontalalignment()]
    return Bbox.from_extents(left, base - (high - deep), left + wide, base + deep)


@lru_cache(maxsize=20_000)
def _ink(words: str, file: str, size_pt: float, dpi: float) -> tuple[float, float, float]:
    """Width, height and depth below its base of drawn text, in pixels: the same in many figures."""
    font = FontProperties(fname=file, size=size_pt)
    return RendererAgg(8, 8, dpi).get_text_width_height_descent(words, font, False)


def captions_of(fig: Figure) -> list[str]:
    """The text under each map, "" where there is none, in the order of maps_of.

    For figures that have captions centred under their panels.
    """
    height = sheet_of(fig).shape[0]
    drawn = [(t.get_text(), extent(t, height)) for t in fig.axes[0].texts if not t.get_rotation()]
    found = []
    for tile in maps_of(fig):
        middle = (tile.left + tile.right) / 2
        under = [
            (box.y0, text)
            for text, box in drawn
            if abs((box.x0 + box.x1) / 2 - middle) <= 1.5 and box.y0 > tile.bottom - 1
        ]
        top, text = min(under, default=(np.inf, ""))
        found.append(text if top - tile.bottom < 0.3 * tile.hw[0] else "")
    return found


# --- panels -----------------------------------------------------------------------------------


def layout_of(fig: Figure) -> PageLayout:
    return fig.layout_


def sheet_of(fig: Figure) -> np.ndarray:
    (image,) = fig.axes[0].images
    return np.asarray(image.get_array())[..., :3]


def tile_of(panel: Panel) -> Tile:
    return Tile(panel.top, panel.left, panel.top + panel.height, panel.left + panel.width)


def tiles_of(fig: Figure) -> list[Tile]:
    """All photos and maps, from the top down and from left to right; no locators."""
    return sorted(tile_of(panel) for panel in layout_of(fig).panels if panel.row != LOCATOR)


def photos_of(fig: Figure) -> list[Tile]:
    """The photo of each group that has one, in the order of groups."""
    return [tile_of(panel) for panel in layout_of(fig).panels if panel.row == PHOTO]


def locators_of(fig: Figure) -> list[Tile]:
    return [tile_of(panel) for panel in layout_of(fig).panels if panel.row == LOCATOR]


def maps_of(fig: Figure) -> list[Tile]:
    """The maps, in the order of groups, rows and heads."""
    ordered = sorted(layout_of(fig).maps, key=lambda p: (p.group, p.row, p.head))
    return [tile_of(panel) for panel in ordered]


def ramps_of(fig: Figure) -> list[Tile]:
    """The colours in the key."""
    ramps = layout_of(fig).ramps
    return [Tile(r.top, r.left, r.top + r.height, r.left + r.width) for r in ramps]


def rows_of(fig: Figure) -> list[list[Tile]]:
    """The photo of a group and the heads of one of its rows, a list a row, by groups and rows."""
    photos = {p.group: tile_of(p) for p in layout_of(fig).panels if p.row == PHOTO}
    rows: dict[tuple[int, int], list[Panel]] = {}
    for panel in layout_of(fig).maps:
        rows.setdefault((panel.group, panel.row), []).append(panel)
    return [
        [photos[group], *(tile_of(p) for p in sorted(rows[group, row], key=lambda p: p.head))]
        for group, row in sorted(rows)
    ]


def inked(sheet: np.ndarray, below: int = 255) -> list[Tile]:
    """Whatever hangs together and is not white on a sheet (H, W, 3), from the top down."""
    dark = (sheet < below).any(-1)
    # rows and columns like the one before them say nothing of what hangs together
    tops, lefts = _changes(dark), _changes(dark.T)
    y, x = np.append(tops, dark.shape[0]), np.append(lefts, dark.shape[1])
    parts, _ = ndimage.label(dark[np.ix_(tops, lefts)])
    found = ndimage.find_objects(parts)
    return sorted(Tile(*map(int, (y[v.start], x[h.start], y[v.stop], x[h.stop]))) for v, h in found)


def _changes(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows that are not as the one before."""
    return np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]).any(1)))


def pixels(fig: Figure, tile: Tile) -> np.ndarray:
    return sheet_of(fig)[tile.top : tile.bottom, tile.left : tile.right]


def panels_of(fig: Figure) -> list[list[np.ndarray]]:
    """The pixels of every panel, a list a row: photo first."""
    return [[pixels(fig, tile) for tile in row] for row in rows_of(fig)]


# --- lines ------------------------------------------------------------------------------------


def at_order(fig: Figure, order: float) -> LineCollection | None:
    """The lines that are drawn at an order, such as BOX; None where there are none."""
    found = [
        c
        for c in fig.axes[0].collections
        if isinstance(c, LineCollection) and abs(c.get_zorder() - order) < 1e-9
    ]
    assert len(found) < 2
    return found[0] if found else None


def segments(fig: Figure, order: float) -> list[np.ndarray]:
    """The lines (n, 2) that are drawn at an order, x before y, in pixels of the page."""
    lines = at_order(fig, order)
    return [] if lines is None else points_of(lines)


def points_of(lines: LineCollection) -> list[np.ndarray]:
    """The points (n, 2) of each line; get_segments() gives the same, point by point."""
    paths = lines.get_paths()
    assert all(path.codes is None for path in paths)
    return [path.vertices for path in paths]


def boxes_of(fig: Figure) -> tuple[LineCollection, LineCollection]:
    """The objects' boxes on the photos: the wider lines below, then the boxes themselves."""
    halos, boxes = at_order(fig, HALO), at_order(fig, BOX)
    assert halos is not None and boxes is not None
    return halos, boxes


def ticks_of(fig: Figure) -> tuple[LineCollection, LineCollection]:
    """The corners of boxes on maps: the wider lines below, then the ticks themselves."""
    halos, ticks = at_order(fig, TICK_HALO), at_order(fig, TICK)
    assert halos is not None and ticks is not None
    return halos, ticks


def lines_of(fig: Figure) -> list[LineCollection]:
    """Contour lines, from the lowest: the dark ones under them, then those in colour."""
    found = [c for c in fig.axes[0].collections if isinstance(c, LineCollection)]
    return sorted((c for c in found if 3 <= c.get_zorder() < 4), key=lambda c: c.get_zorder())


def corners(collection: LineCollection) -> list[np.ndarray]:
    """Corners of each box, the first repeated at the end."""
    return points_of(collection)


def half_px(lines: LineCollection, fig: Figure) -> float:
    """Half of a line's width, in pixels."""
    return float(np.max(lines.get_linewidths())) * fig.dpi / 72 / 2


# --- a page as a whole ------------------------------------------------------------------------


def check_page(fig: Figure) -> None:
    """Nothing is cut, nothing overlaps.

    All text is inside the page, none over another, none over a photo or a map; ticks of the key lie
    inside its colours. Panels keep apart, but for locators in their photos; nothing is on the sheet
    beside them. Boxes, ticks, marks and contours stay in their panels; bars and the signs of the
    key keep off panels and texts.
    """
    found, page_itself = check_texts(fig)
    layout, drawn = layout_of(fig), fig.axes[0].texts
    unit_px = _unit_px(fig)
    photos, maps, locators = (
        _edges([tile_of(p) for p in layout.panels if pick(p.row)])
        for pick in (
            lambda row: row == PHOTO,
            lambda row: row >= 0,
            lambda row: row == LOCATOR,
        )
    )
    panels, ramps = np.concatenate([photos, maps]), _edges(ramps_of(fig))
    shown = np.concatenate([panels, ramps])

    assert _within(shown, page_itself).all()
    assert not np.triu(_overlap(shown, shown) > 0, k=1).any()
    if len(locators):
        assert (_within(locators, photos).sum(1) == 1).all()
    _check_sheet(fig, shown, maps, unit_px)

    numbers = np.array([text.get_gid() == "head" for text in drawn], bool)  # on contours in photos
    assert (_within(found[numbers], photos).sum(1) == 1).all(), _named(drawn, numbers)
    ranks = np.array([text.get_gid() == "rank" for text in drawn], bool)  # of tokens, of boxes
    assert (_within(found[ranks], panels, beyond=1).sum(1) == 1).all(), _named(drawn, ranks)
    on_panel = (_overlap(found, panels) > _TOUCH).any(1) & ~numbers & ~ranks
    assert not on_panel.any(), _named(drawn, on_panel)
    on_ramp = (_overlap(found, ramps) > _TOUCH).any(1)
    in_ramp = _within(found, ramps, beyond=1).any(1)
    assert (on_ramp == in_ramp).all(), _named(drawn, on_ramp != in_ramp)

    _check_lines(fig, photos, maps, locators)
    _check_ellipses(fig, panels)
    bars = [p.vertices for c in _of(fig, PolyCollection) for p in c.get_paths()]
    signs = [_ends(c, fig) for c in _of(fig, LineCollection) if c.get_zorder() == _KEY]
    for lines in lines_of(fig):
        in_key = ~(_overlap(_ends(lines, fig, 0), maps) > 0).any(1)
        signs.append(_ends(lines, fig)[in_key])
    bars = np.array([np.hstack([b.min(0), b.max(0)]) for b in bars]).reshape(-1, 4)
    alone = np.concatenate([*signs, bars])
    assert _within(alone, page_itself).all()
    assert (_overlap(alone, np.concatenate([shown, found])) < 1).all()


def _check_sheet(fig: Figure, shown: np.ndarray, maps: np.ndarray, unit_px: float) -> None:
    """The sheet is white but for panels, what maps reach beyond them, and the key's colours."""
    white = np.ones(sheet_of(fig).shape[:2], bool)
    for left, top, right, bottom in shown:
        white[top:bottom, left:right] = False
    bleed = round(1.5 * unit_px) + 1
    for left, top, right, bottom in maps:
        white[max(top - bleed, 0) : bottom + bleed, max(left - bleed, 0) : right + bleed] = False
    assert (sheet_of(fig)[white] == 255).all()


def _check_lines(fig: Figure, photos: np.ndarray, maps: np.ndarray, locators: np.ndarray) -> None:
    """Each line, with its width, is in one panel of its kind."""
    with_points = any(c.get_zorder() == SAMPLES for c in _of(fig, EllipseCollection))
    ticked = np.concatenate([maps, photos]) if with_points else maps  # all heads on one photo
    for order, areas in (
        (OLD_HALO, photos),
        (OLD_BOX, photos),
        (HALO, photos),
        (BOX, photos),
        (TICK_HALO, ticked),
        (TICK, ticked),
    ):
        lines = at_order(fig, order)
        if lines is not None:
            assert (_within(_ends(lines, fig), areas, beyond=1).sum(1) == 1).all(), order
    frames = at_order(fig, FRAME)
    if frames is not None:
        assert (_within(_ends(frames, fig, 0), locators, beyond=0.5).sum(1) == 1).all()
    for lines in lines_of(fig):
        ends = _ends(lines, fig, 0)
        samples = ~(_overlap(ends, maps) > 0).any(1)  # in the key
        assert ((_within(ends, maps).sum(1) == 1) | samples).all()
    for order in (HEAD_LINES, HEAD_LINES + 0.2):
        lines = at_order(fig, order)
        if lines is not None:
            assert (_within(_ends(lines, fig, 0), photos).sum(1) == 1).all()
    for paths in _of(fig, PathCollection):
        ends = [np.hstack([p.vertices.min(0), p.vertices.max(0)]) for p in paths.get_paths()]
        if ends:
            assert (_within(np.array(ends), maps, beyond=1).sum(1) == 1).all()


def widths_of(circles: EllipseCollection) -> np.ndarray:
    """(n,) diameters in the units of the axes."""
    if hasattr(circles, "get_widths"):
        return np.asarray(circles.get_widths())
    return 2 * circles._widths  # matplotlib 3.8


def _check_ellipses(fig: Figure, panels: np.ndarray) -> None:
    """Rings lie in one panel as a whole, the middles of sampling points too."""
    for circles in _of(fig, EllipseCollection):
        at = np.asarray(circles.get_offsets())
        if circles.get_zorder() == _KEY:
            assert not (_overlap(np.hstack([at, at]), panels) > 0).any()
            continue
        half = 0.0
        if circles.get_zorder() != SAMPLES:
            half = widths_of(circles)[:, None] / 2
        assert (_within(np.hstack([at - half, at + half]), panels, beyond=0.5).sum(1) == 1).all()


def check_texts(fig: Figure) -> tuple[np.ndarray, np.ndarray]:
    """All text is inside the page, none over another. Gives extents of texts, and of the page."""
    height, width = sheet_of(fig).shape[:2]
    assert fig.canvas.get_width_height() == (width, height)
    drawn = fig.axes[0].texts
    found = np.array([extent(text, height).extents for text in drawn])
    page_itself = np.array([(0, 0, width, height)])
    assert _within(found, page_itself).all(), _named(drawn, ~_within(found, page_itself)[:, 0])
    meet = np.triu(_overlap(found, found) > _TOUCH, k=1)
    assert not meet.any(), _named(drawn, meet.any(0) | meet.any(1))
    return found, page_itself


def _unit_px(fig: Figure) -> float:
    """Pixels of a point of the default size of type: the line of a box is .5 of these."""
    halos = at_order(fig, HALO) or at_order(fig, TICK_HALO)
    return fig.dpi / 72 if halos is None else max(half_px(halos, fig) * 2 / 0.95, fig.dpi / 72)


def _of(fig: Figure, kind: type) -> list:
    return [c for c in fig.axes[0].collections if type(c) is kind]


def _edges(tiles: list[Tile]) -> np.ndarray:
    """x0, y0, x1, y1 of tiles, (n, 4)."""
    return np.array([(t.left, t.top, t.right, t.bottom) for t in tiles], int).reshape(-1, 4)


def _ends(lines: LineCollection, fig: Figure, half: float | None = None) -> np.ndarray:
    """x0, y0, x1, y1 of each line with its width, (n, 4); half: of the width in pixels."""
    half = half_px(lines, fig) if half is None else half
    points = points_of(lines)
    if not points:
        return np.zeros((0, 4))
    every, starts = np.concatenate(points), np.cumsum([0, *map(len, points[:-1])])
    low, high = (f.reduceat(every, starts) for f in (np.minimum, np.maximum))
    return np.hstack([low - half, high + half])


def _named(drawn: list[Text], which: np.ndarray) -> list[str]:
    return [text.get_text() for text, named in zip(drawn, which, strict=True) if named]


def _within(boxes: np.ndarray, areas: np.ndarray, beyond: float = 0) -> np.ndarray:
    """Which boxes (n, 4) lie in which areas (m, 4), both x0, y0, x1, y1: (n, m)."""
    low = boxes[:, None, :2] >= areas[None, :, :2] - beyond
    high = boxes[:, None, 2:] <= areas[None, :, 2:] + beyond
    return (low & high).all(-1)


def _overlap(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """How deep boxes (n, 4) reach into areas (m, 4), in pixels; below 0 where they do not."""
    high = np.minimum(boxes[:, None, 2:], areas[None, :, 2:])
    return (high - np.maximum(boxes[:, None, :2], areas[None, :, :2])).min(-1)


def at_centers(panel: np.ndarray, cells_hw: tuple[int, int]) -> np.ndarray:
    """Pixels of a panel (H, W, 3) at the centres of cells, (h, w, 3); stride * i + 0.5 of input."""
    rows, columns = (
        np.round((np.arange(n) + 0.5 / 24) / n * side - 0.5).astype(int)
        for n, side in zip(cells_hw, panel.shape[:2], strict=True)
    )
    return panel[np.ix_(np.maximum(rows, 0), np.maximum(columns, 0))]
