"""ResNet bodies with torchvision's parameter names: plain, DC5, ResNeXt, wide, narrow, short.

Written here rather than taken from torchvision for three reasons: stem, widths and number of stages
are free (the demo's body has two stages), batch norm can be folded away, and importing torchvision
costs a run more than a second. tests/test_resnet.py holds it against torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.models.config import BackboneConfig
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.stage import Stage, beside, unwatched
from detr_viz.models.layers.stem import in_stripes, pooled_stem

NormLayer = Callable[[int], nn.Module]
BATCH_NORM_EPS = 1e-5


class FrozenBatchNorm2d(nn.Module):
    """Batch norm of fixed statistics: x * s + (bias - mean * s), s = weight / sqrt(var + eps)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The two factors, each (channels,)."""
        scale = self.weight * (self.running_var + BATCH_NORM_EPS).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift()
        return x * scale[:, None, None] + shift[:, None, None]


def _conv(
    c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> Conv2d:
    padding = dilation * (kernel // 2)  # symmetric: cell i stays centred on pixel stride * i
    return Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=False)


def normed(
    conv: Callable[..., Tensor],
    norm: nn.Module,
    x: Tensor,
    *,
    relu: bool,
    add: Tensor | None = None,
    spare: bool = False,
) -> Tensor:
    """relu(norm(conv(x)) + add); a norm that was folded away leaves one operation.

    spare: `add` may be written over.
    """
    if isinstance(norm, nn.Identity):
        return conv(x, relu=relu, add=add, spare=spare)
    y = norm(conv(x))
    if add is not None:
        y += add
    return F.relu_(y) if relu else y


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18, -34)."""

    expansion = 1

    def __init__(
        self, c_in: int, width: int, stride: int, dilation: int, norm_layer: NormLayer
    ) -> None:
        super().__init__()
        self.conv1 = _conv(c_in, width, 3, stride, dilation)
        self.bn1 = norm_layer(width)
        self.conv2 = _conv(width, width, 3, 1, dilation)
        self.bn2 = norm_layer(width)
        self.downsample = _downsample(c_in, width, stride, norm_layer)

    def forward(self, x: Tensor, spare: bool = False) -> Tensor:
        add, spare = beside(self, self.downsample, x, spare)
        y = normed(self.conv1, self.bn1, x, relu=True)
        return normed(self.conv2, self.bn2, y, relu=True, add=add, spare=spare)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions (ResNet-50 up); the 3x3 strides, as in torchvision (v1.5).

    inner: channels of the 3x3 convolution, in `groups` groups (ResNeXt, wide ResNets).
    """

    expansion = 4

    def __init__(
        self,
        c_in: int,
        width: int,
        stride: int,
        dilation: int,
        norm_layer: NormLayer,
        inner: int,
        groups: int,
    ) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1 = _conv(c_in, inner, 1)
        self.bn1 = norm_layer(inner)
        self.conv2 = _conv(inner, inner, 3, stride, dilation, groups)
        self.bn2 = norm_layer(inner)
        self.conv3 = _conv(inner, c_out, 1)
        self.bn3 = norm_layer(c_out)
        self.downsample = _downsample(c_in, c_out, stride, norm_layer)

    def forward(self, x: Tensor, spare: bool = False) -> Tensor:
        add, spare = beside(self, self.downsample, x, spare)
        y = normed(self.conv1, self.bn1, x, relu=True)
        y = normed(self.conv2, self.bn2, y, relu=True)
        return normed(self.conv3, self.bn3, y, relu=True, add=add, spare=spare)


def _downsample(c_in: int, c_out: int, stride: int, norm_layer: NormLayer) -> nn.Sequential | None:
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(_conv(c_in, c_out, 1, stride), norm_layer(c_out))


def _block(config: BackboneConfig, stage: int) -> Callable[..., BasicBlock | Bottleneck]:
    if config.block == "basic":
        return BasicBlock
    inner = (config.inner or config.widths)[stage]
    return partial(Bottleneck, inner=inner, groups=config.groups)


class ResNetBody(nn.Module):
    """Images (B, 3, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, config: BackboneConfig, norm_layer: NormLayer = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, config.stem, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(config.stem)
        self.num_stages = len(config.blocks)
        c_in = config.stem
        for stage, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            block = _block(config, stage)
            stride, dilation = (1 if stage == 0 else 2), 1
            if config.dilation and stage == self.num_stages - 1:
                stride, dilation = 1, 2
            # DC5: the block that would have strided keeps the dilation of the stage before it
            layers = [block(c_in, width, stride, 1, norm_layer)]
            c_in = layers[0].expansion * width
            layers += [block(c_in, width, 1, dilation, norm_layer) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", Stage(*layers))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images, 1)[0]

    def _stem(self, images: Tensor) -> Tensor:
        folded = isinstance(self.bn1, nn.Identity)
        if folded and unwatched(self.bn1) and in_stripes(self.conv1, images):
            return pooled_stem(self.conv1, images)
        return F.max_pool2d(normed(self.conv1, self.bn1, images, relu=True), 3, 2, 1)

    def features(self, images: Tensor, stages: int) -> list[Tensor]:
        """The outputs of the last `stages` stages, finest first."""
        x = self._stem(images)
        outputs = []
        for stage in range(self.num_stages):
            x = getattr(self, f"layer{stage + 1}")(x)
            if stage >= self.num_stages - stages:
                outputs.append(x)
        return outputs


def fold_batch_norm(body: ResNetBody) -> None:
    """Move every frozen batch norm into the convolution before it, in place (inference only).

    The state dict is no longer the official one.
    """
    pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")]
    for module in list(body.modules()):
        children = dict(module.named_children())
        for conv_name, norm_name in pairs:
            conv, norm = children.get(conv_name), children.get(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                scale, shift = norm.scale_and_shift()
                weight = conv.weight.detach() * scale[:, None, None, None]
                conv.weight = nn.Parameter(weight, requires_grad=False)
                conv.bias = nn.Parameter(shift.clone(), requires_grad=False)
                setattr(module, norm_name, nn.Identity())
