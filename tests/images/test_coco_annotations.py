"""Annotated boxes of COCO files: hand-made ones, with values worked out by hand; pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from annotation_tools import HIGH, WIDE, boxes_of, coco, expanded, one, photo, refused, wrote

from detr_viz.common.bounds import raised_by

pytestmark = pytest.mark.usefixtures("here")


def test_a_coco_file_has_what_pycocotools_reads():
    from pycocotools.coco import COCO

    rng = np.random.default_rng(3)
    images = [
        {"id": 10 * i + 3, "file_name": f"{i}.png", "width": WIDE, "height": HIGH} for i in range(6)
    ]
    photo(*(image["file_name"] for image in images))
    annotations = []
    for k in rng.permutation(40):
        low, size = rng.uniform(0, 10, 2), rng.uniform(0, 9, 2)
        image = images[rng.integers(0, 5)]["id"]  # the last has none
        box = [*low.tolist(), *size.tolist()]
        crowd, name = int(rng.random() < 0.2), int(rng.integers(1, 4))
        annotations.append(
            {"id": int(k) + 1, "image_id": image, "bbox": box, "category_id": name}
            | {"iscrowd": crowd, "segmentation": [[1, 2, 3, 4, 5, 6]], "area": 3.0}
        )
    names = [("1", "cat"), ("2", "dog"), ("3", "traffic light")]
    path = wrote("instances.json", coco(annotations, images, names))
    inputs, notes = expanded(path)
    theirs = COCO(path)
    assert notes == []
    assert [len(image.annotated) for image in inputs][-1] == 0
    total = 0
    for image, entry in zip(inputs, images, strict=True):
        known = theirs.loadAnns(theirs.getAnnIds(imgIds=[entry["id"]]))
        own = image.annotated
        by_id = {one["id"]: one for one in known}
        assert sorted(own.ids) == sorted(by_id)
        for i, number in enumerate(own.ids):
            x, y, w, h = by_id[number]["bbox"]
            assert own.boxes_xyxy_px[i].tolist() == [x, y, x + w, y + h]
            assert own.names[i] == theirs.cats[by_id[number]["category_id"]]["name"]
            assert own.crowd[i] == bool(by_id[number]["iscrowd"])
        total += len(own)
    assert total == 40


@pytest.mark.parametrize(
    ("content", "boxes", "names"),
    [
        (coco([one()]), [[1, 2, 11, 7]], ("cat",)),
        (coco([one((1.5, 2.25, 10, 5.5))]), [[1.5, 2.25, 11.5, 7.75]], ("cat",)),
        (coco([one((3, 4, 0, 0))]), [[3, 4, 3, 4]], ("cat",)),  # of no area, as COCO evaluates it
        (coco([one((-3, 4, 90, 2))]), [[-3, 4, 87, 6]], ("cat",)),  # beyond the image
        (coco([one(category_id=17)]), [[1, 2, 11, 7]], ("category 17",)),
        (
            coco([one(image_id="1"), one((0, 0, 2, 2), image_id=1.0)]),
            [[1, 2, 11, 7], [0, 0, 2, 2]],
            ("cat", "cat"),
        ),
        (
            coco([one(image_id="x1")], [{"id": "x1", "file_name": "a.png"}]),  # no size
            [[1, 2, 11, 7]],
            ("cat",),
        ),
        (
            coco([{"image_id": 1, "category_id": 1, "segmentation": [[3, 4, 9, 5, 6, 11]]}]),
            [[3, 4, 9, 11]],
            ("cat",),
        ),
        (  # LVIS
            coco(
                [one()],
                [
                    {"id": 1, "coco_url": "http://x/val/a.png", "width": WIDE, "height": HIGH}
                    | {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
                ],
            ),
            [[1, 2, 11, 7]],
            ("cat",),
        ),
        (  # two entries of one file
            coco(
                [one(), one((5, 5, 2, 2), image_id=2)],
                [{"id": i, "file_name": "a.png", "width": WIDE, "height": HIGH} for i in (1, 2)],
            ),
            [[1, 2, 11, 7], [5, 5, 7, 7]],
            ("cat", "cat"),
        ),
    ],
)
def test_forms_of_coco(content, boxes, names):
    photo("a.png")
    (image,), _ = expanded(wrote("a.json", content))
    assert boxes_of(image) == boxes
    assert image.annotated.names == names


def test_what_a_coco_file_leaves_out_is_counted():
    photo("a.png")
    mixed = [one(), one((1, 2, -3, 4)), one(image_id=99), one(image_id=98)]
    mixed += [{"id": 4, "image_id": 1, "category_id": 1, "segmentation": {"counts": "abc"}}]
    (image,), notes = expanded(wrote("a.json", coco(mixed)))
    assert len(image.annotated) == 1
    assert notes == [
        "a.json: left out 4 of 5 annotations: 1 without a box, 1 with a negative size, "
        "2 of images that are not listed"
    ]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowds_of_coco(key):
    photo("a.png")
    content = coco([one(**{key: 1}), one(**{key: 0})])
    (image,), _ = expanded(wrote("a.json", content))
    assert image.annotated.crowd.tolist() == [True, False]


@pytest.mark.parametrize("without", [{}, {"annotations": []}])
def test_a_coco_file_without_annotations_has_images_alone(without):
    photo("a.png")
    (image,), notes = expanded(
        wrote("a.json", {"images": [{"id": 1, "file_name": "a.png"}]} | without)
    )
    assert image.annotated is None and notes == []


@pytest.mark.parametrize(
    "box", ["[1, 2, NaN, 4]", "[1, 2, Infinity, 4]", "[1, 2, 3]", '"1 2 3 4"', "[1, 2, null, 4]"]
)
def test_a_box_that_is_no_box_is_refused_by_its_id(box):
    photo("a.png")
    text = json.dumps(coco([one(), one() | {"id": 31, "bbox": "HERE"}])).replace('"HERE"', box)
    assert "bbox of annotation 31 is not four finite numbers" in refused(wrote("a.json", text))


def test_too_many_boxes_of_one_image_and_too_long_names():
    photo("a.png")
    with raised_by(["boxes=2"]):
        assert "has 3 boxes, more than the 2" in refused(wrote("a.json", coco([one()] * 3)))
    named = coco([one()], categories=[("1", "x" * 1001)])
    assert "has 1,001 characters" in refused(wrote("b.json", named))


def test_annotations_take_little_memory():
    """Of a file of 20,000 annotations with polygons no dict is kept."""
    import tracemalloc

    photo("a.png")
    polygon = [[float(i) for i in range(60)]]
    images = [{"id": i, "file_name": "a.png"} for i in range(1, 201)]
    many = [one(image_id=1 + k % 200, segmentation=polygon) for k in range(20_000)]
    path = wrote("a.json", coco(many, images))
    size = Path(path).stat().st_size
    tracemalloc.start()
    (image,), _ = expanded(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(image.annotated) == 20_000
    assert most < 2.8 * size  # bytes and text of the file, and arrays; dicts would be 10 times it
