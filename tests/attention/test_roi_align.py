"""RoIAlign against torchvision's, and its adjoint against a loop."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from detr_viz.attention.roi_align import (
    Pyramid,
    RoIRule,
    adjoint,
    levels_of,
    pooled,
    pooled_by_matrices,
)

PYRAMID = Pyramid(((24, 33), (12, 17), (6, 9)), (8, 16, 32))


def boxes_of(seed: int, images: int = 2, queries: int = 40) -> torch.Tensor:
    """Boxes of all sizes, some of them partly or wholly off the image."""
    rng = torch.Generator().manual_seed(seed)
    centre = torch.rand(images, queries, 2, generator=rng, dtype=torch.float64) * 300 - 20
    half = torch.rand(images, queries, 2, generator=rng, dtype=torch.float64) ** 2 * 150 + 0.5
    return torch.cat([centre - half, centre + half], -1)


def memory_of(seed: int, images: int = 2, channels: int = 5) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(images, PYRAMID.cells, channels, generator=rng, dtype=torch.float64)


def on_level(memory: torch.Tensor, level: int) -> torch.Tensor:
    """(B, C, h, w)."""
    (h, w), start = PYRAMID.shapes[level], PYRAMID.starts[level]
    return memory[:, start : start + h * w].transpose(1, 2).unflatten(-1, (h, w))


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("pool", [pooled, pooled_by_matrices])
def test_equal_to_torchvision(pool, samples):
    ops = pytest.importorskip("torchvision.ops")
    rule, boxes, memory = RoIRule(samples=samples), boxes_of(0), memory_of(1)
    for level, stride in enumerate(PYRAMID.strides):
        levels = torch.full(boxes.shape[:2], level)
        ours = pool(memory, boxes, levels, PYRAMID, rule)
        theirs = ops.roi_align(
            on_level(memory, level), list(boxes), 7, 1 / stride, samples, aligned=True
        )
        theirs = theirs.flatten(2).transpose(1, 2).unflatten(0, boxes.shape[:2])
        assert ours.shape == theirs.shape == (2, 40, 49, 5)
        assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("pool", [pooled, pooled_by_matrices])
def test_each_box_is_read_on_its_own_level(pool):
    boxes, memory, rule = boxes_of(2), memory_of(3), RoIRule(canonical_px=112)
    levels = levels_of(boxes, PYRAMID.strides, rule)
    assert set(levels.unique().tolist()) == {0, 1, 2}
    mixed = pool(memory, boxes, levels, PYRAMID, rule)
    for level in range(3):
        alone = pool(memory, boxes, torch.full_like(levels, level), PYRAMID, rule)
        assert (mixed - alone)[levels == level].abs().max() < 1e-12


def test_one_memory_for_several_lists_of_boxes():
    """A single image, decoded once for each of several masks."""
    boxes, memory, rule = boxes_of(4, images=3), memory_of(5, images=1), RoIRule()
    levels = levels_of(boxes, PYRAMID.strides, rule)
    expected = pooled(memory.repeat(3, 1, 1), boxes, levels, PYRAMID, rule)
    assert torch.equal(pooled(memory, boxes, levels, PYRAMID, rule), expected)


def test_gradients_of_both_forms_are_equal():
    boxes, rule = boxes_of(6), RoIRule()
    levels = levels_of(boxes, PYRAMID.strides, rule)
    grads = []
    for pool in (pooled, pooled_by_matrices):
        memory = memory_of(7).requires_grad_()
        (pool(memory, boxes, levels, PYRAMID, rule) ** 2).sum().backward()
        grads.append(memory.grad)
    assert (grads[0] - grads[1]).abs().max() < 1e-12


def corners(at: float, cells: int) -> list[tuple[int, float]]:
    """The cells on both sides of a place, and their weights."""
    at = min(max(at, 0), cells - 1)
    return [(int(at), 1 - at % 1), (min(int(at) + 1, cells - 1), at % 1)]


def test_adjoint_against_a_loop():
    """Each sample of each cell deposits its share on the four cells around it."""
    rule, (boxes,) = RoIRule(), boxes_of(8, images=1, queries=12)
    levels = levels_of(boxes, PYRAMID.strides, rule)
    rng = torch.Generator().manual_seed(9)
    share = torch.randn(12, 7, 7, generator=rng, dtype=torch.float64)
    expected = torch.zeros(12, PYRAMID.cells, dtype=torch.float64)
    for q, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        level = int(levels[q])
        (h, w), stride, start = (part[level] for part in (*PYRAMID, PYRAMID.starts))
        for i, j, a, b in product(range(7), range(7), (0.25, 0.75), (0.25, 0.75)):
            y = (y0 + (i + a) * (y1 - y0) / 7) / stride - 0.5
            x = (x0 + (j + b) * (x1 - x0) / 7) / stride - 0.5
            if -1 <= y <= h and -1 <= x <= w:
                for (row, wy), (column, wx) in product(corners(y, h), corners(x, w)):
                    expected[q, start + row * w + column] += share[q, i, j] / 4 * wy * wx
    got = adjoint(share, boxes, levels, PYRAMID, rule)
    assert (got - expected).abs().max() < 1e-12


def test_adjoint_is_the_transpose():
    """<A^T s, f> = <s, A f>, also of boxes that leave the image."""
    rule, boxes, memory = RoIRule(), boxes_of(10, images=1), memory_of(11, images=1)
    levels = levels_of(boxes, PYRAMID.strides, rule)
    share = torch.randn(40, 7, 7, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    read = pooled(memory, boxes, levels, PYRAMID, rule)[0]
    left = adjoint(share, boxes[0], levels[0], PYRAMID, rule) @ memory[0]
    right = (share.flatten(1)[:, :, None] * read).sum(1)
    assert (left - right).abs().max() < 1e-12


def test_a_box_inside_the_image_keeps_its_mass():
    boxes = torch.tensor([[40.0, 30.0, 200.0, 150.0], [-300.0, 30.0, 100.0, 150.0]]).double()
    rule = RoIRule()
    levels = levels_of(boxes, PYRAMID.strides, rule)
    share = torch.full((2, 7, 7), 1 / 49, dtype=torch.float64)
    mass = adjoint(share, boxes, levels, PYRAMID, rule).sum(1)
    assert abs(mass[0] - 1) < 1e-12
    assert 0.2 < mass[1] < 0.35  # three quarters of it lie left of the image


@pytest.mark.parametrize(
    ("side", "level"),
    [(10, 0), (112, 0), (223.9, 0), (224, 1), (447, 1), (448, 2), (9e3, 2)],
)
def test_levels_by_hand(side, level):
    """Strides 8, 16, 32: 224 px belong to stride 16."""
    box = torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side]])
    assert levels_of(box, PYRAMID.strides, RoIRule()).tolist() == [level]


def test_boxes_without_area_or_numbers_are_read_on_the_finest_level():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [float("nan")] * 4])
    rule = RoIRule()
    levels = levels_of(boxes, PYRAMID.strides, rule)
    assert levels.tolist() == [0, 0]
    out = pooled(memory_of(13, 1).float(), boxes[None], levels[None], PYRAMID, rule)
    assert out.isfinite().all()
