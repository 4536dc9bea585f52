"""The cell of the image that a point means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.grids import finest
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase


def nearest_cell(e: ExplanationBase, x: float, y: float, layers: Sequence[int] = ()) -> int:
    """Number (row-major) of the cell of the finest grid whose centre is nearest to a point.

    x, y: pixels of the image. layers: of the encoder; where they refine only some tokens, the
    nearest of those that all of them refine. UserError if they refine none of the finest grid.
    """
    rows, columns = e.cell_centers_px()
    if e.salience is None or not layers:
        return int(np.abs(rows - y).argmin()) * len(columns) + int(np.abs(columns - x).argmin())
    grids = e.salience.grids
    level = finest(grids)
    cells = e.salience.kept_by_all(layers) - sum(grid.cells for grid in grids[:level])
    cells = cells[(cells >= 0) & (cells < grids[level].cells)]
    if not cells.size:
        raise UserError(
            f"encoder layer {max(layers)} refines no token of the finest grid: give a lower --layer"
        )
    away = (rows[cells // len(columns)] - y) ** 2 + (columns[cells % len(columns)] - x) ** 2
    return int(cells[away.argmin()])
