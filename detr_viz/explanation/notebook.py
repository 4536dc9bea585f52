"""What an explanation shows of itself: in a cell of a notebook, as a figure, as a page.

e                                     # in a cell: the figure of the best queries and their table
e.plot("position", "top:3")           # a figure
e.explore()                           # the page, in the cell

figures/ and html/ do it, which stand above this package: `detr_viz/__init__.py` says where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detr_viz.attention.terms import Mode
from detr_viz.common.lazy import offered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.figures.styles import PageFormat, Style
    from detr_viz.html.notebook import Explorer


class InNotebook:
    """An ExplanationBase in a notebook. Nothing here raises in a cell that only shows it."""

    def plot(
        self,
        mode: str | Mode | Sequence[str | Mode] = "combine",
        queries: str | int | Sequence[int] = "objects",
        *,
        layer: int | str | Sequence[int] | None = None,
        heads: int | str | Sequence[int] | None = None,
        style: Style | str | None = None,
        level: int | str | Sequence[int] | None = None,
        norm: str | None = None,
        zoom: str | float | None = None,
        preset: PageFormat | str | None = None,
        dpi: float | None = None,
        gt: bool = False,
        **more: Any,
    ) -> Figure:
        """The figure that the command line draws for the same words; a notebook shows it.

        mode     --plot: "position", "position,content", "all", "terms", "cq.pk+pq.pk", a Mode;
                 "proposals", "salience" or "scales" of models that have them
        queries  --queries: "objects", "top:3", "class:cat", ids, ...; see `select`
        layer    of the captured ones: a number, "last", "all", "0,2"; None: the last captured, and
                 all stages of models with stages
        heads    numbers, "0-3", "mean", "max", "sort"
        style    "overlay", "heat", "contour", "points", "cells", or a Style; None: points where
                 attention samples, cells where it reads cells of boxes, else overlay
        level    of several: a number, "0,2", "all", "sum"
        norm     "even", "head", "query", "figure"
        zoom     "auto", "none", or a factor
        preset   "column", "page", "slide", "poster", or a PageFormat
        dpi      pixels an inch
        gt       whether the annotated boxes of the image are drawn, dashed
        more     cmap, interpolation, contours, width, font, letters, notes, scale, as the flags of
                 these names; ablations, biography, as in `head_grid`
        UserError, a ValueError, for words that say nothing, with what may be meant.
        """
        return offered("plot")(
            self,
            mode,
            queries,
            layer=layer,
            heads=heads,
            style=style,
            level=level,
            norm=norm,
            zoom=zoom,
            preset=preset,
            dpi=dpi,
            gt=gt,
            **more,
        )

    def explore(self, height: int = 720) -> Explorer:
        """The page to explore it by pointing: shown in a cell, or `.save(path)`.

        height: of the frame in the cell, pixels.
        """
        return offered("explore")(self, height)

    def _repr_html_(self) -> str | None:
        """The table of the best queries under their figure; None where nothing can be shown."""
        return offered("shown_html")(self)

    def _repr_png_(self) -> bytes | None:
        """The figure of the best queries; None where it cannot be drawn."""
        return offered("shown_png")(self)
