"""One map in the user's own matplotlib Axes, drawn as a panel of `head_grid` is.

fig, ax = plt.subplots()
draw_map(ax, e, query=3, head=4, mode="position")
ax.plot(*e.reference_px[3], "w+")                  # the Axes are in pixels of the image
"""

from __future__ import annotations

from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING

from detr_viz.attention.terms import ALL_TERMS, Mode
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.labels import model_name
from detr_viz.figures.page import artists
from detr_viz.figures.page.builder import PageBuilder
from detr_viz.figures.page.elements import Group, PageLayout, Panel
from detr_viz.figures.page.paint import PanelSheet, draw_marks
from detr_viz.figures.page.scale import color_key
from detr_viz.figures.page.text import plain_settings
from detr_viz.figures.panel_rows import MapPanels, check_heads, columns
from detr_viz.figures.reading_rule import ShownModel
from detr_viz.figures.sections import sections_of
from detr_viz.figures.stage_panels import StagePanels
from detr_viz.figures.stage_parts import check_stages, no_heads
from detr_viz.figures.styles import FigureError, PageFormat, Style
from detr_viz.figures.truth_marks import with_truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.figures.page.elements import MapRow, Section

_LEAST_PX = 8  # of a side, as of the panels of a page
_MOST_PX = 20_000


