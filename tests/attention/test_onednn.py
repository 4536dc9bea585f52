"""Products with weights that oneDNN runs, against float64 and torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_viz.attention import onednn
from detr_viz.attention.onednn import FEWEST, by_head, linear, product_works
from detr_viz.models.layers.linear import Linear

ROWS, D_IN, D_OUT = 300, 128, 96  # more multiplications than FEWEST


def made(dtype: torch.dtype = torch.float32, bias: bool = True) -> tuple[Linear, torch.Tensor]:
    torch.manual_seed(3)
    layer = Linear(D_IN, D_OUT, bias=bias).to(dtype).requires_grad_(False)
    return layer, torch.randn(2, ROWS, D_IN, dtype=dtype)


@pytest.fixture
def calls(monkeypatch) -> list[torch.Size]:
    """The shape of each input that oneDNN is given, from now on."""
    product_works()  # its own calls, once a process, do not count
    found: list[torch.Size] = []
    original = onednn._product

    def counted(x, weight, bias):
        found.append(x.shape)
        return original(x, weight, bias)

    monkeypatch.setattr(onednn, "_product", counted)
    return found


def exactly(x, weight, bias):
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("bias", [True, False])
def test_equals_float64(bias, calls):
    layer, x = made(bias=bias)
    actual = layer(x)
    assert len(calls) == product_works()
    assert actual.dtype is torch.float32 and actual.shape == (2, ROWS, D_OUT)
    assert actual.is_contiguous()
    expected = exactly(x, layer.weight, layer.bias)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("how", ["part of the weight", "strided weight", "strided x", "expanded x"])
def test_views(how, calls):
    """What packed projections, maps of cells and repeated queries are."""
    layer, x = made()
    weight, bias = layer.weight, layer.bias
    if how == "part of the weight":
        weight, bias = weight[32:], bias[32:]
    elif how == "strided weight":
        weight = weight.T.contiguous().T
    elif how == "strided x":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    else:
        x = x[:1].expand(3, -1, -1)
    kept = x.clone()
    actual = linear(x, weight, bias)
    assert len(calls) == product_works()
    torch.testing.assert_close(actual.double(), exactly(x, weight, bias), rtol=1e-5, atol=2e-6)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("rows", [7, 400])
def test_by_head_is_a_product_of_each_head(rows, calls):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 4, 32, generator=generator).transpose(0, 1)  # as heads are split
    weight = torch.randn(4, 300, 32, generator=generator)
    actual = by_head(x, weight)
    assert len(calls) == (4 if rows == 400 and product_works() else 0)
    expected = x.double() @ weight.double().transpose(1, 2)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-5)
    both = by_head(x[None].expand(2, -1, -1, -1), weight[None])  # of a batch
    torch.testing.assert_close(both[1], actual, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_float_types_are_torchs(dtype, calls):
    layer, x = made(dtype)
    assert torch.equal(layer(x), nn.Linear.forward(layer, x))
    assert not calls


def test_few_multiplications_are_torchs(calls):
    layer, x = made()
    x = x[:, : FEWEST // (2 * D_IN * D_OUT)]
    assert torch.equal(layer(x), nn.Linear.forward(layer, x))
    assert torch.equal(layer(x[:, :0]), nn.Linear.forward(layer, x[:, :0]))
    assert not calls


def test_without_onednn_torchs(calls):
    layer, x = made()
    expected = nn.Linear.forward(layer, x)
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # flags() warns of other hardware
    try:
        assert torch.equal(layer(x), expected)
    finally:
        torch._C._set_mkldnn_enabled(enabled)
    assert not calls


def test_a_training_has_gradients(calls):
    layer, x = made()
    layer.requires_grad_(True)
    layer(x).sum().backward()
    expected = x.sum((0, 1)).expand(D_OUT, -1)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-3)
    assert not calls


def test_autocast_is_heard(calls):
    layer, x = made()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
    assert not calls


def test_new_weights_count():
    layer, x = made()
    before, twin = layer(x), copy.deepcopy(layer)
    layer.weight.mul_(2)
    torch.testing.assert_close(
        layer(x) - layer.bias, 2 * (before - layer.bias), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(twin(x), before)


@pytest.mark.parametrize("fault", [RuntimeError("no such kernel"), AttributeError("another torch")])
def test_an_operator_that_fails_is_left_alone(fault, monkeypatch):
    def failing(*_args: object) -> torch.Tensor:
        raise fault

    monkeypatch.setattr(onednn, "_product", failing)
    assert not product_works.__wrapped__()


@pytest.mark.parametrize("case", ["bias forgotten", "half precision"])
def test_an_operator_that_differs_is_left_alone(case, monkeypatch):
    def wrong(x, weight, bias):
        if case == "bias forgotten":
            return F.linear(x, weight)
        return F.linear(x.bfloat16(), weight.bfloat16()).float() + (0 if bias is None else bias)

    monkeypatch.setattr(onednn, "_product", wrong)
    assert not product_works.__wrapped__()
