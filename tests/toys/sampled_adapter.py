"""An adapter of a network that samples two levels and knows no content or position.

Each of 6 queries stands at a point; each of 2 heads takes 3 points a level around it, with weights
and offsets that depend on the image. What it finds is made up, and the same for the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detr_viz.attention.grids import Grid
from detr_viz.explanation.detector import AttentionSite, DetectorInfo, Forwarded

QUERIES, HEADS, LEVELS, POINTS, WIDTH = 6, 2, 2, 3, 4
STRIDES = (8, 16)


def splat(xy: Tensor, weight: Tensor, hw: tuple[int, int]) -> Tensor:
    """Points (..., P, 2) in [0, 1] with weights (..., P) on a grid (..., h * w), point by point.

    The adjoint of bilinear sampling with zeros outside: pixel = location * size - 0.5.
    """
    h, w = hw
    x, y = xy[..., 0] * w - 0.5, xy[..., 1] * h - 0.5
    grid = torch.zeros(*weight.shape[:-1], h * w, dtype=weight.dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            share = weight * (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            grid.scatter_add_(-1, index, share * inside)
    return grid


@dataclass(frozen=True, eq=False)
class ToyAttention:
    """Samples xy (M, Q, L, P, 2), weight (M, Q, L, P), value (M, S, D)."""

    xy: Tensor
    weight: Tensor
    value: Tensor
    grids: tuple[Grid, ...]

    kind = "sampled"
    num_heads = HEADS
    num_rows = QUERIES
    term_names = ()

    @property
    def modes(self) -> Mapping[str, str]:
        return {"combine": "samples at p + offsets"}

    def weights(self, mode: str = "combine", rows=None, scale: str = "mode") -> Tensor:
        chosen = list(range(QUERIES) if rows is None else rows)
        parts = [
            splat(self.xy[:, chosen, level], self.weight[:, chosen, level], grid.hw)
            for level, grid in enumerate(self.grids)
        ]
        return torch.cat(parts, -1)

    def even(self, rows=None) -> Tensor:
        cells = self.value.shape[1]
        return torch.full((HEADS, 1, cells), 1 / cells)

    def samples(self, mode: str = "combine", rows=None) -> tuple[Tensor, Tensor]:
        chosen = list(range(QUERIES) if rows is None else rows)
        return self.xy[:, chosen].transpose(0, 1), self.weight[:, chosen].transpose(0, 1)

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        context = (self.weights() @ self.value).transpose(0, 1).flatten(1)
        return float((project_out(context) - out).norm() / out.norm())


class Sampling(nn.Module):
    """Called with xy (B, M, Q, L, P, 2), weight and the levels' values; gives (B, Q, M * D)."""

    def forward(self, xy: Tensor, weight: Tensor, levels: list[Tensor]) -> Tensor:
        out = []
        for image in range(len(xy)):
            context = 0
            for level, value in enumerate(levels):  # (B, M, h, w, D)
                h, w = value.shape[2:4]
                deposit = splat(xy[image, :, :, level], weight[image, :, :, level], (h, w))
                context = context + deposit @ value[image].flatten(1, 2)
            out.append(context.transpose(0, 1).flatten(1))
        return torch.stack(out)


class ToyDetector:
    """A `Detector` that does not decode again."""

    def __init__(self, device: str) -> None:
        self.device, self.precision, self.dtype = torch.device(device), "float32", torch.float32
        self._layers = nn.ModuleList([Sampling(), Sampling()])
        self.info = DetectorInfo(
            type="toy_sampled",
            title="Toy sampler",
            weights="toy",
            path="toy",
            sha256="70" * 32,
            class_names=("blob", "blot", "dot"),
            num_queries=QUERIES,
            num_heads=HEADS,
            num_layers=2,
            num_encoder_layers=0,
            modes=("combine",),
            pairwise=False,
            size=64,
            max_size=96,
        )

    def input_hw(self, image_hw, size=None, max_size=None) -> tuple[int, int]:
        from detr_viz.images.read import target_size

        return target_size(*image_hw, size or 64, max_size or 96)

    def prepare(self, rgb_BHW3: np.ndarray) -> Tensor:
        """Padded to a multiple of the coarser stride, as such networks do."""
        x = torch.from_numpy(np.array(rgb_BHW3)).permute(0, 3, 1, 2) / 255
        self._valid = tuple(x.shape[-2:])
        pad = [-side % STRIDES[-1] for side in x.shape[-2:]]
        return nn.functional.pad(x, (0, pad[1], 0, pad[0]))

    def attention_sites(self) -> dict[tuple[str, int], AttentionSite]:
        return {
            ("cross", i): AttentionSite(layer, _read, nn.Identity())
            for i, layer in enumerate(self._layers)
        }

    def forward(self, pixels: Tensor, layers: Sequence[int]) -> Forwarded:
        count, _, height, width = pixels.shape
        gray = pixels.mean(1)
        generator = torch.Generator().manual_seed(7)
        base = torch.rand(HEADS, QUERIES, LEVELS, POINTS, 2, generator=generator)
        points = torch.linspace(0.15, 0.85, QUERIES)
        points = torch.stack([points, points.flip(0)], -1)
        values = [
            torch.stack(
                [nn.functional.avg_pool2d(gray[:, None], s)[:, 0] * (k + 1) for k in range(8)], -1
            )
            .unflatten(-1, (HEADS, WIDTH))
            .permute(0, 3, 1, 2, 4)
            for s in STRIDES
        ]
        scores, boxes = {}, {}
        for i, layer in enumerate(self._layers):
            mean = gray.mean((1, 2)).view(-1, 1, 1, 1, 1, 1)
            xy = points[None, None, :, None, None] + (base - 0.5) * (0.3 + 0.2 * mean) * (i + 1)
            weight = (base[..., 0] * (1 + i + 3 * mean[..., 0])).flatten(-2).softmax(-1)
            out = layer(xy, weight.unflatten(-1, (LEVELS, POINTS)), values)
            marks = torch.stack([out.sum(-1), out[..., 0], out[..., 5]], -1)
            scores[i] = (marks * torch.tensor([1.0, 0.9, 0.8]) + i).sigmoid()
            size = torch.full((count, QUERIES, 2), 0.25)
            boxes[i] = torch.cat([points.expand(count, -1, -1), size], -1)
        grids = tuple(
            Grid(
                (height // s, width // s),
                (height, width),
                s,
                "centered",
                self._valid,
                f"level {k}, stride {s}",
            )
            for k, s in enumerate(STRIDES)
        )
        return Forwarded(scores, boxes, None, lambda memory, i: None, grids, points)


def _read(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any, image: int, grids: tuple[Grid, ...]
) -> ToyAttention:
    xy, weight, levels = args
    value = torch.cat([level[image].flatten(1, 2) for level in levels], 1)
    return ToyAttention(xy[image], weight[image], value, grids)


def load(weights: str | None, device: str) -> ToyDetector:
    """There is one; it needs no file."""
    return ToyDetector(device)
