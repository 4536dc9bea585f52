"""The rows of panels that stand beside a query: its maps, or the ledger of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from detr_viz.compose import Placement
from detr_viz.facts import Subject, mode_name
from detr_viz.findings import Ledger
from detr_viz.page import MapRow
from detr_viz.styles import FigureError, Look
from detr_viz.terms import Mode


class Panels(Protocol):
    """Worked out once for all queries of a subject; then asked for each."""

    def collect(self, subject: Subject, queries: Sequence[int]) -> None: ...

    def of(self, subject: Subject, layer: int, query: int) -> tuple[MapRow, ...]: ...


def _placement(subject: Subject) -> Placement:
    e = subject.explanation
    return Placement(e.input_hw, e.stride, e.cell_rule)


class MapPanels:
    """A row a mode."""

    def __init__(self, modes: Sequence[str | Mode], scale: str) -> None:
        self._modes, self._scale = modes, scale
        self._rows: dict[tuple[int, int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: Subject, queries: Sequence[int]) -> None:
        e, place = subject.explanation, _placement(subject)
        for layer in subject.layers if queries else ():
            made = [(mode_name(m), e.maps(m, queries, layer, self._scale)) for m in self._modes]
            for i, query in enumerate(queries):
                rows = tuple(MapRow(maps[i], place, name) for name, maps in made)
                self._rows[id(e), layer, query] = rows

    def of(self, subject: Subject, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[id(subject.explanation), layer, query]


class TermPanels:
    """A row a term that is not zero, one of their sum, one of the weights.

    Terms and sum of a query have one scale; with norm "figure" those of all queries.
    """

    def __init__(self, look: Look) -> None:
        if look.style == "contour":
            raise FigureError(
                "contours hold shares of a map's mass, and terms of logits have none: take style "
                "overlay or heat"
            )
        self._look = look
        self._ledgers: dict[tuple[int, int, int], tuple[Ledger, Placement]] = {}

    def collect(self, subject: Subject, queries: Sequence[int]) -> None:
        e, place = subject.explanation, _placement(subject)
        for layer in subject.layers if queries else ():
            found = e.ledger(queries, layer)
            for i, query in enumerate(queries):
                self._ledgers[id(e), layer, query] = found.of([i]), place

    def of(self, subject: Subject, layer: int, query: int) -> tuple[MapRow, ...]:
        found, place = self._ledgers[id(subject.explanation), layer, query]
        all_of_them = [book for book, _ in self._ledgers.values()]
        reach = max(_reach(b) for b in (all_of_them if self._look.norm == "figure" else [found]))
        rows = [
            MapRow(part[0], place, name.replace(".", " · "), _percent(found.shares[name][0]), reach)
            for name, part in found.terms.items()
            if part.any()
        ]
        largest = [f"{value:.1f}" for value in np.abs(found.total[0]).max((1, 2))]
        rows.append(MapRow(found.total[0], place, "sum", tuple(largest), reach))
        return (*rows, MapRow(found.weights[0], place, "weights"))


def _reach(ledger: Ledger) -> float:
    """The largest of all terms and of their sum, either way; 1 where all are 0."""
    parts = (*ledger.terms.values(), ledger.total)
    return max(float(np.abs(part).max()) for part in parts) or 1.0


def _percent(shares: np.ndarray) -> tuple[str, ...]:
    # + 0.0: no negative zero
    return tuple("-" if np.isnan(x) else f"{round(float(x), 2) + 0.0:.0%}" for x in shares)
