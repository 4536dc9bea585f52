"""Where points of the image look in the encoder: a row a point, a panel a head.

fig = encoder_grid(e, [(300, 200)], ["combine"])   # e of explain(..., sites=["encoder"])
figures.save(fig, "encoder.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import formula_of, is_sum
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import Group, Label, MapRow, Section, number
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.text import clean
from detr_viz.figures.panel_rows import check_heads, columns, shown_heads
from detr_viz.figures.reading_rule import (
    DASH,
    TIMES,
    heads_of,
    listed,
    normalisation,
)
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.view_contents import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.explanation.stored import StoredExplanation

MARK = "the mark: the centre of the cell that looks; cells count from 0, across and down"
_INK = "#0072B2"


def cell_of(e: ExplanationBase, x: float, y: float) -> tuple[int, int]:
    """(row, column) of the cell whose centre is nearest to a point, pixels of the image."""
    rows, columns = e.cell_centers_px()
    return int(np.abs(rows - y).argmin()), int(np.abs(columns - x).argmin())


@dataclass(frozen=True)
class AttendingCell:
    """A cell that looks: its number (row-major), how it is labelled, its centre in the photo."""

    cell: int
    label: Label
    mark: tuple[float, float]


def places(
    e: ExplanationBase, points: Sequence[tuple[float, float]], names: Sequence[str] | None = None
) -> list[AttendingCell]:
    """The cells whose centres are nearest to points; names as of `encoder_grid`."""
    found, (ys, xs) = [], e.cell_centers_px()
    for i, (x, y) in enumerate(points):
        row, column = cell_of(e, x, y)
        title = clean(names[i]) if names else f"{x:.0f}, {y:.0f}"
        label = Label(title, (f"cell {column}, {row}",), _INK)
        mark = (float(xs[column]), float(ys[row]))
        found.append(AttendingCell(row * e.grid_hw[1] + column, label, mark))
    return found


def encoder_grid(
    e: Explanation | StoredExplanation,
    points: Sequence[tuple[float, float]],
    modes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    scale: str = "mode",
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Encoder self-attention of the cells at some points, of every layer that was captured.

    points   (x, y) in pixels of the image: the cell whose centre is nearest attends, and its centre
             is marked, on the very edge where it lies there
    names    what a point is called; None: by its coordinates
    The rest as in figures.head_grid. FigureError where no encoder layer was captured, or nothing is
    to be drawn.
    """
    layers = [layer for kind, layer in e.sites if kind == "encoder"]
    if not (layers and points and modes):
        raise FigureError("nothing to draw: an encoder layer, a point and a mode are needed")
    check_heads(style, clean(e.model_title), e.num_heads)
    (h, w), grid = e.grid_hw, e.grid()
    looking = places(e, points, names)
    ids = [one.cell for one in looking]
    made = {
        (layer, mode): e.attention(("encoder", layer), mode, ids, scale).reshape(len(ids), -1, h, w)
        for layer in layers
        for mode in modes
    }
    sections = []
    for i, one in enumerate(looking):
        rows = []
        for (layer, mode), maps in made.items():
            said = [f"layer {layer}"] * (len(layers) > 1) + [mode] * (len(modes) > 1)
            rows.append(shown_heads(MapRow(maps[i], grid, " ".join(said)), style))
        sections.append(Section((Group(one.label, e.image.rgb, None, tuple(rows), "", one.mark),)))
    where = f"encoder layer{'s' * (len(layers) > 1)} {listed(layers)}"
    if e.num_encoder_layers:
        where += f" of 0{DASH}{e.num_encoder_layers - 1}"
    notes = [clean(e.model_title), where]
    notes += [f"{'' if is_sum(mode) else f'{mode}  '}${formula_of(mode)}$" for mode in modes]
    notes += ["logits at the layer's own scale"] * (scale == "layer")
    notes.append(MARK)
    notes.append(f"map of {w} {TIMES} {h} cells, {number(1 / (h * w))} each if even")
    fig = draw(sections, columns(style, e.num_heads), notes, style, page_format)
    asked = "; ".join(f"{x:g}, {y:g}" for x, y in points)
    title = f"encoder self-attention {heads_of(style)}".rstrip(",")
    rule = [*notes, normalisation(style)]
    describe(fig, e, title, rule, f"Points {asked} (pixels)")
    warn_if_high(fig, page_format, way_out="choose fewer points, layers or modes")
    return fig
