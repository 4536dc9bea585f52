"""The data.yaml of a YOLO data set: where the images of its val split lie, and its classes.

path: ../datasets/coco8
val: images/val             a folder, a list of images (.txt), or several of them
names: [cat, dog]
"""

from __future__ import annotations

import os
import re

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.annotated import Annotated
from detr_viz.images.label_files import beside
from detr_viz.images.lists import from_list
from detr_viz.images.search import NamedPaths, search_images
from detr_viz.images.text_files import LABEL_BYTES, read_bytes
from detr_viz.images.yolo_labels import YoloClasses

_ITEM = re.compile(r"""\s*-\s+(.+)""")


def from_yaml(path: str, notes: list[str]) -> tuple[NamedPaths, list[Annotated | None]]:
    """(path, name) of the images of the val split, and their objects. UserError for none."""
    title = path_text(path)
    try:
        text = read_bytes(path, title, LABEL_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{title} is no text: give the data.yaml of a YOLO data set") from None
    places = _values(text, "val")
    if not places:
        raise UserError(f"{title} has no `val:`, the folder of its images: name that folder itself")
    try:
        classes = YoloClasses.of_file(path)
    except ValueError as error:
        raise UserError(f"{title} {error}") from None
    images: NamedPaths = []
    for place in places:
        file = _found(place, path, _values(text, "path"))
        if file is None:
            raise UserError(
                f"{title}: its val images, {path_text(place)}, are not there: name that folder"
            )
        if os.path.isdir(file):
            found, _, left_out = search_images(file, "folder", None)
            notes += [left_out] if left_out else []
        else:
            found = from_list(file, os.path.dirname(file), notes)
        images += found
    annotated = beside([file for file, _ in images], path, notes, classes)
    return images, annotated


def _found(place: str, yaml: str, root: list[str]) -> str | None:
    """A folder or a list of the data set, where it lies on this machine; None: nowhere."""
    here = os.path.dirname(yaml)
    tops = [os.path.join(here, root[0]), root[0], here] if root else [here]
    # some exports say ../valid/images for a folder beside the file
    forms = [place, place[3:]] if place.startswith("../") else [place]
    tried = [os.path.join(top, form) for top in tops for form in forms]
    return next((os.path.normpath(one) for one in tried if os.path.exists(one)), None)


def _values(text: str, key: str) -> list[str]:
    """One value of a key at the start of a line, or several, inline or as a block."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if not re.match(rf"{key}\s*:", line):
            continue
        rest = _plain(line.partition(":")[2])
        if rest.startswith("[") and rest.endswith("]"):
            return [value for one in rest[1:-1].split(",") if (value := _plain(one))]
        if rest:
            return [rest]
        found = []
        for below in lines[i + 1 :]:
            if (item := _ITEM.match(below)) is None:
                break
            found.append(_plain(item[1]))
        return found
    return []


def _plain(text: str) -> str:
    """Without a comment and quotes."""
    text = re.split(r"(?:^|\s)#", text)[0].strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
