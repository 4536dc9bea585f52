"""Which levels of the maps a row of panels shows: their sum, one of them, or points of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Grid, finest, on_finest, onto
from detr_viz.attention.terms import Mode
from detr_viz.figures.page.elements import MapRow
from detr_viz.figures.page.shown import SamplePoints
from detr_viz.figures.styles import Style, check_levels

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase


@dataclass(frozen=True, eq=False)
class LevelRow:
    """Maps (q, M, h, w) of one row of panels, and where their cells lie.

    name    "" where all rows are of the same levels
    chosen  numbers of the levels whose points the figure shows; () all
    own     numbers of those that the row's panels show; None: all of the chosen
    """

    maps: NDArray[np.float32]
    grid: Grid
    name: str = ""
    chosen: tuple[int, ...] = ()
    own: tuple[int, ...] | None = None

    def of_points(self, samples: SamplePoints) -> SamplePoints:
        """The points of the levels that are shown."""
        chosen = self.chosen or tuple(range(len(samples.strides)))
        return replace(
            samples,
            xy=samples.xy[:, list(chosen)],
            weights=samples.weights[:, list(chosen)],
            strides=tuple(samples.strides[level] for level in chosen),
            levels=chosen,
            of_row=None if self.own is None else tuple(chosen.index(level) for level in self.own),
        )


def level_rows(
    e: ExplanationBase,
    mode: str | Mode,
    queries: Sequence[int],
    layer: int,
    scale: str,
    style: Style,
    grid: Grid | None = None,
) -> list[LevelRow]:
    """The rows of one mode: one, or one for each level. FigureError for a level that is not there.

    grid: on which the sum of the levels is spread; None: the finest of them.
    Points of listed levels share a row, with maps that are the sum of these levels.
    """
    if style.levels == "sum":
        maps, own = e.maps(mode, queries, layer, scale), e.grid(layer)
        if grid is None or tuple(grid.hw) == tuple(own.hw):
            return [LevelRow(maps, own)]
        return [LevelRow(onto(maps, own, grid), grid)]
    grids = e.grids(layer)
    check_levels(style, e.model_title, len(grids))
    chosen = tuple(range(len(grids))) if style.levels == "all" else tuple(style.levels)
    maps = {level: e.maps(mode, queries, layer, scale, level=level) for level in chosen}
    if style.name == "points" and style.levels != "all":
        some = tuple(grids[level] for level in chosen)
        total = on_finest(tuple(maps[level] for level in chosen), some)
        return [LevelRow(total, some[finest(some)], chosen=chosen)]
    several = len(chosen) > 1
    return [
        LevelRow(maps[n], grids[n], f"level {n}" if several else "", chosen, (n,)) for n in chosen
    ]


def all_in_one(row: MapRow) -> MapRow:
    """A row of points with one panel, which has the points of all heads; its map is their mean."""
    samples = row.samples
    assert samples is not None, "style all-in-one is of points"
    heads, levels, points = samples.weights.shape
    return replace(
        row,
        maps=row.maps.mean(0, keepdims=True),
        crossed=frozenset(),
        samples=replace(
            samples,
            xy=samples.xy.swapaxes(0, 1).reshape(1, levels, heads * points, 2),
            weights=samples.weights.swapaxes(0, 1).reshape(1, levels, heads * points),
        ),
    )
