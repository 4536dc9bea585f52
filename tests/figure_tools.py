"""What tests read off a figure: its texts, where its panels are, whether anything is in the way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.collections import Collection, LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy import ndimage

from detr_viz.figures.page import elements


class Tile(NamedTuple):
    """A photo, a panel or a colour bar: its edges in pixels from the page's top left corner."""

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


def texts(fig: Figure) -> list[str]:
    return [t.get_text() for t in fig.axes[0].texts]


def numbers_of(fig: Figure) -> list[Text]:
    """What is printed in the panels."""
    return [t for t in fig.axes[0].texts if t.get_color() == elements.NUMBER_INK]


def extent(text: Text, height: int | None = None) -> Bbox:
    """Of a drawn text, in pixels; y counts down, as a figure's other artists do.

    height: of the sheet; looking for it takes as long as the figure has artists.
    """
    fig = text.get_figure()
    box = text.get_window_extent(fig.canvas.get_renderer())
    height = height or sheet_of(fig).shape[0]
    return Bbox.from_extents(box.x0, height - box.y1, box.x1, height - box.y0)


def sheet_of(fig: Figure) -> np.ndarray:
    (image,) = fig.axes[0].images
    return np.asarray(image.get_array())[..., :3]


def tiles_of(fig: Figure) -> list[Tile]:
    """All that is pasted on the white sheet, from the top down and from left to right."""
    red, green, blue = np.moveaxis(sheet_of(fig), -1, 0)
    inked = (red < 250) | (green < 250) | (blue < 250)
    # rows and columns like the one before them say nothing of what hangs together
    tops, lefts = _changes(inked), _changes(inked.T)
    y = np.append(tops, inked.shape[0])
    x = np.append(lefts, inked.shape[1])
    parts, _ = ndimage.label(inked[np.ix_(tops, lefts)])
    found = ndimage.find_objects(parts)
    return sorted(Tile(*map(int, (y[v.start], x[h.start], y[v.stop], x[h.stop]))) for v, h in found)


def _changes(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows that are not as the one before."""
    return np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]).any(1)))


def rows_of(fig: Figure) -> list[list[Tile]]:
    """Tiles side by side, a list a row: photo first. For figures of one row a photo."""
    rows: list[list[Tile]] = []
    for tile in tiles_of(fig):
        if not rows or rows[-1][0].top != tile.top:
            rows.append([])
        rows[-1].append(tile)
    return rows


def pixels(fig: Figure, tile: Tile) -> np.ndarray:
    return sheet_of(fig)[tile.top : tile.bottom, tile.left : tile.right]


def panels_of(fig: Figure) -> list[list[np.ndarray]]:
    """The pixels of every panel, a list a row: photo first."""
    return [[pixels(fig, tile) for tile in row] for row in rows_of(fig)]


def _collections(fig: Figure, kind: type[Collection], filled: bool = False) -> list[Collection]:
    found = [c for c in fig.axes[0].collections if type(c) is kind]
    found = [c for c in found if bool(len(c.get_facecolor())) == filled]
    return sorted(found, key=lambda c: c.get_zorder())


def boxes_of(fig: Figure) -> tuple[PolyCollection, PolyCollection]:
    """The objects' boxes: the wider lines below, then the boxes themselves."""
    halos, boxes = _collections(fig, PolyCollection)
    return halos, boxes


def plates_of(fig: Figure) -> PolyCollection:
    """What the numbers stand on."""
    (plates,) = _collections(fig, PolyCollection, filled=True)
    return plates


def lines_of(fig: Figure) -> list[LineCollection]:
    """Contour lines, from the lowest: the dark ones under them, then those in colour."""
    return _collections(fig, LineCollection)


def corners(collection: PolyCollection) -> list[np.ndarray]:
    """Corners of each polygon, the first repeated at the end or not."""
    return [path.vertices for path in collection.get_paths()]


def check_page(fig: Figure) -> None:
    """Nothing is cut, nothing overlaps.

    All text is inside the page, none over another, none but the numbers over a photo, a panel or
    the colour bar; boxes and lines stay in their panels, but for the samples in the key.
    """
    found, page_itself = check_texts(fig)
    drawn = fig.axes[0].texts
    tiles = np.array([(t.left, t.top, t.right, t.bottom) for t in tiles_of(fig)])
    is_number = np.array([text.get_color() == elements.NUMBER_INK for text in drawn])
    on_tile = (_overlap(found, tiles) > 2).any(1)
    assert (on_tile == is_number).all(), _named(drawn, on_tile != is_number)
    in_panel = _within(found, tiles, beyond=1).sum(1) == 1
    assert in_panel[is_number].all(), _named(drawn, is_number & ~in_panel)

    for boxes in boxes_of(fig):
        half = np.array(boxes.get_linewidths())[:, None] * fig.dpi / 72 / 2
        outer = np.array([np.hstack([p.min(0), p.max(0)]) for p in corners(boxes)])
        outer += half * (-1, -1, 1, 1)
        assert (_within(outer, tiles, beyond=1).sum(1) == 1).all()
    for lines in lines_of(fig):
        ends = [np.hstack([line.min(0), line.max(0)]) for line in lines.get_segments()]
        *curves, sample = np.array(ends)
        if curves:
            assert (_within(np.array(curves), tiles).sum(1) == 1).all()
        assert _within(sample[None], page_itself).all()
        assert (_overlap(sample[None], np.concatenate([tiles, found])) < 0).all()


def check_texts(fig: Figure) -> tuple[np.ndarray, np.ndarray]:
    """All text is inside the page, none over another. Gives extents of texts, and of the page."""
    height, width = sheet_of(fig).shape[:2]
    assert fig.canvas.get_width_height() == (width, height)
    drawn = fig.axes[0].texts
    found = np.array([extent(text, height).extents for text in drawn])
    page_itself = np.array([(0, 0, width, height)])
    assert _within(found, page_itself).all(), _named(drawn, ~_within(found, page_itself)[:, 0])
    meet = np.triu(_overlap(found, found) > 2, k=1)
    assert not meet.any(), _named(drawn, meet.any(0) | meet.any(1))
    return found, page_itself


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
