"""Sampled attention: each head reads P points on each of L levels of the memory.

attention = ...                                 # SampledAttention, captured at one site
attention.samples("position", rows=[3])         # xy (1, M, L, P, 2), weight (1, M, L, P)
attention.weights("position", rows=[3])         # their splat, (M, 1, S)

Offsets and logits of the points are linear in the query, which is content + position:

    logits = W (c + p) + b = content + position + bias         weights = softmax over L * P points
    offsets = V (c + p) + d                                    location = reference + scaled offset

A mode feeds one part or both, with the bias, so it moves weights and offsets. Only tensor maths: no
model, no image, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detr_viz.attention.base import Rows, one_of
from detr_viz.attention.bilinear import Shapes, in_boxes, mixed_corners, places_of, splat
from detr_viz.attention.grids import Grid
from detr_viz.attention.sampling import sampled
from detr_viz.attention.self_check import mixed, residual_of_rows, rows_at_once
from detr_viz.attention.terms import MODES, PARTS, SCALES

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal

FORMULAS = {  # of offsets and logits alike
    "combine": "W (c_q + p_q) + b",
    "position": "W p_q + b",
    "content": "W c_q + b",
}


@dataclass(frozen=True, eq=False)
class SampledAttention:
    """Points and weights of one site, by parts, split into heads (an `Attention`).

    c_logits, p_logits, b_logits     (M, Q or 1, L, P) parts of content, position and bias
    c_offsets, p_offsets, b_offsets  (M, Q or 1, L, P, 2) x, y: in cells of the level for points,
                                     in shares of the reference box (see `locations`) for boxes
    reference                        (Q, L, 2) x, y, or (Q, L, 4) cx, cy, w, h; in [0, 1] of each
                                     level's whole grid
    value                            (M, S, D), 0 on padding
    shapes                           (h, w) of each level
    padding                          (S,) True = padding, or None
    grids                            of the levels; () while they are not known
    tokens                           (Q,) the cell of all levels that each row is, where only some
                                     of them attend; None: row i is cell or query i
    """

    c_logits: Tensor
    p_logits: Tensor
    b_logits: Tensor
    c_offsets: Tensor
    p_offsets: Tensor
    b_offsets: Tensor
    reference: Tensor
    value: Tensor
    shapes: Shapes
    padding: Tensor | None = None
    grids: tuple[Grid, ...] = ()
    tokens: Tensor | None = None

    kind = "sampled"
    term_names = tuple(PARTS.values())

    def __repr__(self) -> str:
        levels, points = self.c_logits.shape[-2:]
        sizes = f"{self.num_heads} heads, {self.num_rows} rows, {levels} levels, {points} points"
        return f"{type(self).__name__}({sizes})"

    def of_image(self, i: int) -> SampledAttention:
        """One image of a batch. All fields of a batch begin with B, but not those of the bias."""
        names = ("c_logits", "p_logits", "c_offsets", "p_offsets", "reference", "value", "padding")
        return one_of(self, i, (*names, "tokens"))

    @property
    def num_heads(self) -> int:
        return self.c_logits.shape[-4]

    @property
    def num_rows(self) -> int:
        return self.reference.shape[-3]

    def rows_of(self, cells: Sequence[int]) -> list[int]:
        """The rows of these cells or queries; ValueError for one that does not attend."""
        if self.tokens is None:
            return list(cells)
        row = {token: i for i, token in enumerate(self.tokens.tolist())}
        if missing := [cell for cell in cells if cell not in row]:
            raise ValueError(f"cell {missing[0]} is not one of the {len(row)} that attend here")
        return [row[cell] for cell in cells]

    @property
    def modes(self) -> dict[str, str]:
        """Mode -> formula."""
        return dict(FORMULAS)

    def _sum(self, what: str, parts: str, rows: Rows) -> Tensor:
        """The named parts ("cpb") of the logits or offsets of these rows."""
        if rows is not None:
            rows = torch.as_tensor(rows, dtype=torch.long, device=self.value.device)
        bias = getattr(self, f"b_{what}")
        count = self.num_rows if rows is None else len(rows)
        total = torch.zeros_like(bias).expand(-1, count, *bias.shape[2:])
        for part in parts:
            value = getattr(self, f"{part}_{what}")
            total = total + (value if rows is None or part == "b" else value[:, rows])
        return total

    def term_logits(self, name: str, rows: Rows = None) -> Tensor:
        """(M, q, L * P) of one of `term_names`; their sum is softmaxed."""
        letter = {word: letter for letter, word in PARTS.items()}[name]
        return self._sum("logits", letter, rows).flatten(-2)

    def _samples(
        self, mode: str, rows: Rows, hidden: Tensor | None = None, level: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """xy (M, q, L, P, 2) and weight (M, q, L, P).

        hidden, and the level that is not read, as in `without`, of all rows.
        """
        parts = MODES[mode].q_parts
        xy = self.locations(self._sum("offsets", parts, rows), rows)
        logits = self._sum("logits", parts, rows)
        if hidden is None and level is None:
            return xy, logits.flatten(-2).softmax(-1).view_as(logits)
        mask = torch.zeros_like(logits, dtype=torch.bool)
        if hidden is not None and hidden.ndim == 4:
            mask = hidden.clone()
        elif hidden is not None:
            places = places_of(xy, self.shapes).flatten(-2)
            each = hidden.expand(self.num_heads, -1, -1).gather(-1, places.clamp(min=0))
            mask = (each & (places >= 0)).view_as(mask)
        if level is not None:
            mask[..., level, :] = True
        mask = mask.flatten(-2)
        blind = mask.all(-1, keepdim=True)
        scores = logits.flatten(-2).masked_fill(mask & ~blind, float("-inf"))
        return xy, scores.softmax(-1).masked_fill(blind, 0).view_as(logits)

    def locations(self, offsets: Tensor, rows: Rows = None) -> Tensor:
        """Offsets (M, q, L, P, 2) -> x, y in [0, 1] of each level's grid.

        A point is moved by cells of its level; in a box, P steps reach half its width or height.
        """
        chosen = slice(None) if rows is None else list(rows)
        reference = self.reference[chosen][:, :, None]  # (q, L, 1, 2 or 4)
        if reference.shape[-1] == 2:
            return reference + offsets / offsets.new_tensor(self.shapes).flip(-1)[:, None]
        return reference[..., :2] + offsets / offsets.shape[-2] * reference[..., 2:] * 0.5

    def samples(self, mode: str = "combine", rows: Rows = None) -> tuple[Tensor, Tensor]:
        """xy (q, M, L, P, 2) in [0, 1] of each level's whole grid, weight (q, M, L, P)."""
        return tuple(x.transpose(0, 1) for x in self._samples(_known(mode), rows))

    def weights(self, mode: str = "combine", rows: Rows = None, scale: str = "mode") -> Tensor:
        """(M, q, S); a row sums to 1 less what falls off the map. Both scales are the same."""
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r} is not one of {', '.join(SCALES)}")
        return splat(*self._samples(_known(mode), rows), self.shapes)

    def outside(self, mode: str = "combine", rows: Rows = None) -> Tensor:
        """The weight of each level that falls off the map, (M, q, L)."""
        xy, weight = self._samples(_known(mode), rows)
        inside = splat(xy, weight, self.shapes).split([h * w for h, w in self.shapes], -1)
        return weight.sum(-1) - torch.stack([part.sum(-1) for part in inside], -1)

    def padded(self, mode: str = "combine", rows: Rows = None) -> Tensor:
        """The weight that lies on padding, whose value is 0: (M, q)."""
        deposit = self.weights(mode, rows)
        if self.padding is None:
            return torch.zeros_like(deposit[..., 0])
        return deposit[..., self.padding].sum(-1)

    def even(self, rows: Rows = None) -> Tensor:
        """(M, 1, S): the same weight on every cell that is not padding."""
        flat = self.value.new_ones(self.num_heads, 1, self.value.shape[-2])
        if self.padding is not None:
            flat = flat.masked_fill(self.padding, 0)
        return flat / flat.sum(-1, keepdim=True)

    def residual(self, out: Tensor, project_out: Callable[[Tensor], Tensor]) -> float:
        """The self-check of the splat; see self_check.py."""
        return residual_of_rows(self._splat_context, self.even() @ self.value, out, project_out)

    def _splat_context(self, rows: Sequence[int]) -> Tensor:
        """What the splat of these rows says that they read: (M, q, D).

        Maps of all cells are made of as many rows as fit at once, evenly taken. The others are the
        same sums, but only of the few cells that a row reads: a hundredth of the work.
        """
        context = mixed_corners(*self._samples("combine", rows), self.shapes, self.value)
        step = -(-len(rows) // rows_at_once(self.value))
        context[:, ::step] = mixed(partial(self.weights, "combine"), self.value, rows[::step])
        return context

    def samples_in(self, boxes: Tensor) -> Tensor:
        """(M, Q, L, P) True where a sample lies in its query's box, as in `HasSamples`."""
        return in_boxes(self._samples("combine", None)[0], boxes)

    def without(self, removal: Removal, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(weights (M, Q, S), context (M, Q, D)) without a part.

        Without content or position, weights and places are those of the other mode. hidden: (Q, K)
        True for cells of the finest level where a query must not read, or (M, Q, L, P) for the
        samples themselves. Samples of any level that lie in such a cell are left out of the
        softmax, and so are those of a removed level. The weights of a removed head are 0, and those
        of a query without any sample left.
        """
        mode = {"position": "content", "content": "position"}.get(removal.name, "combine")
        xy, weight = self._samples(mode, None, hidden, removal.level)
        if removal.head is not None:
            weight = weight.clone()
            weight[removal.head] = 0
        return splat(xy, weight, self.shapes), self._context(xy, weight)

    def context(self, hidden: Tensor) -> Tensor:
        """(M, Q, D) with hidden cells, as of `without`; nothing of the size of all weights."""
        return self._context(*self._samples("combine", None, hidden))

    def _context(self, xy: Tensor, weight: Tensor) -> Tensor:
        """What these samples of all rows read, (M, Q, D)."""
        value, xy, weight = (x.transpose(0, 1)[None] for x in (self.value, xy, weight))
        return sampled(value, xy, weight, self.shapes)[0].transpose(0, 1)


def _known(mode: object) -> str:
    """ValueError for a mode that sampled attention does not have."""
    if not isinstance(mode, str) or mode not in FORMULAS:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(FORMULAS)}")
    return mode
