"""Blocks that write over their inputs: the results of blocks that do not, and what hooks see."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from detr_viz.models.config import BackboneConfig
from detr_viz.models.layers import convolution
from detr_viz.models.layers.convolution import fused_works
from detr_viz.models.layers.fpn import FeaturePyramid
from detr_viz.models.layers.resnet import ResNetBody, fold_batch_norm

CONFIGS = {
    "bottleneck": BackboneConfig("bottleneck", blocks=(3, 2), widths=(8, 16), stem=8),
    "basic": BackboneConfig("basic", blocks=(3, 2), widths=(8, 16), stem=8),
}


def body_of(name: str) -> ResNetBody:
    torch.manual_seed(0)
    body = ResNetBody(CONFIGS[name]).eval()
    fold_batch_norm(body)
    return body.to(memory_format=torch.channels_last)


def image() -> torch.Tensor:
    return torch.rand(2, 3, 53, 70, generator=torch.Generator().manual_seed(5))


def block_by_block(body: ResNetBody, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of all blocks, none written over."""
    x = nn.functional.max_pool2d(body.conv1(x, relu=True), 3, 2, 1)
    outputs = []
    for stage in (body.layer1, body.layer2):
        for block in stage:
            x = block(x).clone()
            outputs.append(x)
    return outputs


@pytest.fixture
def over(monkeypatch) -> list[bool]:
    """For each sum that oneDNN makes, from now on, whether it may be written over what is added."""
    fused_works(torch.float32)
    calls: list[bool] = []
    original = convolution._pointwise

    def counted(conv, weight, x, relu, add, spare=False):
        if add is not None:
            calls.append(spare)
        return original(conv, weight, x, relu, add, spare)

    monkeypatch.setattr(convolution, "_pointwise", counted)
    return calls


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_features_to_the_bit(name, over):
    body, x = body_of(name), image()
    kept = x.clone()
    with torch.inference_mode():
        expected = block_by_block(body, x)
        over.clear()
        features = body.features(x, 2)
    if fused_works(torch.float32):
        # the first block of a stage may write over its shortcut, but not over the stage's input
        assert over == ([False] if name == "basic" else [True]) + [True] * 4
    assert torch.equal(features[0], expected[2]) and torch.equal(features[1], expected[4])
    assert torch.equal(x, kept)


def test_a_pyramid_keeps_the_outputs_of_its_stages():
    config = BackboneConfig("bottleneck", blocks=(2, 2), widths=(8, 16), stem=8)
    torch.manual_seed(0)
    pyramid = FeaturePyramid(config, 8, 2, 2, lambda channels: nn.Identity()).eval()
    with torch.inference_mode():
        stem = pyramid.bottom_up.stem(image())
        expected, x = [], stem
        for stage in (pyramid.bottom_up.res2, pyramid.bottom_up.res3):
            for block in stage:
                x = block(x).clone()
            expected.append(x)
        outputs = pyramid.bottom_up(image())
    assert all(map(torch.equal, outputs, expected))


@pytest.mark.parametrize("how", ["block", "convolution", "input", "every module", "every input"])
@pytest.mark.parametrize("name", CONFIGS)
def test_hooks_keep_what_they_saw(name, how):
    body, seen = body_of(name), []

    def keep(_module, *tensors) -> None:
        for value in tensors:
            seen.extend([value] if torch.is_tensor(value) else filter(torch.is_tensor, value))
        copies.extend(tensor.clone() for tensor in seen[len(copies) :])

    copies: list[torch.Tensor] = []
    block = body.layer1[1]
    last = block.conv3 if name == "bottleneck" else block.conv2
    add = {
        "block": lambda: block.register_forward_hook(keep),
        "convolution": lambda: last.register_forward_hook(keep),
        "input": lambda: body.layer1[2].register_forward_pre_hook(keep),
        "every module": lambda: register_module_forward_hook(keep),
        "every input": lambda: register_module_forward_pre_hook(keep),
    }[how]
    handle = add()
    try:
        with torch.inference_mode():
            body(image())
    finally:
        handle.remove()
    assert seen and all(map(torch.equal, seen, copies))


def test_training_and_copies_of_it():
    """With gradients nothing is written over; a deep copy has the same stages."""
    body = copy.deepcopy(body_of("bottleneck")).requires_grad_(True)
    body(image()).sum().backward()
    assert all(p.grad is not None for p in body.parameters())
