"""Pictures and files of annotated boxes, as tests write them into the working directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from detr_viz.common.errors import UserError
from detr_viz.images import collect
from detr_viz.images.collect import Input
from detr_viz.images.onto_picture import load_onto

WIDE, HIGH = 40, 20


def photo(*paths, size=(WIDE, HIGH)):
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)


def wrote(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def expanded(*words, **more):
    """(images, notes)"""
    notes = []
    return collect.expand(words, notes=notes, **more), notes


def refused(*words, **more):
    with pytest.raises(UserError) as caught:
        collect.expand(words, **more)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    return line


def boxes_of(image: Input):
    """As pixels of the picture that is read."""
    return load_onto(image.path, image.annotated).annotated.boxes_xyxy_px.tolist()


def coco(annotations, images=None, categories=(("1", "cat"),), **more):
    images = images or [{"id": 1, "file_name": "a.png", "width": WIDE, "height": HIGH}]
    named = [{"id": int(n), "name": name} for n, name in categories]
    return {"images": images, "annotations": annotations, "categories": named, **more}


def one(box=(1, 2, 10, 5), **more):
    return {"id": 7, "image_id": 1, "category_id": 1, "bbox": list(box), "iscrowd": 0, **more}


def voc(*objects, size=(WIDE, HIGH), name="a.png"):
    parts = [
        f"<object><name>{name}</name><pose>x</pose><difficult>{hard}</difficult>"
        f"<bndbox><ymin>{y0}</ymin><xmin>{x0}</xmin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
        "</bndbox></part></object>"
        for name, hard, (x0, y0, x1, y1) in objects
    ]
    wide, high = size
    return (
        f"<annotation><filename>{name}</filename><size><width>{wide}</width><height>{high}</height>"
        f"<depth>3</depth></size>{''.join(parts)}</annotation>"
    )


def shape(kind, points, label="cat", **more):
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def labelme(*shapes, path="a.png"):
    return {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": path} | {
        "imageData": "x" * 70_000,
        "imageHeight": HIGH,
        "imageWidth": WIDE,
    }
