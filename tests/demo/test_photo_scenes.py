"""Scenes that look photographed: the objects of the drawn ones, on other ground."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detr_viz.demo import pictures
from detr_viz.demo.photo_scenes import photo_scene, sample_photos
from detr_viz.demo.shapes import HELD_OUT_FIRST_SEED, coverage, describe, scene

SEEDS = [3, HELD_OUT_FIRST_SEED + 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_objects_are_those_of_the_drawn_scene(seed):
    drawn, photo = scene(seed, 128), photo_scene(seed, 128, sample_photos())
    np.testing.assert_array_equal(photo.boxes_xyxy_px, drawn.boxes_xyxy_px)
    np.testing.assert_array_equal(photo.labels, drawn.labels)
    assert photo.rgb.shape == drawn.rgb.shape and photo.rgb.dtype == np.uint8


def test_a_seed_is_one_scene():
    one, again, other = (photo_scene(s, 96, sample_photos()).rgb for s in (4, 4, 5))
    assert (one == again).all() and (one != other).any()


def test_an_object_darkens_what_lies_beside_it_on_one_side():
    """On a white photo: brighter than the ground nowhere, darker in its shadow."""
    white = (np.full((80, 80, 3), 255, np.uint8),)
    seed = next(s for s in range(50) if len(describe(s)[1]) == 1)
    size, (shape,) = 160, describe(seed)[1]
    rgb = photo_scene(seed, size, white).rgb.astype(float).mean(-1)
    mask = coverage(shape, (0, 0, size, size), size)
    x0, y0, x1, y1 = (round(v * size) for v in shape.box)
    near = np.zeros_like(mask, bool)
    near[max(y0 - 6, 0) : y1 + 6, max(x0 - 6, 0) : x1 + 6] = True
    ground, around = rgb[~near], rgb[near & (mask == 0)]
    assert around.min() < ground.min() - 10


def test_the_command_writes_them(tmp_path):
    pictures.main(["--out", f"{tmp_path}/", "--count", "2", "--look", "photo"])
    paths = sorted(tmp_path.glob("*.png"))
    assert [p.name for p in paths] == ["scene_0000.png", "scene_0001.png"]
    expected = photo_scene(HELD_OUT_FIRST_SEED, 512, sample_photos()).rgb
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), expected)
