"""Results with the maps of some queries and modes: plain data, which can be sent or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.base import Where
from detr_viz.attention.terms import Mode
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.explanation.results import ExplanationBase

Levels = tuple[NDArray[np.float32], ...]
Samples = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False, repr=False)
class StoredExplanation(ExplanationBase):
    """Maps of some queries and modes, at one scale.

    kept            ids of the queries with maps
    scale           of the maps
    stored          (mode, layer) -> maps of each level, float32 (kept, heads, h, w)
    stored_samples  (mode, layer) -> points and weights, of attention that takes samples
    stored_cells    layer -> shares of the cells, boxes and shares of the bias, of attention that
                    reads cells of boxes
    stored_terms    layer -> terms of the logits of these queries, if requested
    attended        (site, mode) -> weights of further sites at that scale, (rows, heads, keys)
    attended_samples  (site, mode) -> points and weights of these, of sites that take samples
    rows            site -> ids of the queries or cells that attend, in the order of `attended`
    """

    kept: tuple[int, ...]
    scale: str
    stored: Mapping[tuple[str | Mode, int], Levels] = field(repr=False)
    stored_samples: Mapping[tuple[str, int], Samples] = field(repr=False)
    stored_terms: Mapping[int, LogitTerms] = field(repr=False)
    attended: Mapping[tuple[Where, str | Mode], NDArray[np.float32]] = field(  # (rows, M, keys)
        default_factory=dict, repr=False
    )
    attended_samples: Mapping[tuple[Where, str | Mode], Samples] = field(
        default_factory=dict, repr=False
    )
    rows: Mapping[Where, tuple[int, ...]] = field(default_factory=dict, repr=False)
    # (q, M, n, n), (q, 4), (q,)
    stored_cells: Mapping[int, tuple[NDArray[np.float32], ...]] = field(
        default_factory=dict, repr=False
    )

    @property
    def sites(self) -> tuple[Where, ...]:
        """The attention sites with stored weights."""
        return (*(("cross", layer) for layer in self.layers), *self.rows)

    def attention(
        self,
        site: Where,
        mode: str | Mode = "combine",
        rows: Sequence[int] | int | None = None,
        scale: str = "mode",
    ) -> NDArray[np.float32]:  # (rows, M, keys)
        """Stored attention weights of a site, (rows, heads, keys); see Explanation.

        ValueError for weights that are not stored.
        """
        known = self.rows.get(site, ())
        wanted = known if rows is None else [rows] if np.ndim(rows) == 0 else rows
        if scale != self.scale or (site, mode) not in self.attended or {*wanted} - {*known}:
            raise ValueError(f"attention of {site}, mode {mode}, scale {scale}, {rows}: not kept")
        return self.attended[site, mode][[known.index(row) for row in wanted]]

    def samples_at(self, site: Where, mode: str, rows: Sequence[int]) -> Samples | None:
        """Stored points and weights of a further site; None where it takes no samples."""
        if (site, mode) not in self.attended_samples:
            return None
        places = [self.rows[site].index(row) for row in rows]
        return tuple(part[places] for part in self.attended_samples[site, mode])

    def _level_maps(self, mode: str | Mode, queries: list[int], layer: int, scale: str) -> Levels:
        if scale != self.scale or (mode, layer) not in self.stored or set(queries) - {*self.kept}:
            raise ValueError(f"mode {mode}, layer {layer}, scale {scale}, {queries}: not kept")
        places = self._places(queries)
        return tuple(maps[places] for maps in self.stored[mode, layer])

    def _samples(self, mode: str, queries: list[int], layer: int) -> Samples | None:
        if (mode, layer) not in self.stored_samples:
            return None
        xy, weight = self.stored_samples[mode, layer]
        places = self._places(queries)
        return xy[places], weight[places]

    def _cells(self, queries: list[int], layer: int) -> tuple[NDArray[np.float32], ...] | None:
        if layer not in self.stored_cells:
            return None
        if set(queries) - {*self.kept}:
            raise ValueError(f"the cells of layer {layer}, {queries}: not kept")
        places = self._places(queries)
        return tuple(part[places] for part in self.stored_cells[layer])

    def _logit_terms(self, queries: list[int], layer: int) -> LogitTerms:
        if layer not in self.stored_terms or set(queries) - {*self.kept}:
            raise ValueError(f"the terms of layer {layer}, {queries}: not kept")
        return self.stored_terms[layer].of(self._places(queries))

    def _places(self, queries: Sequence[int]) -> list[int]:
        return [self.kept.index(q) for q in queries]


def store(
    explanation: ExplanationBase,
    queries: Sequence[int],
    modes: Sequence[str | Mode],
    scale: str = "mode",
    terms: bool = False,
    *,
    layers: Sequence[int] | None = None,
    attention: Mapping[Where, Sequence[int]] | None = None,
) -> StoredExplanation:
    """The explanation with the maps of these queries and modes at captured layers.

    terms      whether the terms of the logits are stored too
    layers     the captured layers to store, None: all; the result does not know the others
    attention  further sites, with the ids of the queries or cells that attend: their weights of the
               same modes are stored
    """
    kept = tuple(dict.fromkeys(queries))
    chosen = explanation.layers if layers is None else tuple(sorted({*layers}))
    pairs = [(mode, layer) for layer in chosen for mode in modes] if kept else []
    samples = {pair: explanation.samples(pair[0], kept, pair[1]) for pair in pairs}
    cells = {n: explanation.cells(kept, n) for n in chosen} if kept else {}
    rows = {site: tuple(dict.fromkeys(ids)) for site, ids in (attention or {}).items()}
    known = {f.name: getattr(explanation, f.name) for f in fields(ExplanationBase)}
    known |= {
        "layers": chosen,
        "layer_grids": {n: explanation.grids(n) for n in chosen},
        "outputs": {n: explanation.output(n) for n in chosen},
        "formulas": {n: explanation.formulas[n] for n in chosen},
        "separate": explanation.separate & {*chosen},
        "residuals": {n: explanation.residuals[n] for n in chosen},
        "layer_references": {
            n: points for n, points in explanation.layer_references.items() if n in chosen
        },
        "reference_boxes": {
            n: boxes for n, boxes in explanation.reference_boxes.items() if n in chosen
        },
        "meta": _of_sites(explanation.meta, [*(("cross", n) for n in chosen), *rows]),
    }
    return StoredExplanation(
        **known,
        kept=kept,
        scale=scale,
        stored={pair: explanation.level_maps(pair[0], kept, pair[1], scale) for pair in pairs},
        stored_samples={pair: points for pair, points in samples.items() if points is not None},
        stored_cells={n: parts for n, parts in cells.items() if parts is not None},
        stored_terms=(
            {n: explanation.logit_terms(kept, n) for n in chosen} if terms and kept else {}
        ),
        attended={
            (site, mode): explanation.attention(site, mode, ids, scale)
            for site, ids in rows.items()
            for mode in modes
        },
        attended_samples={
            (site, mode): points
            for site, ids in rows.items()
            for mode in modes
            if (points := explanation.samples_at(site, mode, ids)) is not None
        },
        rows=rows,
    )


def _of_sites(meta: Mapping[str, Any], sites: Sequence[Where]) -> Mapping[str, Any]:
    """The meta with the residuals of these sites only."""
    residuals = meta.get("residuals")
    if not isinstance(residuals, Mapping):
        return meta
    names = {str(layer) if kind == "cross" else f"{kind} {layer}" for kind, layer in sites}
    return {**meta, "residuals": {name: r for name, r in residuals.items() if name in names}}
