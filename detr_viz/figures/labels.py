"""What models and queries are called in a figure: labels beside their rows, words for captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import Label, score_text
from detr_viz.figures.page.fonts import drawable
from detr_viz.figures.page.text import ELLIPSIS, clean
from detr_viz.figures.reading_rule import ShownModel, class_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.results import ExplanationBase

WEAK_SCORE = 0.5  # labels of detections below are dimmed
_LONG_PREFIX = 8  # characters


def label_of(e: ExplanationBase, query: int, layer: int, *details: str) -> Label:
    """Class and score as a layer's output gives them, then what else there is to say."""
    output = e.output(layer)
    label, score = int(output.labels[query]), float(output.scores[query])
    return Label(
        title=class_name(e, label),
        details=details,
        score=score_text(score),
        weak=score < WEAK_SCORE,
    )


def query_words(e: ExplanationBase, query: int) -> tuple[str, ...]:
    """query 317; where several queries share a point also its anchor, and which of them it is."""
    anchors = int(e.meta.get("anchors", 0))
    if not anchors:
        return (f"query {query}",)
    pattern, anchor = divmod(query, anchors)
    return f"query {query}", f"anchor {anchor}", f"pattern {pattern}"


def finite(box_xyxy_px: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """A box that can be drawn; None where a number of it is not finite."""
    return box_xyxy_px if np.isfinite(box_xyxy_px).all() else None


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


def model_name(name: str, i: int) -> str:
    """A model's name, or its place where no font here has the characters."""
    plain = clean(name).replace("$", "")  # which parts formulas from text
    return plain if plain and drawable(plain) else f"model {i + 1}"


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


def short_names(names: Sequence[str]) -> list[str]:
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
