"""PNG files written here, read by Pillow."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from detr_viz.demo.shapes import scene
from detr_viz.figures.page.png import write_png


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


def ramp(axis: int) -> np.ndarray:
    """Smooth along one axis: each filter has one that it is good at."""
    x = np.linspace(0, 255, 300).astype(np.uint8)
    rows = np.repeat(x[:, None], 300, 1)
    rows = (rows + np.random.default_rng(1).integers(0, 256, 300, np.uint8)).astype(np.uint8)
    return np.repeat((rows if axis else rows.T)[..., None], 3, -1)


PICTURES = {
    "one pixel": noise(1, 1),
    "one row": noise(1, 77),
    "one column": noise(300, 1),
    "more than one band": noise(129, 20),
    "white": np.full((260, 31, 3), 255, np.uint8),
    "across": ramp(0),
    "down": ramp(1),
    "a scene": scene(3, 200).rgb,
}


@pytest.mark.parametrize("name", PICTURES)
def test_pillow_reads_the_same_pixels(name, tmp_path):
    pixels = PICTURES[name]
    wide = np.dstack([pixels, pixels[..., :1]])[..., :3]  # not in one piece, like a canvas
    write_png(tmp_path / "a.png", wide, 220)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), pixels)
    with Image.open(tmp_path / "a.png") as picture:
        picture.verify()  # the checksums of all chunks


def test_texts_and_density(tmp_path):
    facts = {"Title": "DETR", "Description": "Köln, 東京", "Recipe": "a1 " * 300}
    write_png(tmp_path / "a.png", noise(4, 5), 335, facts)
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.text == facts
        assert picture.info["dpi"] == pytest.approx((335, 335), rel=1e-4)


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_png(tmp_path / name, PICTURES["a scene"], 220, {"Title": "x"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["across", "down", "a scene", "white"])
def test_files_are_no_larger_than_pillows(name, tmp_path):
    pixels = PICTURES[name]
    write_png(tmp_path / "a.png", pixels, 220)
    theirs = io.BytesIO()
    Image.fromarray(pixels).save(theirs, "png", compress_level=2)
    assert (tmp_path / "a.png").stat().st_size <= 1.1 * len(theirs.getvalue()) + 200
    unfiltered = len(zlib.compress(pixels.tobytes(), 2))
    assert name == "white" or (tmp_path / "a.png").stat().st_size < unfiltered
