"""What cells of the image attend to in the encoder: a row for each point, a panel for each head.

Of the mean of all heads, the maps stand around the photo, joined to their points.

fig = encoder_grid(e, [(300, 200)], ["combine"])   # e of explain(..., sites=["encoder"])
figures.save(fig, "encoder.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detr_viz.attention.grids import on_one_grid
from detr_viz.explanation.cells import nearest_cell
from detr_viz.figures.level_words import grid_note
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import Group, Label, MapRow, Section
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.layout_around import MOST, around
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.profiles import AXES_NOTE, profiles_of
from detr_viz.figures.page.text import clean
from detr_viz.figures.panel_rows import check_heads, columns, shown_heads
from detr_viz.figures.reading_rule import (
    DASH,
    LAYER_SCALE,
    formula_note,
    heads_of,
    merged_words,
    normalisation,
    numbered,
)
from detr_viz.figures.site_samples import site_samples
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.truth_marks import truth_notes, truth_words, with_truth
from detr_viz.figures.view_contents import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.explanation.stored import StoredExplanation

MARK = "the mark: the centre of the cell that looks; cells count from 0, across and down"


TAP_NOTES = (
    "points: nine taps of each level that a cell reads, its own and both neighbouring ones",
    "size: the mask of a tap, as a part of the sum of all masks of the cell",
    "panels: the cell of each level that covers the mark",
)


@dataclass(frozen=True)
class AttendingCell:
    """A cell that attends: its number (row-major), its label, its centre in the photo."""

    cell: int
    label: Label
    mark: tuple[float, float]


def attending_cells(
    e: ExplanationBase,
    points: Sequence[tuple[float, float]],
    names: Sequence[str] | None = None,
    layers: Sequence[int] = (),
) -> list[AttendingCell]:
    """The cells of these encoder layers with centres nearest to points; names as `encoder_grid`."""
    cells, (ys, xs) = [], e.cell_centers_px()
    for i, (x, y) in enumerate(points):
        row, column = divmod(nearest_cell(e, x, y, layers), len(xs))
        title = clean(names[i]) if names else f"{x:.0f}, {y:.0f}"
        label = Label(title, (f"cell {column}, {row}",))
        mark = (float(xs[column]), float(ys[row]))
        cells.append(AttendingCell(row * e.grid_hw[1] + column, label, mark))
    return cells


def _panels(e: ExplanationBase, style: Style) -> list[str]:
    """Names over the panels: of heads, or of the levels whose cells read; FigureError for heads
    that there are not."""
    if e.scales is None:
        check_heads(style, clean(e.model_title), e.self_heads)
        return columns(style, e.self_heads)
    if style.heads is not None:
        raise FigureError(
            f"the encoder of {clean(e.model_title)} has no heads, its panels are levels: leave "
            "--heads out"
        )
    return [f"stride {stride}" for stride in e.scales.strides]


def points_note(points: Sequence[tuple[float, float]]) -> str:
    """The points in words, for metadata and captions."""
    return f"Points {'; '.join(f'{x:g}, {y:g}' for x, y in points)} (pixels)"


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
             is marked, even where it lies on the very edge
    names    of the points; None: their coordinates
    The rest as in figures.head_grid. FigureError where no encoder layer was captured, or where
    there is nothing to draw.
    """
    layers = [layer for kind, layer in e.sites if kind == "encoder"]
    if not (layers and points and modes):
        raise FigureError("nothing to draw: an encoder layer, a point and a mode are needed")
    names_of_panels = _panels(e, style)
    grid = e.grid()
    cells = attending_cells(e, points, names, layers)
    ids = [one.cell for one in cells]
    maps_of = {
        (layer, mode): on_one_grid(e.attention(("encoder", layer), mode, ids, scale), e.grids())
        for layer in layers
        for mode in modes
    }
    marks, points_of = [one.mark for one in cells], {}
    if style.name == "points":
        points_of = {
            (layer, mode): site_samples(e, ("encoder", layer), mode, ids, marks)
            for layer, mode in maps_of
        }
    sections = []
    for i, one in enumerate(cells):
        rows = []
        for (layer, mode), maps in maps_of.items():
            name = [f"layer {layer}"] if len(layers) > 1 else []
            if len(modes) > 1:
                name.append(mode)
            samples = points_of[layer, mode][i] if points_of else None
            profiles = profiles_of(maps[i]) if e.has_axes else None
            row = MapRow(maps[i], grid, " ".join(name), samples=samples, profiles=profiles)
            rows.append(shown_heads(row, style))
        mark = None if points_of else one.mark  # points have it as their reference
        sections.append(Section((Group(one.label, e.image.rgb, None, tuple(rows), "", mark),)))
    where = f"encoder {numbered('layer', layers)}"
    if e.num_encoder_layers > 1:
        where += f" of 0{DASH}{e.num_encoder_layers - 1}"
    notes = [clean(e.model_title), where]
    if e.scales is None:
        # cells sample as the queries do; a plain self-attention has a formula of its own
        formula = e.formula if e.attention_kind == "sampled" else e.self_formula
        notes += [formula_note(mode, formula(mode)) for mode in modes]
    else:
        notes += TAP_NOTES
    if scale == "layer":
        notes.append(LAYER_SCALE)
    if e.has_axes:
        notes.append(AXES_NOTE)
    if e.salience is not None:
        notes.append("the cell: the nearest of those that the layer refines, which are salient")
    notes += [MARK, *truth_notes(e, style), grid_note(e.grid_hw)]
    what = "self-attention" if e.scales is None else "deformable convolution"
    words = [clean(e.model_title), f"{where if len(layers) < 2 else 'encoder'} {what}"]
    if len(modes) == 1:
        words.append(modes[0])
    words += merged_words(style)
    foot = Foot((*words, *truth_words(e, style)), tuple(notes), e.grid_hw)
    sections = with_truth(sections, e, style)
    alone = isinstance(style.heads, str) and style.heads != "sort" and len(maps_of) == 1
    arrange = around if alone and 1 < len(cells) <= MOST else None
    fig = draw(sections, names_of_panels, foot, style, page_format, arrange)
    title = f"encoder {what} {heads_of(style) if e.scales is None else ''}".rstrip(", ")
    rule = [*notes, normalisation(style)]
    describe(fig, e, title, rule, points_note(points))
    warn_if_high(fig, page_format, way_out="choose fewer points, layers or modes")
    return fig
