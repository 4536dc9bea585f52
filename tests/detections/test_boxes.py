"""Boxes by hand, and against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import ops

from detr_viz.detections import boxes


def test_centre_and_size_to_corners_in_pixels():
    box = np.array([[0.5, 0.25, 0.2, 0.1]], np.float32)
    corners = boxes.cxcywh_to_xyxy(box)
    np.testing.assert_allclose(corners, [[0.4, 0.2, 0.6, 0.3]], atol=1e-6)
    pixels = boxes.to_pixels(corners, (200, 100))  # height first
    np.testing.assert_allclose(pixels, [[40, 40, 60, 60]], atol=1e-4)
    assert pixels.dtype == np.float32


def test_iou_equals_torchvision():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (2, 6, 2))
    a = np.concatenate((corners[0], corners[0] + rng.uniform(0, 40, (6, 2))), -1)
    b = np.concatenate((corners[1], corners[1] + rng.uniform(0, 40, (6, 2))), -1)[:5]
    expected = ops.box_iou(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(boxes.iou(a, b), expected)
    assert 0 < np.count_nonzero(expected) < expected.numel()


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_iou_is_worked_out_in_float64(dtype):
    """Sides of 3e4 pixels: areas that neither float32 nor a 32-bit integer holds exactly."""
    a = np.array([[0, 0, 30001, 30001], [1, 1, 30000, 30000]], dtype)
    overlap = boxes.iou(a, a)
    assert overlap.dtype == np.float64
    side = 29999 / 30001
    np.testing.assert_allclose(overlap, [[1, side**2], [side**2, 1]], rtol=1e-15)


def test_iou_of_what_has_no_area_is_0():
    """A point, a line, an inverted box, NaN; warnings are errors here."""
    nothing = np.array([[5, 5, 5, 5], [0, 5, 9, 5], [9, 9, 0, 0], [np.nan] * 4], np.float32)
    full = np.array([[0, 0, 10, 10]], np.float32)
    every = np.concatenate((nothing, full))
    expected = np.zeros((5, 5))
    expected[4, 4] = 1
    np.testing.assert_array_equal(boxes.iou(every, every), expected)


def test_iou_of_no_boxes():
    some, none = np.ones((3, 4), np.float32), np.ones((0, 4), np.float32)
    assert boxes.iou(some, none).shape == (3, 0) and boxes.iou(none, some).shape == (0, 3)


def test_contains_counts_the_edges():
    corners = np.array([[0, 0, 10, 10], [5, 5, 6, 6]], np.float32)
    assert boxes.contains(corners, 10, 0).tolist() == [True, False]
    assert boxes.contains(corners, 5.5, 5.5).tolist() == [True, True]
    assert boxes.contains(corners, 10.1, 0).tolist() == [False, False]
