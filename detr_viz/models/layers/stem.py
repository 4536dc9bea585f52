"""The first convolution and the pooling after it, some rows at a time.

The map between them is the largest of the network, 55 MB for a photo of 800 x 1066: the C library
asks the system for it anew in each pass, which takes as long as the convolution. Of some rows it
is small. (Where memory is kept, the whole map at once is a little quicker.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_viz.common.many_passes import memory_is_kept
from detr_viz.models.layers.convolution import Conv2d
from detr_viz.models.layers.stage import unwatched

LARGE = 1 << 23  # numbers of the map between: 32 MB of float32, the most that glibc keeps
_AT_ONCE = 1 << 21  # of a stripe


def in_stripes(conv: Conv2d, images: Tensor) -> bool:
    """Whether `pooled_stem` may run, and gains: oneDNN, a large map that nobody looks at."""
    if memory_is_kept():
        return False
    height, width = images.shape[-2:]
    between = conv.out_channels * _half(height) * _half(width)
    seven = (conv.kernel_size, conv.stride, conv.padding) == ((7, 7), (2, 2), (3, 3))
    return between >= LARGE and seven and conv.fuses(images) and unwatched(conv)


def pooled_stem(conv: Conv2d, images: Tensor) -> Tensor:
    """max_pool2d(relu(conv(images)), 3, 2, 1), the same numbers."""
    images = images.contiguous(memory_format=torch.channels_last)
    height, width = _half(images.shape[-2]), _half(images.shape[-1])
    count, channels = len(images), conv.out_channels
    shape = count, channels, _half(height), _half(width)
    out = images.new_empty(shape).contiguous(memory_format=torch.channels_last)
    for image, pooled in zip(images.split(1), out.split(1), strict=True):
        for start, end in _stripes(shape[-2], max(1, _AT_ONCE // (2 * channels * width))):
            first, last = max(2 * start - 1, 0), min(2 * end, height)  # rows of the map between
            rows = conv.without_rows_around(_rows(image, 2 * first - 3, 2 * last + 2), relu=True)
            # What ReLU gave is never less than the zeros above the first row and below the last.
            rows = _rows(rows, 2 * start - 1 - first, 2 * end - first)
            pooled[:, :, start:end] = F.max_pool2d(rows, 3, 2, (0, 1))
    return out


def _rows(x: Tensor, start: int, end: int) -> Tensor:
    """Rows start to end of x, zeros where there are none."""
    height = x.shape[-2]
    inside = x[:, :, max(start, 0) : min(end, height)]
    if start >= 0 and end <= height:
        return inside
    return F.pad(inside, (0, 0, max(-start, 0), max(end - height, 0)))


def _stripes(rows: int, at_once: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + at_once, rows)) for start in range(0, rows, at_once))


def _half(size: int) -> int:
    return (size + 1) // 2
