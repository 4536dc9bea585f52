"""Position encodings: sine of cells, points (Conditional DETR, 3.3) and boxes, and learned ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_viz.common.errors import UserError

TEMPERATURE = 10000.0


def _frequencies(size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """10000^(2 * floor(i / 2) / size) for i = 0..size-1; DETR's authors compute it in float32."""
    i = torch.arange(size, dtype=dtype, device=device)
    return TEMPERATURE ** (2 * torch.div(i, 2, rounding_mode="floor") / size)


def _interleave(angles: Tensor) -> Tensor:
    """sin of the even entries, cos of the odd ones, each at its own place."""
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), -1).flatten(-2)


def sine_positions(
    padding: Tensor,
    d_model: int,
    dtype: torch.dtype,
    centered: bool = False,
    wavelengths: torch.dtype | None = None,
) -> Tensor:
    """Encoding of every cell of a grid: padding (B, h, w), True = padding -> (B, h * w, d_model).

    Cells count from 1 (centered: from 0.5) over the valid ones, are divided by the valid extent +
    1e-6 and multiplied by 2 pi; y fills the first half, x the second. Computed in float32 whatever
    the dtype, as DETR's authors do; centered ones in the dtype. wavelengths: the dtype that these
    are rounded to, if another one: where a whole row is padding the angles are millions.
    """
    valid = ~padding
    inner = dtype if centered else torch.float32
    freq = _frequencies(d_model // 2, padding.device, wavelengths or inner).to(inner)
    halves = []
    for axis in (1, 2):
        place = valid.cumsum(axis, dtype=inner)
        extent = place.narrow(axis, place.shape[axis] - 1, 1)
        place = (place - 0.5 if centered else place) / (extent + 1e-6) * (2 * math.pi)
        halves.append(_interleave(place[..., None] / freq))
    return torch.cat(halves, -1).flatten(1, 2).to(dtype)


def sine_points(points_xy: Tensor, d_model: int) -> Tensor:
    """Encoding of points (..., 2) as x, y in [0, 1] -> (..., d_model), y before x."""
    freq = _frequencies(d_model // 2, points_xy.device)
    x, y = (points_xy * (2 * math.pi)).unbind(-1)
    angles = (y[..., None] / freq, x[..., None] / freq)
    return torch.cat([_interleave(a) for a in angles], -1).to(points_xy.dtype)


def sine_numbers(numbers: Tensor, size: int) -> Tensor:
    """Encoding of numbers (...) in [0, 1] -> (..., size), in their own dtype."""
    freq = _frequencies(size, numbers.device, numbers.dtype)
    return _interleave((numbers * (2 * math.pi))[..., None] / freq)


def sine_boxes(boxes: Tensor, d_model: int) -> Tensor:
    """Encoding of boxes (..., 4) in [0, 1] -> (..., 2 * d_model), each number in its turn."""
    freq = _frequencies(d_model // 2, boxes.device, boxes.dtype)
    return _interleave((boxes * (2 * math.pi))[..., None] / freq).flatten(-2)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(x / (1 - x)) with numerator and denominator at least eps."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class LearnedPositions(nn.Module):
    """PositionEmbeddingLearned of the authors' code: column x beside row y, whatever is padded.

    pos of cell (y, x) = [col_embed[x], row_embed[y]], each half of d_model wide.
    """

    def __init__(self, entries: int, d_model: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(entries, d_model // 2)
        self.col_embed = nn.Embedding(entries, d_model // 2)

    def forward(self, padding: Tensor) -> Tensor:
        """padding (1 or B, h, w) -> (1, h * w, d_model); UserError for a grid with more cells."""
        h, w = padding.shape[-2:]
        return grid_positions(self.row_embed.weight, self.col_embed.weight, (h, w))


def grid_positions(row_embed: Tensor, col_embed: Tensor, hw: tuple[int, int]) -> Tensor:
    """Learned embeddings (n, C / 2) of rows and columns -> (1, h * w, C), columns' part first.

    Raises UserError where the grid has more rows or columns than there are embeddings.
    """
    h, w = hw
    entries = min(len(row_embed), len(col_embed))
    if max(h, w) > entries:
        raise UserError(
            f"the image gives {h} x {w} cells, but the model has learned positions for {entries} "
            "rows and columns only: give a smaller --size"
        )
    columns = col_embed[None, :w].expand(h, -1, -1)
    rows = row_embed[:h, None].expand(-1, w, -1)
    return torch.cat((columns, rows), -1).flatten(0, 1)[None]


def downsample_padding(padding: Tensor, hw: tuple[int, int]) -> Tensor:
    """Padding mask at the memory's size: (B, H, W) -> (B, h, w), nearest with floor."""
    return F.interpolate(padding[None].float(), size=hw).to(torch.bool)[0]
