"""Files of annotated boxes: hand-made ones, with values worked out by hand; COCO by pycocotools."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_viz.common.bounds import raised_by
from detr_viz.common.errors import UserError
from detr_viz.images import collect, marked
from detr_viz.images.collect import Input
from detr_viz.images.onto_picture import load_onto

WIDE, HIGH = 40, 20


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


# ---- COCO ---------------------------------------------------------------------------------------


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


# ---- YOLO ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 .5 .5 .5 .2", [10, 8, 30, 12]),
        ("0 0.5 0.5 0.5 0.2 0.93", [10, 8, 30, 12]),  # a confidence
        ("0.0 0.5 0.5 0.5 0.2", [10, 8, 30, 12]),
        ("0 .25 .1 .75 .1 .75 .6 .5 .9 .25 .6", [10, 2, 30, 18]),  # a polygon
        ("0 .25 .5 .5 .1 .75 .5 .5 .9", [10, 2, 30, 18]),  # the corners of a turned box
        ("0 .5 .5 .5 .2 .4 .4 2", [10, 8, 30, 12]),  # a box with one point
        ("0 .5 .5 0 0", [20, 10, 20, 10]),
    ],
)
@pytest.mark.parametrize("place", ["labels", "beside"])
def test_a_line_of_yolo(line, box, place):
    photo("set/images/a.png")
    wrote("set/labels/a.txt" if place == "labels" else "set/images/a.txt", f"\n{line}\n")
    wrote("set/data.yaml", "names: [cat, dog]\n")
    (image,), notes = expanded("set")
    np.testing.assert_allclose(boxes_of(image), [box], atol=1e-12)
    assert image.annotated.names == ("cat",)
    assert notes[-1].startswith("set: boxes of 1 of 1 images from YOLO files (classes of ")


def test_points_of_yolo_are_known_by_the_data_yaml():
    photo("set/images/a.png")
    wrote("set/labels/a.txt", "1 .5 .5 .5 .2 .9 .9 .95 .95 .99 .99")  # 11 values: box, 3 points
    wrote("set/data.yaml", "names: [cat, dog]\nkpt_shape: [3, 2]\n")
    (image,), _ = expanded("set")
    np.testing.assert_allclose(boxes_of(image), [[10, 8, 30, 12]])
    assert image.annotated.names == ("dog",)


def test_a_yolo_data_set_by_its_data_yaml():
    photo("set/images/val/a.png", "set/images/val/b.png", "set/images/train/c.png")
    wrote("set/labels/val/a.txt", "1 .5 .5 .5 .2\n7 .5 .5 1 1")
    wrote("set/labels/val/b.txt", "")
    wrote("set/labels/train/c.txt", "0 .5 .5 .5 .2")
    names = "names:\n  0: cat\n  1: dog\n"
    for text in (
        "path: ../set\ntrain: images/train\nval: images/val  # 2 images\n",
        'val: "../images/val"\n',
        "val:\n  - images/val\n",
        "val: [images/val]\n",
    ):
        inputs, notes = expanded(wrote("set/data.yaml", text + names))
        assert [Path(i.path).name for i in inputs] == ["a.png", "b.png"], text
        assert inputs[0].annotated.names == ("dog", "class 7")
        assert len(inputs[1].annotated) == 0  # an empty file: an image of the background
        assert notes == [f"{'set/data.yaml'}: boxes of 2 of 2 images from YOLO files"]
    wrote("set/val.txt", "./images/val/a.png\n")
    inputs, _ = expanded(wrote("set/data.yaml", "val: val.txt\n" + names))
    assert [(i.path, len(i.annotated)) for i in inputs] == [("set/./images/val/a.png", 2)]


def test_what_is_no_yolo_data_yaml():
    assert "has no `val:`" in refused(wrote("a.yaml", "names: [cat]\n"))
    assert "are not there" in refused(wrote("b.yaml", "val: nowhere\nnames: [cat]\n"))
    assert "no `names:`" in refused(wrote("c.yaml", "val: .\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a photo of a cat", "line 1 is no YOLO label"),
        ("0 .5 .5 .5", "line 1 is no YOLO label"),
        ("0 .5 .5 .5 .2\n0 10 20 30 40", "line 2 has numbers that are no fractions"),
        ("0 nan .5 .5 .2", "line 1 has numbers that are not finite"),
        ("0 .5 .5 -.5 .2", "line 1 is not read"),
    ],
)
def test_texts_that_are_no_labels_are_noted_and_images_stay(text, words):
    photo("f/a.png", "f/b.png")
    wrote("f/a.txt", text)
    inputs, notes = expanded("f")
    assert [i.annotated for i in inputs] == [None, None]
    assert f"f: 1 .txt file beside images is no YOLO annotation (f/a.txt: {words}" in notes[-1]
    assert words in refused("f/a.png", annotations="f/a.txt")


def test_one_bad_label_of_several_is_noted():
    photo("f/a.png", "f/b.png")
    wrote("f/a.txt", "0 .5 .5 .5 .2")
    wrote("f/b.txt", "what")
    inputs, notes = expanded("f")
    assert [i.annotated is None for i in inputs] == [False, True]
    assert "boxes of 1 of 2 images from YOLO files (without names of classes)" in notes[-2]
    assert notes[-1].startswith("f: 1 of these files not read: f/b.txt: line 1")
    assert inputs[0].annotated.names == ("class 0",)


# ---- Pascal VOC ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("layout", ["voc", "beside", "one"])
def test_pascal_voc(layout):
    """The whole image is 1..40, 1..20 there, and 0..40, 0..20 as edges."""
    content = voc(("cat", 0, (1, 1, WIDE, HIGH)), ("dog", 1, (3, 4, 5, 6)))
    photo("d/JPEGImages/a.png", "d/JPEGImages/b.png")
    places = {"voc": ("d", "d/Annotations/a.xml"), "beside": ("d", "d/JPEGImages/a.xml")}
    word, path = places.get(layout, ("d/Annotations/a.xml", "d/Annotations/a.xml"))
    wrote(path, content)
    if layout == "voc":
        photo("d/SegmentationClass/a.png")  # a mask, no photo
    inputs, notes = expanded(word)
    found = ["a.png"] if layout == "one" else ["a.png", "b.png"]
    assert [Path(i.path).name for i in inputs] == found
    assert boxes_of(inputs[0]) == [[0, 0, WIDE, HIGH], [2, 3, 5, 6]]
    assert inputs[0].annotated.names == ("cat", "dog")
    assert inputs[0].annotated.crowd.tolist() == [False, True]
    if layout != "one":
        assert inputs[1].annotated is None
        words = "d: boxes of 1 of 2 images from Pascal VOC files (pixels from 1)"
        assert notes[-1] == words
    assert collect.is_single([word]) == (layout == "one")


@pytest.mark.parametrize("other", [(0, 4, 5, 6), (1.5, 4, 5, 6)])
def test_voc_files_that_count_from_0_are_taken_as_edges(other):
    photo("d/a.png", "d/b.png")
    wrote("d/a.xml", voc(("cat", 0, (3, 4, 5, 6))))
    wrote("d/b.xml", voc(("cat", 0, other)))
    inputs, notes = expanded("d")
    assert [boxes_of(i) for i in inputs] == [[[3, 4, 5, 6]], [list(other)]]
    assert notes[-1].endswith("(pixels from 0)")


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
OUTSIDE = (
    '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]>'
    "<annotation><filename>&f;</filename></annotation>"
)


@pytest.mark.parametrize("text", [BOMB, OUTSIDE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(text, encoding):
    photo("d/a.png", "d/b.png")
    wrote("d/b.xml", voc(("cat", 0, (3, 4, 5, 6))))
    Path("d/a.xml").write_bytes(text.encode(encoding))
    inputs, notes = expanded("d")
    assert inputs[0].annotated is None and len(inputs[1].annotated) == 1
    assert "DOCTYPE" in notes[-1]
    assert "DOCTYPE" in refused("d/a.xml")


@pytest.mark.parametrize("text", ["<svg/>", "<annotation>", "", "no xml", "<a><b/></a>"])
def test_xml_that_is_no_voc_is_noted(text):
    photo("d/a.png")
    wrote("d/a.xml", text)
    (image,), notes = expanded("d")
    assert image.annotated is None
    assert "no Pascal VOC annotation" in notes[-1]
    assert "d/a.xml" in refused("d/a.png", annotations="d/a.xml")


def test_files_beyond_their_bounds_are_not_read(monkeypatch):
    from detr_viz.images import label_files

    photo("d/a.png")
    wrote("d/a.xml", voc(("cat", 0, (3, 4, 5, 6))))
    monkeypatch.setattr(label_files, "LABEL_BYTES", 100)
    (image,), notes = expanded("d")
    assert image.annotated is None and "larger than" in notes[-1]


# ---- LabelMe ------------------------------------------------------------------------------------


def shape(kind, points, label="cat", **more):
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def labelme(*shapes, path="a.png"):
    return {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": path} | {
        "imageData": "x" * 70_000,
        "imageHeight": HIGH,
        "imageWidth": WIDE,
    }


def test_labelme():
    photo("a.png")
    content = labelme(
        shape("rectangle", [[30, 12], [10, 8]]),  # from its last corner to its first
        shape("polygon", [[3, 4], [9, 5], [6, 11]], "dog"),
        shape("circle", [[20, 10], [23, 14]]),  # radius 5
        shape("point", [[1, 1]]),
        shape("polygon", [[0, 0], [4, 0], [4, 4]], "cow", group_id=1),
        shape("polygon", [[8, 8], [9, 8], [9, 12]], "cow", group_id=1),
        shape("mask", [[2, 3], [6, 7]], flags={"difficult": True}),
    )
    word = wrote("a.json", content)
    assert collect.is_single([word])
    (image,), _ = expanded(word)
    assert (image.path, image.name) == ("a.png", "a")
    assert boxes_of(image) == [
        *([10, 8, 30, 12], [3, 4, 9, 11], [15, 5, 25, 15], [0, 0, 9, 12], [2, 3, 6, 7]),
    ]
    assert image.annotated.names == ("cat", "dog", "cat", "cow", "cat")
    assert image.annotated.crowd.tolist() == [False] * 4 + [True]
    (image,), notes = expanded(".")
    assert len(image.annotated) == 5
    assert notes[-1] == (
        ".: boxes of 1 of 1 images from LabelMe files (1 object without a box left out)"
    )


def test_labelme_with_its_pixels_first():
    """Sorted keys have a long imageData before the shapes."""
    photo("a.png")
    content = labelme(shape("rectangle", [[1, 2], [3, 4]]))
    keys = ["imageHeight", "imageData", "imageWidth", "imagePath", "shapes"]
    (image,), _ = expanded(wrote("a.json", {key: content[key] for key in keys}))
    assert boxes_of(image) == [[1, 2, 3, 4]]


def test_files_that_were_of_use_are_not_left_out():
    photo("d/a.png", "d/b.png")
    wrote("d/a.xml", voc(("cat", 0, (3, 4, 5, 6))))
    wrote("d/b.xml", "what")
    wrote("d/readme.md", "")
    _, notes = expanded("d")
    assert notes[0] == "d: left out 2 files: 2 are not images (.md, .xml)"
    assert notes[1] == "d: boxes of 1 of 2 images from Pascal VOC files (pixels from 1)"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as POSIX has them")
def test_a_pipe_is_not_opened():
    photo("d/a.png", "d/b.png")
    wrote("d/b.txt", "0 .5 .5 .5 .2")
    os.mkfifo("d/a.txt")
    inputs, notes = expanded("d")
    assert [i.annotated is None for i in inputs] == [True, False]
    assert "it is a pipe, not a regular file" in notes[-1]
    assert "it is a pipe" in refused("d/b.png", annotations="d/a.txt")
    os.mkfifo("c.json")
    assert "it is a pipe" in refused("d/b.png", annotations="c.json")


@pytest.mark.parametrize("path", ["..\\photos\\a.png", "../photos/a.png", "C:\\x\\a.png"])
def test_the_image_of_a_labelme_file(path):
    photo("photos/a.png", "marks/a.png") if path[0] == "C" else photo("photos/a.png")
    word = wrote("marks/1.json", labelme(shape("rectangle", [[1, 2], [3, 4]]), path=path))
    (image,), _ = expanded(word)
    assert image.path == ("marks/a.png" if path[0] == "C" else "photos/a.png")


@pytest.mark.parametrize(
    "bad", [shape("circle", [[1, 2]]), shape("polygon", [["a", 2], [3, 4]]), {"points": 3}]
)
def test_bad_shapes(bad):
    photo("a.png")
    line = refused(wrote("a.json", labelme(bad)))
    assert line.startswith("a.json: shape 0") and "a.json" in line


# ---- --annotations ------------------------------------------------------------------------------


def test_annotations_apart_from_the_images():
    photo("val/a.png", "val/b.png", "val/c.png")
    images = [{"id": i, "file_name": f"x/val/{n}.png"} for i, n in ((1, "a"), (2, "b"))]
    wrote("ann/instances.json", coco([one(), one((0, 0, 3, 3), image_id=2)], images))
    inputs, notes = expanded("val", annotations="ann/instances.json")
    assert [i.annotated and i.annotated.boxes_xyxy_px.tolist() for i in inputs] == [
        *([[1, 2, 11, 7]], [[0, 0, 3, 3]], None),
    ]
    assert notes == ["--annotations ann/instances.json: boxes of 2 of 3 images from a COCO file"]
    (image,), _ = expanded("val/b.png", annotations="ann/instances.json")
    assert image.annotated.boxes_xyxy_px.tolist() == [[0, 0, 3, 3]]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".txt", "0 .5 .5 .5 .2"),
        (".xml", voc(("cat", 0, (11, 9, 30, 12)))),
        (".json", labelme(shape("rectangle", [[10, 8], [30, 12]]))),
    ],
)
def test_folders_of_annotations_apart(suffix, content):
    photo("in/one/a.png", "in/two/a.png", "in/b.png")
    wrote(f"ann/two/a{suffix}", content)
    text = content if isinstance(content, str) else json.dumps(content)
    wrote(f"ann/one/a{suffix}", text)
    inputs, notes = expanded("in", annotations="ann")
    found = {i.path: i.annotated for i in inputs}
    assert found["in/b.png"] is None
    assert Path(found["in/one/a.png"].source) == Path(f"ann/one/a{suffix}")
    assert boxes_of(inputs[-1]) == [[10, 8, 30, 12]]
    assert "boxes of 2 of 3 images" in notes[-1]
    (image,), _ = expanded("in/b.png", annotations=f"ann/one/a{suffix}")  # one file, one image
    assert boxes_of(image) == [[10, 8, 30, 12]]


def test_pairs_that_are_not_sure_are_refused():
    photo("in/one/a.png", "in/two/a.png")
    wrote("ann/a.txt", "0 .5 .5 .5 .2")
    assert "may be about in/one/a.png or in/two/a.png" in refused("in", annotations="ann")
    wrote("ann/x/a.txt", "0 .5 .5 .5 .2")
    assert "may both be about" in refused("in/one/a.png", annotations="ann")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("nowhere", "no file or folder at --annotations nowhere"),
        ("a.png", "give a COCO .json"),
        ("empty", "has nothing about a.png"),
        ("bad.json", "is not JSON"),
        ("bare.json", "has no annotations"),
    ],
)
def test_annotations_that_are_none(word, words):
    photo("a.png")
    Path("empty").mkdir()
    wrote("bad.json", "{")
    wrote("bare.json", {"images": [{"id": 1, "file_name": "a.png"}]})
    assert words in refused("a.png", annotations=word)


def test_a_later_word_brings_the_boxes_of_an_image_that_had_none():
    photo("a.png")
    inputs, _ = expanded("a.png", wrote("a.json", coco([one()])))
    assert [len(i.annotated) for i in inputs] == [1]


# ---- globox -------------------------------------------------------------------------------------


def test_without_globox_images_stay_and_a_line_says_what_to_install(monkeypatch):
    photo("d/a.png")
    wrote("d/a.txt", "0 .5 .5 .5 .2")
    monkeypatch.setattr(marked.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "globox", None)
    (image,), notes = expanded("d/*.png")
    assert image.annotated is None
    assert notes[-1].endswith('not read for boxes: pip install "detr-viz[annotations]"')
    line = refused("d/a.png", annotations="d/a.txt")
    assert line.endswith('pip install "detr-viz[annotations]"')


def test_coco_needs_no_globox(monkeypatch):
    photo("a.png")
    monkeypatch.setitem(sys.modules, "globox", None)
    (image,), _ = expanded(wrote("a.json", coco([one()])))
    assert len(image.annotated) == 1


# ---- the library --------------------------------------------------------------------------------


def test_load_annotated():
    from detr_viz import load_annotated

    photo("images/a.png", "images/b.png")
    wrote("labels/a.txt", "0 .5 .5 .5 .2")
    np.testing.assert_allclose(
        load_annotated("images/a.png").annotated.boxes_xyxy_px, [[10, 8, 30, 12]]
    )
    assert load_annotated("images/b.png").annotated is None
    content = coco(
        [one()], [{"id": 1, "file_name": "a.png", "width": 2 * WIDE, "height": 2 * HIGH}]
    )
    picture = load_annotated(Path("images/a.png"), wrote("c.json", content))
    assert picture.annotated.boxes_xyxy_px.tolist() == [[0.5, 1, 5.5, 3.5]]
    assert "scaled from 80 x 40 to 40 x 20" in picture.notes[-1]
    with pytest.raises(UserError, match="not one image"):
        load_annotated("images")
    with pytest.raises(UserError, match="has nothing about"):
        load_annotated("images/b.png", "labels")
