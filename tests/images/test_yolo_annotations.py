"""Annotated boxes of YOLO files: hand-made ones, with values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotation_tools import boxes_of, expanded, photo, refused, wrote

pytestmark = pytest.mark.usefixtures("here")


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
