"""The self-check where weights are almost even: rounding is no error, wrong weights are one."""

from __future__ import annotations

import pytest
import torch

from detr_viz.attention.self_check import residual_of


def sums(seed=0, spread=0.05):
    """Weights (1, q, K) that are almost even, values far from 0, and float64 sums of them."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(1, 40, 900, generator=generator).double()
    value = 3 + torch.randn(1, 900, 32, generator=generator)
    weights = logits.softmax(-1)
    return weights, value, (weights @ value.double())[0]


def same(x):
    return x


@pytest.mark.parametrize("spread", [0.05, 0.1, 0.3, 1.0])
def test_rounding_alone_is_within_the_limit_and_wrong_weights_are_not(spread):
    weights, value, exact = sums(spread=spread)
    context = weights.float() @ value
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).double()
    out = (exact * (1 + 2e-7 * noise)).float()  # sums in another order, as a fused kernel's
    even = value.mean(1, keepdim=True)
    apart = float((out - even[0]).norm() / out.norm())
    right = residual_of(context, even, out, same)
    wrong = residual_of(weights.flip(-2).float() @ value, even, out, same)
    if apart < 1e-3:
        assert right != right and wrong != wrong  # cannot be tested
    else:
        assert right <= 1e-4 and wrong > 0.5
    slightly = weights.clone()
    slightly[:, 3] = weights[:, 4]  # one of 40 rows
    if apart >= 1e-3:
        assert residual_of(slightly.float() @ value, even, out, same) > 0.05


def test_float64_keeps_its_rounding():
    weights, value, exact = sums(spread=0.1)
    off = exact * (1 + 5e-7)
    even = value.double().mean(1, keepdim=True)
    assert residual_of(weights @ value.double(), even, off, same) > 1e-5
