"""What a detector found in one image and how its decoder looked at it, in numpy alone.

`ExplanationBase` is what figures, tables and saved maps are made of. Of its two kinds, an
Explanation (explain_image.py, torch) works maps out from the captured attention when they are
asked for; a StoredExplanation holds those of some queries, and can be sent to a process that has no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Placement, cell_centers
from detr_viz.attention.terms import SEPARATE_COMBINE, Mode, check_mode, formula_of, is_sum
from detr_viz.images.read import ImageFacts, LoadedImage

Site = tuple[str, int]  # ("cross" | "decoder" | "encoder", layer)


@dataclass(frozen=True, eq=False)
class Detections:
    """What the heads make of one decoder layer's output; fields as in ExplanationBase.

    scores (Q,) float32, labels (Q,) int64, boxes_xyxy_px (Q, 4) float32 in pixels of the original
    image, class_scores (Q, classes) float32.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float32]
    class_scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LogitTerms:
    """Which products of query and key parts the logits of q queries are a sum of (ledger.py).

    terms     name of terms.TERMS -> logits at the layer's own scale, centred over the cells: their
              mean is 0; float32 (q, heads, h, w)
    total     their sum, (q, heads, h, w)
    weights   softmax of the sum, (q, heads, h, w)
    shares    name -> cov(term, total) / var(total) over the cells, (q, heads); they sum to 1, and
              are NaN where the total is flat
    residual  largest difference of the sum from the logits as the network itself multiplies them
    """

    terms: Mapping[str, NDArray[np.float32]]
    total: NDArray[np.float32]
    weights: NDArray[np.float32]
    shares: Mapping[str, NDArray[np.float32]]
    residual: float

    def of(self, rows: Sequence[int]) -> LogitTerms:
        """Of some of its queries, by their places."""
        chosen = list(rows)
        return LogitTerms(
            {name: part[chosen] for name, part in self.terms.items()},
            self.total[chosen],
            self.weights[chosen],
            {name: share[chosen] for name, share in self.shares.items()},
            self.residual,
        )


