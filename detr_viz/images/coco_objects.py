"""The annotations of a COCO file while it is parsed: numbers in arrays, not a dict for each.

kept = CocoObjects(title)
coco = json.loads(data, object_hook=kept.keep)      # images and categories stay dicts
annotated = kept.of_images(coco["images"], coco.get("categories"))

Annotations are most of such a file; of each only its box, its class, its own number and whether it
is a crowd are kept. `ignore` counts as a crowd: detections there are neither right nor wrong.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

_IMAGE = {"images", "file_name", "coco_url"}  # keys of dicts that stay as they are
_SHAPE = {"bbox", "category_id", "segmentation"}
_NO_BOX, _NEGATIVE = "without a box", "with a negative size"


class CocoObjects:
    """Collects what `json.loads` meets; see the module."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._images: dict[str, int] = {}  # id of an image, as text -> its number here
        self._classes: dict[str, int] = {}
        self._of_image, self._of_class = array("q"), array("q")
        self._boxes, self._ids, self._crowd = array("d"), array("q"), bytearray()
        self._left_out = {_NO_BOX: 0, _NEGATIVE: 0}
        self._count = 0

    def keep(self, x: dict[str, Any]) -> Any:
        """For object_hook: the dict itself, what is needed of it, or 0."""
        if "image_id" in x and "file_name" not in x and not x.keys().isdisjoint(_SHAPE):
            self._add(x)
            return 0
        if not x.keys().isdisjoint(_IMAGE):
            return x
        return {"id": x["id"], "name": x["name"]} if "id" in x and "name" in x else 0

    def _add(self, x: dict[str, Any]) -> None:
        self._count += 1
        box = x.get("bbox") or _bounds(x.get("segmentation"))
        if box is None:
            self._left_out[_NO_BOX] += 1
            return
        if not _are_numbers(box, 4):
            raise UserError(
                f"{self._title}: the bbox of annotation {x.get('id', self._count)} is not four "
                f"finite numbers ({str(box)[:60]}): correct it, or leave that annotation out"
            )
        left, top, wide, high = map(float, box)
        if wide < 0 or high < 0:
            self._left_out[_NEGATIVE] += 1
            return
        own, images, classes = x.get("id"), self._images, self._classes
        self._boxes.extend((left, top, left + wide, top + high))
        self._of_image.append(images.setdefault(_key(x["image_id"]), len(images)))
        self._of_class.append(classes.setdefault(_key(x.get("category_id")), len(classes)))
        number = own if type(own) is int and 0 <= own < 2**62 else self._count - 1
        self._ids.append(number)
        self._crowd.append(bool(x.get("iscrowd")) or bool(x.get("ignore")))

    def of_images(
        self, entries: Sequence[dict[str, Any]], categories: object, source: str, notes: list[str]
    ) -> list[Annotated | None]:
        """The objects of each entry of "images", in their order; all None in a file without any.

        source: the file. notes: gets a line where annotations are left out.
        """
        if not self._count:
            return [None] * len(entries)
        import numpy as np

        from detr_viz.images.annotated import Annotated

        names = self._names(categories)
        boxes = np.array(self._boxes, np.float64).reshape(-1, 4)
        crowd = np.array(self._crowd, np.uint8).astype(bool)
        ids, of_class = np.array(self._ids, np.int64), np.array(self._of_class, np.int64)
        of_image = np.array(self._of_image, np.int64)
        order = np.argsort(of_image, kind="stable")
        ends = np.searchsorted(of_image[order], np.arange(len(self._images) + 1))
        found: list[Annotated | None] = []
        known: set[int] = set()
        for entry in entries:
            k = self._images.get(_key(entry.get("id")), -1)
            known.add(k)
            mine = order[ends[k] : ends[k + 1]] if k >= 0 else order[:0]
            if len(mine) > bound("boxes"):
                raise UserError(
                    f"{self._title}: image {entry.get('id')} has {beyond('boxes', len(mine))}"
                )
            own = tuple(names[i] for i in of_class[mine])
            numbers = tuple(ids[mine].tolist())
            size = size_of(entry.get("width"), entry.get("height"))
            found.append(Annotated(boxes[mine], own, crowd[mine], numbers, source, size))
        lost = sum(int(ends[k + 1] - ends[k]) for k in range(len(self._images)) if k not in known)
        parts = [f"{n} {words}" for words, n in self._left_out.items() if n]
        parts += [f"{lost} of images that are not listed"] if lost else []
        if parts:
            total = sum(self._left_out.values()) + lost
            notes.append(
                f"{self._title}: left out {total} of {self._count} annotations: {', '.join(parts)}"
            )
        return found

    def _names(self, categories: object) -> list[str]:
        """The name of each class here."""
        known: dict[str, str] = {}
        for one in categories if isinstance(categories, list) else ():
            if isinstance(one, dict) and "id" in one and "name" in one:
                known[_key(one["id"])] = checked_name(str(one["name"]), self._title)
        unknown = {key: f"category {key}" if key else "object" for key in self._classes}
        return [known.get(key) or unknown[key] for key in self._classes]


def checked_name(name: str, title: str) -> str:
    """The name of a class; UserError for one that is too long."""
    if len(name) > bound("name"):
        raise UserError(f"{title}: the name of a class has {beyond('name', len(name))}")
    return name


def size_of(width: object, height: object) -> tuple[float, float] | None:
    """(height, width) that a file states; None where it states none."""
    if not _are_numbers((width, height), 2):
        return None
    return (float(height), float(width)) if min(width, height) > 0 else None  # type: ignore


def _key(number: object) -> str:
    """An id as text, so that 7, 7.0 and "7" are one; "" for none."""
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return "" if number is None else str(number)[:200]


def _are_numbers(values: object, count: int) -> bool:
    """Whether these are so many finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _bounds(polygons: object) -> list[float] | None:
    """x, y, width, height around polygons [[x0, y0, x1, ...], ...]; None for what is none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    flat = [p for p in polygons if isinstance(p, list) and len(p) >= 6 and _are_numbers(p, len(p))]
    if not flat:
        return None
    low = [min(min(p[axis::2]) for p in flat) for axis in (0, 1)]
    high = [max(max(p[axis::2]) for p in flat) for axis in (0, 1)]
    return [*low, high[0] - low[0], high[1] - low[1]]
