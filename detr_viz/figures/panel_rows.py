"""The rows of panels that stand beside a query: its maps, or the ledger of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.attention.terms import Mode
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.figures.page.elements import MapRow, number
from detr_viz.figures.reading_rule import ShownModel, class_name, mode_name
from detr_viz.figures.styles import FigureError, Style

if TYPE_CHECKING:
    from detr_viz.explanation.ablation import Ablation


class Panels(Protocol):
    """Worked out once for all queries of a subject; then asked for each."""

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None: ...

    def of(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]: ...


def columns(style: Style, heads: int) -> list[str]:
    """What stands over the panels of a figure whose models have at most so many heads."""
    if style.heads is None:
        return [str(i) for i in range(heads)]
    if style.heads == "sort":
        return [_ordinal(i) for i in range(1, heads + 1)]
    return [f"{style.heads} of heads"] if isinstance(style.heads, str) else [*map(str, style.heads)]


def _ordinal(n: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, "th")
    return f"{n}{ending}"


def check_heads(style: Style, name: str, count: int) -> None:
    """FigureError where a look asks for heads that a model does not have."""
    wrong = [n for n in style.heads if n >= count] if isinstance(style.heads, tuple) else []
    if wrong:
        raise FigureError(f"no head {wrong[0]}: {name} has 0..{count - 1}")


def shown_heads(row: MapRow, style: Style) -> MapRow:
    """A row of all heads with those that the look asks for."""
    maps = row.maps
    if style.heads is None:
        return row
    if isinstance(style.heads, tuple):
        order = [*style.heads]
    elif style.heads == "sort":
        order = np.argsort(_entropy(maps), kind="stable").tolist()
    else:
        made = maps.mean(0) if style.heads == "mean" else maps.max(0)
        return replace(row, maps=made[None])
    numbers = row.numbers and tuple(row.numbers[n] for n in order)
    if style.heads == "sort":
        said = numbers or [number(maps[n].max()) for n in order]
        numbers = tuple(f"{n}: {text}" for n, text in zip(order, said, strict=True))
    return replace(row, maps=maps[order], numbers=numbers)


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Of every map (M, h, w), nats; infinite where there is nothing."""
    logs = np.log(maps, out=np.zeros(maps.shape), where=maps > 0)
    return np.where(maps.any((1, 2)), -(maps * logs).sum((1, 2)), np.inf)


class MapPanels:
    """A row a mode."""

    def __init__(self, modes: Sequence[str | Mode], scale: str, style: Style) -> None:
        self._modes, self._scale, self._style = modes, scale, style
        self._rows: dict[tuple[int, int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        for layer in subject.layers if queries else ():
            made = [(mode_name(m), e.maps(m, queries, layer, self._scale)) for m in self._modes]
            for i, query in enumerate(queries):
                rows = tuple(
                    shown_heads(MapRow(maps[i], e.grid(layer), name), self._style)
                    for name, maps in made
                )
                self._rows[id(e), layer, query] = rows

    def of(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[id(subject.explanation), layer, query]


class TermPanels:
    """A row a term that is not zero, one of their sum, one of the weights.

    Terms and sum of a query have one scale; with norm "figure" those of all queries.
    """

    def __init__(self, style: Style) -> None:
        if style.name == "contour":
            raise FigureError(
                "contours hold shares of a map's mass, and terms of logits have none: take style "
                "overlay or heat"
            )
        if isinstance(style.heads, str):
            raise FigureError(
                f"terms are those of single heads, not of {style.heads}: name heads by number (0,3)"
            )
        self._style = style
        self._ledgers: dict[tuple[int, int, int], tuple[LogitTerms, Grid]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        for layer in subject.layers if queries else ():
            check_heads(self._style, subject.name, subject.explanation.num_heads)
            found = e.logit_terms(queries, layer)
            for i, query in enumerate(queries):
                self._ledgers[id(e), layer, query] = found.of([i]), e.grid(layer)

    def of(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        found, grid = self._ledgers[id(subject.explanation), layer, query]
        all_of_them = [book for book, _ in self._ledgers.values()]
        reach = max(_reach(b) for b in (all_of_them if self._style.norm == "figure" else [found]))
        rows = [
            MapRow(part[0], grid, name.replace(".", " · "), _percent(found.shares[name][0]), reach)
            for name, part in found.terms.items()
            if part.any()
        ]
        largest = [f"{value:.1f}" for value in np.abs(found.total[0]).max((1, 2))]
        rows.append(MapRow(found.total[0], grid, f"sum ±{reach:.3g}", tuple(largest), reach))
        rows.append(MapRow(found.weights[0], grid, "weights"))
        return tuple(shown_heads(row, self._style) for row in rows)


class AblationPanels:
    """A row of the attention as it is, and one for each part that was taken out, with its box."""

    def __init__(self, style: Style, ablations: Sequence[Sequence[Ablation]]) -> None:
        self._style, self._ablations = style, iter(ablations)
        self._found: dict[int, Sequence[Ablation]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        self._found[id(subject.explanation)] = next(self._ablations)

    def of(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        e = subject.explanation
        grid = e.grid(layer)
        rows = [MapRow(e.maps("combine", [query], layer, "layer")[0], grid, "as it is")]
        for found in self._found[id(e)]:
            maps = found.weights[layer][query].reshape(-1, *grid.hw)
            name = f"{found.removal.words}: {found.kept_scores()[query]:.2f}"
            if (now := int(found.after.labels[query])) != found.before.labels[query]:
                name += f", {class_name(e, now)}"
            if found.removal.box and not e.cells_inside()[query].any():
                name += " (no cell in its box)"
            box = found.after.boxes_xyxy_px[query]
            rows.append(MapRow(maps, grid, name, box_xyxy_px=box))
        return tuple(shown_heads(row, self._style) for row in rows)


def _reach(ledger: LogitTerms) -> float:
    """The largest of all terms and of their sum, either way; 1 where all are 0."""
    parts = (*ledger.terms.values(), ledger.total)
    return max(float(np.abs(part).max()) for part in parts) or 1.0


def _percent(shares: np.ndarray) -> tuple[str, ...]:
    # + 0.0: no negative zero
    return tuple("-" if np.isnan(x) else f"{round(float(x), 2) + 0.0:.0%}" for x in shares)
