"""The encoder of Dynamic DETR: deformable convolution over adjacent levels, weighted by scale.

After Dai et al., ICCV 2021 (Dynamic DETR), and the code of their later DyHead, whose parameter
names these are. A block has the same weights on all levels; level l, map x_l:

    offsets, masks = offset(x_l)          of 9 taps each, y and x; masks by sigmoid, where there are
    finer   = DyConv.2(x_l-1), stride 2   own = DyConv.1(x_l)
    coarser = DyConv.0(x_l+1), on that level's grid and resized, and so are its offsets and masks
    mix     = mean over the parts that there are of a_j part_j, a_j a number in [0, 1]
    out     = dynamic ReLU(mix)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.taps import PARTS, PartCall, TapAttention, part_calls
from detr_viz.common.short_repr import brief_tuple
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.deformable_conv import DeformableConv
from detr_viz.models.layers.linear import Linear

_CONVOLUTIONS = {"finer": 2, "own": 1, "coarser": 0}  # indices in DyConv
TAPS = 9
NORM_GROUPS = 16
_RELU_SQUEEZE = 4  # channels of the dynamic ReLU's hidden layer are a quarter


class Pyramid(nn.Module):
    """Features of a backbone's stages, finest first -> levels of one width, finest first.

    first: of the finest level, the power of 2 that is its stride; names of layers begin there.
    levels: further ones are the last level without every other row and column.
    """

    def __init__(self, channels: Sequence[int], width: int, levels: int, first: int) -> None:
        super().__init__()
        self.levels, self.first = levels, first
        for k, c_in in enumerate(channels, start=first):
            self.add_module(f"fpn_lateral{k}", Conv2d(c_in, width, 1))
            self.add_module(f"fpn_output{k}", Conv2d(width, width, 3, padding=1))

    def output(self, level: int) -> nn.Module:
        """The convolution whose output is a level."""
        return getattr(self, f"fpn_output{self.first + level}")

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs, above = [], None
        for i in reversed(range(len(features))):
            merged = getattr(self, f"fpn_lateral{self.first + i}")(features[i])
            if above is not None:
                h, w = merged.shape[-2:]
                merged = merged + F.interpolate(above, scale_factor=2.0)[..., :h, :w]
            above = merged
            outputs.append(self.output(i)(merged))
        outputs.reverse()
        for _ in range(self.levels - len(features)):
            outputs.append(F.max_pool2d(outputs[-1], 1, 2))
        return tuple(outputs)


class PartInputs(NamedTuple):
    """What the parts of a block are made of, level by level.

    maps     (B, C, h, w)
    offsets  (B, 18, h, w) y, x of each tap, taps row by row, in cells of the level that is read
    masks    (B, 9, h, w) in [0, 1], or None: all 1
    """

    maps: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None

    __repr__ = brief_tuple

    def of_image(self, i: int) -> PartInputs:
        """As if image i had been alone."""

        def one(x: Tensor) -> Tensor:
            return x[i : i + 1]

        masks = None if self.masks is None else tuple(map(one, self.masks))
        return PartInputs(tuple(map(one, self.maps)), tuple(map(one, self.offsets)), masks)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of each level."""
        return tuple((x.shape[-2], x.shape[-1]) for x in self.maps)


class Part(nn.Module):
    """A deformable convolution and its norm, by their names."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = DeformableConv(width, width, stride=stride)
        self.bn = nn.GroupNorm(NORM_GROUPS, width)


class DeformableParts(nn.ModuleList):
    """PartInputs -> (B, R, C), the cells of all `part_calls`, before their norms.

    One module does all convolutions of a block, so that a hook sees them in one call.
    """

    def __init__(self, width: int) -> None:
        super().__init__(Part(width, stride) for stride in (1, 1, 2))

    def of(self, part: str) -> Part:
        """The convolution and norm of one of PARTS."""
        return self[_CONVOLUTIONS[part]]

    def taps(self, call: PartCall, inputs: PartInputs) -> tuple[Tensor, Tensor | None]:
        """Offsets (B, 18, h, w) and masks (B, 9, h, w) on the grid on which a part is made."""
        offsets = inputs.offsets[call.level]
        masks = None if inputs.masks is None else inputs.masks[call.level]
        if call.grid != call.level:
            hw = inputs.shapes[call.grid]
            offsets = resized(offsets, hw)
            masks = None if masks is None else resized(masks, hw)
        return offsets, masks

    def forward(self, inputs: PartInputs) -> Tensor:
        parts = [
            self.of(call.part).conv(inputs.maps[call.source], *self.taps(call, inputs))
            for call in part_calls(len(inputs.maps))
        ]
        return torch.cat([x.flatten(2) for x in parts], -1).transpose(1, 2)

    def read(self, inputs: PartInputs) -> TapAttention:
        """What a call for a single image read."""
        places, masks, matrices = [], [], []
        for call in part_calls(len(inputs.maps)):
            conv = self.of(call.part).conv
            offsets, mask = self.taps(call, inputs)
            places.append(conv.locations(offsets, inputs.shapes[call.source])[0])
            full = places[-1].new_ones(places[-1].shape[:-1])
            masks.append(full if mask is None else mask[0].flatten(1).T)
            matrices.append(conv.weight.flatten(2).permute(2, 1, 0))
        values = tuple(x[0].flatten(1).T for x in inputs.maps)
        return TapAttention(tuple(places), tuple(masks), tuple(matrices), values, inputs.shapes)

    @property
    def out_proj(self) -> Callable[[Tensor], Tensor]:
        """Its output is what the taps sum to."""
        return nn.Identity()

    def normed(self, rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """The rows that `forward` gives as parts (B, C, h, w) of each level, normed and resized."""
        levels: list[dict[str, Tensor]] = [{} for _ in shapes]
        calls = part_calls(len(shapes))
        counts = [shapes[call.grid][0] * shapes[call.grid][1] for call in calls]
        for call, cells in zip(calls, rows.split(counts, 1), strict=True):
            part = cells.transpose(1, 2).unflatten(-1, shapes[call.grid])
            part = self.of(call.part).bn(part)
            if call.grid != call.level:
                part = resized(part, shapes[call.level])
            levels[call.level][call.part] = part
        return levels


def resized(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Bilinear, (B, C, *, *) -> (B, C, h, w)."""
    return F.interpolate(x, hw, mode="bilinear", align_corners=False)


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip((x + 3) / 6, 0, 1)."""
    return F.relu6(x + 3) / 6


class DynamicReLU(nn.Module):
    """Each channel's slopes and steps depend on the whole map: (B, C, h, w) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // _RELU_SQUEEZE
        self.fc = nn.Sequential(Linear(width, hidden), nn.ReLU(), Linear(hidden, 4 * width))
        for layer in (self.fc[0], self.fc[2]):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        theta = hard_sigmoid(self.fc(x.mean((-2, -1)))) - 0.5
        a1, b1, a2, b2 = (part[..., None, None] for part in theta.chunk(4, -1))
        return torch.maximum((1 + 2 * a1) * x + b1, 2 * a2 * x + b2)


