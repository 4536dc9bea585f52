"""The words of an atlas figure: lines beside and under panels, the reading rule, its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import detr_viz
from detr_viz.atlas.box_frame import BAND, LEAST_CELLS
from detr_viz.atlas.levels import SIZES
from detr_viz.atlas.statistics import SEEN, HeadRole, HeadStatistics
from detr_viz.atlas.table import EVEN, IN_BOX, AtlasTable
from detr_viz.figures.page.elements import number
from detr_viz.figures.page.text import clean
from detr_viz.figures.reading_rule import DASH, LAYER_SCALE
from detr_viz.figures.styles import Style

_TOO_SMALL = "too small"


@dataclass(frozen=True)
class Row:
    """Lines beside panels, their maps (M, B, B), and the role of each.

    Of a mode and layer, with a panel for each head; of attention to cells of boxes, of a mode, with
    a panel for each stage (M of them) whose B x B bins are the cells of the box.
    """

    title: str
    details: tuple[str, ...]
    maps: np.ndarray
    roles: Sequence[HeadRole | None]


def rows_of(table: AtlasTable) -> list[Row]:
    """The rows of the figure, in the order of the table's statistics."""
    if table.of_stages:
        modes = dict.fromkeys(mode for _, mode in table.statistics)
        return [_stages(table, mode) for mode in modes]
    several = len(layers_of(table)) > 1
    return [
        Row(
            f"{mode}, layer {layer}" if several else mode,
            _details([statistics]),
            statistics.mean_map(),
            statistics.roles(),
        )
        for (layer, mode), statistics in table.statistics.items()
    ]


def layers_of(table: AtlasTable) -> list[int]:
    """The layers of a table, in its order."""
    return list(dict.fromkeys(layer for layer, _ in table.statistics))


def panel_names(table: AtlasTable) -> list[str]:
    """What stands over the panels of a row: heads, or stages."""
    if table.of_stages:
        first, *others = layers_of(table)
        return [f"stage {first}", *map(str, others)]
    heads = max(statistics.heads for statistics in table.statistics.values())
    return ["head 0", *map(str, range(1, heads))]


def _stages(table: AtlasTable, mode: str) -> Row:
    """A mode of all stages: their cells as they are, or nothing while no object was added."""
    of_mode = {layer: s for (layer, name), s in table.statistics.items() if name == mode}
    cells = [table.cells.get(layer) for layer in of_mode]
    side = next((shares.side for shares in cells if shares is not None), 1)
    empty = np.full((side, side), np.nan)
    maps = np.stack([empty if shares is None else shares.density() for shares in cells])
    roles = [role for statistics in of_mode.values() for role in statistics.roles()]
    return Row(mode, _details([*of_mode.values()]), maps, roles)


def _details(parts: Sequence[HeadStatistics]) -> tuple[str, ...]:
    """Means over heads, or stages; () where no object was added: only laid out, to measure it."""
    found = [statistics.means() for statistics in parts if statistics.objects]
    if not found:
        return ()
    entropy, in_box, to_edge = (
        float(np.mean([means[name] for means in found]))
        for name in ("entropy", "mass_in_box", "peak_to_edge")
    )
    return (
        f"entropy {number(entropy)}",
        f"in box {number(in_box)}",
        f"peak to edge {to_edge:.1f}",
    )


def role_lines(role: HeadRole | None, values: np.ndarray) -> list[tuple[str, str]]:
    """(text, style): the zone, bold where it is clear; its share, the largest of the mean map."""
    if role is None:
        return [(_TOO_SMALL, "")]
    numbers = (f"{role.share:.0%} · {_amount(largest(values))}", "")
    return [(role.zone, "bold") if role.clear else (f"{role.zone}?", ""), numbers]


def _amount(value: float) -> str:
    return number(value) if value < 0.995 else f"{value:.1f}"


def largest(values: np.ndarray) -> float:
    """The largest of some values; 0 where all are NaN."""
    return float(np.nan_to_num(values).max())


def objects_of(table: AtlasTable) -> str:
    """How many objects in how many images, in words."""
    count, images = table.objects, table.images
    return f"{_counted(count, 'object')} in {_counted(images, 'image')}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


