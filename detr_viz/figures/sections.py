"""The rows of panels that one object has: a section a query or model, a group a layer or model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.base import WHOLE
from detr_viz.detections.boxes import iou
from detr_viz.detections.matching import MIN_IOU, Match, SharedObject
from detr_viz.figures.labels import finite, label_of, query_words
from detr_viz.figures.page.elements import Group, Label, Section, score_text
from detr_viz.figures.page.fonts import drawable
from detr_viz.figures.page.text import clean
from detr_viz.figures.panel_rows import AblationPanels, Panels
from detr_viz.figures.reading_rule import ShownModel, class_name
from detr_viz.figures.references import reference_of
from detr_viz.figures.stage_panels import StagePanels

if TYPE_CHECKING:
    from detr_viz.explanation.removals import Removal
    from detr_viz.explanation.results import ExplanationBase

SAME_BOX = 0.5  # a box that overlaps its own of the layer before by less has moved
_NEXT_BEST = 3  # classes of a biography, with the best


def sections_of(
    subjects: Sequence[ShownModel], shared: SharedObject, maps: Panels, biography: bool
) -> list[Section]:
    """The sections of one object: one, or one for each model where each has several layers."""
    pairs = list(zip(subjects, shared.matches, strict=True))
    if isinstance(maps, AblationPanels):
        return [
            _removed(subject, match, subjects, maps)
            for subject, match in pairs
            if match.query is not None
        ]
    abreast = isinstance(maps, StagePanels)  # several layers are panels of one row
    if biography or (any(len(s.layers) > 1 for s in subjects) and not abreast):
        sections = [_through_layers(s, match, shared, subjects, maps) for s, match in pairs]
        if not biography:
            return sections
        return [
            _with_changes(s, match.query, section)
            for (s, match), section in zip(pairs, sections, strict=True)
        ]
    if len(subjects) > 1:
        return [_side_by_side(pairs, shared.reference, maps)]
    ((subject, match),) = pairs
    assert match.query is not None
    e, layer = subject.explanation, subject.layers[-1]
    label = label_of(e, match.query, layer, *query_words(e, match.query))
    label = replace(label, note=_note(subject, match.query))
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
        heading = replace(label_of(first.explanation, query, first.layers[-1]), score="")
        return Section((_missing(subject, match),), heading)
    details = [subject.name] if len(subjects) > 1 else []
    details += query_words(subject.explanation, match.query)
    if subject is not subjects[shared.reference]:
        reference = subjects[shared.reference], shared.matches[shared.reference]
        details.append(f"IoU {score_text(_overlap(reference, (subject, match)))}")
    groups = []
    for layer in subject.layers:
        own = label_of(subject.explanation, match.query, layer)
        label = replace(
            own,
            title=f"{subject.explanation.layer_noun} {layer}",
            score="",
            details=(f"{own.title} {own.score}",),
        )
        groups.append(_group(subject, layer, match.query, label, maps))
    heading = label_of(subject.explanation, match.query, subject.layers[-1], *details)
    return Section(tuple(groups), replace(heading, note=_note(subject, match.query)))


def _with_changes(subject: ShownModel, query: int | None, section: Section) -> Section:
    """The section with what changed from each layer to the next, and the query's reference."""
    if query is None:
        return section
    e, groups = subject.explanation, []
    for layer, group, before in zip(
        subject.layers, section.groups, (None, *subject.layers), strict=False
    ):
        output, details = e.output(layer), list(group.label.details)
        others = np.argsort(-output.class_scores[query], kind="stable")[1:_NEXT_BEST]
        # the number first: what is too long is cut at its end
        scores = output.class_scores[query]
        details += [f"{class_name(e, i)} {score_text(float(scores[i]))}" for i in others]
        changes = [] if before is None else _changes(e, query, before, layer)
        label = replace(group.label, alert=", ".join(changes), details=tuple(details))
        mark, box = reference_of(e, query, layer)
        entering = None if box is None else finite(box)
        if e.stages or group.anchor is not None:
            mark = None  # the middle of the box that enters; or the anchor, which has a sign
        groups.append(replace(group, label=label, mark=mark, old_box_xyxy_px=entering))
    return replace(section, groups=tuple(groups))


def _changes(e: ExplanationBase, query: int, before: int, layer: int) -> list[str]:
    """What changed in a query since the layer before, in words."""
    old, new = e.output(before), e.output(layer)
    words = []
    if old.labels[query] != new.labels[query]:
        words.append(f"was {class_name(e, int(old.labels[query]))}")
    overlap = float(iou(old.boxes_xyxy_px[[query]], new.boxes_xyxy_px[[query]])[0, 0])
    if overlap < SAME_BOX:
        words.append(f"box moved, IoU {score_text(overlap)}")
    return words


