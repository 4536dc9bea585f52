"""Deformable convolution against torchvision's, in float64."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from detr_viz.demo.sampled_recipes import sampled_by_splat
from detr_viz.models.layers import deformable_conv
from detr_viz.models.layers.deformable_conv import DeformableConv


def case(stride: int, kernel: int = 3, hw: tuple[int, int] = (9, 12)):
    """A layer, an input, offsets that also leave it, and masks."""
    torch.manual_seed(stride + kernel)
    padding = kernel // 2
    layer = DeformableConv(5, 7, kernel, stride, padding).double()
    torch.nn.init.normal_(layer.weight)
    h, w = ((side + 2 * padding - kernel) // stride + 1 for side in hw)
    x = torch.randn(2, 5, *hw, dtype=torch.float64)
    offsets = torch.randn(2, 2 * kernel**2, h, w, dtype=torch.float64) * 4
    masks = torch.rand(2, kernel**2, h, w, dtype=torch.float64)
    return layer, x, offsets, masks


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("sample", [DeformableConv.sample, sampled_by_splat])
def test_it_is_torchvisions(stride, kernel, masked, sample):
    layer, x, offsets, masks = case(stride, kernel)
    layer.sample = sample
    masks = masks if masked else None
    wanted = deform_conv2d(
        x, offsets, layer.weight, None, stride=stride, padding=kernel // 2, mask=masks
    )
    torch.testing.assert_close(layer(x, offsets, masks), wanted, atol=1e-12, rtol=0)


def test_its_gradients_are_torchvisions():
    layer, x, offsets, masks = case(2)
    inputs = [x, offsets, masks]
    for tensor in inputs:
        tensor.requires_grad_()
    direction = torch.randn_like(layer(*inputs))
    ours = torch.autograd.grad((layer(*inputs) * direction).sum(), [*inputs, layer.weight])
    theirs = deform_conv2d(x, offsets, layer.weight, None, stride=2, padding=1, mask=masks)
    theirs = torch.autograd.grad((theirs * direction).sum(), [*inputs, layer.weight])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_cells_in_parts_are_cells_at_once(monkeypatch):
    layer, x, offsets, masks = case(1)
    whole = layer(x, offsets, masks)
    monkeypatch.setattr(deformable_conv, "_CHUNK", 7)
    torch.testing.assert_close(layer(x, offsets, masks), whole, atol=1e-14, rtol=0)


def test_without_offsets_and_masks_it_is_a_convolution():
    layer, x, offsets, _ = case(2)
    wanted = torch.nn.functional.conv2d(x, layer.weight, stride=2, padding=1)
    torch.testing.assert_close(layer(x, offsets * 0), wanted, atol=1e-12, rtol=0)
