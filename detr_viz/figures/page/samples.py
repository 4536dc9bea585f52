"""Sampling points of a query in its panels: where each head samples the image, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.artists import Pen
from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import INK, LOCATOR, PHOTO, Group, PageLayout, Panel
from detr_viz.figures.page.key import dot_radius, level_color
from detr_viz.figures.page.shown import SamplePoints

if TYPE_CHECKING:
    from matplotlib.path import Path

_RING_PT = 0.35
_LEAST_WEIGHT = 0.003  # smaller circles are not seen
_PLUS_PT = 2.6  # half of the reference's sign
_DASHES = (0, (2.6, 1.8))  # of the reference's box


def add(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """A circle for each point, area by weight, colour by level; a plus where the query stands.

    The largest lie below. Points outside the panel are not drawn, nor under a locator. Where the
    reference is a box, its sides are dashed.
    """
    locators = {panel.group: panel for panel in layout.panels if panel.row == LOCATOR}
    centers, sizes, colors, plus, boxes = [], [], [], [], []
    for panel in layout.panels:
        samples = _shown(groups[panel.group], panel)
        if samples is None:
            continue
        crop, hole = layout.crops[panel.group], locators.get(panel.group)
        if panel.row != PHOTO:
            hole = None
        places = range(len(samples.strides))
        if panel.row != PHOTO and samples.of_row is not None:
            places = samples.of_row
        heads = slice(None) if panel.row == PHOTO else [panel.head]
        xy = crop.on_panel(samples.xy[heads], panel.left, panel.top, panel.hw)
        unit = pen.unit_px * min(panel.width / (60 * pen.unit_px), 1.6) ** 0.5
        for place in places:
            level, stride = samples.numbered[place]
            of_level = samples.weights[heads, place].ravel()
            for (x, y), weight in zip(xy[:, place].reshape(-1, 2), of_level, strict=True):
                if weight >= _LEAST_WEIGHT and _is_seen(panel, hole, x, y):
                    centers.append((x, y))
                    sizes.append(2 * dot_radius(float(weight), unit))
                    colors.append(level_color(stride, level))
        if samples.reference is not None:
            x, y = crop.on_panel(np.array(samples.reference), panel.left, panel.top, panel.hw)
            arm = _PLUS_PT * unit
            if _is_seen(panel, hole, x, y):
                plus += [[(x - arm, y), (x + arm, y)], [(x, y - arm), (x, y + arm)]]
        if samples.reference_box is not None:
            boxes += _sides(samples.reference_box, panel, crop)
    # under the ticks of the box: in models that refine boxes the two nearly coincide
    pen.lines(boxes, "#ffffff", 0.8, 4.36, capstyle="butt")
    pen.lines(boxes, INK, 0.3, 4.38, capstyle="butt", linestyles=[_DASHES])
    clip = _clip_path(layout)
    if centers:
        order = np.argsort(sizes, kind="stable")[::-1]
        drawn = [[values[i] for i in order] for values in (centers, sizes, colors)]
        pen.circles(*drawn, "#ffffff", _RING_PT, 5.4, clip)
    pen.lines(plus, "#ffffff", 1.3, 5.5, clip)
    pen.lines(plus, INK, 0.6, 5.6, clip)


def _clip_path(layout: PageLayout) -> Path:
    """All photos and panels as one path: a circle on the edge of a photo ends there."""
    from matplotlib.path import Path

    rectangles = [
        Path(
            [
                (p.left, p.top),
                (p.left + p.width, p.top),
                (p.left + p.width, p.top + p.height),
                (p.left, p.top + p.height),
                (p.left, p.top),
            ],
            closed=True,
        )
        for p in layout.panels
        if p.row != LOCATOR
    ]
    return Path.make_compound_path(*rectangles)


def _shown(group: Group, panel: Panel) -> SamplePoints | None:
    """The points in a panel, or in the photo of a group."""
    if panel.row == PHOTO:
        return group.photo_samples
    return group.rows[panel.row].samples if group.rows and panel.row != LOCATOR else None


def _sides(box: np.ndarray, panel: Panel, crop: Crop) -> list[np.ndarray]:
    """What of the sides of a box lies in a panel, each from its left or upper end."""
    low, high = crop.on_panel(np.reshape(box, (2, 2)), panel.left, panel.top, panel.hw)
    first = np.array([panel.left, panel.top], np.float64)
    last = first + np.array([panel.width, panel.height])
    found = []
    for axis in (0, 1):  # along x, along y
        other = 1 - axis
        start, end = np.clip([low[axis], high[axis]], first[axis], last[axis])
        for at in (low[other], high[other]):
            if first[other] <= at <= last[other] and end > start:
                ends = np.empty((2, 2))
                ends[:, axis], ends[:, other] = (start, end), at
                found.append(ends)
    return found


def _is_seen(panel: Panel, hole: Panel | None, x: float, y: float) -> bool:
    """Whether a place is in a panel, and not under the locator in it."""
    return _holds(panel, x, y) and (hole is None or not _holds(hole, x, y))


def _holds(panel: Panel, x: float, y: float) -> bool:
    return (
        panel.left <= x <= panel.left + panel.width and panel.top <= y <= panel.top + panel.height
    )
