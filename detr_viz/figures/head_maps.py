"""Head maps as a matplotlib Figure: a row a query, its photo and box, then a panel a head.

fig = figures.head_grid(e, [17, 3], "position")
figures.save(fig, "cat.png")                       # or .pdf, .svg

look, page = Look("contour"), PageFormat.of("column")
fig = figures.head_grid(e, [17], "combine", layer=[0, 2, 5], look=look, page=page)
fig = figures.compare([a, b], shared_objects([a.boxes_xyxy_px, b.boxes_xyxy_px], ids))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import ALL_TERMS, Mode
from detr_viz.detections.boxes import iou
from detr_viz.detections.matching import MIN_IOU, Match, SharedObject
from detr_viz.figures.page.canvas import warn_if_high
from detr_viz.figures.page.elements import GRAY, Group, Label, Section
from detr_viz.figures.page.paint import draw
from detr_viz.figures.page.save import SUFFIXES, save, show
from detr_viz.figures.page.text import ELLIPSIS, clean, drawable
from detr_viz.figures.panel_rows import AblationPanels, MapPanels, Panels, TermPanels, columns
from detr_viz.figures.reading_rule import (
    FigureContents,
    ShownModel,
    class_name,
    metadata,
    reading_rule,
)
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    FigureError,
    PageFormat,
    Style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.explanation.ablation import Ablation
    from detr_viz.explanation.results import ExplanationBase

__all__ = [
    "SUFFIXES",
    "FigureError",
    "PageFormat",
    "Style",
    "compare",
    "head_grid",
    "save",
    "show",
]

_LONG_PREFIX = 8  # characters
WEAK_SCORE = 0.5  # labels of detections below are dimmed
SAME_BOX = 0.5  # a box that overlaps its own of the layer before by less has moved
_NEXT_BEST = 3  # classes of a biography, with the best

# Okabe and Ito (2008), told apart with any colour vision. A class has its colour in every figure.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")

Modes = str | Mode | Sequence[str | Mode]


def head_grid(
    explanation: ExplanationBase,
    queries: Sequence[int],
    mode: Modes = "combine",
    *,
    layer: int | str | Sequence[int] | None = None,
    scale: str = "mode",
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
    ablations: Sequence[Ablation] = (),
    biography: bool = False,
) -> Figure:
    """Maps of every head for some queries: label, photo with its box, one panel a head.

    queries   ids in the order to show
    mode      one mode (a name, a sum of terms, or a Mode of your own), or several: then a row a
              mode, by query. "terms": a row a term of the logits, their sum, the weights
    layer     a captured layer ("last": the decoder's), or several ("all": those captured), then a
              row a layer, by query; None: the last captured. Class, score and box are as that
              layer's own output gives them
    scale     as in ExplanationBase.maps
    look      style, normalisation, colour map, interpolation
    page      width, resolution, size of type; the height follows from the photo and the rows
    ablations of Explanation.ablate: a row each, under one of the attention as it is
    biography of several layers: mark where a query changed its mind (another class, or a box whose
              IoU with the layer before is below 0.5), its reference point, its next best classes
    The largest weight of each panel is printed in it. The figure carries what it shows as
    `fig.shown`, and as `fig.facts` (Title, Software, Description), which `save` writes into the
    file. Raises FigureError for what cannot be drawn, ValueError for a mode, query or layer not
    there.
    """
    name = model_name(explanation.model_title, 0)
    subject = ShownModel(explanation, name, _layers(explanation, layer))
    objects = [SharedObject(0, (Match(query, 1.0),)) for query in queries]
    return _figure([subject], objects, mode, scale, style, page_format, [ablations], biography)


def compare(
    explanations: Sequence[ExplanationBase],
    objects: Sequence[SharedObject],
    mode: Modes = "combine",
    *,
    names: Sequence[str] | None = None,
    layer: int | str | Sequence[int] | None = None,
    scale: str = "mode",
    style: Style = DEFAULT_STYLE,
    page_format: PageFormat = DEFAULT_PAGE_FORMAT,
    ablations: Sequence[Sequence[Ablation]] = (),
    biography: bool = False,
) -> Figure:
    """The same objects as several models see them: a group of rows a model, by object.

    explanations   of one image
    objects        which queries are the same object, from matching.shared_objects
    names          what the models are called; None: their titles, or where these are the same
                   their checkpoints' names
    ablations      of each explanation
    biography      as in head_grid
    The rest as in head_grid. An object that a model has no query for is said so.
    """
    called = names_of(explanations) if names is None else list(names)
    if not len(explanations) == len(called) > 0 or any(
        len(o.matches) != len(called) for o in objects
    ):
        raise FigureError("explanations, names and the matches of every object must be as many")
    first, *others = (e.image.rgb for e in explanations)
    if not all(rgb is first or np.array_equal(rgb, first) for rgb in others):
        raise FigureError("these explanations are of different images: compare those of one")
    if names is not None:
        called = [model_name(name, i) for i, name in enumerate(called)]
    subjects = [
        ShownModel(e, name, _layers(e, layer), label)
        for e, name, label in zip(explanations, called, _labels(called), strict=True)
    ]
    return _figure(subjects, objects, mode, scale, style, page_format, ablations, biography)


def _figure(
    subjects: Sequence[ShownModel],
    objects: Sequence[SharedObject],
    mode: Modes,
    scale: str,
    style: Style,
    page_format: PageFormat,
    ablations: Sequence[Sequence[Ablation]],
    biography: bool,
) -> Figure:
    modes = tuple(dict.fromkeys([mode] if isinstance(mode, str | Mode) else mode))
    if not objects or not modes:
        raise FigureError("nothing to draw: name at least one query and one mode")
    maps: Panels = MapPanels(modes, scale, style)
    if modes == (ALL_TERMS,):
        maps = TermPanels(style)
    taken = next(iter(ablations), ())
    if taken:
        if modes != ("combine",) or any(len(s.layers) > 1 for s in subjects):
            raise FigureError("ablations are shown of the mode combine, at one layer")
        maps = AblationPanels(style, ablations)
    for k, subject in enumerate(subjects):
        wanted = [o.matches[k].query for o in objects if o.matches[k].query is not None]
        maps.collect(subject, wanted)
    sections = [
        section for shared in objects for section in sections_of(subjects, shared, maps, biography)
    ]
    shown = FigureContents(
        tuple(subjects),
        modes,
        scale,
        style,
        tuple(words for shared in objects for words in words_of(subjects, shared)),
        tuple(found.removal.name for found in taken),
        taken[0].layers if taken else (),
        biography,
    )
    names = columns(style, max(s.explanation.num_heads for s in subjects))
    fig = draw(sections, names, reading_rule(shown), style, page_format)
    fig.shown = replace(shown, width_in=float(fig.get_figwidth()))
    fig.facts = metadata(shown)
    warn_if_high(fig, page_format, above=2)
    return fig


def sections_of(
    subjects: Sequence[ShownModel], shared: SharedObject, maps: Panels, biography: bool
) -> list[Section]:
    """The rows of one object: a section, or one a model where each has several layers."""
    pairs = list(zip(subjects, shared.matches, strict=True))
    if biography or any(len(s.layers) > 1 for s in subjects):
        made = [_through_layers(s, match, shared, subjects, maps) for s, match in pairs]
        if biography:
            made = [_life(s, m.query, part) for (s, m), part in zip(pairs, made, strict=True)]
        return made
    if len(subjects) > 1:
        return [_side_by_side(pairs, shared.reference, maps)]
    ((subject, match),) = pairs
    assert match.query is not None
    label = label_of(subject.explanation, match.query, subject.layers[-1], f"query {match.query}")
    return [Section((_group(subject, subject.layers[-1], match.query, label, maps),))]


def _through_layers(
    subject: ShownModel,
    match: Match,
    shared: SharedObject,
    subjects: Sequence[ShownModel],
    maps: Panels,
) -> Section:
    """One query of one model: a group a layer."""
    if match.query is None:
        first, query = subjects[shared.reference], shared.matches[shared.reference].query
        assert query is not None
        heading = replace(label_of(first.explanation, query, first.layers[-1]), details=())
        return Section((_missing(subject, match),), heading)
    about = [subject.name] * (len(subjects) > 1) + [f"query {match.query}"]
    if subject is not subjects[shared.reference]:
        seen = subjects[shared.reference], shared.matches[shared.reference]
        about.append(f"IoU {_overlap(seen, (subject, match)):.2f}")
    groups = []
    for layer in subject.layers:
        own = label_of(subject.explanation, match.query, layer)
        label = replace(own, title=f"layer {layer}", details=(own.title, *own.details))
        groups.append(_group(subject, layer, match.query, label, maps))
    return Section(
        tuple(groups), label_of(subject.explanation, match.query, subject.layers[-1], *about)
    )


def _life(subject: ShownModel, query: int | None, section: Section) -> Section:
    """The layers of a query with what has become of it from each to the next."""
    if query is None:
        return section
    e, groups = subject.explanation, []
    reference = None if e.reference_px is None else tuple(map(float, e.reference_px[query]))
    for layer, group, before in zip(
        subject.layers, section.groups, (None, *subject.layers), strict=False
    ):
        output, details = e.output(layer), list(group.label.details)
        others = np.argsort(-output.class_scores[query], kind="stable")[1:_NEXT_BEST]
        # the number first: what is too long is cut at its end
        details += [f"{output.class_scores[query, i]:.2f} {class_name(e, i)}" for i in others]
        changes = [] if before is None else _changes(e, query, before, layer)
        title = group.label.title + ": changed" * bool(changes)
        label = replace(group.label, title=title, details=(*changes, *details))
        groups.append(replace(group, label=label, mark=reference))
    return replace(section, groups=tuple(groups))


def _changes(e: ExplanationBase, query: int, before: int, layer: int) -> list[str]:
    """In words, where a query is another one than in the layer before."""
    old, new = e.output(before), e.output(layer)
    words = []
    if old.labels[query] != new.labels[query]:
        words.append(f"was {class_name(e, int(old.labels[query]))}")
    overlap = float(iou(old.boxes_xyxy_px[[query]], new.boxes_xyxy_px[[query]])[0, 0])
    if overlap < SAME_BOX:
        words.append(f"box moved, IoU {overlap:.2f}")
    return words


def _side_by_side(
    pairs: Sequence[tuple[ShownModel, Match]], reference: int, maps: Panels
) -> Section:
    """One object in several models, at one layer each: a group a model."""
    first, seen = pairs[reference]
    assert seen.query is not None
    heading = replace(label_of(first.explanation, seen.query, first.layers[-1]), details=())
    others = [pair for pair in pairs if pair[0] is not first and pair[1].query is not None]
    if len(pairs) == 2 and others:
        overlap = _overlap(pairs[reference], others[0])
        heading = replace(heading, details=(f"boxes: IoU {overlap:.2f}",))
    groups = []
    for subject, match in pairs:
        if match.query is None:
            groups.append(_missing(subject, match))
            continue
        layer = subject.layers[-1]
        own = label_of(subject.explanation, match.query, layer, f"query {match.query}")
        details = own.details if own.title == heading.title else (own.title, *own.details)
        if subject is not first and len(pairs) > 2:
            details += (f"IoU {_overlap(pairs[reference], (subject, match)):.2f}",)
        label = replace(own, title=subject.label, details=details)
        groups.append(_group(subject, layer, match.query, label, maps))
    return Section(tuple(groups), heading)


def _overlap(a: tuple[ShownModel, Match], b: tuple[ShownModel, Match]) -> float:
    """IoU of the boxes as they are drawn: at the last layer that is shown of each."""
    one, other = (
        s.explanation.output(s.layers[-1]).boxes_xyxy_px[[match.query]] for s, match in (a, b)
    )
    return float(iou(one, other)[0, 0])


def _group(subject: ShownModel, layer: int, query: int, label: Label, maps: Panels) -> Group:
    e = subject.explanation
    box = e.output(layer).boxes_xyxy_px[query]
    return Group(
        label, e.image.rgb, box if np.isfinite(box).all() else None, maps.of(subject, layer, query)
    )


def _missing(subject: ShownModel, match: Match) -> Group:
    e = subject.explanation
    remark = "no matching box"
    if match.nearest is not None and match.iou >= MIN_IOU:
        remark += f" left: query {match.nearest}, IoU {match.iou:.2f}, is another object's"
    elif match.nearest is not None:
        name, score = class_name(e, int(e.labels[match.nearest])), e.scores[match.nearest]
        near = f"query {match.nearest}, {name} {score:.2f}, IoU {match.iou:.2f}"
        remark += f" (the nearest: {near})"
    return Group(Label(subject.label, (), GRAY, weak=True), e.image.rgb, None, (), remark)


def label_of(e: ExplanationBase, query: int, layer: int, *details: str) -> Label:
    """Class and score as a layer's output gives them, then what else there is to say."""
    output = e.output(layer)
    label, score = int(output.labels[query]), float(output.scores[query])
    return Label(
        title=class_name(e, label),
        details=(f"{score:.2f}", *details),
        color=PALETTE[label % len(PALETTE)],
        weak=score < WEAK_SCORE,
    )


def model_name(name: str, i: int) -> str:
    """A model's name, or its place where no font here has the characters."""
    plain = clean(name).replace("$", "")  # which parts formulas from text
    return plain if plain and drawable(plain) else f"model {i + 1}"


def words_of(subjects: Sequence[ShownModel], shared: SharedObject) -> list[str]:
    """An object's queries in words, for metadata and captions: a model each."""
    lines = []
    for subject, match in zip(subjects, shared.matches, strict=True):
        e, query = subject.explanation, match.query
        before = f"{subject.name}: " if len(subjects) > 1 else ""
        if query is None:
            lines.append(f"{before}no match")
            continue
        output = e.output(subject.layers[-1])
        name = clean(e.class_names[output.labels[query]]) or f"class {output.labels[query]}"
        lines.append(f"{before}{name}, {output.scores[query]:.2f}, query {query}")
    return lines


def _layers(
    explanation: ExplanationBase, layer: int | str | Sequence[int] | None
) -> tuple[int, ...]:
    if layer == "all":
        return tuple(explanation.layers)
    layer = explanation.num_layers - 1 if layer == "last" else layer
    wanted = [layer] if layer is None or np.ndim(layer) == 0 else layer
    picked = tuple(dict.fromkeys(explanation.pick_layer(item) for item in wanted))
    if not picked:
        raise FigureError("nothing to draw: name at least one decoder layer")
    return picked


def names_of(explanations: Sequence[ExplanationBase]) -> list[str]:
    """What the models of a comparison are called in its figure."""
    return [model_name(name, i) for i, name in enumerate(_names(explanations))]


def _names(explanations: Sequence[ExplanationBase]) -> list[str]:
    """Titles where these differ, else the checkpoints' names, numbered where these are the same."""
    titles = [e.model_title for e in explanations]
    if len(set(titles)) == len(titles):
        return titles
    files = [Path(str(e.meta.get("weights") or e.model_title)).name for e in explanations]
    stems = [re.sub(r"\.(pth|pt|bin|safetensors)$", "", name) for name in files]
    return [f"{s} ({i})" if stems.count(s) > 1 else s for i, s in enumerate(stems, 1)]


def _labels(names: Sequence[str]) -> list[str]:
    """Names for narrow labels: without what all begin with, where that is long.

    detr_r50_epoch_50 and detr_r50_epoch_60 become …epoch_50 and …epoch_60.
    """
    alike = takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False))
    common = "".join(signs[0] for signs in alike)
    ends = [i + 1 for i, sign in enumerate(common) if sign in "_- "]
    cut = ends[-2] if len(ends) > 1 else 0  # the word before the difference stays
    if cut < _LONG_PREFIX or any(len(name) == cut for name in names):
        return list(names)
    return [f"{ELLIPSIS}{name[cut:]}" for name in names]
