"""The detections in one image and the attention maps of the decoder, in numpy alone.

Figures, tables and saved maps take an `ExplanationBase`. It has two kinds: an Explanation
(captured.py, torch) computes maps from the captured attention when they are needed. A
StoredExplanation (stored.py) holds maps of some queries, for a process without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import WHOLE
from detr_viz.attention.grids import Grid, on_finest
from detr_viz.attention.terms import UNDIVIDED_FORMULA, Mode, formula_of
from detr_viz.detections.detections import Detections
from detr_viz.detections.mistakes import Truth
from detr_viz.explanation.detector import layer_word
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.explanation.map_grids import MapGrids
from detr_viz.explanation.mode_checks import check_mode_of, check_products
from detr_viz.explanation.notebook import InNotebook
from detr_viz.explanation.salience import Salience
from detr_viz.explanation.scales import ScaleAttention
from detr_viz.explanation.summary import summary
from detr_viz.images.loaded_image import ImageFacts, LoadedImage


@dataclass(frozen=True, eq=False, repr=False)
class ExplanationBase(MapGrids, InNotebook):
    """Detections and the facts of their attention maps. Arrays are numpy.

    image             the picture as read (rgb uint8 (H0, W0, 3), path, sha256); without its pixels
                      in a run that keeps them elsewhere
    attention_kind    of the cross-attention: "dense", "sampled", ...
    term_names        the terms whose sum its logits are; () if they are not a sum
    layer_grids       captured layer -> grids of its levels, finest first
    scores            (Q,) float32, the largest probability over the real classes
    labels            (Q,) int64, the class that has it; names in class_names
    boxes_xyxy_px     (Q, 4) float32, pixels of the original image
    class_scores      (Q, classes) float32
                      (these four are of the last decoder layer, whatever layers were captured)
    layers            decoder layers whose cross-attention was captured, from 0, ascending
    outputs           captured layer -> detections of that layer's own output
    formulas          captured layer -> mode -> formula of its logits
    separate          captured layers without products of content and position
    reference_px      (Q, 2) float32 x, y: a query's reference point before the decoder, pixels of
                      the original image; None if the model's queries have no such point
    layer_references  captured layer -> the same as it enters that layer, if they move
    reference_boxes   captured layer -> (Q, 4) xyxy, pixels of the original image: the boxes in
                      which that layer's references lie, where they are boxes
    residuals         layer -> residual of the self-check; NaN if it cannot be tested
    meta              plain values that say how this was computed
    pairwise          detections are the top (query, class) pairs, not one class for each query
    salience          of tokens, and which of them encoder layers refine; None: all of them
    scales            how much of each level encoder layers take; None: they do not weigh levels
    """

    model_type: str
    model_title: str
    modes: tuple[str, ...]
    image: LoadedImage | ImageFacts
    attention_kind: str
    term_names: tuple[str, ...]
    layer_grids: Mapping[int, tuple[Grid, ...]]
    scores: NDArray[np.float32]  # (Q,)
    labels: NDArray[np.int64]  # (Q,)
    class_names: tuple[str, ...]
    boxes_xyxy_px: NDArray[np.float32]  # (Q, 4)
    class_scores: NDArray[np.float32]  # (Q, C)
    num_heads: int
    num_layers: int
    num_encoder_layers: int
    layers: tuple[int, ...]
    outputs: Mapping[int, Detections] = field(repr=False)
    formulas: Mapping[int, Mapping[str, str]] = field(repr=False)
    separate: frozenset[int]
    reference_px: NDArray[np.float32] | None  # (Q, 2)
    residuals: Mapping[int, float]
    meta: Mapping[str, Any]
    pairwise: bool
    # (Q, 2)
    layer_references: Mapping[int, NDArray[np.float32]] = field(default_factory=dict, kw_only=True)
    # (Q, 4)
    reference_boxes: Mapping[int, NDArray[np.float32]] = field(default_factory=dict, kw_only=True)
    salience: Salience | None = field(default=None, kw_only=True, repr=False)
    scales: ScaleAttention | None = field(default=None, kw_only=True, repr=False)

    def __repr__(self) -> str:
        return summary(self)

    # ---- what was detected ---------------------------------------------------------------------

    @property
    def num_queries(self) -> int:
        return len(self.scores)

    def label_name(self, query: int) -> str:
        """Class name of a query's best class."""
        return self.class_names[self.labels[query]]

    @property
    def truth(self) -> Truth | None:
        """The annotated objects of the image with this model's classes; None without a file."""
        annotated = self.image.annotated
        return None if annotated is None else Truth.of(annotated, self.class_names)

    def by_score(self) -> list[int]:
        """All query ids, best first; equal scores in order of id."""
        return np.argsort(-self.scores, kind="stable").tolist()

    def detections(self, limit: int = 100) -> list[tuple[int, int, float]]:
        """(query, label, score), best first, as the authors' evaluation counts them.

        DETR: every query once, with its best class. Focal-loss models: the top `limit` pairs of
        query and class, which may have the same query more than once.
        """
        if not self.pairwise:
            return [(q, int(self.labels[q]), float(self.scores[q])) for q in self.by_score()]
        flat = self.class_scores.ravel()
        order = np.argsort(-flat, kind="stable")[:limit]
        classes = self.class_scores.shape[1]
        return [(int(i // classes), int(i % classes), float(flat[i])) for i in order]

    def pick_layer(self, layer: int | None = None) -> int:
        """The layer, or the last captured one for None; ValueError if it was not captured."""
        if layer is None:
            return self.layers[-1]
        if layer not in self.layers:
            have = ", ".join(map(str, self.layers))
            raise ValueError(f"{self.layer_word} {layer} was not captured; there is {have}")
        return layer

    def references(self, layer: int) -> NDArray[np.float32] | None:  # (Q, 2 or 4)
        """Reference points (Q, 2), or boxes (Q, 4), as they enter a layer, pixels of the image."""
        points = self.layer_references.get(layer, self.reference_px)
        return self.reference_boxes.get(layer, points)

    def output(self, layer: int | None = None) -> Detections:
        """Scores, labels and boxes of a captured layer's own output; see pick_layer."""
        return self.outputs[self.pick_layer(layer)]

    @property
    def self_heads(self) -> int:
        """Heads of the self-attentions, which may be more than those of the cross-attention."""
        return int(self.meta.get("self_heads", self.num_heads))

    @property
    def why_undivided(self) -> str:
        """Why the model has no mode but combine, a clause; "" if it has others."""
        return str(self.meta.get("why_undivided", ""))

    @property
    def stages(self) -> bool:
        """Whether decoder layers are stages, which have cells of boxes (`cells`) and no heads."""
        return bool(self.meta.get("stages", False))

    @property
    def layer_word(self) -> str:
        """What a layer of the decoder is called."""
        return layer_word(self.stages)

    @property
    def layer_noun(self) -> str:
        """The same in a word."""
        return "stage" if self.stages else "layer"

    # ---- attention maps ------------------------------------------------------------------------

    def formula(self, mode: str | Mode, layer: int | None = None) -> str:
        """Formula of a mode's logits at a layer: parts of the query times parts of the key."""
        if isinstance(mode, Mode):
            return mode.formula
        return self.formulas[self.pick_layer(layer)].get(mode) or formula_of(mode)

    def self_formula(self, mode: str) -> str:
        """Formula of a mode's logits in a self-attention, of the encoder or of the decoder."""
        return UNDIVIDED_FORMULA if self.why_undivided else formula_of(mode)

    def maps(
        self,
        mode: str | Mode = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
        scale: str = "mode",
        level: str | int = "sum",
    ) -> NDArray[np.float32]:  # (q, M, h, w)
        """Cross-attention maps of these queries (None: all), float32 (q, heads, h, w).

        Each map sums to 1 over (h, w), less the part that falls off the map, or goes to tokens that
        are no cells (`outside`).

        mode   one of `modes`; for dense attention, softmax((parts of q) . (parts of k) * scale),
               also a sum of terms ("cq.pk+pq.pk") or a Mode of your own
        scale  "mode": the factor for the case that only that mode's q and k attend; "layer": the
               layer's own, so that logits of position and content are exact parts of combine's
               (if the model concatenates them)
        level  "sum": all levels on the finest grid, each coarse cell spread evenly over it; a
               number: that level alone, on its own grid
        ValueError on anything unknown.
        """
        levels = self.level_maps(mode, queries, layer, scale)
        if level != "sum":
            if isinstance(level, str) or not 0 <= index(level) < len(levels):
                raise ValueError(f'level {level!r} is not "sum" or one of 0..{len(levels) - 1}')
            return levels[level]
        return on_finest(levels, self.grids(layer))

    def level_maps(
        self,
        mode: str | Mode = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
        scale: str = "mode",
    ) -> tuple[NDArray[np.float32], ...]:  # (q, M, h, w)
        """The maps of each level: (q, heads, h, w) on each of `grids`."""
        check_mode_of(self, mode)
        return self._level_maps(mode, self._chosen(queries), self.pick_layer(layer), scale)

    def outside(
        self,
        mode: str | Mode = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:  # (q, M)
        """The part of the attention that falls off the map, (q, heads); 0 for the kinds WHOLE."""
        levels = self.level_maps(mode, queries, layer, scale)
        if self.kind(layer) in WHOLE:
            return np.zeros(levels[0].shape[:2], np.float32)
        inside = sum(m.sum((2, 3), dtype=np.float64) for m in levels)
        return np.clip(1 - inside, 0, 1).astype(np.float32)

    def samples(
        self,
        mode: str = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:  # (q, M, L, P, 2), (q, M, L, P)
        """Sampling points and their weights; None if the attention takes no samples.

        xy (q, heads, L, P, 2) in [0, 1] of each level's grid, weights (q, heads, L, P).
        """
        check_mode_of(self, mode)
        return self._samples(mode, self._chosen(queries), self.pick_layer(layer))

    def cells(
        self, queries: Sequence[int] | int | None = None, layer: int | None = None
    ) -> tuple[NDArray[np.float32], ...] | None:  # (q, M, n, n), (q, 4), (q,)
        """What each cell of a query's box adds; None if the attention reads no cells of boxes.

        share (q, heads, n, n) signed, row 0 at the top; boxes (q, 4) xyxy that enter the layer,
        pixels of the image; bias_share (q,). A query's shares sum to 1 with the bias's.
        """
        return self._cells(self._chosen(queries), self.pick_layer(layer))

    def logit_terms(
        self, queries: Sequence[int] | int | None = None, layer: int | None = None
    ) -> LogitTerms:
        """The terms of the cross-attention's logits; queries and layer as in `maps`."""
        check_products(self)
        return self._logit_terms(self._chosen(queries), self.pick_layer(layer))

    def _chosen(self, queries: Sequence[int] | int | None) -> list[int]:
        if queries is None:
            queries = range(self.num_queries)
        chosen = [index(q) for q in ([queries] if np.ndim(queries) == 0 else queries)]
        bad = [q for q in chosen if not 0 <= q < self.num_queries]
        if bad:
            raise ValueError(f"query {bad[0]} is not one of 0..{self.num_queries - 1}")
        return chosen

    # The public methods call these after they have checked the arguments.

    def _level_maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> tuple[NDArray[np.float32], ...]:
        raise NotImplementedError

    def _samples(
        self, mode: str, queries: list[int], layer: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        raise NotImplementedError

    def _cells(self, queries: list[int], layer: int) -> tuple[NDArray[np.float32], ...] | None:
        raise NotImplementedError

    def _logit_terms(self, queries: list[int], layer: int) -> LogitTerms:
        raise NotImplementedError
