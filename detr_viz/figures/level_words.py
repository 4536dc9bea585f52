"""Levels, cells and numbers of the maps of a figure, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.attention.grids import Grid
from detr_viz.common.words import listed
from detr_viz.figures.page.elements import number
from detr_viz.figures.styles import Style

if TYPE_CHECKING:
    from detr_viz.figures.reading_rule import FigureContents, ShownModel

TIMES = "\N{MULTIPLICATION SIGN}"


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """layer 2; layers 0, 1 and 2."""
    return f"{noun}{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


def grid_note(grid_hw: tuple[int, int]) -> str:
    """How many cells a map has, and the weight of each in an even map."""
    h, w = grid_hw
    return f"map of {w} {TIMES} {h} cells, {number(1 / (h * w))} each if even"


def grid_of(subject: ShownModel, style: Style) -> str:
    """The same for a figure; of levels in rows of their own the cells of each."""
    grids = _grids(subject, style)
    if len(grids) == 1:
        return grid_note(grids[0].hw)
    sizes = [f"{grid.hw[1]} {TIMES} {grid.hw[0]}" for grid in grids]
    return f"maps of {listed(sizes)} cells"


def cells_of(shown: FigureContents) -> tuple[int, int] | None:
    """(h, w) of the maps, where all have the same; else None, and where points are drawn."""
    if shown.style.name == "points":
        return None
    if shown.grid_hw is not None:
        return shown.grid_hw
    grids = {grid.hw for s in shown.subjects for grid in _grids(s, shown.style)}
    return tuple(next(iter(grids))) if len(grids) == 1 else None


def level_words(style: Style) -> list[str]:
    """The levels that a figure is confined to; [] where it shows all together."""
    if style.levels == "sum":
        return []
    if style.levels == "all":
        return ["level by level"]
    return [f"level{'s' if len(style.levels) > 1 else ''} {listed(style.levels)}"]


def levels_note(subject: ShownModel, style: Style) -> str:
    """Which levels are drawn, and how; "" for a model that has one level."""
    grids = subject.explanation.grids(subject.layers[-1])
    if len(grids) == 1:
        return ""
    points = style.name == "points"
    if style.levels == "sum":
        what = "points of" if points else "sum of"
        where = "" if points else ", on the finest grid"
        return f"{what} {len(grids)} levels ({_strides(grids)}){where}"
    chosen = range(len(grids)) if style.levels == "all" else style.levels
    some = f"level{'s' if len(chosen) > 1 else ''} {listed(chosen)}"
    names = f"{some} of {len(grids)} ({_strides([grids[level] for level in chosen])})"
    if points and style.levels != "all":
        return f"points of {names} alone"
    if len(chosen) == 1:
        return f"{names} alone, on its own grid"
    return f"{names}, a row for each{'' if points else ', on its own grid'}"


def points_notes(shown: FigureContents) -> list[str]:
    """What marks the references in a figure of sampling points."""
    if shown.style.name != "points":
        return []
    placed = [(s.explanation, layer) for s in shown.subjects for layer in s.layers]
    notes = []
    if any(layer in e.layer_references or e.reference_px is not None for e, layer in placed):
        notes.append("plus: the query's reference point")
    if any(layer in e.reference_boxes for e, layer in placed):
        notes.append("dashed: its reference box, as it enters the layer")
    return notes


def number_notes(style: Style) -> list[str]:
    """What the numbers under the panels of maps are."""
    if style.name == "contour":
        return ["%: of the image, in the first line"]
    notes = ["%: of a map's weight in the box"]
    if style.levels != "sum":  # so that the shares of all levels add up
        notes = ["%: of a head's weights on all levels, what is here and in the box"]
    if style.scaling == "even":
        notes.append("flat: no cell has twice the weight of an even map")
    elif style.scaling is not None:
        notes.append("after it each map's largest weight")
    return notes


def _grids(subject: ShownModel, style: Style) -> list[Grid]:
    """The grids of the maps that a figure shows, or reads its numbers off."""
    e, layer = subject.explanation, subject.layers[-1]
    if style.levels == "sum":
        return [e.grid(layer)]
    grids = e.grids(layer)
    return [*grids] if style.levels == "all" else [grids[level] for level in style.levels]


def _strides(grids: Sequence[Grid]) -> str:
    return f"stride{'s' if len(grids) > 1 else ''} {listed([grid.stride for grid in grids])}"
