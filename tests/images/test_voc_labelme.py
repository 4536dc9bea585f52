"""Annotated boxes of Pascal VOC and LabelMe files, with values worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from annotation_tools import (
    HIGH,
    WIDE,
    boxes_of,
    expanded,
    labelme,
    photo,
    refused,
    shape,
    voc,
    wrote,
)

from detr_viz.images import collect

pytestmark = pytest.mark.usefixtures("here")


# ---- Pascal VOC --------------------------------------------------------------------------------


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


# ---- LabelMe -----------------------------------------------------------------------------------


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
