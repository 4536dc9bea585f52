"""The rows of panels beside a query: its maps, the terms of its logits, or its ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.attention.terms import Mode
from detr_viz.explanation.logit_term_arrays import LogitTerms
from detr_viz.figures.level_rows import LevelRow, all_in_one, level_rows
from detr_viz.figures.page.elements import MapRow
from detr_viz.figures.page.profiles import profiles_of
from detr_viz.figures.reading_rule import ShownModel, mode_name
from detr_viz.figures.site_samples import sample_points
from detr_viz.figures.stage_parts import no_cells, stage_parts
from detr_viz.figures.styles import ALL_IN_ONE, FigureError, Style, check_whole

if TYPE_CHECKING:
    from detr_viz.explanation.ablation import Ablation

_WHOLE = 0.999  # of a map with less, the rest lies off the image or on other levels


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
    if style.heads == ALL_IN_ONE:
        return ["all heads"]
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
    maps, profiles = row.maps, row.profiles
    if style.heads is None:
        return row
    if style.heads == ALL_IN_ONE:
        return all_in_one(row)
    if row.samples and isinstance(style.heads, str):
        raise FigureError(f"style {style.name} shows single heads: name them by number (0,3)")
    if isinstance(style.heads, tuple):
        order = [*style.heads]
    elif style.heads == "sort":
        order = np.argsort(_entropy(maps), kind="stable").tolist()
    else:
        one_map = maps.mean(0) if style.heads == "mean" else maps.max(0)
        if style.heads == "max" or profiles is None:  # the largest weights are no product
            profiles = None
        else:
            profiles = tuple(axis.mean(0)[None] for axis in profiles)
        return replace(row, maps=one_map[None], crossed=frozenset(), profiles=profiles)
    captions = row.captions and tuple(row.captions[n] for n in order)
    names: tuple[str, ...] = ()
    if style.heads == "sort" and captions:
        captions = tuple(f"{n}: {text}" for n, text in zip(order, captions, strict=True))
    elif style.heads == "sort":
        names = tuple(map(str, order))
    crossed = frozenset(i for i, n in enumerate(order) if n in row.crossed)
    bars = tuple(row.bars[n] for n in order) if row.bars else ()
    samples = row.samples and replace(
        row.samples, xy=row.samples.xy[order], weights=row.samples.weights[order]
    )
    return replace(
        row,
        maps=maps[order],
        captions=captions,
        bars=bars,
        crossed=crossed,
        head_names=names,
        samples=samples,
        profiles=profiles and tuple(axis[order] for axis in profiles),
    )


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Entropy of every map (M, h, w) in nats, of what lies on it; infinite where that is 0."""
    whole = maps.sum((1, 2), dtype=np.float64)[:, None, None]
    maps = np.where((whole > 0) & (whole < _WHOLE), maps / np.where(whole > 0, whole, 1), maps)
    logs = np.log(maps, out=np.zeros(maps.shape), where=maps > 0)
    return np.where(maps.any((1, 2)), -(maps * logs).sum((1, 2)), np.inf)


