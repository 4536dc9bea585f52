"""Annotated objects in a figure: which boxes, what the labels and the foot say of them.

sections = with_truth(sections, e, style)
foot = Foot((*words, *truth_words(e, style)), (*notes, *truth_notes(e, style)))

All of it is empty where the style does not ask for them, or where the image has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.detections.boxes import iou
from detr_viz.figures.page.elements import Group, Section, TruthBox, score_text
from detr_viz.figures.page.fonts import drawable
from detr_viz.figures.page.text import clean

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.figures.styles import Style
    from detr_viz.images.annotated import Annotated


def shown_truth(e: ExplanationBase, style: Style) -> Annotated | None:
    """The objects that a figure of this style shows; None for none."""
    return e.image.annotated if style.truth else None


def with_truth(sections: Sequence[Section], e: ExplanationBase, style: Style) -> list[Section]:
    """The sections with the annotated objects of the image in each group."""
    return [
        replace(section, groups=tuple(group_with_truth(g, e, style) for g in section.groups))
        for section in sections
    ]


def group_with_truth(group: Group, e: ExplanationBase, style: Style) -> Group:
    """A group with the annotated objects; its label names the one nearest to its box."""
    annotated = shown_truth(e, style)
    if annotated is None:
        return group
    nearest, overlap = nearest_to(group.box_xyxy_px, annotated)
    boxes = tuple(
        TruthBox(tuple(map(float, box)), i == nearest, bool(annotated.crowd[i]))
        for i, box in enumerate(annotated.boxes_xyxy_px)
    )
    label = group.label
    if group.box_xyxy_px is not None:
        words = "no ground truth there"
        if nearest is not None:
            kind = "crowd of" if annotated.crowd[nearest] else "ground truth"
            words = f"{kind} {_name(annotated, nearest)}, IoU {score_text(overlap)}"
        label = replace(label, details=(*label.details, words))
    return replace(group, truth=boxes, label=label)


def nearest_to(box: np.ndarray | None, annotated: Annotated) -> tuple[int | None, float]:
    """The object that overlaps a box most, and their IoU; (None, 0) where none does.

    A crowd only where the box overlaps nothing else.
    """
    if box is None or not len(annotated):
        return None, 0.0
    overlaps = iou(np.asarray(box, np.float64)[None], annotated.boxes_xyxy_px)[0]
    single = np.where(annotated.crowd, 0, overlaps)
    values = single if single.any() else overlaps
    best = int(values.argmax())
    return (best, float(values[best])) if values[best] > 0 else (None, 0.0)


def truth_words(e: ExplanationBase, style: Style) -> tuple[str, ...]:
    """What the foot of a figure says of them."""
    annotated = shown_truth(e, style)
    if annotated is None:
        return ()
    if not len(annotated):
        return ("ground truth: no object",)
    return (f"dashed green: ground truth{', dotted: crowd' if annotated.crowd.any() else ''}",)


def truth_notes(e: ExplanationBase, style: Style) -> tuple[str, ...]:
    """What a reader must know of them."""
    annotated = shown_truth(e, style)
    if annotated is None:
        return ()
    if not len(annotated):
        return ("ground truth: no object is annotated in this image",)
    note = "dashed green boxes: annotated objects (ground truth), the thick one nearest by IoU to "
    notes = [f"{note}the predicted box, which is a full blue line"]
    if annotated.crowd.any():
        notes.append("dotted green: a crowd, or an object that an evaluation ignores")
    return tuple(notes)


def _name(annotated: Annotated, i: int) -> str:
    """A class as the file names it; its number there where no font has the characters."""
    name = clean(annotated.names[i]).replace("$", "")
    if name and drawable(name):
        return name
    warnings.warn(
        f"no installed font has all characters of {annotated.names[i]!r}: the figure says object "
        f"{annotated.ids[i]} (install a TrueType font that has them, for instance Noto Sans SC)",
        stacklevel=3,
    )
    return f"object {annotated.ids[i]}"
