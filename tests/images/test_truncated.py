"""Salience DETR's own resizing, against torch and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detr_viz.images.preprocessing import TRUNCATED, Preprocessing
from detr_viz.images.read import load_image

HOW = Preprocessing(rule=TRUNCATED, on_floats=True, multiple=32)


@pytest.mark.parametrize("size", [(800, 1333), (480, 640), (96, 160)])
def test_sizes_are_those_of_torchs_own_arithmetic(size):
    assert HOW.input_hw((375, 500)) == (799, 1066)
    how, rng = HOW.at(*size), np.random.default_rng(0)
    for h, w in rng.integers(40, 3000, (300, 2)).tolist():
        sides = torch.tensor([h, w])
        ratio = torch.min(size[0] / sides.min(), size[1] / sides.max())
        assert how.input_hw((h, w)) == tuple((sides * ratio).long().tolist())


def test_padded_to_multiples():
    assert HOW.padded_hw((799, 1066)) == (800, 1088)
    assert HOW.padded_hw((64, 96)) == (64, 96)
    assert Preprocessing().padded_hw((799, 1066)) == (799, 1066)


def test_pixels_are_those_of_torchvision_but_for_ties():
    resize = pytest.importorskip("torchvision.transforms.functional").resize
    rgb = np.random.default_rng(1).integers(0, 256, (61, 90, 3), np.uint8)
    for size in (40, 128):
        how = HOW.at(size, None)
        got = how.resized(load_image(rgb))
        tensor = torch.from_numpy(rgb).permute(2, 0, 1)
        want = resize(tensor, list(how.input_hw((61, 90))), antialias=True).permute(1, 2, 0)
        difference = np.abs(got.astype(int) - want.numpy())
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
