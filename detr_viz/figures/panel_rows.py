"""The rows of panels beside a query: its maps, the terms of its logits, or its ablations."""

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
    """Rows are computed once for all queries of a model; then `rows` gives those of one query."""

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None: ...

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]: ...


def columns(style: Style, heads: int) -> list[str]:
    """Names over the panels of a figure; heads: the most that a model of it has."""
    if style.heads is None:
        return [str(i) for i in range(heads)]
    if style.heads == "sort":
        return [_ordinal(i) for i in range(1, heads + 1)]
    return [f"{style.heads} of heads"] if isinstance(style.heads, str) else [*map(str, style.heads)]


def _ordinal(n: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, "th")
    return f"{n}{ending}"


def check_heads(style: Style, name: str, count: int) -> None:
    """FigureError where a style names heads that a model does not have."""
    wrong = [n for n in style.heads if n >= count] if isinstance(style.heads, tuple) else []
    if wrong:
        raise FigureError(f"no head {wrong[0]}: {name} has 0..{count - 1}")


def shown_heads(row: MapRow, style: Style) -> MapRow:
    """The row with only the heads of the style, in its order."""
    maps = row.maps
    if style.heads is None:
        return row
    if isinstance(style.heads, tuple):
        order = [*style.heads]
    elif style.heads == "sort":
        order = np.argsort(_entropy(maps), kind="stable").tolist()
    else:
        one_map = maps.mean(0) if style.heads == "mean" else maps.max(0)
        return replace(row, maps=one_map[None])
    numbers = row.numbers and tuple(row.numbers[n] for n in order)
    if style.heads == "sort":
        texts = numbers or [number(maps[n].max()) for n in order]
        numbers = tuple(f"{n}: {text}" for n, text in zip(order, texts, strict=True))
    return replace(row, maps=maps[order], numbers=numbers)


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Entropy of every map (M, h, w) in nats; infinite where all of it is 0."""
    logs = np.log(maps, out=np.zeros(maps.shape), where=maps > 0)
    return np.where(maps.any((1, 2)), -(maps * logs).sum((1, 2)), np.inf)


class MapPanels:
    """A row for each mode."""

    def __init__(self, modes: Sequence[str | Mode], scale: str, style: Style) -> None:
        self._modes, self._scale, self._style = modes, scale, style
        self._rows: dict[tuple[int, int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        for layer in subject.layers if queries else ():
            maps = [e.maps(mode, queries, layer, self._scale) for mode in self._modes]
            for i, query in enumerate(queries):
                self._rows[id(e), layer, query] = tuple(
                    shown_heads(MapRow(of_mode[i], e.grid(layer), mode_name(mode)), self._style)
                    for mode, of_mode in zip(self._modes, maps, strict=True)
                )

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[id(subject.explanation), layer, query]


class TermPanels:
    """A row for each term that is not zero, one for their sum, one for the weights.

    The terms and the sum of a query have one scale; with norm "figure" all queries have the same.
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
        self._terms: dict[tuple[int, int, int], tuple[LogitTerms, Grid]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        for layer in subject.layers if queries else ():
            check_heads(self._style, subject.name, subject.explanation.num_heads)
            terms = e.logit_terms(queries, layer)
            for i, query in enumerate(queries):
                self._terms[id(e), layer, query] = terms.of([i]), e.grid(layer)

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        terms, grid = self._terms[id(subject.explanation), layer, query]
        on_one_scale = [terms]
        if self._style.norm == "figure":
            on_one_scale = [other for other, _ in self._terms.values()]
        reach = max(map(_reach, on_one_scale))
        rows = [
            MapRow(part[0], grid, name.replace(".", " · "), _percent(terms.shares[name][0]), reach)
            for name, part in terms.terms.items()
            if part.any()
        ]
        largest = [f"{value:.1f}" for value in np.abs(terms.total[0]).max((1, 2))]
        rows.append(MapRow(terms.total[0], grid, f"sum ±{reach:.3g}", tuple(largest), reach))
        rows.append(MapRow(terms.weights[0], grid, "weights"))
        return tuple(shown_heads(row, self._style) for row in rows)


class AblationPanels:
    """A row of the attention as it is, and one for each removed part, with the box without it."""

    def __init__(self, style: Style, ablations: Sequence[Sequence[Ablation]]) -> None:
        self._style, self._ablations = style, iter(ablations)
        self._of_models: dict[int, Sequence[Ablation]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        self._of_models[id(subject.explanation)] = next(self._ablations)

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        e = subject.explanation
        grid = e.grid(layer)
        rows = [MapRow(e.maps("combine", [query], layer, "layer")[0], grid, "as it is")]
        for ablation in self._of_models[id(e)]:
            maps = ablation.weights[layer][query].reshape(-1, *grid.hw)
            name = f"{ablation.removal.words}: {ablation.kept_scores()[query]:.2f}"
            if (now := int(ablation.after.labels[query])) != ablation.before.labels[query]:
                name += f", {class_name(e, now)}"
            if ablation.removal.box and not e.cells_inside()[query].any():
                name += " (no cell in its box)"
            box = ablation.after.boxes_xyxy_px[query]
            rows.append(MapRow(maps, grid, name, box_xyxy_px=box))
        return tuple(shown_heads(row, self._style) for row in rows)


def _reach(terms: LogitTerms) -> float:
    """The largest of all terms and of their sum, either way; 1 where all are 0."""
    parts = (*terms.terms.values(), terms.total)
    return max(float(np.abs(part).max()) for part in parts) or 1.0


def _percent(shares: np.ndarray) -> tuple[str, ...]:
    # + 0.0: no negative zero
    return tuple("-" if np.isnan(x) else f"{round(float(x), 2) + 0.0:.0%}" for x in shares)
