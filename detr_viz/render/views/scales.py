"""--plot scales: how much of the finer, the own and the coarser level each encoder block takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import SCALE_PLOT
from detr_viz.explanation.scales import PARTS
from detr_viz.render.numbers import Arrays, Table
from detr_viz.render.views.base import Drawn, Needs
from detr_viz.render.views.without_maps import ResultWithoutMaps, ViewWithoutMaps

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.render.recipe import Recipe

_COLUMNS = ("block", "level", "stride", "part", "weight", "share")


class ScalesView(ViewWithoutMaps):
    name = SCALE_PLOT
    what = "scale attention"
    required = Needs(scales=True)

    def deviation(
        self, result: ResultWithoutMaps, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        apart = exact[0].scales.weights - result.shown[0].scales.weights
        return float(np.nanmax(np.abs(apart)))

    def draw(self, result: ResultWithoutMaps, recipe: Recipe) -> Drawn:
        from detr_viz.figures.scale_maps import scale_maps_figure
        from detr_viz.figures.scales import scales_figure

        (e,), look = result.shown, {"style": recipe.style, "page_format": recipe.page_format}
        return Drawn(
            {
                "_maps": lambda: scale_maps_figure(e, **look),
                "": lambda: scales_figure(e, **look),
            },
            {"": lambda: _numbers(e), "_table": lambda: _table(e)},
        )


def _numbers(e: StoredExplanation) -> Arrays:
    """Weights and shares (blocks, levels, 3), the shares in each cell, and names of the parts."""
    arrays = {
        "scale_weights": e.scales.weights,
        "scale_shares": e.scales.shares,
        "parts": np.asarray(PARTS),
        "strides": np.asarray(e.scales.strides, np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }
    arrays |= {f"scale_maps_level{level}": maps for level, maps in enumerate(e.scales.maps)}
    return Arrays(arrays, {**e.meta, "view": SCALE_PLOT})


def _table(e: StoredExplanation) -> Table:
    """A row for each block, level and part that there is."""
    rows = []
    for block, level, part in np.argwhere(np.isfinite(e.scales.weights)).tolist():
        place = block, level, part
        numbers = (f"{float(x[place]):.6g}" for x in (e.scales.weights, e.scales.shares))
        rows.append((block, level, e.scales.strides[level], PARTS[part], *numbers))
    return Table(_COLUMNS, rows)


VIEW = ScalesView()