class ScaleNumbers(NamedTuple):
    """How much of each part is in a block's mix, in the order of PARTS; NaN: no such level.

    weights  (B, L, 3) in [0, 1]
    shares   (B, L, 3) <a_j part_j / n, mix> / |mix|^2 over the cells and channels of the level
    maps     (B, 3, S) the same over the channels of each cell, level by level
    Shares sum to 1 over the parts.
    """

    weights: Tensor
    shares: Tensor
    maps: Tensor

    __repr__ = brief_tuple


class EncoderBlock(nn.Module):
    """Levels (B, C, h, w), finest first -> the same, and numbers of scale."""

    def __init__(self, width: int, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.DyConv = DeformableParts(width)
        self.AttnConv = nn.Sequential(nn.AdaptiveAvgPool2d(1), Conv2d(width, 1, 1))
        self.offset = Conv2d(width, TAPS * (3 if masked else 2), 3, padding=1)
        self.relu = DynamicReLU(width)
        for layer in (self.AttnConv[1], self.offset):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def inputs(self, maps: Sequence[Tensor]) -> PartInputs:
        """Offsets and masks of the levels."""
        predicted = [self.offset(x) for x in maps]
        offsets = tuple(x[:, : 2 * TAPS] for x in predicted)
        masks = tuple(x[:, 2 * TAPS :].sigmoid() for x in predicted) if self.masked else None
        return PartInputs(tuple(maps), offsets, masks)

    def forward(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ScaleNumbers]:
        inputs = self.inputs(maps)
        levels = self.DyConv.normed(self.DyConv(inputs), inputs.shapes)
        outputs, weights, shares, cells = [], [], [], []
        for parts in levels:
            scale = {name: hard_sigmoid(self.AttnConv(part)) for name, part in parts.items()}
            weighted = {name: scale[name] * part / len(parts) for name, part in parts.items()}
            mix = torch.stack(list(weighted.values())).sum(0)
            outputs.append(self.relu(mix))
            weights.append(_table({name: a.flatten() for name, a in scale.items()}))
            level, local = scale_shares(weighted, mix)
            shares.append(_table(level))
            cells.append(_table(local).transpose(1, 2))
        return tuple(outputs), ScaleNumbers(
            torch.stack(weights, 1), torch.stack(shares, 1), torch.cat(cells, -1)
        )


@torch.no_grad()
def scale_shares(
    weighted: dict[str, Tensor], mix: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of each part in its sum, <part, mix> / |mix|^2: (B,) of the level, (B, cells) of each cell.

    1 in all. A level's is the mean of its cells', weighted by their |mix|^2.
    """
    squares = mix.square().sum(1).flatten(1)
    products = {name: (part * mix).sum(1).flatten(1) for name, part in weighted.items()}
    level = {name: x.sum(-1) / squares.sum(-1) for name, x in products.items()}
    return level, {name: x / squares for name, x in products.items()}


def _table(numbers: dict[str, Tensor]) -> Tensor:
    """(B, ...) of each part -> (B, ..., 3), NaN for parts that there are not."""
    some = next(iter(numbers.values())).detach()
    blank = torch.full_like(some, float("nan"))
    return torch.stack([numbers.get(name, blank).detach() for name in PARTS], -1)


class DynamicEncoder(nn.Module):
    """Levels -> levels, and of each block its numbers of scale, with N blocks after B."""

    def __init__(self, width: int, blocks: int, masked: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderBlock(width, masked) for _ in range(blocks))

    def forward(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ScaleNumbers]:
        maps, numbers = tuple(maps), []
        for layer in self.layers:
            maps, one = layer(maps)
            numbers.append(one)
        return maps, ScaleNumbers(*(torch.stack(x, 1) for x in zip(*numbers, strict=True)))
