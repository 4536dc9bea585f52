"""Sampling points of a query in its panels: where each head samples the image, and how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.figures.page.artists import Pen
from detr_viz.figures.page.elements import INK, LOCATOR, PHOTO, Group, PageLayout, Panel
from detr_viz.figures.page.key import dot_radius, level_color

_RING_PT = 0.35
_LEAST_WEIGHT = 0.003  # smaller circles are not seen
_PLUS_PT = 2.6  # half of the reference's sign


def add(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """A circle for each point, area by weight, colour by level; a plus where the query stands.

    The largest lie below. Points outside the panel are not drawn, nor under a locator.
    """
    locators = {panel.group: panel for panel in layout.panels if panel.row == LOCATOR}
    centers, sizes, colors, plus = [], [], [], []
    for panel in layout.panels:
        rows = groups[panel.group].rows
        samples = rows[max(panel.row, 0)].samples if rows and panel.row != LOCATOR else None
        if samples is None:
            continue
        crop = layout.crops[panel.group]
        heads = range(len(samples.xy)) if panel.row == PHOTO else [panel.head]
        xy = np.concatenate([samples.xy[head] for head in heads], 1)  # (L, heads * P, 2)
        weights = np.concatenate([samples.weights[head] for head in heads], 1)
        xy = crop.on_panel(xy, panel.left, panel.top, panel.hw)
        locator = locators.get(panel.group)

        def seen(x: float, y: float, panel: Panel = panel, locator: Panel | None = locator) -> bool:
            return _holds(panel, x, y) and (locator is None or not _holds(locator, x, y))

        unit = pen.unit_px * min(panel.width / (60 * pen.unit_px), 1.6) ** 0.5
        for level, stride in enumerate(samples.strides):
            for (x, y), weight in zip(xy[level], weights[level], strict=True):
                if weight >= _LEAST_WEIGHT and seen(x, y):
                    centers.append((x, y))
                    sizes.append(2 * dot_radius(float(weight), unit))
                    colors.append(level_color(stride, level))
        if samples.reference is not None:
            x, y = crop.on_panel(np.array(samples.reference), panel.left, panel.top, panel.hw)
            arm = _PLUS_PT * unit
            if seen(x, y):
                plus += [[(x - arm, y), (x + arm, y)], [(x, y - arm), (x, y + arm)]]
    if centers:
        order = np.argsort(sizes, kind="stable")[::-1]
        drawn = [[values[i] for i in order] for values in (centers, sizes, colors)]
        pen.circles(*drawn, "#ffffff", _RING_PT, 5.4)
    pen.lines(plus, "#ffffff", 1.3, 5.5)
    pen.lines(plus, INK, 0.6, 5.6)


def _holds(panel: Panel, x: float, y: float) -> bool:
    return (
        panel.left <= x <= panel.left + panel.width and panel.top <= y <= panel.top + panel.height
    )
