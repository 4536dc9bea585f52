"""RoI attention: what each of the 7 x 7 cells of a query's box adds to what the query reads.

attention = ...                                 # RoIAttention, captured at one stage
attention.cells(rows=[3])                       # share (1, 7, 7), boxes (1, 4), bias_share (1,)
attention.weights(rows=[3])                     # the positive shares on the map, (1, 1, S)

Sparse R-CNN and Dynamic DETR have no softmax over the image. The output layer of their dynamic
convolution is linear over the cells of a box, so its output is a sum over them:

    y = b + sum over cells of W_c x_c           x_c: what the dynamic convolution made of cell c

The layer norm after it sees the centred y (less its mean over channels), hence

    share_c = <centred W_c x_c, centred y> / |centred y|^2        bias share = the same of b

which are signed, and sum to 1 with the bias's. The map is the positive shares, as parts of their
sum, spread over the query's level by the adjoint of RoIAlign. Only tensor maths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detr_viz.attention.base import Rows, one_of
from detr_viz.attention.grids import Grid
from detr_viz.attention.roi_align import Pyramid, RoIRule, adjoint
from detr_viz.attention.self_check import all_finite
from detr_viz.attention.terms import SCALES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detr_viz.explanation.removals import Removal

FORMULA = "max(0, ⟨W_c x_c, y⟩ / |y|²)"  # centred, see above
WHY = (
    "a box says where its query reads, a dynamic filter says what, and they are never summed, so "
    "there is no share of position and none of content"
)


@dataclass(frozen=True, eq=False)
class RoIAttention:
    """One stage's dynamic convolution of Q boxes with N = side * side cells (an `Attention`).

    features  (Q, N, E) x_c of each cell, row by row
    weight    (N, C, E) W_c, of the output layer;  bias: (C,)
    boxes     (Q, 4) xyxy that enter the stage, pixels of the network's input
    levels    (Q,) the level of the pyramid on which each box is read
    input_hw  pixels of the network's input, padding included
    grids     of the levels; () while they are not known
    """

    features: Tensor
    weight: Tensor
    bias: Tensor
    boxes: Tensor
    levels: Tensor
    pyramid: Pyramid
    rule: RoIRule
    input_hw: tuple[int, int]
    grids: tuple[Grid, ...] = ()

    kind = "roi"
    num_heads = 1
    term_names = ()
    value = None

    def __repr__(self) -> str:
        side = self.rule.side
        return f"RoIAttention({self.num_rows} boxes of {side} x {side} cells)"

    def of_image(self, i: int) -> RoIAttention:
        """One image of a batch. Features, boxes and levels of a batch begin with B."""
        return one_of(self, i, ("features", "boxes", "levels"))

    @property
    def num_rows(self) -> int:
        return self.features.shape[-3]

    @property
    def modes(self) -> dict[str, str]:
        """Combine alone, with its formula."""
        return {"combine": FORMULA}

    def _chosen(self, rows: Rows) -> Tensor:
        if rows is None:
            return torch.arange(self.num_rows, device=self.features.device)
        return torch.as_tensor(rows, dtype=torch.long, device=self.features.device)

    def parts(self, rows: Rows = None) -> Tensor:
        """W_c x_c of each cell, (q, N, C); with the bias their sum is y."""
        return _parts(self.features[self._chosen(rows)], self.weight)

    def shares(self, rows: Rows = None) -> tuple[Tensor, Tensor]:
        """share (q, N), signed, and bias_share (q,); together they sum to 1."""
        parts = self.parts(rows)
        return _shares(parts, self.bias, parts.sum(1) + self.bias)

    def cells(self, rows: Rows = None) -> tuple[NDArray[np.float32], ...]:
        """share (q, side, side), boxes (q, 4) in [0, 1] of the input, bias_share (q,): `HasCells`.

        Row 0 of a box's cells is its top.
        """
        share, bias_share = self.shares(rows)
        share = share.unflatten(-1, (self.rule.side, self.rule.side))
        h, w = self.input_hw
        boxes = self.boxes[self._chosen(rows)] / self.boxes.new_tensor([w, h, w, h])
        return tuple(x.to("cpu", torch.float32).numpy() for x in (share, boxes, bias_share))

    def weights(self, mode: str = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(1, q, S); a row sums to 1 less what falls off the map, or is 0 without a positive cell.

        ValueError for any mode but combine. Both scales are the same.
        """
        if mode != "combine":
            raise ValueError(f"mode {mode!r} does not exist: {WHY}")
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
        return self._spread(self.shares(rows)[0], rows)

    def even(self, rows: Rows = None) -> Tensor:
        """(1, q, S): the same share for each cell of the box."""
        chosen = self._chosen(rows)
        return self._spread(self.features.new_ones(len(chosen), self.rule.side**2), chosen)

    def _spread(self, share: Tensor, rows: Rows) -> Tensor:
        """The positive shares (q, N) as parts of their sum, on the map: (1, q, S)."""
        chosen = self._chosen(rows)
        positive = share.clamp(min=0)
        total = positive.sum(-1, keepdim=True)
        positive = positive / torch.where(total > 0, total, 1)
        cells = positive.unflatten(-1, (self.rule.side, self.rule.side))
        boxes = self.boxes[chosen].to(cells.dtype)
        return adjoint(cells, boxes, self.levels[chosen], self.pyramid, self.rule)[None]

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """How far cells and shares are from the network's own output (Q, C) before its norm.

        The larger of |b + sum W_c x_c - out| / |out - uni|, where uni has the mean cell in place of
        each cell, and of the largest |shares + bias share - 1| with out as y. inf if the output is
        not finite.
        """
        if not all_finite(out):
            return float("inf")
        parts = self.parts()
        mean = self.features.mean(1, keepdim=True).expand_as(self.features)
        rec, uni = (project_out(x.sum(1) + self.bias) for x in (parts, _parts(mean, self.weight)))
        share, bias_share = _shares(parts, self.bias, out.to(parts.dtype))
        # float64 on the CPU: some devices do not have it, and norms must not add rounding errors
        rec, uni, out, share = (
            x.cpu().double() for x in (rec, uni, out, share.sum(-1) + bias_share)
        )
        if not all_finite(rec):
            return float("inf")
        apart = torch.linalg.vector_norm(rec - out)
        spread = torch.linalg.vector_norm(out - uni)
        off = (share - 1).abs().max()
        if spread < 1e-3 * torch.linalg.vector_norm(out):
            return float("nan")
        return float(torch.maximum(apart / spread, off))

    def samples_in(self, boxes: Tensor) -> Tensor:
        """(Q, N) True for cells with their centre in the query's box; as in `HasPlaces`.

        boxes (Q, 4): x0, y0, x1, y1 in [0, 1] of the input.
        """
        h, w = self.input_hw
        side = self.rule.side
        steps = (torch.arange(side, device=boxes.device, dtype=self.boxes.dtype) + 0.5) / side
        inside_x, inside_y = (
            self._between(boxes[:, k], boxes[:, k + 2], steps, k, size)
            for k, size in ((0, w), (1, h))
        )
        return (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)

    def _between(self, low: Tensor, high: Tensor, steps: Tensor, axis: int, size: int) -> Tensor:
        """(Q, side): which centres along an axis lie between two shares of the input."""
        start, end = self.boxes[:, axis, None], self.boxes[:, axis + 2, None]
        at = (start + steps * (end - start)) / size
        return (low[:, None] <= at) & (at <= high[:, None])

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (1, Q, S), y (1, Q, C)) without a part.

        hidden: (Q, N) True for cells whose part of the sum is left out. Without the one head all
        are; without a row or column of cells, these. ValueError for content, position and terms.
        """
        if removal.terms:
            raise ValueError(f"{removal.name!r} cannot be removed: {WHY}")
        features = self.features
        if hidden is not None:
            features = features.masked_fill(hidden[..., None], 0)
        if removal.head is not None:
            features = torch.zeros_like(features)
        if removal.cells is not None:
            line, number = removal.cells
            side = self.rule.side
            kept = features.new_ones(side, side)
            kept[(number, slice(None)) if line == "row" else (slice(None), number)] = 0
            features = features * kept.flatten()[:, None]
        parts = _parts(features, self.weight)
        out = parts.sum(1) + self.bias
        return self._spread(_shares(parts, self.bias, out)[0], None), out[None]


def _parts(features: Tensor, weight: Tensor) -> Tensor:
    """(q, N, E) and (N, C, E) -> (q, N, C), a product for each cell."""
    return (features.transpose(0, 1) @ weight.transpose(-1, -2)).transpose(0, 1)


def _shares(parts: Tensor, bias: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the cells (q, N) and of the bias (q,) in y (q, C)."""
    y = y - y.mean(-1, keepdim=True)
    direction = y / y.square().sum(-1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
    # y is centred: the mean of a part has no share in the product
    return (parts @ direction[..., None])[..., 0], direction @ bias
