"""RepVGGPluX network: the neck that mixes the levels of Salience DETR's memory, official names.

Down the pyramid and up again (path aggregation). Each block adds a 3x3 and a 1x1 convolution in
groups, weighs the channels by a squeeze-and-excitation with attention pooling, and adds its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.resnet import NormLayer

BLOCKS, GROUPS, REDUCTION = 3, 4, 16


def _conv(
    c_in: int,
    c_out: int,
    kernel: int,
    norm_layer: NormLayer,
    *,
    stride: int = 1,
    groups: int = 1,
    active: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm, and SiLU if active."""
    conv = Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm_layer(c_out), *([nn.SiLU()] if active else []))


class SqueezeAndExcitation(nn.Module):
    """Scales each channel by what its attention-pooled mean says: (B, C, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.conv_mask = Conv2d(channels, 1, 1)
        self.se_module = nn.Sequential(
            Conv2d(channels, inner, 1, bias=False),
            nn.ReLU(),
            Conv2d(inner, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv_mask(x).flatten(2).softmax(-1)  # (B, 1, h * w)
        pooled = x.flatten(2) @ weight.transpose(1, 2)
        return self.se_module(pooled[..., None]) * x


class RepVggPluXBlock(nn.Module):
    """silu(conv 3x3 + conv 1x1), channels weighed, plus the input."""

    def __init__(self, channels: int, norm_layer: NormLayer) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3, norm_layer, groups=GROUPS, active=False)
        self.conv2 = _conv(channels, channels, 1, norm_layer, groups=GROUPS, active=False)
        self.se_module = SqueezeAndExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.se_module(F.silu(self.conv1(x) + self.conv2(x))) + x


class CSPRepPluXLayer(nn.Module):
    """Blocks beside a plain 1x1 convolution, added: (B, 2 C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, norm_layer: NormLayer) -> None:
        super().__init__()
        self.conv1 = _conv(2 * channels, channels, 1, norm_layer)
        self.conv2 = _conv(2 * channels, channels, 1, norm_layer)
        self.bottlenecks = nn.Sequential(
            *(RepVggPluXBlock(channels, norm_layer) for _ in range(BLOCKS))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)


class RepVGGPluXNetwork(nn.Module):
    """Levels (B, C, h, w), finest first, -> the same shapes, mixed."""

    def __init__(self, channels: int, levels: int, norm_layer: NormLayer) -> None:
        super().__init__()
        between = range(levels - 1)
        self.lateral_convs = nn.ModuleList(
            _conv(channels, channels, 1, norm_layer) for _ in between
        )
        self.layer_blocks = nn.ModuleList(CSPRepPluXLayer(channels, norm_layer) for _ in between)
        self.downsample_blocks = nn.ModuleList(
            _conv(channels, channels, 3, norm_layer, stride=2) for _ in between
        )
        self.pan_blocks = nn.ModuleList(CSPRepPluXLayer(channels, norm_layer) for _ in between)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        inner = [levels[-1]]
        for i in reversed(range(len(levels) - 1)):  # from coarse to fine
            inner[0] = self.lateral_convs[i](inner[0])
            wide = F.interpolate(inner[0], size=levels[i].shape[-2:], mode="nearest")
            inner.insert(0, self.layer_blocks[i](torch.cat([wide, levels[i]], 1)))
        outputs = [inner[0]]
        for i, coarse in enumerate(inner[1:]):
            narrow = self.downsample_blocks[i](outputs[-1])
            outputs.append(self.pan_blocks[i](torch.cat([narrow, coarse], 1)))
        return outputs
