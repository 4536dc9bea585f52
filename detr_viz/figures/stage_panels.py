"""The panels of stages: all that are shown in one row, or one a row in a biography."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detr_viz.figures.page.elements import MapRow
from detr_viz.figures.panel_rows import MapPanels
from detr_viz.figures.reading_rule import ShownModel
from detr_viz.figures.stage_parts import side_by_side


class StagePanels(MapPanels):
    """The rows of MapPanels, with the stages of a query side by side; apart: a stage a row.

    All cells of a figure have one scale, up to the largest share of any, either way.
    """

    apart = False

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        layers = (layer,) if self.apart else subject.layers
        of_layers = [super(StagePanels, self).rows(subject, n, query) for n in layers]
        joined = [side_by_side(rows) for rows in zip(*of_layers, strict=True)]
        if len(layers) == 1 and len(joined) == 1 and not self.apart:
            joined = [replace(joined[0], name=f"stage {layers[0]}")]
        return tuple(
            replace(row, cells=row.cells and replace(row.cells, reach=self._reach))
            for row in joined
        )

    @property
    def _reach(self) -> float:
        shares = [row.cells.shares for rows in self._rows.values() for row in rows if row.cells]
        largest = max((float(np.nanmax(np.abs(part), initial=0)) for part in shares), default=0)
        return largest if 0 < largest < np.inf else 1.0


def stage_columns(subjects: Sequence[ShownModel]) -> list[str]:
    """Numbers over the panels: those of the model with the most stages."""
    return [str(n) for n in max((s.layers for s in subjects), key=len)]
