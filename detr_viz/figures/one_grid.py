"""Maps of several models in one figure: all on the finest of their grids, if these differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.attention.grids import Grid
from detr_viz.figures.level_words import TIMES, grid_note
from detr_viz.figures.page.text import clean

if TYPE_CHECKING:
    from detr_viz.figures.reading_rule import ShownModel


def one_grid(subjects: Sequence[ShownModel]) -> Grid | None:
    """The finest grid of models whose maps have different numbers of cells; None if all agree."""
    grids = [s.explanation.grid(layer) for s in subjects for layer in s.layers]
    if len({tuple(grid.hw) for grid in grids}) < 2:
        return None
    return max(grids, key=lambda grid: grid.hw[0] * grid.hw[1])


def one_grid_notes(subjects: Sequence[ShownModel], grid_hw: tuple[int, int]) -> list[str]:
    """The grid of all models, and whose cells are larger."""
    own = {clean(s.name): s.explanation.grid_hw for s in subjects}
    larger = [f"{name} {w} {TIMES} {h}" for name, (h, w) in own.items() if (h, w) != grid_hw]
    return [
        f"all models: {grid_note(grid_hw)}",
        f"coarser cells spread evenly over these: {', '.join(larger)}",
    ]
