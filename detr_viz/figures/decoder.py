"""Which queries a query attends to in the decoder: a row for each query, a panel for each head.

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
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.labels import model_name, words_of
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import MapRow, number
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.query_links import LEAST, MOST
from detr_viz.figures.page.shown import AttendedQueries
from detr_viz.figures.page.text import clean
from detr_viz.figures.panel_rows import check_heads, columns, shown_heads
from detr_viz.figures.reading_rule import (
    LAYER_SCALE,
    OWN_OUTPUT,
    SAME_CONTENT,
    SORTED_HEADS,
    ShownModel,
    formula_note,
    heads_of,
    layers_of,
    merged_words,
    mode_name,
    normalisation,
)
from detr_viz.figures.sections import sections_of
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
    """Decoder self-attention of some queries: the boxes of the queries that they attend to.

    queries  ids in the order to show
    layers   decoder layers whose self-attention and output were captured; None: all of these
    A panel holds the weights (Q,) of one head, which sum to 1; all weights of a layer and a mode
    are e.attention(("decoder", layer), mode, queries), (queries, heads, Q). The box of an attended
    query and the line to it have the opacity of its weight on the style's scale; weights below
    query_links.LEAST of the scale's end, and all but the query_links.MOST largest of a panel, are
    not drawn. Boxes, classes and scores are those of each
    layer's own output. The rest as in figures.head_grid. FigureError where there is nothing to
    draw, or where the style cannot be drawn here.
    """
    subject = subject_of(e, queries, modes, layers, style)
    panels = _AttendedPanels(modes, scale, style)
    panels.collect(subject, queries)
    objects = [SharedObject(0, (Match(query, 1.0),)) for query in queries]
    sections = [
        section for shared in objects for section in sections_of([subject], shared, panels, False)
    ]
    sections = with_truth(sections, e, style)
    even = number(1 / e.num_queries)
    notes = notes_of(subject, modes, scale, style)
    if style.heads == "sort":
        notes.append(SORTED_HEADS)
    notes += [
        f"boxes and lines: whom it looks at, of {e.num_queries} queries ({even} each if even), "
        "as opaque as the weight is large",
        f"weights below {round(LEAST * 100)} % of the scale's end, and all but the {MOST} largest "
        "of a panel, are not drawn",
        "the box inside the blue one: itself; dashes: another's box lies on it",
        f"numbers: the largest weight; with {ITSELF}: the weight of itself",
    ]
    words = [clean(subject.name), f"self-attention of {layers_of(subject)}"]
    if len(modes) == 1:
        words.append(mode_name(modes[0]))
    words += merged_words(style)
    few = e.num_queries <= MOST
    words.append("boxes: queries it looks at" if few else f"boxes: the {MOST} it looks at most")
    notes += truth_notes(e, style)
    foot = Foot((*words, *truth_words(e, style)), tuple(notes))
    fig = draw(sections, columns(style, e.self_heads), foot, style, page_format)
    title = f"{whose(e)} self-attention {heads_of(style)}".rstrip(",")
    about = "; ".join(words for shared in objects for words in words_of([subject], shared))
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
    """The model and the layers to show; FigureError where something of it was not captured."""
    captured = [layer for kind, layer in e.sites if kind == "decoder" and layer in e.layers]
    chosen = captured if layers is None else list(dict.fromkeys(layers))
    if not (chosen and queries and modes):
        raise FigureError(
            f"nothing to draw: a query, a mode and a {e.layer_word} whose self-attention and "
            'output were captured are needed (explain with layers="all", sites=["decoder"])'
        )
    if missing := [layer for layer in chosen if layer not in captured]:
        raise FigureError(
            f"self-attention and output of {e.layer_word} {missing[0]} were not captured: explain "
            f'with layers=[{missing[0]}], sites=[("decoder", {missing[0]})]'
        )
    if style.name != "overlay" or style.interpolation is not None:
        raise FigureError(
            "decoder self-attention is no map of the image: it has style overlay only, and no "
            "interpolation"
        )
    check_heads(style, clean(e.model_title), e.self_heads)
    return ShownModel(e, model_name(e.model_title, 0), tuple(chosen))


def whose(e: Explanation | StoredExplanation) -> str:
    """Whose self-attention it is."""
    return "proposals'" if e.stages else "decoder"


def notes_of(subject: ShownModel, modes: Sequence[str], scale: str, style: Style) -> list[str]:
    """What a reader must know of decoder self-attention, in a grid or a matrix."""
    notes = [clean(subject.name), f"self-attention of {layers_of(subject)}"]
    if subject.layers != (subject.explanation.num_layers - 1,):
        notes.append(OWN_OUTPUT.replace("layer", subject.explanation.layer_noun))
    notes += [formula_note(mode, subject.explanation.self_formula(mode)) for mode in modes]
    if scale == "layer":
        notes.append(LAYER_SCALE)
    if "content" in modes and 0 in subject.layers:
        notes.append(SAME_CONTENT)
    if style.heads == "max":
        notes.append("the largest weight of any head, query by query")
    return notes


class _AttendedPanels:
    """A row for each mode: the weights of all queries."""

    def __init__(self, modes: Sequence[str], scale: str, style: Style) -> None:
        self._modes, self._scale, self._style = modes, scale, style
        self._rows: dict[tuple[int, int], tuple[MapRow, ...]] = {}

    def collect(self, subject: ShownModel, queries: Sequence[int]) -> None:
        e = subject.explanation
        grid = e.grid()
        for layer in subject.layers:
            boxes = e.output(layer).boxes_xyxy_px
            weights_of_modes = [
                e.attention(("decoder", layer), m, queries, self._scale) for m in self._modes
            ]
            for i, query in enumerate(queries):
                self._rows[layer, query] = tuple(
                    _row(weights[i], query, boxes, grid, mode_name(mode), self._style)
                    for mode, weights in zip(self._modes, weights_of_modes, strict=True)
                )

    def rows(self, subject: ShownModel, layer: int, query: int) -> tuple[MapRow, ...]:
        return self._rows[layer, query]


def _row(
    weights: np.ndarray, query: int, boxes: np.ndarray, grid: Grid, name: str, style: Style
) -> MapRow:
    """The weights (M, Q) of one query. Captions: its largest; marked where it attends to itself."""
    row = MapRow(weights[:, None], grid, name, attended=AttendedQueries(query, boxes))
    row = shown_heads(row, style)
    names = row.head_names or ("",) * len(row.maps)
    texts = []
    for head, (of_head,) in zip(names, row.maps, strict=True):
        text = number(of_head.max())
        if of_head[query] > np.delete(of_head, query).max(initial=0):
            text = f"{ITSELF} {text}"
        texts.append(f"{head}: {text}" if head else text)
    return replace(row, captions=tuple(texts))
