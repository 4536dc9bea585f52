"""Distances of maps: by hand, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import center_of_mass
from scipy.spatial.distance import jensenshannon

from detr_viz.heatmaps.distances import distances


def maps(seed: int, shape=(3, 4, 7, 9)) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(shape) ** 4
    return drawn / drawn.sum((-2, -1), keepdims=True)


def one_hot(y: int, x: int, hw=(5, 8)) -> np.ndarray:
    made = np.zeros(hw)
    made[y, x] = 1
    return made


def test_against_scipy():
    p, q = maps(1), maps(2)
    p[0, 0, :3] = 0  # cells without a weight
    p /= p.sum((-2, -1), keepdims=True)
    found = distances(p.astype(np.float32), q.astype(np.float32))
    for index in np.ndindex(3, 4):
        a, b = p[index], q[index]
        scipys = jensenshannon(a.ravel(), b.ravel(), base=2) ** 2
        assert found.jensen_shannon[index] == pytest.approx(scipys, rel=1e-5)
        way = np.subtract(center_of_mass(a), center_of_mass(b))
        assert found.centroid_shift[index] == pytest.approx(np.linalg.norm(way), rel=1e-4)
        assert found.max_abs[index] == pytest.approx(np.abs(a - b).max(), rel=1e-5)
        assert found.total_variation[index] == pytest.approx(np.maximum(a - b, 0).sum(), rel=1e-5)
        peaks = [np.unravel_index(m.argmax(), m.shape) for m in (a, b)]
        assert found.peak_shift[index] == pytest.approx(np.linalg.norm(np.subtract(*peaks)))


def test_by_hand():
    found = distances(one_hot(1, 2), one_hot(4, 6))
    assert found.max_abs == 1 and found.total_variation == 1 and found.jensen_shannon == 1
    assert found.peak_shift == 5 and found.centroid_shift == 5  # 3, 4, 5
    half = (one_hot(1, 2) + one_hot(1, 4)) / 2
    found = distances(one_hot(1, 2), half)
    assert found.total_variation == 0.5 and found.centroid_shift == 1 and found.peak_shift == 0
    # KL of (1, 0) and of (1/2, 1/2) from (3/4, 1/4), in bits
    expected = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert found.jensen_shannon == pytest.approx(expected)


def test_equal_maps_are_not_apart():
    p = maps(3)
    for field in vars(distances(p, p.copy())).values():
        assert field.shape == (3, 4) and (field == 0).all()


def test_order_does_not_matter():
    p, q = maps(1), maps(2)
    for a, b in zip(vars(distances(p, q)).values(), vars(distances(q, p)).values(), strict=True):
        assert_allclose(a, b)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_peak_of_a_flat_map_is_an_accident(swapped):
    flat = np.full((5, 8), 1 / 40)
    p, q = flat.copy(), flat.copy()
    p[0, 0] += 1e-6
    q[4, 7] += 1e-6
    p, q = (q, p) if swapped else (p, q)
    assert distances(p, q).peak_shift == pytest.approx(np.hypot(4, 7))
    assert distances(p, q, atol=1e-5).peak_shift == 0
    # it is enough that one of the two tells the cells apart
    q = one_hot(4, 7)
    assert distances(flat + one_hot(0, 0) * 1e-6, q, atol=1e-5).peak_shift > 8


def test_a_peak_that_moves_without_growing_counts():
    p = np.full((5, 8), 0.01)
    q = p.copy()
    p[1, 1] = q[1, 3] = 0.3
    assert distances(p, q, atol=0.1).peak_shift == 2


def test_maps_of_zeros_and_sampled_ones():
    nothing = np.zeros((5, 8))
    found = distances(nothing, one_hot(2, 3))
    assert found.total_variation == 0.5 and np.isfinite(found.jensen_shannon)
    assert found.centroid_shift == pytest.approx(0.5)  # from the middle, (2, 3.5)
    assert distances(nothing, nothing).centroid_shift == 0


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3, 2)), ((3,), (3,)), ((2, 0, 3), (2, 0, 3)), ((1, 2, 3), (2, 3))]
)
def test_shapes_that_do_not_fit(a, b):
    with pytest.raises(ValueError, match="equal shapes"):
        distances(np.zeros(a), np.zeros(b))
