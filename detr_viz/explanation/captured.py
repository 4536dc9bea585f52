"""Results with the captured attention: maps of any mode and query are computed when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detr_viz.attention.base import Attention, HasCells, HasSamples, Where
from detr_viz.attention.grids import by_level, on_one_grid
from detr_viz.attention.terms import Mode
from detr_viz.detections.detections import Detections
from detr_viz.explanation.ablation import Ablation, ablate, check_removable, unchanged
from detr_viz.explanation.capture import AttentionCall
from detr_viz.explanation.detector import Detector
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.explanation.logit_terms import logit_terms
from detr_viz.explanation.mode_checks import check_divided, check_divided_site
from detr_viz.explanation.precision import own_arithmetic
from detr_viz.explanation.proposals import Proposals, Proposed
from detr_viz.explanation.removals import Removal
from detr_viz.explanation.removals import parse as parse_removal
from detr_viz.explanation.results import ExplanationBase
from detr_viz.explanation.sites import resolve_layers


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ExplanationBase):
    """Results whose maps are computed from the captured attention, for any mode and query.

    calls   every captured attention site, ("cross" | "decoder" | "encoder", layer) -> its call
    model   the detector that ran
    memory  the decoder's input, in the model's own form
    proposed  the tokens that became queries; None if queries are not made of tokens
    """

    calls: Mapping[Where, AttentionCall] = field(repr=False)
    model: Detector = field(repr=False)
    memory: Any = field(repr=False)
    proposed: Proposed | None = field(default=None, repr=False)

    @property
    def sites(self) -> tuple[Where, ...]:
        """The attention sites that were captured."""
        return tuple(self.calls)

    def attention_at(self, site: Where) -> Attention:
        """The attention of a captured site; ValueError for others, with the captured ones."""
        return self._call(site).attention

    def arithmetic(self) -> AbstractContextManager[None]:
        """The settings of torch that its model ran with, for all that is computed later."""
        return own_arithmetic(self.model.precision, self.model.device)

    def _call(self, site: Where) -> AttentionCall:
        if site not in self.calls:
            have = ", ".join(f"{kind} {layer}" for kind, layer in self.calls)
            raise ValueError(f"attention site {site} was not captured; there is {have}")
        return self.calls[site]

    def attention(
        self,
        site: Where,
        mode: str | Mode = "combine",
        rows: Sequence[int] | int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:  # (rows, M, keys)
        """Attention weights of any captured site, (rows, heads, keys); each row sums to 1.

        rows: ids of the queries or cells that attend (cells row-major in the grid); None: all.
        Where an encoder layer refines only some cells, others are unknown, and None: these, most
        salient first.
        keys: the memory's cells, level by level; for ("decoder", n) the queries. mode, scale as in
        `maps`. ValueError on anything unknown.
        """
        attention = self.attention_at(site)
        if mode != "combine":
            check_divided(self, mode)
            check_divided_site(attention, site, mode)
        count = attention.num_rows
        some = [rows] if rows is not None and np.ndim(rows) == 0 else rows
        chosen = range(count) if some is None else [index(row) for row in some]
        if some is not None and getattr(attention, "tokens", None) is not None:
            chosen = attention.rows_of(chosen)
        if bad := [row for row in chosen if not 0 <= row < count]:
            raise ValueError(f"row {bad[0]} of {site} is not one of 0..{count - 1}")
        with self.arithmetic():
            weights = attention.weights(mode, list(chosen), scale).transpose(0, 1)
        return weights.to("cpu", torch.float32).numpy()

    def ablate(self, removal: str | Removal, layers: str | int | Sequence[int] = "all") -> Ablation:
        """Run the decoder again without a part of its cross-attention.

        removal  "position" or "content" (every term that has a part of it), "term:cq.pk", "head:3",
                 "level:2", "box:inside" or "box:outside" (the cells whose centres are inside or
                 outside each query's own box; of sampled attention the samples that lie there)
        layers   the layers where it is removed, as in `explain`
        ValueError for an unknown removal. UserError for an unknown head or layer, or if the
        detector has no such parts.
        """
        part = parse_removal(removal) if isinstance(removal, str) else removal
        if part.terms:
            check_divided(self, part.name)
        check_removable(self.model, self.attention_at(("cross", self.layers[-1])), part)
        with self.arithmetic():
            found = ablate(
                self.model,
                self.memory,
                self.image.hw,
                part,
                resolve_layers(layers, self.num_layers, self.layer_word),
                torch.from_numpy(self.tokens_inside()).to(self.model.device),
                torch.from_numpy(self._boxes_of_input()).to(self.model.device),
                self._before_ablation,
            )
        grids = self.grids()
        if len(grids) == 1:
            return found
        on_one = {n: on_one_grid(w, grids) for n, w in found.weights.items()}
        weights = {n: maps.reshape(*maps.shape[:2], -1) for n, maps in on_one.items()}
        return replace(found, weights=weights)

    def _boxes_of_input(self) -> NDArray[np.float32]:
        """Each query's box, (Q, 4) x0, y0, x1, y1 in [0, 1] of the network's input."""
        grid, boxes = self.grid(), self.boxes_xyxy_px
        axes = (1, 0, 1, 0)
        shares = [
            grid.input_share(boxes[:, k], self.image.hw[axis], axis) for k, axis in enumerate(axes)
        ]
        return np.stack(shares, -1).astype(np.float32)

    @cached_property
    def proposals(self) -> Proposals | None:
        """Which tokens became queries, and all tokens' scores; None if queries are learned."""
        if self.proposed is None:
            return None
        rule = self.model.info.proposal_scores
        with self.arithmetic():
            return self.proposed.values(rule, self.grids(), self.image.hw)

    @cached_property
    def _before_ablation(self) -> Detections:
        """The detections without a removal, computed once for all removals."""
        with self.arithmetic():
            return unchanged(self.model, self.memory, self.image.hw)

    def _level_maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> tuple[NDArray[np.float32], ...]:
        flat = self.attention(("cross", layer), mode, queries, scale)
        return by_level(flat, self.grids(layer))

    def _samples(
        self, mode: str, queries: list[int], layer: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        return self.samples_at(("cross", layer), mode, queries)

    def _cells(self, queries: list[int], layer: int) -> tuple[NDArray[np.float32], ...] | None:
        attention = self.attention_at(("cross", layer))
        if not isinstance(attention, HasCells):
            return None
        with self.arithmetic():
            share, boxes, bias_share = attention.cells(queries)
        grid, hw = self.grid(layer), self.image.hw
        sides = [grid.photo_px(boxes[:, k], hw[1 - k % 2], 1 - k % 2) for k in range(4)]
        return share[:, None], np.stack(sides, -1).astype(np.float32), bias_share

    def samples_at(
        self, site: Where, mode: str, rows: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:  # (q, M, L, P, 2), (q, M, L, P)
        """Points and weights of these rows of a captured site, as of `samples`; or None."""
        attention = self.attention_at(site)
        if not isinstance(attention, HasSamples):
            return None
        chosen = list(rows)
        if getattr(attention, "tokens", None) is not None:
            chosen = attention.rows_of(chosen)
        with self.arithmetic():
            xy, weight = attention.samples(mode, chosen)
        return tuple(x.to("cpu", torch.float32).numpy() for x in (xy, weight))

    def _logit_terms(self, queries: list[int], layer: int) -> LogitTerms:
        with self.arithmetic():
            return logit_terms(self._call(("cross", layer)), queries, self.grid(layer).hw)
