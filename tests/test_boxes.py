"""Boxes by hand, and against torchvision."""

from __future__ import annotations

import numpy as np
import torch
from torchvision import ops

from detr_viz import boxes


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
    b = np.concatenate((corners[1], corners[1] + rng.uniform(0, 40, (6, 2))), -1)
    expected = ops.box_iou(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(boxes.iou(a, b), expected)
    assert boxes.iou(np.zeros((1, 4)), np.zeros((1, 4))).item() == 0


def test_contains_counts_the_edges():
    corners = np.array([[0, 0, 10, 10], [5, 5, 6, 6]], np.float32)
    assert boxes.contains(corners, 10, 0).tolist() == [True, False]
    assert boxes.contains(corners, 5.5, 5.5).tolist() == [True, True]
    assert boxes.contains(corners, 10.1, 0).tolist() == [False, False]
