"""Convolutions that oneDNN runs together with the sum and the ReLU after them, against torch."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_viz.models.layers import convolution
from detr_viz.models.layers.convolution import Conv2d, fused_works

CASES = {  # channels in, out, kernel, stride, padding, dilation, groups
    "1x1": (16, 24, 1, 1, 0, 1, 1),
    "stem": (3, 8, 7, 2, 3, 1, 1),
    "dilated": (16, 16, 3, 1, 2, 2, 1),
    "strided": (16, 8, 3, 2, 1, 1, 1),
    "groups": (16, 16, 3, 1, 1, 1, 4),
}


def made(case: str, dtype: torch.dtype = torch.float32) -> tuple[Conv2d, torch.Tensor]:
    torch.manual_seed(3)
    conv = Conv2d(*CASES[case]).to(dtype)
    return conv, torch.randn(2, CASES[case][0], 21, 34, dtype=dtype)


def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The float type of each call that oneDNN runs in one piece, from now on."""
    fused_works(torch.float32)  # its own calls, once a process, do not count
    calls: list[torch.dtype] = []
    original = convolution._pointwise

    def counted(conv, weight, x, *how):
        calls.append(x.dtype)
        return original(conv, weight, x, *how)

    monkeypatch.setattr(convolution, "_pointwise", counted)
    return calls


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_sum", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case, with_sum, relu, monkeypatch):
    conv, x = made(case)
    with torch.inference_mode():
        expected = F.conv2d(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        add = torch.randn(expected.shape) if with_sum else None
        if with_sum:
            expected = expected + add
        if relu:
            expected = expected.clamp(min=0)
        kept = None if add is None else add.clone()
        calls = fused_calls(monkeypatch)
        actual = conv(x, relu=relu, add=add)
    assert len(calls) == fused_works(torch.float32)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6)
    assert kept is None or torch.equal(add, kept)  # the residual may be read again


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_float_types_run_the_plain_way(dtype, monkeypatch):
    conv, x = made("strided", dtype)
    calls = fused_calls(monkeypatch)
    with torch.inference_mode():
        actual = conv(x, relu=True)
        assert torch.equal(actual, nn.Conv2d.forward(conv, x).clamp(min=0))
    assert not calls


def test_without_onednn_the_plain_way(monkeypatch):
    conv, x = made("stem")
    calls = fused_calls(monkeypatch)
    with torch.inference_mode():
        expected = nn.Conv2d.forward(conv, x)
        enabled = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)  # flags() warns of other hardware
        try:
            torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=2e-6)
        finally:
            torch._C._set_mkldnn_enabled(enabled)
    assert not calls


def test_a_training_has_gradients(monkeypatch):
    conv, x = made("strided")
    calls = fused_calls(monkeypatch)
    conv(x, relu=True, add=torch.ones(2, 8, 11, 17)).sum().backward()
    assert conv.weight.grad.abs().sum() > 0 and not calls


@pytest.mark.parametrize("how", ["in place", "another", "loaded"])
def test_new_weights_count(how):
    """The order that oneDNN wants is kept between calls, but never the weights of before."""
    conv, x = made("1x1")
    other, _ = made("1x1")
    with torch.no_grad():
        other.weight.mul_(-2)
        conv(x)
        if how == "in place":
            conv.weight.mul_(-2)
        elif how == "another":
            conv.weight = nn.Parameter(other.weight.clone())
        else:
            conv.load_state_dict(other.state_dict())
        torch.testing.assert_close(conv(x), nn.Conv2d.forward(other, x), rtol=1e-5, atol=2e-6)


def test_copies_and_pickles_after_a_call():
    conv, x = made("groups")
    with torch.inference_mode():
        expected = conv(x)
        for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
            assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("fault", [RuntimeError("no such kernel"), AttributeError("another torch")])
def test_operators_that_fail_are_left_alone(fault, monkeypatch):
    def failing(*_args: object) -> torch.Tensor:
        raise fault

    monkeypatch.setattr(convolution, "pack", failing)
    assert not fused_works.__wrapped__(torch.float32)


def test_operators_that_differ_are_left_alone(monkeypatch):
    """A sum that is forgotten, as by an operator whose arguments changed their meaning."""
    right = convolution._pointwise

    def wrong(conv, weight, x, relu, _add, *_spare, **_named):
        return right(conv, weight, x, relu, None)

    monkeypatch.setattr(convolution, "_pointwise", wrong)
    assert not fused_works.__wrapped__(torch.float32)
