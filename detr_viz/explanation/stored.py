"""Results with the maps of some queries and modes kept: plain data, to be sent or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.terms import Mode
from detr_viz.explanation.results import ExplanationBase, LogitTerms

Levels = tuple[NDArray[np.float32], ...]
Samples = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class StoredExplanation(ExplanationBase):
    """Maps of some queries and modes, at one scale.

    kept            the queries whose maps there are
    scale           the one they were made at
    stored          (mode, layer) -> of each level, float32 (kept, heads, h, w)
    stored_samples  (mode, layer) -> of attention that takes samples
    stored_terms    layer -> of the queries kept, where they were asked for
    """

    kept: tuple[int, ...]
    scale: str
    stored: Mapping[tuple[str | Mode, int], Levels] = field(repr=False)
    stored_samples: Mapping[tuple[str, int], Samples] = field(repr=False)
    stored_terms: Mapping[int, LogitTerms] = field(repr=False)

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
) -> StoredExplanation:
    """The explanation with the maps of these queries and modes at every captured layer.

    terms: with the terms of the logits too.
    """
    kept = tuple(dict.fromkeys(queries))
    pairs = [(mode, layer) for layer in explanation.layers for mode in modes]
    stored = {
        (mode, layer): explanation.level_maps(mode, kept, layer, scale) for mode, layer in pairs
    }
    samples = {pair: explanation.samples(pair[0], kept, pair[1]) for pair in pairs}
    known = {f.name: getattr(explanation, f.name) for f in fields(ExplanationBase)}
    by_layer = {n: explanation.logit_terms(kept, n) for n in explanation.layers} if terms else {}
    return StoredExplanation(
        **known,
        kept=kept,
        scale=scale,
        stored=stored,
        stored_samples={pair: found for pair, found in samples.items() if found is not None},
        stored_terms=by_layer,
    )
