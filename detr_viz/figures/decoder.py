"""Which queries a query looks at in the decoder: a row a query, a panel a head.

e = explain(model, "photo.jpg", layers="all", sites=["decoder"])
fig = decoder_grid(e, [17, 3], ["combine"])
figures.save(fig, "decoder.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.attention.terms import formula_of, is_sum
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.head_maps import model_name, sections_of, words_of
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import AttendedQueries, MapRow, number
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.query_links import LEAST
from detr_viz.figures.page.text import clean
from detr_viz.figures.panel_rows import check_heads, columns, shown_heads
from detr_viz.figures.reading_rule import (
    ShownModel,
    heads_of,
    layers_of,
    mode_name,
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
    from detr_viz.explanation.stored import StoredExplanation

ITSELF = "\N{ANTICLOCKWISE OPEN CIRCLE ARROW}"


def decoder_grid(
    e: Explanation | StoredExplanation,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    scale: str = "mode",
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Decoder self-attention of some queries: the boxes of those they look at, of all there are.

    queries  ids in the order to show
    layers   decoder layers whose self-attention and output were captured; None: all of these
    A panel holds the weights (Q,) of one head, which sum to 1; all those of a layer and a mode are
    e.attention(("decoder", layer), mode, queries), (queries, heads, Q). A rival's box, and the line
    to it, are as opaque as its weight is large beside the look's scale; weights below rivals.LEAST
    of it are left out. Boxes, classes and scores are as each layer's own output gives them. The
    rest as in figures.head_grid. FigureError where nothing is to be drawn, or the look has no
    meaning here.
    """
    subject = subject_of(e, queries, modes, layers, style)
    panels = _RivalPanels(modes, scale, style)
    panels.collect(subject, queries)
    objects = [SharedObject(0, (Match(query, 1.0),)) for query in queries]
    sections = [part for one in objects for part in sections_of([subject], one, panels, False)]
    even = number(1 / e.num_queries)
    notes = [
        *notes_of(subject, modes, scale, style),
        *["in each row the head of the least entropy first, its number before the colon"]
        * (style.heads == "sort"),
        f"boxes and lines: whom it looks at, of {e.num_queries} queries ({even} each if even), "
        "as opaque as the weight is large",
        f"weights below {round(LEAST * 100)} % of the scale's end are not drawn",
        "the box inside the white one: itself; dashes: another's box lies on it",
        f"numbers with {ITSELF}: the weight of itself",
    ]
    fig = draw(sections, columns(style, e.num_heads), notes, style, page_format)
    title = f"decoder self-attention {heads_of(style)}".rstrip(",")
    about = "; ".join(words for one in objects for words in words_of([subject], one))
    describe(fig, e, title, [*notes, normalisation(style)], about)
    warn_if_high(fig, page_format)
    return fig


def subject_of(
    e: Explanation | StoredExplanation,
    queries: Sequence[int],
    modes: Sequence[str],
    layers: Sequence[int] | None,
    style: Style,
) -> ShownModel:
    """The model and its layers, once what is asked for is known to be there; else FigureError."""
    captured = [layer for kind, layer in e.sites if kind == "decoder" and layer in e.layers]
    wanted = captured if layers is None else list(dict.fromkeys(layers))
    if not (wanted and queries and modes):
        raise FigureError(
            "nothing to draw: a query, a mode and a decoder layer whose self-attention and output "
            'were captured are needed (explain with layers="all", sites=["decoder"])'
        )
    if missing := [layer for layer in wanted if layer not in captured]:
        raise FigureError(
            f"self-attention and output of decoder layer {missing[0]} were not captured: explain "
            f'with layers=[{missing[0]}], sites=[("decoder", {missing[0]})]'
        )
    if style.name != "overlay" or style.interpolation is not None:
        raise FigureError(
            "queries that look at queries are no map of the image: they have style overlay, and no "
            "interpolation"
        )
    check_heads(style, clean(e.model_title), e.num_heads)
    return ShownModel(e, model_name(e.model_title, 0), tuple(wanted))


def notes_of(subject: ShownModel, modes: Sequence[str], scale: str, style: Style) -> list[str]:
    """What a reader must know of decoder self-attention, however it is drawn."""
    notes = [clean(subject.name), f"self-attention of {layers_of(subject)}"]
    if subject.layers != (subject.explanation.num_layers - 1,):
        notes.append("box, class and score: that layer's own")
    notes += [f"{'' if is_sum(mode) else f'{mode}  '}${formula_of(mode)}$" for mode in modes]
    notes += ["logits at the layer's own scale"] * (scale == "layer")
    if "content" in modes and 0 in subject.layers:
        notes.append("in layer 0 content is the same for every query")
    if style.heads == "max":
        notes.append("the largest weight of any head, query by query")
    return notes


class _RivalPanels:
    """A row a mode: the weights of all queries."""

    def __init__(self, modes: Sequence[str], scale: str, style: Style) -> None:
        self._modes, self._scale, self._style = modes, scale, style
        self._rows: dict[tuple[int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        grid = e.grid()
        for layer in subject.layers:
            boxes = e.output(layer).boxes_xyxy_px
            made = [e.attention(("decoder", layer), m, queries, self._scale) for m in self._modes]
            for i, query in enumerate(queries):
                self._rows[layer, query] = tuple(
                    _row(weights[i], query, boxes, grid, mode_name(mode), self._style)
                    for mode, weights in zip(self._modes, made, strict=True)
                )

    def of(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[layer, query]


def _row(
    weights: np.ndarray, query: int, boxes: np.ndarray, grid: Grid, name: str, style: Style
) -> MapRow:
    """The weights (M, Q) of one query. In each panel its largest, and whether that is its own."""
    row = MapRow(weights[:, None], grid, name, rivals=AttendedQueries(query, boxes))
    row = shown_heads(row, style)
    said = row.numbers or [number(of_head.max()) for of_head in row.maps]
    numbers = []
    for text, (of_head,) in zip(said, row.maps, strict=True):
        before, space, value = text.rpartition(" ")
        own = of_head[query] > np.delete(of_head, query).max(initial=0)
        numbers.append(f"{before}{space}{f'{ITSELF} ' * bool(own)}{value}")
    return replace(row, numbers=tuple(numbers))