def _side_by_side(
    pairs: Sequence[tuple[ShownModel, Match]], reference: int, maps: Panels
) -> Section:
    """One object in several models, at one layer each: a group a model."""
    first, best = pairs[reference]
    assert best.query is not None
    heading = replace(label_of(first.explanation, best.query, first.layers[-1]), score="")
    others = [pair for pair in pairs if pair[0] is not first and pair[1].query is not None]
    if len(pairs) == 2 and others:
        overlap = _overlap(pairs[reference], others[0])
        heading = replace(heading, details=(f"boxes: IoU {score_text(overlap)}",))
    groups = []
    for subject, match in pairs:
        if match.query is None:
            groups.append(_missing(subject, match))
            continue
        layer = subject.layers[-1]
        own = label_of(subject.explanation, match.query, layer, f"query {match.query}")
        details = own.details if own.title == heading.title else (own.title, *own.details)
        if subject is not first and len(pairs) > 2:
            details += (f"IoU {score_text(_overlap(pairs[reference], (subject, match)))}",)
        label = replace(own, title=subject.label, details=details, note=_note(subject, match.query))
        groups.append(_group(subject, layer, match.query, label, maps))
    return Section(tuple(groups), heading)


def _note(subject: ShownModel, query: int) -> str:
    """The sentence about a query, as this figure can write it."""
    note = clean(subject.notes.get(query, "")).replace("$", "")
    return note if drawable(note) else ""


def _overlap(a: tuple[ShownModel, Match], b: tuple[ShownModel, Match]) -> float:
    """IoU of the boxes as they are drawn: at the last layer shown of each model."""
    one, other = (
        s.explanation.output(s.layers[-1]).boxes_xyxy_px[[match.query]] for s, match in (a, b)
    )
    return float(iou(one, other)[0, 0])


def _group(subject: ShownModel, layer: int, query: int, label: Label, maps: Panels) -> Group:
    e = subject.explanation
    box = finite(e.output(layer).boxes_xyxy_px[query])
    return Group(
        label, e.image.rgb, box, maps.rows(subject, layer, query), anchor=_anchor(e, query)
    )


def _anchor(e: ExplanationBase, query: int) -> tuple[float, float] | None:
    """Where a query stands, of attention along the row and the column of that point."""
    if not e.has_axes or e.reference_px is None:
        return None
    return tuple(map(float, e.reference_px[query]))


def _missing(subject: ShownModel, match: Match) -> Group:
    """A model that has no query for an object: a remark in place of panels."""
    e = subject.explanation
    remark = "no matching box"
    if match.nearest is not None and match.iou >= MIN_IOU:
        remark += f" left: query {match.nearest}, IoU {score_text(match.iou)}, is another object's"
    elif match.nearest is not None:
        name, score = class_name(e, int(e.labels[match.nearest])), e.scores[match.nearest]
        near = f"query {match.nearest}, {name} {score_text(score)}, IoU {score_text(match.iou)}"
        remark += f" (the nearest: {near})"
    return Group(Label(subject.label, weak=True), e.image.rgb, None, (), remark)


def _removed(
    subject: ShownModel, match: Match, subjects: Sequence[ShownModel], maps: AblationPanels
) -> Section:
    """One query as it is, then a group for each part that is taken out."""
    e, query, layer = subject.explanation, match.query, subject.layers[-1]
    assert query is not None
    own = label_of(e, query, layer)
    details = [f"{own.title} {own.score}", *query_words(e, query)]
    if len(subjects) > 1:
        details.insert(0, subject.label)
    box = finite(e.output(layer).boxes_xyxy_px[query])
    rows, photo = maps.rows(subject, layer, query), e.image.rgb
    score = float(e.output(layer).scores[query])
    label = Label("as it is", tuple(details))
    anchor = _anchor(e, query)
    groups = [Group(label, photo, box, rows, score=min(score, 1.0), anchor=anchor)]
    for ablation in maps.of_models[id(e)]:
        left, now = float(ablation.kept_scores()[query]), int(ablation.after.labels[query])
        words, alert = f"{class_name(e, int(ablation.before.labels[query]))} {score_text(left)}", ""
        if now != ablation.before.labels[query]:
            words, alert = "", f"becomes {class_name(e, now)}, {words}"
        notes = ()
        by_cells = e.kind(layer) in WHOLE  # samples may lie in a box without the centre of a cell
        if ablation.removal.box and by_cells and not e.cells_inside()[query].any():
            notes = ("no cell in its box",)
        groups.append(
            Group(
                Label(_without(ablation.removal), notes, words, alert),
                photo,
                finite(ablation.after.boxes_xyxy_px[query]),
                maps.without(subject, layer, query, ablation),
                old_box_xyxy_px=box,
                score=left,
                anchor=anchor,
            )
        )
    return Section(tuple(groups))


def _without(removal: Removal) -> str:
    """A removal as the title of its row."""
    if removal.box:
        return "box hidden" if removal.box == "inside" else "all but the box hidden"
    if removal.head is not None:
        return f"without head {removal.head}"
    if removal.level is not None:
        return f"without level {removal.level}"
    if removal.axis is not None:
        return f"{removal.axis} made even"
    if removal.name.startswith("term:"):
        return "without " + removal.terms[0].replace(".", " \N{MIDDLE DOT} ")
    return f"without {removal.name}"
