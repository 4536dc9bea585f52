"""Attention of the cells of one level, told in the cells of all levels.

The encoder of RT-DETR (AIFI) attends on its coarsest level alone. Maps of all sites have the cells
of all levels: here those of other levels have no weight, and a cell of another level stands for the
cell of this level that has its centre.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr_viz.attention.base import Attention, Rows
from detr_viz.attention.grids import Grid


@dataclass(frozen=True, eq=False)
class LevelAttention:
    """The attention of one level (an `Attention`). grids: of all levels."""

    own: Attention
    level: int
    grids: tuple[Grid, ...]

    @property
    def kind(self) -> str:
        return self.own.kind

    @property
    def num_heads(self) -> int:
        return self.own.num_heads

    @property
    def num_rows(self) -> int:
        return self.own.num_rows

    @property
    def modes(self) -> Mapping[str, str]:
        return self.own.modes

    @property
    def term_names(self) -> tuple[str, ...]:
        return self.own.term_names

    @property
    def value(self) -> Tensor:
        return self._spread(self.own.value.transpose(-1, -2)).transpose(-1, -2)

    @property
    def tokens(self) -> Tensor:
        """The cells of all levels that the rows are."""
        return self._start + torch.arange(self.num_rows)

    @property
    def _start(self) -> int:
        return sum(grid.cells for grid in self.grids[: self.level])

    def rows_of(self, cells: Sequence[int]) -> list[int]:
        """The rows that stand for cells of any level; ValueError for one that is not there."""
        rows = []
        height, width = self.grids[self.level].hw
        for cell in cells:
            rest = cell
            for grid in self.grids:
                if rest < grid.cells:
                    break
                rest -= grid.cells
            else:
                raise ValueError(f"there is no cell {cell}")
            y, x = divmod(rest, grid.hw[1])
            row = int((y + 0.5) / grid.hw[0] * height) * width
            rows.append(row + int((x + 0.5) / grid.hw[1] * width))
        return rows

    def weights(self, mode: Any = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S) with 0 on other levels."""
        return self._spread(self.own.weights(mode, rows, scale))

    def even(self, rows: Rows = None) -> Tensor:
        return self._spread(self.own.even(rows))

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        return self.own.residual(out, project_out)

    def _spread(self, x: Tensor) -> Tensor:
        """(..., cells of the level) -> (..., cells of all levels)."""
        full = x.new_zeros(*x.shape[:-1], sum(grid.cells for grid in self.grids))
        full[..., self._start : self._start + x.shape[-1]] = x
        return full
