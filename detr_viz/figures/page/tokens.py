"""Marks of tokens in the panel of their level: dots, hatched cells, numbers that keep apart.

All in the page's pixels, over the panels that page/paint.py has drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.artists import Pen
from detr_viz.figures.page.elements import CAP, SMALL_PT, Panel
from detr_viz.figures.page.text import Lettering

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.attention.grids import Grid

HATCH = 2.2  # the order of drawing of what is hatched
HATCH_INK = "#8a8a8a"
_HATCH_PT, _HATCH_STEP_PT = 0.3, 1.9
_CASING_PT = 0.8  # white around a number
_LINE = 1.15  # height of a number with its casing, in font sizes
_AROUND = [np.array((x, y)) for x, y in ((1, -1), (-1, -1), (1, 1), (-1, 1))]
_AROUND += [np.array((x, y)) for x, y in ((0, -1), (1, 0), (0, 1), (-1, 0))]
_STEPS = (1.0, 1.8, 2.8, 4.0, 5.5, 7.5)  # how far a number may move away from what it names

Wanted = tuple[str, "NDArray[np.float64]", float]  # a number, the point it names, its free radius


def places(grid: Grid, panel: Panel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x of the columns and y of the rows of a grid's cell centres in a panel of the whole photo."""
    x, y = (grid.centers(side, axis) + 0.5 for side, axis in ((panel.width, 1), (panel.height, 0)))
    return panel.left + x, panel.top + y


def add_hatching(
    pen: Pen, panels: Sequence[tuple[Panel, Grid, NDArray[np.bool_]]], order: float = HATCH
) -> None:
    """Diagonal lines over the cells of a panel's grid where its mask (h, w) is True."""
    from matplotlib.collections import LineCollection
    from matplotlib.path import Path

    for panel, grid, mask in panels:
        corners = list(_runs(panel, grid, mask))
        if not corners:
            continue
        step = _HATCH_STEP_PT * pen.unit_px
        starts = np.arange(panel.left - panel.height, panel.left + panel.width, step)
        bottom, top = panel.top + panel.height, panel.top
        lines = LineCollection(
            [[(x, bottom), (x + panel.height, top)] for x in starts],
            colors=HATCH_INK,
            linewidths=pen.width(_HATCH_PT),
            zorder=order,
        )
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        pen.ax.add_collection(lines, autolim=False)
        clip = Path(np.concatenate(corners), codes * len(corners))
        lines.set_clip_path(clip, pen.ax.transData)


def _runs(panel: Panel, grid: Grid, mask: NDArray[np.bool_]):
    """Corners (5, 2) of a rectangle for each run of True in a row, inside the panel."""
    edges = []
    for axis, first, side in ((0, panel.top, panel.height), (1, panel.left, panel.width)):
        beyond = grid.input_hw[axis] / grid.shown_hw[axis]
        edges.append(first + np.clip(grid.borders(axis) * beyond, 0, 1) * side)
    ys, xs = edges
    for row, cells in enumerate(mask):
        steps = np.diff(np.concatenate([[0], cells.astype(np.int8), [0]]))
        for start, end in zip(np.flatnonzero(steps > 0), np.flatnonzero(steps < 0), strict=True):
            (x0, x1), (y0, y1) = xs[[start, end]], ys[[row, row + 1]]
            if x1 > x0 and y1 > y0:
                yield np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])


class Numbers:
    """Numbers beside what they name, each where no other is."""

    def __init__(self, pen: Pen, font: Lettering) -> None:
        self.pen, self.font = pen, font
        self.size = SMALL_PT * pen.unit_px * 72 / pen.dpi

    def add(
        self,
        panel: Panel,
        wanted: Sequence[Wanted],
        color: str,
        taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
        needed: bool,
    ) -> None:
        """Write the numbers of a panel.

        taken: (centre, half of the size) of what is there, which grows; a point is not in the way
        of its own number. needed: a number without room beside its point moves away from it, on a
        line. One without room there is left out.
        """
        lines = []
        low = np.array((panel.left, panel.top), float)
        high = low + panel.hw[::-1]
        for text, point, radius in wanted:
            wide = self.font.width(text, self.size, "bold") / 2 + _CASING_PT * self.pen.unit_px
            half = np.array((wide, _LINE / 2 * SMALL_PT * self.pen.unit_px))
            found = self._free(
                point, radius, half, low, high, taken, _STEPS if needed else _STEPS[:1]
            )
            if found is None:
                continue
            at, is_near = found
            taken.append((at, half))
            if not is_near:
                lines.append([point, at])
            self._write(text, at, color)
        self.pen.lines(lines, "#ffffff", 1.0, 5.3, capstyle="butt")
        self.pen.lines(lines, color, 0.35, 5.35, capstyle="butt")

    def _free(
        self, point, radius, half, low, high, taken, steps
    ) -> tuple[NDArray[np.float64], bool] | None:
        """The first free place, and whether it is beside the point; None where there is none."""
        for step in steps:
            for way in _AROUND:
                near = radius * (0.7 if way.all() else 1.0)
                at = point + way * (half + near + (step - 1) * half[1] * 2)
                inside = ((at - half >= low) & (at + half <= high)).all()
                clear = all(
                    one is point or (np.abs(at - one) >= half + size).any() for one, size in taken
                )
                if inside and clear:
                    return at, step == steps[0]
        return None

    def _write(self, text: str, at: NDArray[np.float64], color: str) -> None:
        from matplotlib.patheffects import withStroke

        self.pen.ax.text(
            at[0],
            at[1] + CAP / 2 * SMALL_PT * self.pen.unit_px,
            text,
            fontproperties=self.font.properties(text, self.size, "bold"),
            color=color,
            ha="center",
            va="baseline",
            zorder=5.6,
            gid="rank",
            path_effects=[withStroke(linewidth=self.pen.width(2 * _CASING_PT), foreground="white")],
        )
