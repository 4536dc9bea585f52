"""Large pictures go through Pillow strip by strip, and come out as if they had gone as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detr_viz.images import large
from detr_viz.images.read import load_image

METHODS = ("BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")


@pytest.fixture
def small_strips(monkeypatch):
    monkeypatch.setattr(large, "_LARGE", 0)
    monkeypatch.setattr(large, "_STRIP", 700)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gap", [None, 1.0, 2.0, 3.0])
def test_resized_as_a_whole(small_strips, method, gap):
    random = np.random.default_rng(5)
    for _ in range(60):
        high, wide = random.integers(1, 130, 2)
        rgb = random.integers(0, 255, (high, wide, 3), np.uint8)
        size = tuple(int(n) for n in random.integers(1, 60, 2))
        box = None
        if random.random() < 0.6:
            x, y = (np.sort(random.random(2)) * side for side in (wide, high))
            box = (x[0], y[0], max(x[1], x[0] + 1e-3), max(y[1], y[0] + 1e-3))
            box = (box[0], box[1], min(box[2], wide), min(box[3], high))
        how = Image.Resampling[method]
        whole = np.asarray(Image.fromarray(rgb).resize(size, how, box, gap))
        np.testing.assert_array_equal(large.resized(rgb, size, how, box, gap), whole)


PICTURES = {  # mode -> what Image.save needs
    "RGB": {},
    "L": {},
    "RGBA": {},
    "LA": {},
    "P": {"transparency": 3},
    "1": {},
}


@pytest.mark.parametrize("mode", PICTURES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_as_a_whole(monkeypatch, tmp_path, mode, orientation):
    random = np.random.default_rng(orientation)
    noise = random.integers(0, 255, (37, 61, 4), np.uint8)
    noise[:20, :, 3] = 255  # the first strips are opaque
    picture = Image.fromarray(noise).convert(mode) if mode != "P" else None
    if picture is None:
        picture = Image.fromarray(noise[..., :3]).quantize(9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    picture.save(path, exif=exif, **PICTURES[mode])
    whole = load_image(path)
    monkeypatch.setattr(large, "_LARGE", 0)
    monkeypatch.setattr(large, "_STRIP", 700)
    strips = load_image(path)
    np.testing.assert_array_equal(strips.rgb, whole.rgb)
    assert strips.notes == whole.notes
    assert strips.rgb.flags.c_contiguous and not strips.rgb.flags.writeable
