"""Where the cells of an explanation's maps lie, in the image and in boxes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Grid, finest
from detr_viz.images.loaded_image import ImageFacts, LoadedImage


class MapGrids:
    """The grids of the maps of an ExplanationBase, which has the fields."""

    image: LoadedImage | ImageFacts
    attention_kind: str
    layer_grids: Mapping[int, tuple[Grid, ...]]
    boxes_xyxy_px: NDArray[np.float32]  # (Q, 4)
    layers: tuple[int, ...]

    def kind(self, layer: int | None = None) -> str:
        """Kind of a captured layer's cross-attention, as in attention/base.py."""
        self.pick_layer(layer)
        return self.attention_kind

    @property
    def has_axes(self) -> bool:
        """Whether a map is column times row, which are then its own sums along w and along h."""
        return self.attention_kind == "factored"

    def grids(self, layer: int | None = None) -> tuple[Grid, ...]:
        """Grids of a captured layer's levels, finest first."""
        return self.layer_grids[self.pick_layer(layer)]

    def grid(self, layer: int | None = None) -> Grid:
        """The finest grid of a captured layer, which is the grid of `maps`."""
        levels = self.grids(layer)
        return levels[finest(levels)]

    @property
    def grid_hw(self) -> tuple[int, int]:
        """(h, w) of the last captured layer's maps."""
        return self.grid().hw

    @property
    def stride(self) -> int:
        """Pixels of the network's input from cell to cell, in the last captured layer's maps."""
        return self.grid().stride

    @property
    def input_hw(self) -> tuple[int, int]:
        """(h, w) in pixels of the resized image in the network's input, without padding."""
        return self.grid().shown_hw

    def cell_centers_px(
        self, layer: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # (h,), (w,)
        """Centres of the grid's rows (h,) and columns (w,), pixels of the original image."""
        return self._centers(self.grid(layer))

    def _centers(self, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return tuple(grid.centers(self.image.hw[axis], axis) + 0.5 for axis in (0, 1))

    def cells_inside(self, layer: int | None = None) -> NDArray[np.bool_]:  # (Q, h * w)
        """(Q, h * w): True for cells whose centres are in the query's box."""
        return self._inside(self.grid(layer))

    def tokens_inside(self, layer: int | None = None) -> NDArray[np.bool_]:  # (Q, S)
        """(Q, S): the same for the cells of all levels, level by level."""
        return np.concatenate([self._inside(grid) for grid in self.grids(layer)], 1)

    def _inside(self, grid: Grid) -> NDArray[np.bool_]:
        y, x = self._centers(grid)
        left, top, right, bottom = (side[:, None] for side in self.boxes_xyxy_px.T)
        rows, columns = (top <= y) & (y <= bottom), (left <= x) & (x <= right)
        return (rows[:, :, None] & columns[:, None, :]).reshape(self.num_queries, -1)
