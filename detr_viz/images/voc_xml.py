"""Pascal VOC's XML files, one an image.

Pixels count from 1 there, and a box ends with its last pixel: left and top are lowered by 1. Tools
that write the same XML with edges, from 0, show it by a 0 or by numbers that are not whole; files
of a folder are judged together. Objects that are `difficult` count as crowds: VOC's evaluation
ignores detections of them.

A document type, which may define entities that grow or name other files, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

from detr_viz.images.coco_objects import checked_name, size_of
from detr_viz.images.marked import Box, Marked, box_by, checked


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses what XML has beyond elements, before it is read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, whose entities are not read: remove it")


def read_voc(data: bytes) -> Marked:
    """The objects of a file, edges as they stand there; ValueError for what is no VOC file."""
    from globox import BoundingBox

    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(data)
        root = parser.close()
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"it is no XML ({str(error)[:80]})") from None
    if root.tag != "annotation":
        raise ValueError(f"it is no Pascal VOC file (<{root.tag[:40]}>, not <annotation>)")
    boxes: list[Box] = []
    names, crowd, left_out = [], [], 0
    for i, node in enumerate(root.findall("object"), 1):
        if node.find("bndbox") is None:
            left_out += 1
            continue
        name = (node.findtext("name") or "").strip() or "object"
        boxes.append(box_by(BoundingBox.from_xml, node, f"object {i} ({name[:40]})"))
        names.append(checked_name(name, "the file"))
        crowd.append((node.findtext("difficult") or "0").strip() not in ("", "0"))
    size = root.find("size")
    of_hw = None if size is None else size_of(_number(size, "width"), _number(size, "height"))
    return Marked(checked(boxes), tuple(names), tuple(crowd), of_hw, left_out)


def counts_from_one(files: Sequence[Marked]) -> bool:
    """Whether pixels count from 1 in these files, as VOC has it."""
    boxes = [box for one in files for box in one.boxes]
    return all(min(box[:2]) >= 1 and all(x.is_integer() for x in box) for box in boxes)


def edges(one: Marked) -> Marked:
    """The boxes of a file that counts from 1, as edges."""
    return replace(one, boxes=tuple((a - 1, b - 1, c, d) for a, b, c, d in one.boxes))


def _number(node: ElementTree.Element, name: str) -> float | None:
    try:
        return float(node.findtext(name) or "")
    except ValueError:
        return None
