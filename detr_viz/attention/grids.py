"""The positions of a map's cells in the photo.

A grid is the one of the network: if an image was padded, the grid covers the padding too, and
`valid_hw` says which part of the input shows the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL_RULES = ("aligned", "centered", "strided")


@dataclass(frozen=True)
class Grid:
    """The cells of one level of tokens.

    hw        rows and columns of cells
    input_hw  pixels of the network's input, padding included
    stride    input pixels from cell to cell
    rule      aligned: cell i is centred on pixel index stride * i of the input (a ResNet's windows
              are symmetric); centered: on the fraction (i + 0.5) / cells of it, whatever the
              stride, as the reference points of some models say; strided: it fills the pixels
              from stride * i on, as RoIAlign reads it, the last one perhaps beyond the input
    valid_hw  pixels of the input that show the image, from its top left corner; None: all
    name      for figures of several levels, such as "level 0, stride 8"
    """

    hw: tuple[int, int]
    input_hw: tuple[int, int]
    stride: int
    rule: str = "aligned"
    valid_hw: tuple[int, int] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.rule not in CELL_RULES:
            raise ValueError(f"cell rule {self.rule!r} is not one of {', '.join(CELL_RULES)}")

    @property
    def cells(self) -> int:
        """Number of cells, h * w."""
        return self.hw[0] * self.hw[1]

    @property
    def shown_hw(self) -> tuple[int, int]:
        """Pixels of the input that show the image."""
        return self.input_hw if self.valid_hw is None else self.valid_hw

    def centers(self, image_px: int, axis: int) -> NDArray[np.float64]:  # (cells,)
        """Centres of the cells along an axis (0: y, 1: x), pixel indices of the photo, (cells,).

        image_px: the photo's pixels along that axis. A cell centred on pixel index x of the input
        has its centre at (x + 0.5) * image_px / shown - 0.5.
        """
        at = np.arange(self.hw[axis], dtype=np.float64)
        if self.rule == "centered":
            return (at + 0.5) * (image_px * self._padded(axis)) / self.hw[axis] - 0.5
        if self.rule == "strided":
            return self.stride * (at + 0.5) * image_px / self.shown_hw[axis] - 0.5
        return (self.stride * at + 0.5) * image_px / self.shown_hw[axis] - 0.5

    def positions(self, out_px: int, axis: int) -> NDArray[np.float64]:  # (out_px,)
        """Position of every panel pixel's centre, in cells, clamped to [0, cells - 1], (out_px,).

        Panel pixel j shows the fraction (j + 0.5) / out_px of the photo. The input has its pixel
        x = fraction * shown - 0.5 there, whatever the photo's own size, and u = x / stride.
        """
        fraction = (np.arange(out_px) + 0.5) / out_px
        if self.rule == "centered":
            u = fraction / self._padded(axis) * self.hw[axis] - 0.5
        elif self.rule == "strided":
            u = fraction * self.shown_hw[axis] / self.stride - 0.5
        else:
            u = (fraction * self.shown_hw[axis] - 0.5) / self.stride
        return np.clip(u, 0, self.hw[axis] - 1)

    def borders(self, axis: int) -> NDArray[np.float64]:  # (cells + 1,)
        """Borders of the cells along an axis, as fractions of the input, (cells + 1,), 0 to 1.

        A cell reaches halfway to its neighbours, the outer ones to the input's edges.
        """
        count = self.hw[axis]
        if self.rule == "centered":
            return np.arange(count + 1) / count
        if self.rule == "strided":
            return np.minimum(self.stride * np.arange(count + 1) / self.input_hw[axis], 1)
        between = (self.stride * (np.arange(1, count) - 0.5) + 0.5) / self.input_hw[axis]
        return np.concatenate([[0.0], np.clip(between, 0, 1), [1.0]])

    def of_photo(self, axis: int) -> NDArray[np.float64]:  # (cells + 1,)
        """Borders of the cells as fractions of the photo; above 1 on padding."""
        return self.borders(axis) * self._padded(axis)

    def input_share(self, px: NDArray, image_px: int, axis: int) -> NDArray[np.float64]:  # (...)
        """Coordinates along an axis in the photo's pixels, 0 at its edge -> in [0, 1] of the input.

        Places of samples are in these units.
        """
        return px / (image_px * self._padded(axis))

    def photo_px(self, share: NDArray, image_px: int, axis: int) -> NDArray[np.float64]:  # (...)
        """The inverse: in [0, 1] of the input -> the photo's pixels."""
        return share * (image_px * self._padded(axis))

    def _padded(self, axis: int) -> float:
        """The input's pixels for each pixel that shows the image: 1 without padding."""
        return self.input_hw[axis] / self.shown_hw[axis]


def shown_cells(grid: Grid) -> tuple[int, int]:
    """Rows and columns of a grid that lie on the image, in part at least."""
    return tuple(
        int(np.count_nonzero(grid.borders(k)[:-1] * grid.input_hw[k] < grid.shown_hw[k]))
        for k in (0, 1)
    )


def finest(grids: tuple[Grid, ...]) -> int:
    """Index of the level with the most cells; of equal ones the first."""
    return max(range(len(grids)), key=lambda level: (grids[level].cells, -level))


def spread(maps: NDArray, source: Grid, target: Grid) -> NDArray:
    """Maps (..., h, w) of one grid on another: each value spread evenly over the area of its cell.

    Sums do not change.
    """
    rows, columns = (_shares(source.borders(axis), target.borders(axis)) for axis in (0, 1))
    return (rows.astype(maps.dtype) @ maps) @ columns.T.astype(maps.dtype)


def onto(maps: NDArray, source: Grid, target: Grid) -> NDArray:
    """Maps (..., h, w) of one network on the grid of another, of the same photo, as by `spread`.

    Paddings may differ: cells are where they lie in the photo, and what lies beyond the other
    input is left out.
    """
    rows, columns = (
        _shares(source.of_photo(axis), target.of_photo(axis)).astype(maps.dtype) for axis in (0, 1)
    )
    return (rows @ maps) @ columns.T


def by_level(flat: NDArray, grids: tuple[Grid, ...]) -> tuple[NDArray, ...]:
    """(..., S), the cells of all levels one after the other -> (..., h, w) of each level."""
    borders = np.cumsum([grid.cells for grid in grids])[:-1]
    parts = np.split(flat, borders, axis=-1)
    return tuple(
        part.reshape(*part.shape[:-1], *grid.hw) for part, grid in zip(parts, grids, strict=True)
    )


def on_finest(levels: tuple[NDArray, ...], grids: tuple[Grid, ...]) -> NDArray:
    """The sum of all levels' maps on the finest grid, (..., h, w); a single level unchanged."""
    if len(levels) == 1:
        return levels[0]
    target = grids[finest(grids)]
    parts = [spread(maps, grid, target) for maps, grid in zip(levels, grids, strict=True)]
    return np.sum(parts, axis=0, dtype=levels[0].dtype)


def on_one_grid(flat: NDArray, grids: tuple[Grid, ...]) -> NDArray:
    """(..., S), the cells of all levels one after the other -> their sum on the finest grid."""
    return on_finest(by_level(flat, grids), grids)


def _shares(source: NDArray, target: NDArray) -> NDArray[np.float64]:
    """(target cells, source cells): the fraction of each source cell that is in a target cell."""
    low = np.maximum(source[None, :-1], target[:-1, None])
    high = np.minimum(source[None, 1:], target[1:, None])
    return np.maximum(high - low, 0) / np.diff(source)[None]
