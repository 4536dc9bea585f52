"""Position encodings against the formula, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch

from detr_viz.models.conditional_detr import inverse_sigmoid
from detr_viz.models.layers.positions import downsample_padding, sine_points, sine_positions


def encode(place: float, size: int) -> list[float]:
    """sin, cos, sin, cos, ... of place / 10000^(2 floor(i / 2) / size)."""
    angles = [place / 10000 ** (2 * (i // 2) / size) for i in range(size)]
    return [math.sin(a) if i % 2 == 0 else math.cos(a) for i, a in enumerate(angles)]


def test_cells_count_from_one_over_the_valid_extent_y_before_x():
    padding = torch.zeros(1, 3, 4, dtype=torch.bool)
    padding[0, :, 3] = True  # one padded column
    got = sine_positions(padding, 8, torch.float64)
    assert got.shape == (1, 12, 8) and got.dtype == torch.float64
    row, column = 1, 2
    y, x = (row + 1) / (3 + 1e-6) * 2 * math.pi, (column + 1) / (3 + 1e-6) * 2 * math.pi
    expected = encode(y, 4) + encode(x, 4)
    assert got[0, row * 4 + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_points_y_before_x_at_any_width():
    got = sine_points(torch.tensor([[0.25, 0.75]], dtype=torch.float64), 16)
    expected = encode(0.75 * 2 * math.pi, 8) + encode(0.25 * 2 * math.pi, 8)
    assert got[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_padding_is_downsampled_to_the_pixel_that_floor_picks():
    padding = torch.zeros(1, 5, 7, dtype=torch.bool)
    padding[0, 3:] = True
    padding[0, :, 5:] = True
    got = downsample_padding(padding, (2, 3))  # rows floor(i * 5 / 2), columns floor(j * 7 / 3)
    rows, columns = [0, 2], [0, 2, 4]
    expected = [[bool(padding[0, r, c]) for c in columns] for r in rows]
    assert got[0].tolist() == expected
    assert downsample_padding(padding, (5, 7)).equal(padding)


def test_points_keep_their_type():
    assert sine_points(torch.rand(1, 2).bfloat16(), 8).dtype == torch.bfloat16


def test_inverse_sigmoid_is_bounded_by_eps():
    got = inverse_sigmoid(torch.tensor([0.0, 0.5, 0.8, 1.0], dtype=torch.float64))
    expected = [math.log(1e-5), 0, math.log(0.8 / 0.2), -math.log(1e-5)]
    assert got.tolist() == pytest.approx(expected)
