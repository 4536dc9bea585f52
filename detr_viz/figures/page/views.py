"""Views of panels that have a box each: around the boxes that are small in the photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.figures.page.crop import Crop, crop_of
from detr_viz.figures.page.elements import Group, MapRow
from detr_viz.figures.styles import Style

_OF_CELLS = {"around": 0.4, "largest": 0.7}  # narrower views: cells of a small box must be seen
_SLIGHT = 0.5  # of the photo's width: a wider view stands beside other views only
_MOST = 1.6  # times the narrowest view that it replaces is a shared one wide


def views_of(groups: Sequence[Group], style: Style) -> dict[tuple[int, int, int], Crop]:
    """(group, row, head) -> the view of each panel that has a box of its own."""
    return {
        (i, k, head): view
        for i, group in enumerate(groups)
        for k, row in enumerate(group.rows)
        if row.boxes_xyxy_px is not None
        for head, view in enumerate(_of_row(row, group, style))
    }


def _of_row(row: MapRow, group: Group, style: Style) -> list[Crop]:
    """A view of each panel: the whole photo for large boxes, one view for all small ones.

    Small boxes too far apart, or too different, for one view have one each.
    """
    photo_hw = group.photo.shape[:2]
    grid, more = (row.grid, {}) if row.cells is None else (None, _OF_CELLS)
    boxes = [row.box_of(head, group) for head in range(len(row.maps))]
    own = [crop_of(box, photo_hw, grid, style.zoom, **more) for box in boxes]
    if not all(view.is_part for view in own):  # beside the photo a slight view only confuses
        most = _SLIGHT * photo_hw[1]
        own = [view if view.size_hw[1] <= most else Crop.whole(photo_hw) for view in own]
    small = [i for i, view in enumerate(own) if view.is_part]
    if style.name == "heat" and len(small) < len(own):  # without a photo views are not told apart
        return [Crop.whole(photo_hw)] * len(own)
    if style.zoom != "auto" or len(small) < 2:
        return own
    corners = np.array([boxes[i] for i in small])
    around = np.concatenate([corners.min(0)[:2], corners.max(0)[2:]])
    shared = crop_of(around, photo_hw, grid, style.zoom, **more)
    if not shared.is_part or shared.size_hw[1] > _MOST * min(own[i].size_hw[1] for i in small):
        return own
    return [shared if view.is_part else view for view in own]
