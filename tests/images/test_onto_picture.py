"""Boxes follow the picture: EXIF turns, copies of another size. A painted rectangle says where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from detr_viz.images.annotated import Annotated
from detr_viz.images.onto_picture import load_onto, onto_picture, turned
from detr_viz.images.read import load_image

WIDE, HIGH = 120, 80
BOX = (10, 20, 50, 30)  # of the stored pixels


def stored(path, orientation, size=(WIDE, HIGH), box=BOX):
    """A white picture with a black rectangle, whose file says how it is to be turned."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return str(path)


def annotated(box=BOX, of_hw=(HIGH, WIDE)):
    return Annotated.of_boxes([box], ["cat"], [False], "instances.json", of_hw)


def painted(rgb):
    """The bounds of what is dark."""
    y, x = np.nonzero(rgb[..., 0] < 128)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_follows_what_pillow_does(tmp_path, orientation):
    path = stored(tmp_path / "a.png", orientation)
    boxes = turned(np.array([BOX], np.float64), (HIGH, WIDE), orientation)
    assert boxes[0].tolist() == painted(load_image(path).rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_stored_pixels_are_turned_with_the_picture(tmp_path, orientation, suffix):
    path = stored(tmp_path / f"a.{suffix}", orientation)
    picture = load_onto(path, annotated())
    assert picture.hw == (WIDE, HIGH)
    np.testing.assert_allclose(
        picture.annotated.boxes_xyxy_px[0], painted(picture.rgb), atol=1.5 if suffix == "jpg" else 0
    )
    note = f"its annotated boxes are turned with the picture (EXIF orientation {orientation})"
    assert picture.notes[-1] == note


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_upright_size_are_taken_as_they_are(tmp_path, orientation):
    path = stored(tmp_path / "a.png", orientation)
    upright = load_image(path)
    picture = load_onto(path, annotated(of_hw=upright.hw))
    assert picture.annotated.boxes_xyxy_px.tolist() == [list(BOX)]
    assert picture.notes == upright.notes


def test_no_size_is_that_of_the_upright_picture_and_fractions_are_of_it(tmp_path):
    path = stored(tmp_path / "a.png", 6)
    assert load_onto(path, annotated(of_hw=None)).annotated.boxes_xyxy_px[0].tolist() == [*BOX]
    shares = annotated((0.25, 0.5, 0.75, 1), (1.0, 1.0))
    assert load_onto(path, shares).annotated.boxes_xyxy_px[0].tolist() == [20, 60, 60, 120]


@pytest.mark.parametrize(("factor", "words"), [(2, "120 x 80 to 240 x 160"), (0.5, "to 60 x 40")])
def test_a_resized_copy_has_scaled_boxes(tmp_path, factor, words):
    size, box = (int(WIDE * factor), int(HIGH * factor)), [int(x * factor) for x in BOX]
    picture = load_onto(stored(tmp_path / "a.png", 1, size, box), annotated())
    assert picture.annotated.boxes_xyxy_px[0].tolist() == painted(picture.rgb)
    assert words in picture.notes[-1]


def test_a_resized_copy_with_rounded_sides(tmp_path):
    """6000 x 4000 became 500 x 333."""
    path = stored(tmp_path / "a.png", 1, (500, 333), (1, 1, 9, 9))
    picture = load_onto(path, annotated((600, 400, 1200, 4000), (4000, 6000)))
    np.testing.assert_allclose(picture.annotated.boxes_xyxy_px[0], [50, 33.3, 100, 333])


def test_a_resized_copy_that_exif_turned(tmp_path):
    size, box = (2 * WIDE, 2 * HIGH), [2 * x for x in BOX]
    picture = load_onto(stored(tmp_path / "a.png", 6, size, box), annotated())
    assert picture.annotated.boxes_xyxy_px[0].tolist() == painted(picture.rgb)
    assert "scaled from 120 x 80 to 240 x 160 and turned" in picture.notes[-1]


@pytest.mark.parametrize("of_hw", [(WIDE, HIGH), (HIGH, HIGH), (HIGH, WIDE + 4)])
def test_boxes_of_another_shape_are_left_out(tmp_path, of_hw):
    """Also of the transposed shape, where EXIF has turned nothing."""
    path = stored(tmp_path / "a.png", 1)
    picture = load_onto(path, annotated(of_hw=of_hw))
    assert picture.annotated is None
    assert "left out: instances.json has them for an image of" in picture.notes[-1]
    assert picture.unplaced == annotated(of_hw=of_hw).digest


def test_without_a_file_the_picture_stays_as_it_is(tmp_path):
    picture = load_image(stored(tmp_path / "a.png", 1))
    assert onto_picture(picture, None) is picture
    hand = replace(picture, annotated=annotated(of_hw=None))
    assert onto_picture(hand, None).annotated is hand.annotated


def test_the_digest_is_that_of_what_the_file_states(tmp_path):
    path = stored(tmp_path / "a.png", 6)
    stated = annotated()
    assert load_onto(path, stated).annotated.digest == stated.digest
    others = [annotated((10, 20, 50, 31)), annotated(of_hw=(WIDE, HIGH)), annotated(of_hw=None)]
    others += [replace(stated, names=("dog",)), replace(stated, crowd=np.array([True]))]
    assert len({one.digest for one in [stated, *others]}) == 1 + len(others)
    assert replace(stated, source="moved/b.json").digest == stated.digest
