"""Deformable convolution: each tap reads a place of its own (Dai et al. 2017; Zhu et al. 2019).

    out(p) = sum over taps k of W_k m_k(p) x(stride * p + k - padding + d_k(p))

x between cells is bilinear, and 0 outside. Written as sampling and one product of matrices, since
that trains quicker on a CPU than torchvision's operator, to which it is equal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detr_viz.attention.onednn import linear
from detr_viz.attention.sampling import Cells

_CHUNK = 4096  # cells at a time: the samples of all cells of a photo would not fit in memory


def tap_locations(
    offsets: Tensor, hw: tuple[int, int], kernel: int = 3, stride: int = 1, padding: int = 1
) -> Tensor:
    """Where each tap reads, (B, h * w, K, 2) x, y in [0, 1] of the grid that is read.

    offsets (B, 2 K, h, w) in cells of the grid that is read, of size hw: y and x of each tap, taps
    row by row.
    """
    h, w = offsets.shape[-2:]
    taps = torch.arange(kernel, device=offsets.device) - padding
    d = offsets.unflatten(1, (-1, 2))  # (B, K, 2, h, w)
    y = torch.arange(h, device=offsets.device)[:, None] * stride
    x = torch.arange(w, device=offsets.device) * stride
    tap_y = taps.repeat_interleave(kernel)[:, None, None]
    tap_x = taps.repeat(kernel)[:, None, None]
    y = (d[:, :, 0] + (y + tap_y) + 0.5) / hw[0]
    x = (d[:, :, 1] + (x + tap_x) + 0.5) / hw[1]
    return torch.stack([x, y], -1).flatten(2, 3).transpose(1, 2)


class DeformableConv(nn.Module):
    """(B, C, H, W), offsets (B, 2 K, h, w), masks (B, K, h, w) or None -> (B, C_out, h, w).

    Square kernel of K taps, no bias. The grid of the output is that of the offsets.
    """

    sample: Callable[..., Tensor] | None = None  # a training has a form whose backward is quicker

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        self.stride, self.padding = stride, padding
        nn.init.normal_(self.weight, std=0.01)

    @property
    def kernel(self) -> int:
        return self.weight.shape[-1]

    def locations(self, offsets: Tensor, hw: tuple[int, int]) -> Tensor:
        """As `tap_locations`, on a grid of this size."""
        return tap_locations(offsets, hw, self.kernel, self.stride, self.padding)

    def forward(self, x: Tensor, offsets: Tensor, masks: Tensor | None = None) -> Tensor:
        hw = (x.shape[-2], x.shape[-1])
        value = x.flatten(2).transpose(1, 2)[:, :, None]  # (B, S, 1, C)
        cells = Cells.of(value, [hw]) if self.sample is None else None
        xy = self.locations(offsets, hw)
        full = xy.new_ones(xy.shape[:-1])
        share = full if masks is None else masks.flatten(2).transpose(1, 2)
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # (C_out, K * C)
        parts = []
        for start in range(0, xy.shape[1], _CHUNK):
            some = slice(start, start + _CHUNK)
            places, shares = xy[:, some].flatten(1, 2), share[:, some].flatten(1, 2)
            samples = places[:, :, None, None, None], shares[:, :, None, None, None]
            read = self.sample(value, *samples, [hw]) if cells is None else cells.at(*samples)
            parts.append(linear(read.view(len(x), -1, matrix.shape[1]), matrix))
        return torch.cat(parts, 1).transpose(1, 2).unflatten(-1, offsets.shape[-2:])
