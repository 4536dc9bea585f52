"""The grid of a contact sheet's page: where thumbnails go, and how large they are.

Positions are in points from a page's bottom left corner, as in any PDF.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Points. Title and page number stand in the margins, so that all pages have the same grid.
PAGE_WIDTH, PAGE_HEIGHT = 72 * 8.27, 72 * 11.69  # A4
SIDE, TOP = 36.0, 52.0  # margins
_BOTTOM = 46.0
_SMALLEST_PT, _LARGEST_PT = 4.0, 7.0  # names; what follows is in their size
_CAPTION, _ROW_GAP, _GUTTER = 1.6, 2.0, 2.0
_LOOSEST = 2.0  # a row gap grows at most so many times where there is room
_COARSEST_DPI = 100  # of a thumbnail on the page


class Cell(NamedTuple):
    """Where a figure is: its left and top edge, its width and height."""

    left: float
    top: float
    width: float
    height: float


class ThumbnailGrid(NamedTuple):
    """The cells of a page, row by row; the width of a column; the size of names."""

    columns: int
    width: float
    size_pt: float
    cells: tuple[Cell, ...]


def best_grid(sizes: Sequence[tuple[int, int]], before: int = 0) -> ThumbnailGrid:
    """The grid that shows figures of these (width, height) in pixels largest, row by row.

    All figures have one scale; where the rows together are too high, the highest shrink first.
    before: the columns of the page before, kept unless another number is better by a tenth
    """
    most = min(len(sizes), 20)
    grids = [grid for columns in range(1, most + 1) if (grid := _grid(sizes, columns))]

    def worth(grid: ThumbnailGrid) -> float:
        shown = sum(cell.width / width for cell, (width, _) in zip(grid.cells, sizes, strict=True))
        return shown * (1.1 if grid.columns == before else 1)

    return max(grids, key=worth)


def _grid(sizes: Sequence[tuple[int, int]], columns: int) -> ThumbnailGrid | None:
    """The grid of so many columns; None where gaps and names alone fill the page."""
    size_pt = min(max(8 - columns / 2, _SMALLEST_PT), _LARGEST_PT)
    gutter, gap, caption = (size_pt * s for s in (_GUTTER, _ROW_GAP, _CAPTION))
    width = (PAGE_WIDTH - 2 * SIDE - (columns - 1) * gutter) / columns
    scale = min(width / max(w for w, _ in sizes), 72 / _COARSEST_DPI)
    rows = [sizes[i : i + columns] for i in range(0, len(sizes), columns)]
    heights = [max(h for _, h in row) * scale for row in rows]
    room = PAGE_HEIGHT - TOP - _BOTTOM - len(rows) * caption - (len(rows) - 1) * gap
    if room <= 0:
        return None
    limit = _limit(heights, room)
    heights = [min(height, limit) for height in heights]
    gap += min((room - sum(heights)) / max(len(rows) - 1, 1), gap * (_LOOSEST - 1))
    placed = [(w * min(scale, limit / h), min(h * scale, limit)) for w, h in sizes]
    width = max(w for w, _ in placed)
    left = (PAGE_WIDTH - columns * width - (columns - 1) * gutter) / 2
    cells, top = [], PAGE_HEIGHT - TOP
    for i, (w, h) in enumerate(placed):
        row, column = divmod(i, columns)
        if row and not column:
            top -= heights[row - 1] + caption + gap
        cells.append(Cell(left + column * (width + gutter), top, w, h))
    return ThumbnailGrid(columns, width, size_pt, tuple(cells))


def _limit(heights: Sequence[float], room: float) -> float:
    """The height to cut the highest rows down to, so that all rows fit into the room."""
    for i, height in enumerate(sorted(heights)):
        share = room / (len(heights) - i)
        if height > share:
            return share
        room -= height
    return math.inf