class MapPanels:
    """A row for each mode, and for each level that is shown on its own.

    grid: of all models, on which their maps are spread; None: their own.
    """

    def __init__(
        self, modes: Sequence[str | Mode], scale: str, style: Style, grid: Grid | None = None
    ) -> None:
        self._modes, self._scale, self._style, self._grid = modes, scale, style, grid
        self._rows: dict[tuple[int, int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        for layer in subject.layers if queries else ():
            scale, style, grid = self._scale, self._style, self._grid
            rows = [
                (mode, one, self._beside(subject, mode, queries, layer, one))
                for mode in self._modes
                for one in level_rows(e, mode, queries, layer, scale, style, grid)
            ]
            for i, query in enumerate(queries):
                self._rows[id(e), layer, query] = tuple(
                    shown_heads(
                        MapRow(one.maps[i], one.grid, self._name(mode, one), **own[i]), self._style
                    )
                    for mode, one, own in rows
                )

    def _name(self, mode: str | Mode, row: LevelRow) -> str:
        """The name of a row; the mode is left out where there is one, and rows are levels."""
        words = [mode_name(mode)] if len(self._modes) > 1 or not row.name else []
        return ", ".join([*words, row.name] if row.name else words)

    def _beside(
        self,
        subject: ShownModel,
        mode: str | Mode,
        queries: Sequence[int],
        layer: int,
        row: LevelRow,
    ) -> list[dict[str, Any]]:
        """What is shown beside, or in place of, the map of each query, as arguments of MapRow."""
        if self._style.name == "points":
            points = sample_points(subject, str(mode), queries, layer, self._style)
            return [{"samples": row.of_points(one)} for one in points]
        if subject.explanation.stages:
            return stage_parts(subject, queries, layer, self._style)
        if self._style.name == "cells":
            raise no_cells(subject.name)
        if subject.explanation.has_axes:
            return [{"profiles": profiles_of(one)} for one in row.maps]
        return [{}] * len(queries)

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[id(subject.explanation), layer, query]


class TermPanels:
    """A row for each term that is not zero, one for their sum, one for the weights.

    The terms and the sum of a query have one scale; with norm "figure" all queries have the same.
    """

    def __init__(self, style: Style) -> None:
        if style.name in ("points", "cells"):
            raise FigureError(f"terms have no {style.name}: take style overlay or heat")
        if style.name == "contour":
            raise FigureError(
                "contours hold shares of a map's mass, and terms of logits have none: take style "
                "overlay or heat"
            )
        if isinstance(style.heads, str):
            raise FigureError(
                f"terms are those of single heads, not of {style.heads}: name heads by number (0,3)"
            )
        check_whole(style, "terms")
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
            MapRow(
                part[0],
                grid,
                term_name(name),
                captions=_percent(terms.shares[name][0]),
                reach=reach,
                bars=tuple(float(x) for x in np.nan_to_num(np.clip(terms.shares[name][0], 0, 1))),
                profiles=_profiles(terms.axes.get(name)),
            )
            for name, part in terms.terms.items()
            if part.any()
        ]
        largest = tuple(f"\N{PLUS-MINUS SIGN}{v:.1f}" for v in np.abs(terms.total[0]).max((1, 2)))
        total = _profiles(terms.axes_total)
        rows.append(
            MapRow(terms.total[0], grid, "sum", captions=largest, reach=reach, profiles=total)
        )
        weights = profiles_of(terms.weights[0]) if terms.axes else None
        rows.append(MapRow(terms.weights[0], grid, "weights", profiles=weights))
        return tuple(shown_heads(row, self._style) for row in rows)


def _profiles(
    axes: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Row and column of the only query, (M, w) and (M, h)."""
    return axes and (axes[0][0], axes[1][0])


def term_name(name: str) -> str:
    """cq.pk as c_q \N{MIDDLE DOT} p_k, letters with subscripts between dollar signs."""
    return " \N{MIDDLE DOT} ".join(f"${part[0]}_{part[1:]}$" for part in name.split("."))


class AblationPanels:
    """One row: the attention as it is, or without a part (`removed`, its place in ablations)."""

    def __init__(self, style: Style, ablations: Sequence[Sequence[Ablation]]) -> None:
        check_whole(style, "the maps of ablations")
        self._style, self._ablations = style, iter(ablations)
        self.of_models: dict[int, Sequence[Ablation]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        check_heads(self._style, subject.name, subject.explanation.num_heads)
        self.of_models[id(subject.explanation)] = next(self._ablations)

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        e = subject.explanation
        maps = e.maps("combine", [query], layer, "layer")[0]
        row = MapRow(maps, e.grid(layer), profiles=profiles_of(maps) if e.has_axes else None)
        return (shown_heads(row, self._style),)

    def without(
        self, subject: ShownModel, layer: int, query: int, ablation: Ablation
    ) -> tuple[MapRow, ...]:
        grid = subject.explanation.grid(layer)
        maps = ablation.weights[layer][query].reshape(-1, *grid.hw)
        removal = ablation.removal
        heads = {removal.head} if removal.head is not None else set()
        # without cells of the box a map is no product any more
        product = subject.explanation.has_axes and not removal.box
        profiles = profiles_of(maps) if product else None
        row = MapRow(maps, grid, crossed=frozenset(heads), profiles=profiles)
        return (shown_heads(row, self._style),)


def _reach(terms: LogitTerms) -> float:
    """The largest of all terms and of their sum, either way; 1 where all are 0."""
    parts = (*terms.terms.values(), terms.total)
    return max(float(np.abs(part).max()) for part in parts) or 1.0


def _percent(shares: np.ndarray) -> tuple[str, ...]:
    # + 0.0: no negative zero
    return tuple("-" if np.isnan(x) else f"{round(float(x) * 100) + 0.0:.0f} %" for x in shares)