@dataclass(frozen=True, eq=False)
class ExplanationBase:
    """Detections and what is known of their attention maps. Arrays are numpy.

    image             the picture as read (rgb uint8 (H0, W0, 3), path, sha256); without its pixels
                      in a run that keeps them elsewhere
    input_hw          (h, w) of the resized network input, pixels
    grid_hw, stride   (h, w) of the memory grid; input pixels per cell
    cell_rule         "aligned": cell i is centred on input pixel index stride * i
    scores            (Q,) float32, the largest probability over the real classes
    labels            (Q,) int64, the class that has it; names in class_names
    boxes_xyxy_px     (Q, 4) float32, pixels of the original image
    class_scores      (Q, classes) float32
                      (these four are the last decoder layer's, whatever was captured)
    layers            decoder layers whose cross-attention was captured, from 0, ascending
    outputs           captured layer -> what that layer's own output says (Detections)
    separate          captured layers in which no content meets a position (attention.separate)
    reference_px      (Q, 2) float32 x, y: where a query stands before it looks, pixels of the
                      original image; None where a model's queries have no such point
    residuals         layer -> residual of the self-check; NaN where it cannot be tested
    meta              plain values that say how this was made
    """

    model_type: str
    model_title: str
    modes: tuple[str, ...]
    image: LoadedImage | ImageFacts
    input_hw: tuple[int, int]
    grid_hw: tuple[int, int]
    stride: int
    cell_rule: str
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    boxes_xyxy_px: NDArray[np.float32]
    class_scores: NDArray[np.float32]
    num_heads: int
    num_layers: int
    layers: tuple[int, ...]
    outputs: Mapping[int, Detections] = field(repr=False)
    separate: frozenset[int]
    reference_px: NDArray[np.float32] | None
    residuals: Mapping[int, float]
    meta: Mapping[str, Any]
    pairwise: bool

    @property
    def num_queries(self) -> int:
        return len(self.scores)

    def label_name(self, query: int) -> str:
        """Class name of a query's best class."""
        return self.class_names[self.labels[query]]

    def by_score(self) -> list[int]:
        """All query ids, best first; equal scores in order of id."""
        return np.argsort(-self.scores, kind="stable").tolist()

    def detections(self, limit: int = 100) -> list[tuple[int, int, float]]:
        """(query, label, score), best first, as the authors' evaluation counts them.

        DETR: every query once, with its best class. Focal-loss models: the top `limit` pairs of
        query and class, where a query may stand more than once.
        """
        if not self.pairwise:
            return [(q, int(self.labels[q]), float(self.scores[q])) for q in self.by_score()]
        flat = self.class_scores.ravel()
        order = np.argsort(-flat, kind="stable")[:limit]
        classes = self.class_scores.shape[1]
        return [(int(i // classes), int(i % classes), float(flat[i])) for i in order]

    def cell_centers_px(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres of the grid's rows (h,) and columns (w,), pixels of the original image."""
        place = Placement(self.input_hw, self.stride, self.cell_rule)
        return tuple(
            cell_centers(self.grid_hw[axis], self.image.hw[axis], place, axis) + 0.5
            for axis in (0, 1)
        )

    def cells_inside(self) -> NDArray[np.bool_]:
        """(Q, h * w): which cells have their centres in each query's box."""
        y, x = self.cell_centers_px()
        left, top, right, bottom = (side[:, None] for side in self.boxes_xyxy_px.T)
        rows, columns = (top <= y) & (y <= bottom), (left <= x) & (x <= right)
        return (rows[:, :, None] & columns[:, None, :]).reshape(self.num_queries, -1)

    def pick_layer(self, layer: int | None = None) -> int:
        """A captured layer: the last captured one for None. ValueError names those there are."""
        if layer is None:
            return self.layers[-1]
        if layer not in self.layers:
            have = ", ".join(map(str, self.layers))
            raise ValueError(f"decoder layer {layer} was not captured; there is {have}")
        return layer

    def output(self, layer: int | None = None) -> Detections:
        """Scores, labels and boxes as a captured layer's own output gives them; see pick_layer."""
        return self.outputs[self.pick_layer(layer)]

    def formula(self, mode: str | Mode, layer: int | None = None) -> str:
        """What a mode's logits are at a layer: parts of the query times parts of the key."""
        if isinstance(mode, Mode):
            return mode.formula
        apart = mode == "combine" and self.pick_layer(layer) in self.separate
        return SEPARATE_COMBINE if apart else formula_of(mode)

    def maps(
        self,
        mode: str | Mode = "combine",
        queries: Sequence[int] | int | None = None,
        layer: int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:
        """Cross-attention maps, float32 (q, heads, h, w); each sums to 1 over (h, w).

        softmax((parts of q) . (parts of k) * scale), for these queries only (None: all). mode: one
        of `modes`, a sum of terms ("cq.pk+pq.pk") or a Mode of your own. scale
        "mode": the factor of the mode's q and k attended on their own; "layer": the layer's, so
        that logits of position and content are their share of combine's (where a model
        concatenates them). ValueError on anything unknown.
        """
        if is_sum(mode):
            check_mode(str(mode))
        elif isinstance(mode, str) and mode not in self.modes:
            have = ", ".join(self.modes)
            raise ValueError(f"{self.model_title} has no mode {mode!r}; it has {have}")
        return self._maps(mode, self._chosen(queries), self.pick_layer(layer), scale)

    def ledger(
        self, queries: Sequence[int] | int | None = None, layer: int | None = None
    ) -> LogitTerms:
        """The terms of the cross-attention's logits; queries and layer as in `maps`."""
        return self._ledger(self._chosen(queries), self.pick_layer(layer))

    def _chosen(self, queries: Sequence[int] | int | None) -> list[int]:
        if queries is None:
            queries = range(self.num_queries)
        chosen = [index(q) for q in ([queries] if np.ndim(queries) == 0 else queries)]
        bad = [q for q in chosen if not 0 <= q < self.num_queries]
        if bad:
            raise ValueError(f"query {bad[0]} is not one of 0..{self.num_queries - 1}")
        return chosen

    def _maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> NDArray[np.float32]:
        """What `maps` promises, once its arguments are known to be sound."""
        raise NotImplementedError

    def _ledger(self, queries: list[int], layer: int) -> LogitTerms:
        """The same of `ledger`."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class StoredExplanation(ExplanationBase):
    """Maps of some queries and modes, at one scale: plain data, to be sent.

    kept      the queries whose maps there are
    scale     the one they were made at
    stored    (mode, layer) -> float32 (kept, heads, h, w)
    ledgers   layer -> of the queries kept, where they were asked for
    attended  (site, mode) -> float32 (rows, heads, keys) of further attention, at the same scale
    rows      site -> the ids of what attends there, in the order of `attended`
    num_encoder_layers   None where it is not known
    """

    kept: tuple[int, ...]
    scale: str
    stored: Mapping[tuple[str | Mode, int], NDArray[np.float32]] = field(repr=False)
    ledgers: Mapping[int, LogitTerms] = field(repr=False)
    attended: Mapping[tuple[Site, str | Mode], NDArray[np.float32]] = field(
        default_factory=dict, repr=False
    )
    rows: Mapping[Site, tuple[int, ...]] = field(default_factory=dict, repr=False)
    num_encoder_layers: int | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention sites that there is something of."""
        return (*(("cross", layer) for layer in self.layers), *self.rows)

    def attention(
        self,
        site: Site,
        mode: str | Mode = "combine",
        rows: Sequence[int] | int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:
        """Attention weights of a site that was kept, (rows, heads, keys); see Explanation."""
        known = self.rows.get(site, ())
        wanted = known if rows is None else [rows] if np.ndim(rows) == 0 else rows
        if scale != self.scale or (site, mode) not in self.attended or {*wanted} - {*known}:
            raise ValueError(f"attention of {site}, mode {mode}, scale {scale}, {rows}: not kept")
        return self.attended[site, mode][[known.index(row) for row in wanted]]

    def _maps(
        self, mode: str | Mode, queries: list[int], layer: int, scale: str
    ) -> NDArray[np.float32]:
        if scale != self.scale or (mode, layer) not in self.stored or set(queries) - {*self.kept}:
            raise ValueError(f"mode {mode}, layer {layer}, scale {scale}, {queries}: not kept")
        return self.stored[mode, layer][[self.kept.index(q) for q in queries]]

    def _ledger(self, queries: list[int], layer: int) -> LogitTerms:
        if layer not in self.ledgers or set(queries) - {*self.kept}:
            raise ValueError(f"the ledger of layer {layer}, {queries}: not kept")
        return self.ledgers[layer].of([self.kept.index(q) for q in queries])


def snapshot(
    findings: ExplanationBase,
    queries: Sequence[int],
    modes: Sequence[str | Mode],
    scale: str = "mode",
    ledgers: bool = False,
    *,
    layers: Sequence[int] | None = None,
    attention: Mapping[Site, Sequence[int]] | None = None,
) -> StoredExplanation:
    """The findings with the maps of these queries and modes at captured layers.

    layers     None: all that were captured; the others are left out, as if they had not been
    attention  further sites, with the ids of what attends there: their weights of the same modes
    """
    kept = tuple(dict.fromkeys(queries))
    chosen = findings.layers if layers is None else tuple(sorted({*layers}))
    stored = {
        (mode, layer): findings.maps(mode, kept, layer, scale)
        for layer in (chosen if kept else ())
        for mode in modes
    }
    rows = {site: tuple(dict.fromkeys(ids)) for site, ids in (attention or {}).items()}
    known = {name: getattr(findings, name) for name in ExplanationBase.__dataclass_fields__}
    known |= {
        "layers": chosen,
        "outputs": {layer: findings.output(layer) for layer in chosen},
        "separate": findings.separate & {*chosen},
        "residuals": {layer: findings.residuals[layer] for layer in chosen},
        "meta": _of_sites(findings.meta, [*(("cross", layer) for layer in chosen), *rows]),
    }
    return StoredExplanation(
        **known,
        kept=kept,
        scale=scale,
        stored=stored,
        ledgers={n: findings.ledger(kept, n) for n in chosen} if ledgers and kept else {},
        attended={
            (site, mode): findings.attention(site, mode, ids, scale)
            for site, ids in rows.items()
            for mode in modes
        },
        rows=rows,
        num_encoder_layers=encoder_depth(findings),
    )


def _of_sites(meta: Mapping[str, Any], sites: Sequence[Site]) -> Mapping[str, Any]:
    """The meta with the residuals of these sites alone."""
    residuals = meta.get("residuals")
    if not isinstance(residuals, Mapping):
        return meta
    names = {str(layer) if kind == "cross" else f"{kind} {layer}" for kind, layer in sites}
    return {**meta, "residuals": {name: r for name, r in residuals.items() if name in names}}


def encoder_depth(findings: ExplanationBase) -> int | None:
    """The number of encoder layers; None where it is not known."""
    model = getattr(findings, "model", None)
    known = getattr(findings, "num_encoder_layers", None)
    return known if known is not None or model is None else model.info.num_encoder_layers
