"""LabelMe's JSON files, one an image: rectangles, polygons, circles and masks, with their bounds.

Points and lines have no area and are left out. Shapes of one class and one group_id are one object.
"""

from __future__ import annotations

import json
import math
from typing import Any

from detr_viz.images.coco_objects import checked_name, size_of
from detr_viz.images.marked import Box, Marked, box_by, checked

_AREAS = ("rectangle", "polygon", "circle", "mask", "rotation", "oriented_rectangle")
_CROWDS = ("difficult", "crowd", "iscrowd", "ignore")  # flags of a shape


def read_labelme(data: bytes) -> tuple[Marked, str]:
    """The objects of a file and the path of its image; ValueError for what is no LabelMe file."""
    from globox import BoundingBox

    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({str(error)[:80]})") from None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise ValueError('it is no LabelMe file (it has no list of "shapes")')
    boxes: dict[object, Box] = {}
    names: dict[object, str] = {}
    crowd: dict[object, bool] = {}
    left_out = 0
    for i, shape in enumerate(shapes):
        if not isinstance(shape, dict) or shape.get("shape_type", "polygon") not in _AREAS:
            left_out += 1
            continue
        name = str(shape.get("label") or "object")
        what = f"shape {i} ({name[:40]})"
        box = box_by(BoundingBox.from_labelme, _cornered(shape, what) | {"label": name}, what)
        group = shape.get("group_id")
        key = i if group is None else (name, str(group))
        if key in boxes:
            old = boxes[key]
            box = *map(min, old[:2], box[:2]), *map(max, old[2:], box[2:])  # type: ignore
        boxes[key], names[key] = box, checked_name(name, "the file")
        crowd[key] = crowd.get(key, False) or _is_crowd(shape)
    size = size_of(content.get("imageWidth"), content.get("imageHeight"))
    path = content.get("imagePath")
    marked = Marked(
        checked([*boxes.values()]), (*names.values(),), (*crowd.values(),), size, left_out
    )
    return marked, path if isinstance(path, str) else ""


def _cornered(shape: dict[str, Any], what: str) -> dict[str, Any]:
    """The shape itself; a circle, of its middle and a point on it, as its bounds."""
    if shape.get("shape_type") != "circle":
        return shape
    try:
        (x, y), (to_x, to_y) = shape["points"]
        r = math.hypot(to_x - x, to_y - y)
        return {"points": [[x - r, y - r], [x + r, y + r]]}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{what} is no circle of two points") from None


def _is_crowd(shape: dict[str, Any]) -> bool:
    flags = shape.get("flags")
    own = flags if isinstance(flags, dict) else {}
    return any(own.get(flag) is True or shape.get(flag) is True for flag in _CROWDS)
