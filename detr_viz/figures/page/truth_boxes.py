"""Annotated boxes on photos and maps: dashed, the nearest one thick, crowds dotted.

Dark green on a white casing, which are seen on dark and on light photos, and in grey print. The
predicted box is a full blue line, so that dashes alone tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import LOCATOR, PHOTO, TRUTH_GREEN, Group, PageLayout, Panel

if TYPE_CHECKING:
    from detr_viz.figures.page.artists import Pen
    from detr_viz.figures.page.crop import Crop

_KINDS = {  # width of the line and of the white beside it in points, dashes in widths of the line
    "nearest": (0.8, 0.3, (2.4, 2.4)),
    "nearest crowd": (0.8, 0.3, (1.0, 1.6)),
    "other": (0.45, 0.2, (4.0, 3.0)),
    "crowd": (0.45, 0.2, (1.0, 2.2)),
}
_ON_MAP = (0.5, 0.2, (3.0, 3.0))  # the nearest one on a map, which is smaller than a photo


def add(pen: Pen, groups: Sequence[Group], layout: PageLayout) -> None:
    """All annotated boxes on photos; on maps only the one that is nearest to the query's box."""
    sides: dict[tuple[float, float, tuple[float, float]], list[np.ndarray]] = {}
    for panel in layout.panels:
        group = groups[panel.group]
        if panel.row == LOCATOR or not group.truth:
            continue
        on_photo = panel.row == PHOTO
        if not on_photo and group.rows[panel.row].attended is not None:
            continue  # its dashes are boxes of queries
        for one in group.truth:
            if not on_photo and not one.is_nearest:
                continue
            look = _KINDS[one.kind] if on_photo else _ON_MAP
            line = (look[0] + 2 * look[1]) * pen.unit_px
            lines = _sides(one.box_xyxy_px, panel, layout.crop_of(panel), line)
            sides.setdefault(look, []).extend(lines)
    for (width, white, dashes), lines in sides.items():
        # its white lies under the predicted box, its dashes on it: where both are one box, the full
        # line is seen between the dashes
        pen.lines(lines, "#ffffff", width + 2 * white, 4.19)
        more = {"capstyle": "butt", "linestyles": [(0, dashes)]}
        pen.lines(lines, TRUTH_GREEN, width, 4.32, **more)


def _sides(box: Sequence[float], panel: Panel, crop: Crop, line: float) -> list[np.ndarray]:
    """The sides of a box as far as a panel shows them; those on its very edge lie inside."""
    low, high = crop.on_panel(np.reshape(np.asarray(box, np.float64), (2, 2)), 0, 0, panel.hw)
    size, half = np.array([panel.width, panel.height], np.float64), line / 2
    first = np.array([panel.left, panel.top])
    inner_low, inner_high = np.clip(low, half, size - half), np.clip(high, half, size - half)
    if (high < 0).any() or (low > size).any():
        return []
    found = []
    for axis in (0, 1):
        for at, inside in ((low[axis], inner_low[axis]), (high[axis], inner_high[axis])):
            if not -1 <= at <= size[axis] + 1:
                continue  # beyond the view: the box goes on
            ends = np.empty((2, 2))
            ends[:, axis] = inside
            ends[:, 1 - axis] = inner_low[1 - axis], inner_high[1 - axis]
            found.append(ends + first)
    return found
