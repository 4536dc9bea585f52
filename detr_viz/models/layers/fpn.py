"""A feature pyramid on a ResNet, with detectron2's names: lateral 1x1, top-down sums, output 3x3.

    level k = output_k(lateral_k(res_k) + nearest(level k + 1 before its output))

Source: Lin et al. 2017 (Feature Pyramid Networks), section 3. The ResNet is that of resnet.py under
other names: stem.conv1, res2.0.conv1, shortcut; each convolution has its norm inside.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import BackboneConfig
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.resnet import FrozenBatchNorm2d, NormLayer, normed
from detr_viz.models.layers.stage import Stage, beside


class NormedConv(Conv2d):
    """A convolution without bias, then its norm."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int,
        norm_layer: NormLayer,
        groups: int = 1,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = norm_layer(c_out)

    def forward(
        self, x: Tensor, *, relu: bool = False, add: Tensor | None = None, spare: bool = False
    ) -> Tensor:
        """relu(norm(convolution) + add); spare: `add` may be written over."""
        return normed(super().forward, self.norm, x, relu=relu, add=add, spare=spare)

    def fold(self) -> None:
        """Move a frozen norm into the convolution (inference only)."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            scale, shift = self.norm.scale_and_shift()
            weight = self.weight.detach() * scale[:, None, None, None]
            self.weight = nn.Parameter(weight, requires_grad=False)
            self.bias = nn.Parameter(shift.clone(), requires_grad=False)
            self.norm = nn.Identity()


class Block(nn.Module):
    """A bottleneck (1x1, 3x3 that strides, 1x1), or a basic block (3x3 that strides, 3x3)."""

    def __init__(
        self,
        c_in: int,
        width: int,
        inner: int,
        stride: int,
        config: BackboneConfig,
        norm: NormLayer,
    ) -> None:
        super().__init__()
        if config.block == "bottleneck":
            c_out = 4 * width
            self.conv1 = NormedConv(c_in, inner, 1, 1, norm)
            self.conv2 = NormedConv(inner, inner, 3, stride, norm, config.groups)
            self.conv3 = NormedConv(inner, c_out, 1, 1, norm)
        else:
            c_out = width
            self.conv1 = NormedConv(c_in, width, 3, stride, norm)
            self.conv2 = NormedConv(width, width, 3, 1, norm)
            self.conv3 = None
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            self.shortcut = NormedConv(c_in, c_out, 1, stride, norm)

    def forward(self, x: Tensor, spare: bool = False) -> Tensor:
        y = self.conv1(x, relu=True)
        add, spare = beside(self, self.shortcut, x, spare)
        if self.conv3 is None:
            return self.conv2(y, relu=True, add=add, spare=spare)
        return self.conv3(self.conv2(y, relu=True), relu=True, add=add, spare=spare)


class Stem(nn.Module):
    """7x7 of stride 2, then max-pooling of stride 2."""

    def __init__(self, channels: int, norm_layer: NormLayer) -> None:
        super().__init__()
        self.conv1 = NormedConv(3, channels, 7, 2, norm_layer)

    def forward(self, images: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(images, relu=True), 3, 2, 1)


class BottomUp(nn.Module):
    """Images (B, 3, H, W) -> the outputs of res2, res3 and so on, strides 4, 8, ..."""

    def __init__(self, config: BackboneConfig, norm_layer: NormLayer) -> None:
        super().__init__()
        self.stem = Stem(config.stem, norm_layer)
        self.names = [f"res{i + 2}" for i in range(len(config.blocks))]
        c_in = config.stem
        self.channels: list[int] = []
        for i, (name, width, count) in enumerate(
            zip(self.names, config.widths, config.blocks, strict=True)
        ):
            inner = (config.inner or config.widths)[i]
            c_out = width * (4 if config.block == "bottleneck" else 1)
            blocks = Stage()
            for n in range(count):
                stride = 2 if i > 0 and n == 0 else 1
                blocks.append(Block(c_in, width, inner, stride, config, norm_layer))
                c_in = c_out
            self.add_module(name, blocks)
            self.channels.append(c_out)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        outputs = []
        for name in self.names:
            x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


class FeaturePyramid(nn.Module):
    """Images (B, 3, H, W) -> levels (B, C, h, w), finest first: the last of the ResNet's stages.

    first, levels: the finest level, as the logarithm of its stride, and their number.
    """

    def __init__(
        self,
        config: BackboneConfig,
        width: int,
        first: int,
        levels: int,
        norm_layer: NormLayer = FrozenBatchNorm2d,
    ) -> None:
        super().__init__()
        self.numbers = range(first, first + levels)
        self.bottom_up = BottomUp(config, norm_layer)
        for number in self.numbers:
            channels = self.bottom_up.channels[number - 2]
            self.add_module(f"fpn_lateral{number}", Conv2d(channels, width, 1))
            self.add_module(f"fpn_output{number}", Conv2d(width, width, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.bottom_up(images)
        levels: list[Tensor] = []
        above = None
        for number in reversed(self.numbers):
            x = getattr(self, f"fpn_lateral{number}")(outputs[number - 2])
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[-2:], mode="nearest")
            above = x
            levels.append(getattr(self, f"fpn_output{number}")(x))
        return levels[::-1]

    def fold_batch_norm(self) -> None:
        """For inference, after loading; the state dict is no longer the official one."""
        for module in self.modules():
            if isinstance(module, NormedConv):
                module.fold()
