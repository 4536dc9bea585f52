"""A plus where a query stands, in its photo and in every panel that shows the point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.figures.page.artists import Pen
from detr_viz.figures.page.elements import INK, LOCATOR, Group, PageLayout

_ARM_PT = 1.9  # half of the sign, which must not cover a map


def add(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """The anchor of each group that has one."""
    plus: list = []
    for panel in layout.panels:
        anchor, crop = groups[panel.group].anchor, layout.crop_of(panel)
        if anchor is None or panel.row == LOCATOR:
            continue
        x, y = crop.on_panel(np.array(anchor), 0, 0, panel.hw)
        if 0 <= x <= panel.width and 0 <= y <= panel.height:
            x, y = x + panel.left, y + panel.top
            arm = _ARM_PT * pen.unit_px * min(panel.width / (60 * pen.unit_px), 1.6) ** 0.5
            plus += [[(x - arm, y), (x + arm, y)], [(x, y - arm), (x, y + arm)]]
    pen.lines(plus, "#ffffff", 1.3, 5.5)
    pen.lines(plus, INK, 0.6, 5.6)
