"""YOLO's text files: a line an object, class and numbers as fractions of the image.

    0 .5 .5 .2 .4               a box: class, centre, size; a sixth number is a confidence
    0 .1 .1 .9 .1 .9 .9 .1 .9   a polygon, or the corners of a turned box: its bounds
    0 .5 .5 .2 .4 .3 .3 2 ...   a box with points: the box

https://docs.ultralytics.com/datasets/
"""

from __future__ import annotations

import math
import os
import re

from detr_viz.common.yaml_names import looks_like_yaml, names_of_yaml
from detr_viz.images.annotated import WHOLE
from detr_viz.images.coco_objects import checked_name
from detr_viz.images.marked import Box, Marked, box_by, checked
from detr_viz.images.text_files import LABEL_BYTES, read_bytes

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_UP = 3  # folders above a file of labels in which its classes are looked for
_FURTHEST = 2.0  # fractions beyond are pixels


def read_yolo(data: bytes, classes: YoloClasses) -> Marked:
    """The objects of a .txt file; ValueError says which line is no YOLO label."""
    from globox import BoundingBox

    boxes: list[Box] = []
    names = []
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1):
        if not (words := line.split()):
            continue
        what = f"line {number}"
        count = _values(words, what)
        if (classes.points or len(words) % 2 == 0) and len(words) > 6:
            words, count = words[:5], 5
        values = " ".join(words)
        if count <= 6:
            values = " ".join(words[:5])
            box = box_by(BoundingBox.from_yolo_v5, values, what, image_size=(1, 1))
        else:
            box = box_by(BoundingBox.from_yolo_seg, values, what, image_size=(1, 1))
        boxes.append(box)
        names.append(classes.name(int(float(words[0]))))
    return Marked(checked(boxes), tuple(names), (False,) * len(boxes), WHOLE)


def _values(words: list[str], what: str) -> int:
    """How many there are; ValueError where they are no label."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{what} is no YOLO label (a class number, then fractions)") from None
    if len(values) < 5 or not values[0].is_integer() or not 0 <= values[0] < 1e6:
        raise ValueError(f"{what} is no YOLO label (a class number, then at least 4 fractions)")
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"{what} has numbers that are not finite")
    if any(abs(v) > _FURTHEST for v in values[1:5]):
        raise ValueError(f"{what} has numbers that are no fractions of the image")
    return len(values)


class YoloClasses:
    """The names of classes by number. points: whether labels have points after the box."""

    def __init__(self, names: dict[int, str] | None = None, points: bool = False) -> None:
        self._names, self.points = names or {}, points

    def name(self, number: int) -> str:
        return self._names.get(number, f"class {number}")

    @classmethod
    def of_file(cls, path: str) -> YoloClasses:
        """From a data.yaml, or from plain lines; UserError or ValueError where it is damaged."""
        text = read_bytes(path, path, LABEL_BYTES).decode("utf-8-sig")
        if path.lower().endswith((".yaml", ".yml")) or looks_like_yaml(text):
            names = names_of_yaml(text)
        else:
            lines = text.strip("\r\n").splitlines()
            names = {i: line.strip() for i, line in enumerate(lines)}
        points = re.search(r"^kpt_shape[ ]*:", text, re.MULTILINE) is not None
        return cls({i: checked_name(name, path) for i, name in names.items()}, points)

    @classmethod
    def near(cls, folder: str) -> tuple[YoloClasses, str]:
        """Of the first file of classes in a folder or above, and its path; none and ""."""
        folder = os.path.abspath(folder)
        for _ in range(_UP):
            for name in CLASS_FILES:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    return cls.of_file(path), path
            folder = os.path.dirname(folder)
        return cls(), ""
