"""Decoder self-attention among some queries: a matrix for each head.

e = explain(model, "photo.jpg", layers="all", sites=["decoder"])
fig = query_matrix(e, [17, 3, 61], ["combine"])
figures.save(fig, "matrix.png")

    band        one layer and mode: its name, then lines of matrices side by side
      matrix    head 0
                    17   3  61  others        the attended queries
        cat   17   .62 .10 .02   .26          a row: the query that attends
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures.decoder import notes_of, subject_of, whose
from detr_viz.figures.labels import label_of, words_of
from detr_viz.figures.page import tiles
from detr_viz.figures.page.canvas import figure_of, warn_if_high, write
from detr_viz.figures.page.elements import GRAY, INK
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.layout import check_size
from detr_viz.figures.page.matrix_layout import Band, Entry, Table
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.scale import plain_colors
from detr_viz.figures.page.text import clean, plain_settings
from detr_viz.figures.panel_rows import columns
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

_GREYS = (246, 120)  # of 0 and of 1, in the column of the others


def query_matrix(
    e: Explanation | StoredExplanation,
    queries: Sequence[int],
    modes: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    scale: str = "mode",
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
) -> Figure:
    """Decoder self-attention among some queries: for each head a matrix (q, q) and "others" (q,).

    queries  ids of at least two, in the order to show
    Row i, column j: the weight that queries[i] gives to queries[j]. The column "others", in greys
    from 0 to 1, is the sum of its weights of all other queries, so that a row sums to 1 (except
    with heads "max", where every cell is the largest weight of any head). Colours have one scale in
    the whole figure unless style.norm is "head" (each matrix its own) or "query" (each query's row
    of all heads). Heads "sort": by the mean entropy of the rows. The rest as in decoder_grid.
    """
    if len(queries) < 2:
        raise FigureError("a matrix needs at least two queries: choose more")
    subject = subject_of(e, queries, modes, layers, style)
    bands = [
        _band(subject, queries, layer, mode, scale, style, len(subject.layers), len(modes))
        for layer in subject.layers
        for mode in modes
    ]
    if style.norm in (None, "even"):  # numbers in cells compare across heads
        style = replace(style, norm="figure")
    lut = plain_colors(style)
    rest = e.num_queries - len(queries)
    notes = notes_of(subject, modes, scale, style)
    if style.heads == "sort":
        notes.append("the heads whose rows have the least entropy first")
    notes.append("rows look, columns are looked at; on the diagonal, at itself")
    with plain_settings():
        table = Table(bands, rest, PageMetrics(page_format, (1, 1)))
        layout = table.layout()
        if rest:
            whole = "each row sums to 1" if style.heads != "max" else "rows do not sum to 1"
            if e.attention_kind == "joint":
                whole = "the rest of a row goes to cells"
            notes.append(f"{table.rest_name}, grey: all that the other {rest} queries get; {whole}")
        if all(any(table.largest(band)) for band in bands):
            notes.append("after a head: its largest weight here")
        if table.thinned:
            notes.append("not all queries are named")
        if table.without:
            notes.append(f"cells without a number: below {table.without}")
        words = [clean(subject.name), f"self-attention of {layers_of(subject)}"]
        words += [
            "a row looks at the columns",
            *([f"{table.rest_name}: the other {rest}"] if rest else []),
        ]
        layout = with_foot(layout, (), Foot(tuple(words), tuple(notes)), style, table.page)
    check_size(layout.width, layout.height, sum(len(band.labels) for band in bands))
    sheet = tiles.blank_sheet(layout.height, layout.width)
    largest = max(float(band.shown.max()) for band in bands)
    inks = [_inks(band, lut, style, largest) for band in bands]
    for of_band, cells in zip(inks, table.cells, strict=True):
        for cell, (top, left, high, wide) in cells.items():
            sheet[top : top + high, left : left + wide, :3] = of_band[cell]
    fig, ax = figure_of(sheet, page_format.dpi)
    write(ax, [*layout.lines, *table.numbers(inks)], page_format.dpi, page_format.font)
    title = f"{whose(e)} self-attention between queries, {heads_of(style)}".rstrip(",")
    about = "; ".join(words_of([subject], SharedObject(0, (Match(q, 1.0),)))[0] for q in queries)
    describe(fig, e, title, [*notes, normalisation(style)], about)
    warn_if_high(fig, page_format)
    return fig


def _band(
    subject: ShownModel,
    queries: Sequence[int],
    layer: int,
    mode: str,
    scale: str,
    style: Style,
    layers: int,
    modes: int,
) -> Band:
    e, ids = subject.explanation, list(queries)
    weights = e.attention(("decoder", layer), mode, ids, scale).transpose(1, 0, 2)  # (M, q, Q)
    rest = np.setdiff1d(np.arange(weights.shape[-1]), ids)
    shown, others = weights[..., ids], weights[..., rest].sum(-1)
    names = [f"head {m}" for m in range(len(weights))]
    if isinstance(style.heads, tuple):
        order = [*style.heads]
    elif style.heads == "sort":
        logs = np.log(weights, out=np.zeros(weights.shape), where=weights > 0)
        order = np.argsort(-(weights * logs).sum(-1).mean(-1), kind="stable").tolist()
    elif style.heads is None:
        order = [*range(len(weights))]
    else:
        combined = np.mean if style.heads == "mean" else np.max
        shown, others = combined(shown, 0, keepdims=True), combined(others, 0, keepdims=True)
        order, names = [0], columns(style, len(weights))
    labels = []
    for query in ids:
        label = label_of(subject.explanation, query, layer)
        labels.append(Entry(label.title, str(query), GRAY if label.weak else INK, label.style))
    name = [f"{e.layer_noun} {layer}"] if layers > 1 else []
    if modes > 1:
        name.append(mode_name(mode))
    return Band(
        " ".join(name), tuple(names[m] for m in order), shown[order], others[order], tuple(labels)
    )


def _inks(band: Band, lut: np.ndarray, style: Style, largest: float) -> np.ndarray:
    """Colours of all cells, (M, q, q + 1, 3) uint8; the last column is of the others."""
    scale = {
        "head": band.shown.max((1, 2), keepdims=True),
        "query": band.shown.max((0, 2), keepdims=True),
        "figure": np.float32(largest),
    }[style.norm or "figure"]
    levels = band.shown / np.where(scale > 0, scale, 1)
    white, grey = _GREYS
    greys = np.rint(white + (grey - white) * np.clip(band.others, 0, 1)).astype(np.uint8)
    greys = np.repeat(greys[..., None, None], 3, -1)
    return np.concatenate([lut[np.rint(levels * 255).astype(int)], greys], 2)
