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
    """A mode and layer: lines beside its panels, maps (M, B, B), the role of each head."""

    title: str
    details: tuple[str, ...]
    maps: np.ndarray
    roles: Sequence[HeadRole | None]


def rows_of(table: AtlasTable) -> list[Row]:
    """The rows of the figure, in the order of the table's statistics."""
    several = len({layer for layer, _ in table.statistics}) > 1
    return [
        _row(f"{mode}, layer {layer}" if several else mode, statistics)
        for (layer, mode), statistics in table.statistics.items()
    ]


def _row(title: str, statistics: HeadStatistics) -> Row:
    means = {name: float(values.mean()) for name, values in statistics.means().items()}
    if not statistics.objects:  # only laid out, to measure it
        return Row(title, (), statistics.mean_map(), statistics.roles())
    details = (
        f"entropy {number(means['entropy'])}",
        f"in box {number(means['mass_in_box'])}",
        f"peak to edge {means['peak_to_edge']:.1f}",
    )
    return Row(title, details, statistics.mean_map(), statistics.roles())


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
    notes = [
        f"blue: the box; colour: mean attention, {scale}",
        "around the box is half of it to each side",
        "1: all attention, evenly over the box",
        "below: where most of a map lies, for how many objects (?: not surely most), and the "
        "largest mean",
        f"an edge: within {number(BAND)} of the box",
        "peak to edge: cells",
        f"even over the image: in box {number(float(chance['mass_in_box'][0]))}, peak to edge "
        f"{chance['peak_to_edge'][0]:.1f}",
    ]
    if table.chance[IN_BOX].objects:
        notes.append(f"even in the box: peak to edge {boxed['peak_to_edge'][0]:.1f}")
    small = table.objects - table.chance[EVEN].resolved
    if small:
        notes.append(f"panels are without {small} narrower than {LEAST_CELLS} cells")
    if any(np.isnan(row.maps).any() for row in rows) and table.objects:
        notes.append(f"grey: in the image for fewer than {SEEN:.0%} of the objects")
    if table.scale == "layer":
        notes.append(LAYER_SCALE)
    return notes


def level_notes(table: AtlasTable) -> list[str]:
    """The share of each level by the size of objects, mean of heads; a line a mode and layer."""
    several = len({layer for layer, _ in table.statistics}) > 1
    notes = []
    for (layer, mode), shares in table.levels.items():
        where = f"{mode}, layer {layer}" if several else mode
        parts = [
            f"{count} {size} " + " ".join(map(number, shares.means(size).mean(0).tolist()))
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
    roles = [
        f"{row.title}: "
        + ", ".join(f"{role.zone} {role.share:.0%}" if role else _TOO_SMALL for role in row.roles)
        for row in rows
    ]
    return {
        "Title": f"{clean(table.name)}: what each head does, {objects_of(table)}",
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([*roles, *notes, table.source]).rstrip(". "),
    }
