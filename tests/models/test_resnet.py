"""Our ResNet body against torchvision's, and folding against the unfolded network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from detr_viz.models.config import BackboneConfig, read_backbone
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, ResNetBody, fold_batch_norm

NETS = {
    "resnet18": BackboneConfig("basic", blocks=(2, 2, 2, 2)),
    "resnet34": BackboneConfig("basic", blocks=(3, 4, 6, 3)),
    "resnet50": BackboneConfig("bottleneck", blocks=(3, 4, 6, 3)),
    "resnet101": BackboneConfig("bottleneck", blocks=(3, 4, 23, 3)),
    "resnext50_32x4d": BackboneConfig(groups=32, inner=(128, 256, 512, 1024)),
    "resnext, 32x8d": BackboneConfig(blocks=(1, 2, 1, 1), groups=32, inner=(256, 512, 1024, 2048)),
    "wide, dc5": BackboneConfig(blocks=(1, 1, 1, 2), inner=(128, 256, 512, 1024), dilation=True),
    "resnet50-dc5": BackboneConfig("bottleneck", blocks=(3, 4, 6, 3), dilation=True),
}
SHORT = {
    "resnext, 32x8d": {"layers": [1, 2, 1, 1], "groups": 32, "width_per_group": 8},
    "wide, dc5": {"layers": [1, 1, 1, 2], "width_per_group": 128},
}


def reference(name: str) -> torch.nn.Module:
    kwargs = {"replace_stride_with_dilation": [False, False, True]} if "dc5" in name else {}
    make = getattr(torchvision.models, name.removesuffix("-dc5"), None)
    if make is None:  # fewer blocks than any named one
        make = partial(torchvision.models.ResNet, torchvision.models.resnet.Bottleneck)
        kwargs |= SHORT[name]
    net = make(norm_layer=TorchvisionFrozenBatchNorm2d, **kwargs)
    generator = torch.Generator().manual_seed(0)
    for key, value in net.state_dict().items():
        if "bn" in key or "downsample.1" in key:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    del net.fc, net.avgpool
    return net.eval().requires_grad_(False)


def stages(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


@pytest.mark.parametrize("name", NETS)
def test_equals_torchvision(name):
    theirs, ours = reference(name), ResNetBody(NETS[name]).eval()
    named = {f"backbone.0.body.{key}": value for key, value in theirs.state_dict().items()}
    assert read_backbone(named, "dc5" in name) == NETS[name]
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(1, 3, 75, 110, generator=torch.Generator().manual_seed(1))
    expected = stages(theirs, x)
    with torch.inference_mode():
        plain = ours(x)
        fold_batch_norm(ours)
        folded = ours(x)
    config = NETS[name]
    assert expected.shape[1] == config.out_channels
    assert expected.shape[2:] == (-(-75 // config.stride), -(-110 // config.stride))
    scale = expected.abs().max()
    torch.testing.assert_close(plain / scale, expected / scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(folded / scale, expected / scale, atol=1e-5, rtol=0)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in ours.modules())


def test_frozen_batch_norm_by_hand():
    norm = FrozenBatchNorm2d(1)
    for name, value in {"weight": 3.0, "bias": 0.5, "running_mean": 2.0}.items():
        getattr(norm, name).fill_(value)
    norm.running_var.fill_(4 - 1e-5)  # eps 1e-5 stands inside the root
    x = torch.tensor([6.0]).view(1, 1, 1, 1)
    assert norm(x).item() == pytest.approx(3 * (6 - 2) / 2 + 0.5, rel=1e-6)


def test_narrow_body_of_two_stages():
    config = BackboneConfig("basic", stem=8, widths=(8, 16), blocks=(1, 2))
    body = ResNetBody(config)
    assert config.stride == 8
    assert body(torch.zeros(1, 3, 65, 33)).shape == (1, 16, 9, 5)
