"""Files of annotated boxes apart from their images; without globox; for the library."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from annotation_tools import (
    HIGH,
    WIDE,
    boxes_of,
    coco,
    expanded,
    labelme,
    one,
    photo,
    refused,
    shape,
    voc,
    wrote,
)

from detr_viz.common.errors import UserError
from detr_viz.images import marked

pytestmark = pytest.mark.usefixtures("here")


# ---- --annotations -----------------------------------------------------------------------------


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


# ---- globox ------------------------------------------------------------------------------------


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


# ---- the library -------------------------------------------------------------------------------


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
