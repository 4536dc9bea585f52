"""Head maps as a matplotlib Figure: for each query its photo and box, then a panel for each head.

fig = figures.head_grid(e, "top:3", "position")    # in a notebook its last line shows it
figures.save(fig, "cat.png")                       # or .pdf, .svg

fig = figures.head_grid(e, [17], layer=[0, 2, 5], style="contour", page_format="column")
fig = figures.compare_models([a, b], shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], ids))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import ALL_TERMS, Mode
from detr_viz.detections.matching import Match, SharedObject
from detr_viz.figures import words
from detr_viz.figures.file_facts import metadata
from detr_viz.figures.labels import model_name, names_of, short_names, words_of
from detr_viz.figures.level_words import cells_of
from detr_viz.figures.one_grid import one_grid
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.foot import Foot
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.save import SUFFIXES, save, show
from detr_viz.figures.panel_rows import AblationPanels, MapPanels, Panels, TermPanels, columns
from detr_viz.figures.reading_rule import (
    FigureContents,
    ShownModel,
    foot_words,
    reading_rule,
)
from detr_viz.figures.sections import sections_of
from detr_viz.figures.stage_panels import StagePanels, stage_columns
from detr_viz.figures.stage_parts import check_stages
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)
from detr_viz.figures.truth_marks import truth_words, with_truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.results import ExplanationBase

__all__ = [
    "SUFFIXES",
    "FigureError",
    "PageFormat",
    "Style",
    "compare_models",
    "head_grid",
    "save",
    "show",
]

Modes = str | Mode | Sequence[str | Mode]


def head_grid(
    explanation: ExplanationBase,
    queries: str | int | Sequence[int],
    mode: Modes = "combine",
    *,
    layer: int | str | Sequence[int] | None = None,
    heads: int | str | Sequence[int] | None = None,
    scale: str = "mode",
    style: Style | str = DEFAULT_STYLE,
    page_format: PageFormat | str = DEFAULT_PAGE_FORMAT,
    ablations: Sequence[Ablation] = (),
    biography: bool = False,
) -> Figure:
    """Maps of every head for some queries: label, photo with its box, one panel for each head.

    queries      ids in the order to show, or words as on the command line: "top:3"
    mode         one mode (a name, a sum of terms, or a Mode of your own) or several ("all", or
                 "position,content"); of several, each query has a row for each. "terms": a row for
                 each term of the logits, one for their sum, one for the weights
    layer        a captured layer ("last": the decoder's last), or several ("all": every captured
                 one, "0,2"); of several, each query has a row for each. None: the last captured.
                 Class, score and box are those of that layer's own output
    heads        in place of the style's: numbers, or words: "0-3", "mean", "max", "sort"
    scale        as in ExplanationBase.maps
    style        style, normalisation, colour map, interpolation; whether annotated boxes are drawn
                 (Style(truth=True), for an image that has them); or the name of a style: "contour"
    page_format  width, resolution, size of type; or the name of a preset: "column". The height
                 follows from the photo and the rows
    ablations    of Explanation.ablate: a row for each, under the row of the attention as it is
    biography    of several layers: mark where the query changed (another class, or a box whose IoU
                 with the layer before is below 0.5), its reference point, its next best classes
    Under each panel stands the share of its map that lies in the box. The figure carries what it
    shows as `fig.shown`, and as `fig.facts` (Title, Software, Description), which `save` writes
    into the file. A notebook shows it. Raises FigureError for what cannot be drawn and for words
    that say nothing, ValueError for a mode, query or layer that does not exist.
    """
    name = model_name(explanation.model_title, 0)
    subject = ShownModel(explanation, name, _layers(explanation, layer))
    ids = words.queries(explanation, queries)
    objects = [SharedObject(0, (Match(query, 1.0),)) for query in ids]
    modes = words.modes(explanation, mode)
    look, page = words.look(style, heads=heads), words.page(page_format)
    return _figure([subject], objects, modes, scale, look, page, [ablations], biography)


def compare_models(
    explanations: Sequence[ExplanationBase],
    objects: Sequence[SharedObject],
    mode: Modes = "combine",
    *,
    names: Sequence[str] | None = None,
    layer: int | str | Sequence[int] | None = None,
    heads: int | str | Sequence[int] | None = None,
    scale: str = "mode",
    style: Style | str = DEFAULT_STYLE,
    page_format: PageFormat | str = DEFAULT_PAGE_FORMAT,
    ablations: Sequence[Sequence[Ablation]] = (),
    biography: bool = False,
    notes: Sequence[Mapping[int, str]] = (),
) -> Figure:
    """The same objects as several models see them: for each object a group of rows for each model.

    explanations   of one image
    objects        which queries are the same object, from matching.shared_objects
    names          what the models are called; None: their titles, or the names of their checkpoints
                   where two titles are the same
    ablations      of each explanation
    notes          of each explanation: query -> a sentence under its label
    The rest as in head_grid. Where a model has no query for an object, a remark stands in place of
    its panels.
    """
    shown_names = names_of(explanations) if names is None else list(names)
    counts = {len(explanations), len(shown_names), *(len(o.matches) for o in objects)}
    if len(counts) > 1 or not explanations:
        raise FigureError(
            "explanations, names and the matches of every object must be equally many, at least one"
        )
    first, *others = (e.image.rgb for e in explanations)
    if not all(rgb is first or np.array_equal(rgb, first) for rgb in others):
        raise FigureError(
            "these explanations are of different images: compare explanations of the same image"
        )
    if names is not None:
        shown_names = [model_name(name, i) for i, name in enumerate(shown_names)]
    parts = explanations, shown_names, short_names(shown_names), notes or [{}] * len(explanations)
    subjects = [
        ShownModel(e, name, _layers(e, layer), label, of_queries)
        for e, name, label, of_queries in zip(*parts, strict=True)
    ]
    modes = words.modes(explanations[0], mode)
    look, page = words.look(style, heads=heads), words.page(page_format)
    return _figure(subjects, objects, modes, scale, look, page, ablations, biography)


def _figure(
    subjects: Sequence[ShownModel],
    objects: Sequence[SharedObject],
    modes: tuple[str | Mode, ...],
    scale: str,
    style: Style,
    page_format: PageFormat,
    ablations: Sequence[Sequence[Ablation]],
    biography: bool,
) -> Figure:
    if not objects or not modes:
        raise FigureError("nothing to draw: name at least one query and one mode")
    ablated, grid = next(iter(ablations), ()), None
    drawn_maps = style.name not in ("points", "cells") and modes != (ALL_TERMS,)
    if drawn_maps and style.levels == "sum" and not ablated:
        grid = one_grid(subjects)
    check_stages(subjects, style)
    stages = all(s.explanation.stages for s in subjects) and not ablated
    maps: Panels = (StagePanels if stages else MapPanels)(modes, scale, style, grid)
    if isinstance(maps, StagePanels):
        maps.apart = biography
    if modes == (ALL_TERMS,):
        maps = TermPanels(style)
    if ablated:
        if modes != ("combine",) or any(len(s.layers) > 1 for s in subjects):
            raise FigureError(
                'ablations can only be shown with the mode "combine" and a single layer'
            )
        maps = AblationPanels(style, ablations)
    for k, subject in enumerate(subjects):
        queries = [o.matches[k].query for o in objects if o.matches[k].query is not None]
        maps.collect(subject, queries)
    sections = [
        section for shared in objects for section in sections_of(subjects, shared, maps, biography)
    ]
    sections = with_truth(sections, subjects[0].explanation, style)
    shown = FigureContents(
        tuple(subjects),
        modes,
        scale,
        style,
        tuple(line for shared in objects for line in words_of(subjects, shared)),
        tuple(ablation.removal.name for ablation in ablated),
        ablated[0].layers if ablated else (),
        biography,
        grid_hw=None if grid is None else tuple(grid.hw),
    )
    names = columns(style, max(s.explanation.num_heads for s in subjects))
    if stages:
        names = [""] if biography else stage_columns(subjects)
    words = truth_words(foot_words(shown), subjects[0].explanation, style)
    foot = Foot(words, tuple(reading_rule(shown)), cells_of(shown))
    fig = draw(sections, names, foot, style, page_format)
    fig.shown = replace(shown, width_in=float(fig.get_figwidth()))
    fig.facts = metadata(shown)
    warn_if_high(fig, page_format, above=2)
    return fig


def _layers(
    explanation: ExplanationBase, layer: int | str | Sequence[int] | None
) -> tuple[int, ...]:
    if layer == "all":
        return tuple(explanation.layers)
    layer = words.layer_numbers(layer)
    layer = explanation.num_layers - 1 if layer == "last" else layer
    choices = [layer] if layer is None or np.ndim(layer) == 0 else layer
    layers = tuple(dict.fromkeys(explanation.pick_layer(choice) for choice in choices))
    if not layers:
        raise FigureError("nothing to draw: name at least one decoder layer")
    return layers