FOOT_NOTES = 1  # of the notes, always under the figure


def notes_of(table: AtlasTable, rows: Sequence[Row], style: Style) -> list[str]:
    """What a reader must know about the figure."""
    chance, boxed = (table.chance[name].means() for name in (EVEN, IN_BOX))
    scale = {"head": "each panel on its own scale", "figure": "all panels on one scale"}
    scale = scale.get(style.norm, "each row on one scale")
    even = f"even over the image: in box {number(float(chance['mass_in_box'][0]))}"
    below = (
        "below: where most of a map lies, for how many objects (?: not surely most), and the "
        "largest mean"
    )
    edge = f"an edge: within {number(BAND)} of the box"
    if table.of_stages:
        notes = [
            f"a panel: the box that enters a stage; colour: mean positive share of a cell, {scale}",
            "1: even over the box; a stage reads nothing outside it",
            below,
            edge,
            "in box: of the shares spread over the image, in the box found",
            "peak to edge: cells of the box",
            f"{even}; even cells: peak to edge {chance['peak_to_edge'][0]:.1f}",
        ]
        if len(layers_of(table)) > 1:
            notes.append("at the left: means of the stages")
    else:
        notes = [
            f"blue: the box; colour: mean attention, {scale}",
            "around the box is half of it to each side",
            "1: all attention, evenly over the box",
            below,
            edge,
            "peak to edge: cells",
            f"{even}, peak to edge {chance['peak_to_edge'][0]:.1f}",
        ]
        if table.chance[IN_BOX].objects:
            notes.append(f"even in the box: peak to edge {boxed['peak_to_edge'][0]:.1f}")
    notes += _left_out(table)
    if any(np.isnan(row.maps).any() for row in rows) and table.objects and not table.of_stages:
        notes.append(f"grey: in the image for fewer than {SEEN:.0%} of the objects")
    if table.scale == "layer":
        notes.append(LAYER_SCALE)
    return notes


def _left_out(table: AtlasTable) -> list[str]:
    """How many objects do not count in panels, and why."""
    if not table.of_stages:
        small = table.objects - table.chance[EVEN].resolved
        return [f"panels are without {small} narrower than {LEAST_CELLS} cells"] if small else []
    left = [table.objects - shares.resolved for shares in table.cells.values()]
    if not any(left):
        return []
    low, high = min(left), max(left)
    count = str(low) if low == high else f"{low}{DASH}{high}"
    return [
        f"a panel is without {count} boxes: narrower than {LEAST_CELLS} cells of the finest level, "
        "or without a positive share"
    ]


def _share(value: float) -> str:
    """As `number`; 0 where nothing is, as of levels that no box reads."""
    return number(value) if value else "0"


def level_notes(table: AtlasTable) -> list[str]:
    """The share of each level by the size of objects, mean of heads; a line a mode and layer."""
    several = len(layers_of(table)) > 1
    notes = []
    for (layer, mode), shares in table.levels.items():
        where = f"{mode}, {table.noun} {layer}" if several else mode
        parts = [
            f"{count} {size} " + " ".join(map(_share, shares.means(size).mean(0).tolist()))
            for size, count in zip(SIZES, shares.counts, strict=True)
            if count
        ]
        count = shares.means().shape[-1]
        notes.append(f"{where}, share of levels 0{DASH}{count - 1}: {', '.join(parts)}")
    if notes:
        notes.append("small, medium, large: boxes below 32², below 96² and from 96² px on (COCO)")
    return notes


def facts_of(table: AtlasTable, rows: Sequence[Row], notes: Sequence[str]) -> dict[str, str]:
    """Title, Software and Description."""
    part = "stage" if table.of_stages else "head"
    roles = [
        f"{row.title}: "
        + ", ".join(f"{role.zone} {role.share:.0%}" if role else _TOO_SMALL for role in row.roles)
        for row in rows
    ]
    return {
        "Title": f"{clean(table.name)}: what each {part} does, {objects_of(table)}",
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([*roles, *notes, table.source]).rstrip(". "),
    }