def draw_map(
    ax: Axes,
    explanation: ExplanationBase,
    query: int,
    head: int | str | None = None,
    mode: str | Mode = "combine",
    *,
    layer: int | None = None,
    scale: str = "mode",
    style: Style | str = "overlay",
    norm: str | None = None,
    box: bool = True,
    dpi: float = 300,
    type_size: float = 1.0,
) -> AxesImage:
    """Draw the map (h, w) of one query and one head into `ax`, over the image.

    head       its number, "mean" or "max" of all heads, or "all-in-one" (style points). None: the
               mean; of style points all-in-one. Models with stages have none: leave it out
    mode       "combine", "position", "content", a sum of terms ("cq.pk+pq.pk"), or a Mode
    layer      a captured layer (or stage); None: the last captured
    scale      as in ExplanationBase.maps
    style      the name of a style, for the whole image, or a Style: its `zoom`, `cmap` and `truth`
               (the annotated box nearest to the query's, dashed) hold
    norm       "even", "head" or "query", in place of the style's: "query" is one scale for all
               heads of the query
    box        whether the corners of the query's box are marked and the image outside it is paler
    dpi        of the map's pixels, which are laid out for the size that `ax` has now
    type_size  multiplies the widths of lines and the sizes of points

    Afterwards `ax` has the limits of the image, in its own pixels (y down), equal aspect and no
    ticks: what you plot in pixels of the image lies where it belongs, and a title of yours stays.
    A map that is column times row is drawn without its strips. Returns the image, whose pixels are
    finished colours; its colour map and norm are the map's, so that `fig.colorbar(image)` is its
    key (times an even spread from 1 to 256, or what `norm` says). Points and contours have none.
    FigureError for what cannot be drawn, ValueError for a query, layer or mode that does not exist.
    """
    _check_axes(ax)
    look = _look(style, norm, head, explanation)
    place = _place(explanation, head, layer, look)
    section = _section(explanation, query, mode, layer, scale, look)
    group = _one_row(section)
    size = PageFormat(1.0, dpi, type_size)
    names = columns(look, explanation.num_heads)
    with plain_settings():
        builder = PageBuilder([section], names, look, size)
        crop = builder.views.get((0, 0, place), builder.crops[0])
        high, wide = _pixels(ax, crop.size_hw, dpi)
        layout = PageLayout(
            width=wide,
            height=high,
            panels=(Panel(0, 0, place, 0, 0, high, wide),),
            crops=(crop,),
        )
        if not box:
            plain = replace(group.rows[0], boxes_xyxy_px=None)
            group = replace(group, box_xyxy_px=None, rows=(plain,))
        unit_px = type_size * dpi / 72
        sheet = PanelSheet([group], layout, look, unit_px)
        image = ax.imshow(
            sheet.pixels,
            extent=(crop.x0, crop.x1, crop.y1, crop.y0),
            origin="upper",
            interpolation="antialiased",
            aspect="equal",
        )
        _set_key(image, group.rows[0], place, look)
        pen = artists.Pen(ax, dpi, unit_px, crop.size_hw[1] / wide, (crop.x0, crop.y0))
        artists.add_contours(pen, sheet.curves)
        draw_marks(pen, [group], layout)
    ax.set(xlim=(crop.x0, crop.x1), ylim=(crop.y1, crop.y0), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _set_key(image: AxesImage, row: MapRow, place: int, look: Style) -> None:
    """Give the image the colour map and the norm of the map, where colours mean numbers."""
    if look.name in ("points", "contour") or row.samples or row.cells or row.attended:
        return
    maps = row.maps if look.scaling == "query" else row.maps[place]
    cmap, norm = color_key(look, row.reach, float(maps.max()))
    image.set(cmap=cmap, norm=norm)


def _check_axes(ax: object) -> None:
    """FigureError where this is no Axes with x and y."""
    if getattr(ax, "name", "") != "rectilinear" or not hasattr(ax, "imshow"):
        what = getattr(ax, "name", "") or type(ax).__name__
        raise FigureError(
            f"draw_map draws into one matplotlib Axes with x and y, not {what}: take one of "
            "plt.subplots()"
        )


def _look(
    style: Style | str, norm: str | None, head: int | str | None, e: ExplanationBase
) -> Style:
    """The style in force; its heads are set where all heads share the map."""
    look = Style(style, zoom="none") if isinstance(style, str) else style
    if look.heads is not None:
        raise FigureError("a map is of one head: name it as head=, and leave the style's heads out")
    if norm == "figure" or (norm is None and look.norm == "figure"):
        raise FigureError(
            "norm 'figure' is one scale for a whole figure of head_grid, and a map does not know "
            "yours: take even, which is one scale for all figures"
        )
    if norm is not None:
        look = replace(look, norm=norm)
    if head is None and not e.stages:
        head = "all-in-one" if look.name == "points" else "mean"
    return replace(look, heads=head) if isinstance(head, str) else look


def _place(e: ExplanationBase, head: int | str | None, layer: int | None, look: Style) -> int:
    """The place of the panel in its row: the head, or the stage."""
    if e.stages:
        if head is not None:
            raise FigureError(no_heads(model_name(e.model_title, 0), e.num_layers))
        return e.layers.index(e.pick_layer(layer))
    if head is None or isinstance(head, str):
        return 0
    number = index(head)
    name = model_name(e.model_title, 0)
    if number < 0:
        raise FigureError(f"no head {number}: {name} has 0..{e.num_heads - 1}")
    check_heads(replace(look, heads=(number,)), name, e.num_heads)
    return number


def _section(
    e: ExplanationBase,
    query: int,
    mode: str | Mode,
    layer: int | None,
    scale: str,
    look: Style,
) -> Section:
    """The row of panels that the map is one of, as head_grid puts it together."""
    if not isinstance(mode, str | Mode) or mode == ALL_TERMS:
        raise FigureError(
            "a map is of one mode: give combine, position, content, a term such as cq.pk, or a "
            "sum of terms"
        )
    # stages have one scale: that of all that were captured
    layers = tuple(e.layers) if e.stages else (e.pick_layer(layer),)
    subject = ShownModel(e, model_name(e.model_title, 0), layers)
    check_stages([subject], look)
    maps = (StagePanels if e.stages else MapPanels)([mode], scale, look)
    maps.collect(subject, [index(query)])
    (section,) = sections_of([subject], SharedObject(0, (Match(index(query), 1.0),)), maps, False)
    (section,) = with_truth([section], e, look)
    return section


def _one_row(section: Section) -> Group:
    """The only group, with the only row that it must have, without strips beside the map."""
    (group,) = section.groups
    if len(group.rows) > 1:
        raise FigureError(
            'a map is of one level, or of all: give the style levels="sum", or one level as (0,)'
        )
    return replace(group, rows=(replace(group.rows[0], profiles=None),))


def _pixels(ax: Axes, size_hw: tuple[float, float], dpi: float) -> tuple[int, int]:
    """Height and width of a map in pixels that fills the Axes as far as its shape lets it."""
    inches = ax.bbox.width / ax.figure.dpi, ax.bbox.height / ax.figure.dpi
    wide = min(inches[0], inches[1] * size_hw[1] / size_hw[0]) * dpi
    high = wide * size_hw[0] / size_hw[1]
    if round(min(wide, high)) < _LEAST_PX or max(wide, high) > _MOST_PX:
        raise FigureError(
            f"a map of {wide:.0f} x {high:.0f} pixels cannot be drawn: make the Axes larger, or "
            "choose another dpi"
        )
    return round(high), round(wide)
