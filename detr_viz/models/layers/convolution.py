"""Convolutions that take the sum and the ReLU after them along, where oneDNN can (CPU, inference).

`torch.ops.mkldnn._convolution_pointwise` writes relu(conv(x) + add) in one pass over the memory,
with weights that were brought into oneDNN's own order once. torch's compiler uses these operators;
they are not public. So each float type proves them on a small input before its first use, against
the convolution, sum and ReLU one after the other, and whatever differs or fails runs the plain way.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.attention.onednn import enabled, may_run

FUSED_DTYPES = (torch.float32, torch.bfloat16)


class Conv2d(nn.Conv2d):
    """torch's layer, which also adds and applies ReLU: (B, C, H, W) -> (B, C', H', W')."""

    _packed: tuple[Tensor, tuple[int, int | None], Tensor] | None = None

    def forward(
        self, x: Tensor, *, relu: bool = False, add: Tensor | None = None, spare: bool = False
    ) -> Tensor:
        """relu(convolution + add). `add` has the shape of the output.

        spare: nobody reads `add` again, so that the output may be written over it: memory that is
        asked for anew costs a large map as much time as its convolution.
        """
        if self.fuses(x):
            return self._fused(x, relu, add, spare)
        y = super().forward(x)
        if add is not None:
            y += add
        return F.relu_(y) if relu else y

    def fuses(self, x: Tensor) -> bool:
        """Whether oneDNN runs this call in one piece."""
        return may_run(x, self.weight) and fuses(x.dtype, x.device)

    def without_rows_around(self, x: Tensor, *, relu: bool) -> Tensor:
        """relu(convolution) by oneDNN, padded at the left and the right alone."""
        x = x.contiguous(memory_format=torch.channels_last)
        return _pointwise(self, self._packed_weight(x), x, relu, None, padding=(0, self.padding[1]))

    def _fused(self, x: Tensor, relu: bool, add: Tensor | None, spare: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return _pointwise(self, self._packed_weight(x), x, relu, add, spare)

    def _packed_weight(self, x: Tensor) -> Tensor:
        """The weight in oneDNN's order, made anew when the weight is another or was written to."""
        weight = self.weight
        version = None if weight.is_inference() else weight._version
        state = weight.data_ptr(), version
        packed = self._packed
        if packed is None or packed[0] is not weight or packed[1] != state:
            packed = weight, state, pack(self, x.shape)
            self._packed = packed
        return packed[2]

    def __getstate__(self) -> dict:
        """Copies and pickles hold no packed weight: it can't be copied, and is made at need."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


def pack(conv: nn.Conv2d, shape: torch.Size) -> Tensor:
    """The weight of a convolution in the order oneDNN wants for inputs (B, C, H, W)."""
    weight = conv.weight.detach().to_mkldnn()
    return torch._C._nn.mkldnn_reorder_conv2d_weight(
        weight, conv.padding, conv.stride, conv.dilation, conv.groups, list(shape)
    )


def _pointwise(
    conv: nn.Conv2d,
    weight: Tensor,
    x: Tensor,
    relu: bool,
    add: Tensor | None,
    spare: bool = False,
    padding: tuple[int, ...] | None = None,
) -> Tensor:
    """relu(convolution + add) by oneDNN, with a weight of `pack`; spare: written over `add`."""
    how = padding or conv.padding, conv.stride, conv.dilation, conv.groups
    activation = "relu" if relu else "none"
    if add is None:
        fused = torch.ops.mkldnn._convolution_pointwise
        return fused(x, weight, conv.bias, *how, activation, [], "")
    then = activation if relu else None
    if spare and add.is_contiguous(memory_format=torch.channels_last):
        over = torch.ops.mkldnn._convolution_pointwise_.binary
        return over(add, x, weight, conv.bias, *how, "add", 1.0, then, [], None)
    fused = torch.ops.mkldnn._convolution_pointwise.binary
    add = add.contiguous(memory_format=torch.channels_last)
    return fused(x, add, weight, conv.bias, *how, "add", 1.0, then, [], None)


def fuses(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether inference in this float type on this device runs the fused operators."""
    return dtype in FUSED_DTYPES and enabled(device) and fused_works(dtype)


@cache
def fused_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators exist here and give what the plain ones do, in this float type."""
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            return all(_agrees(dtype, *case) for case in ((1, 1, 1), (3, 2, 1), (3, 1, 4)))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False  # another torch, another build, another machine


def _agrees(dtype: torch.dtype, kernel: int, stride: int, groups: int) -> bool:
    """Both ways on a small random input: to the last few bits of the float type."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, kernel, stride, kernel // 2, groups=groups).to(dtype)
    x = torch.randn(2, 16, 9, 7, dtype=dtype).contiguous(memory_format=torch.channels_last)
    plain = conv(x)
    add = torch.randn(plain.shape, dtype=dtype)
    over = add.clone(memory_format=torch.channels_last)
    weight = pack(conv, x.shape)
    pairs = [
        (_pointwise(conv, weight, x, False, None), plain),
        (_pointwise(conv, weight, x, True, None), F.relu(plain)),
        (_pointwise(conv, weight, x, True, add), F.relu(plain + add)),
        (_pointwise(conv, weight, x, True, over, spare=True), F.relu(plain + add)),
    ]
    limit = 16 * torch.finfo(dtype).eps
    return all(bool(((a - b).abs() <= limit * (1 + b.abs())).all()) for a, b in pairs)
