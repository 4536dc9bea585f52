"""The first convolution and its pooling in stripes, against torch's own on the whole image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_viz.models.config import BackboneConfig
from detr_viz.models.layers import resnet, stem
from detr_viz.models.layers.convolution import Conv2d, fused_works
from detr_viz.models.layers.resnet import ResNetBody, fold_batch_norm

pytestmark = pytest.mark.skipif(
    not fused_works(torch.float32), reason="oneDNN's operators do not run here"
)
CONFIG = BackboneConfig(block="basic", stem=8, widths=(8,), blocks=(1,))


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    """Small maps as large ones, a few rows at a time; memory is not kept."""
    monkeypatch.setattr(stem, "LARGE", 1)
    monkeypatch.setattr(stem, "_AT_ONCE", 8 * 2 * 40 * 3)
    monkeypatch.setattr(stem, "memory_is_kept", lambda: False)


def plainly(conv: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    between = F.conv2d(images.double(), conv.weight.double(), conv.bias.double(), 2, 3)
    return F.max_pool2d(between.clamp(min=0), 3, 2, 1)


@pytest.mark.parametrize("hw", [(64, 80), (63, 80), (62, 79), (61, 77), (1, 1), (2, 3), (7, 300)])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_torch(hw, count):
    torch.manual_seed(4)
    conv, images = Conv2d(3, 8, 7, 2, 3), torch.randn(count, 3, *hw)
    kept = images.clone()
    with torch.inference_mode():
        assert stem.in_stripes(conv, images)
        actual = stem.pooled_stem(conv, images)
        expected = plainly(conv, images)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(images, kept)


def test_stripes_are_what_a_map_is_made_of(monkeypatch):
    sizes: list[int] = []
    original = Conv2d.without_rows_around

    def counted(self, x, **how):
        y = original(self, x, **how)
        sizes.append(y.shape[-2])
        return y

    monkeypatch.setattr(Conv2d, "without_rows_around", counted)
    conv, images = Conv2d(3, 8, 7, 2, 3), torch.randn(1, 3, 64, 80)
    with torch.inference_mode():
        stem.pooled_stem(conv, images)
    assert sizes == [6, 7, 7, 7, 7, 3]  # 16 rows are pooled, three at a time; one row is made twice


def test_numbers_that_are_not_finite_go_where_they_go_with_the_whole_map():
    conv, images = Conv2d(3, 8, 7, 2, 3), torch.randn(1, 3, 64, 80)
    images[0, 0, 20, 20], images[0, 1, 50, 60] = float("nan"), float("inf")
    with torch.inference_mode():
        actual = stem.pooled_stem(conv, images)
        expected = F.max_pool2d(conv(images, relu=True), 3, 2, 1)
    assert bool(actual.isinf().any())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6, equal_nan=True)


def folded() -> ResNetBody:
    torch.manual_seed(5)
    body = ResNetBody(CONFIG).eval().requires_grad_(False)
    fold_batch_norm(body)
    return body


@pytest.mark.parametrize("watched", ["conv1", "bn1", None])
def test_who_looks_at_the_map_sees_it_whole(watched, monkeypatch):
    body, images, seen = folded(), torch.randn(1, 3, 64, 80), []
    runs: list[bool] = []
    pooled = stem.pooled_stem
    monkeypatch.setattr(resnet, "pooled_stem", lambda *args: runs.append(True) or pooled(*args))
    with torch.inference_mode():
        expected = body(images)
        assert runs == [True]
        if watched:
            getattr(body, watched).register_forward_hook(lambda *args: seen.append(args[-1].shape))
        torch.testing.assert_close(body(images), expected, rtol=1e-5, atol=2e-6)
    assert len(runs) == (1 if watched else 2)
    assert watched != "conv1" or seen == [(1, 8, 32, 40)]


@pytest.mark.parametrize("why", ["a training", "not folded", "memory is kept", "a small map"])
def test_else_the_map_is_made_whole(why, monkeypatch):
    body, images = folded(), torch.randn(1, 3, 64, 80)
    monkeypatch.setattr(resnet, "pooled_stem", lambda *_: pytest.fail("in stripes"))
    if why == "a training":
        body.conv1.weight.requires_grad_(True)
        body(images).sum().backward()
        assert body.conv1.weight.grad.abs().sum() > 0
        return
    if why == "not folded":
        body = ResNetBody(CONFIG).eval()
    elif why == "memory is kept":
        monkeypatch.setattr(stem, "memory_is_kept", lambda: True)
    else:
        monkeypatch.setattr(stem, "LARGE", 1 << 23)
    with torch.inference_mode():
        body(images)
