"""What tests read off a figure: its texts, where its panels are, whether anything is in the way."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.collections import Collection, LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy import ndimage

from detr_viz import page


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
    return [t for t in fig.axes[0].texts if t.get_color() == page.NUMBER_INK]


def extent(text: Text) -> Bbox:
    """Of a drawn text, in pixels; y counts down, as a figure's other artists do."""
    fig = text.get_figure()
    box, height = text.get_window_extent(fig.canvas.get_renderer()), sheet_of(fig).shape[0]
    return Bbox.from_extents(box.x0, height - box.y1, box.x1, height - box.y0)


def sheet_of(fig: Figure) -> np.ndarray:
    (image,) = fig.axes[0].images
    return np.asarray(image.get_array())[..., :3]


def tiles_of(fig: Figure) -> list[Tile]:
    """All that is pasted on the white sheet, from the top down and from left to right."""
    parts, _ = ndimage.label((sheet_of(fig) < 250).any(-1))
    return sorted(Tile(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(parts))


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
    """What the numbers of a contour figure stand on."""
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
    height, width = sheet_of(fig).shape[:2]
    assert fig.canvas.get_width_height() == (width, height)
    page_itself, tiles, found = Tile(0, 0, height, width), tiles_of(fig), []
    numbers = {id(t) for t in numbers_of(fig)}
    for text in fig.axes[0].texts:
        box = extent(text)
        assert page_itself.holds(box.get_points()), (text.get_text(), box)
        over = [tile for tile in tiles if _overlap(box, tile) > 2]
        if id(text) in numbers:
            assert len(over) == 1 and over[0].holds(box.get_points(), 1), (text.get_text(), box)
        else:
            assert not over, (text.get_text(), box, over)
        found.append((text.get_text(), box))
    for (a, x), (b, y) in combinations(found, 2):
        across = min(x.x1, y.x1) - max(x.x0, y.x0), min(x.y1, y.y1) - max(x.y0, y.y0)
        assert min(across) <= 2, (a, b, across)
    for boxes in boxes_of(fig):
        for polygon, wide_pt in zip(corners(boxes), boxes.get_linewidths(), strict=True):
            half = wide_pt * fig.dpi / 72 / 2
            outer = np.stack([polygon.min(0) - half, polygon.max(0) + half])
            assert sum(tile.holds(outer, 1) for tile in tiles) == 1
    for lines in lines_of(fig):
        *drawn, sample = lines.get_segments()
        for line in drawn:
            assert sum(tile.holds(line) for tile in tiles) == 1
        key = Bbox(sample)
        assert page_itself.holds(sample) and not any(_overlap(key, tile) >= 0 for tile in tiles)
        assert not any(key.count_overlaps([box]) for _, box in found)


def _overlap(box: Bbox, tile: Tile) -> float:
    """How deep, in pixels, a box reaches into a tile; below 0 where it does not."""
    across = min(box.x1, tile.right) - max(box.x0, tile.left)
    return float(min(across, min(box.y1, tile.bottom) - max(box.y0, tile.top)))
