"""Figures of stages in words: title, foot, notes and the sentences of a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.words import listed
from detr_viz.figures.level_words import grid_of, level_words, number_notes
from detr_viz.figures.page.text import clean
from detr_viz.figures.references import entering_note

if TYPE_CHECKING:
    from detr_viz.figures.reading_rule import FigureContents

SHARES = "signed share of the stage's pre-norm output; shares and bias share sum to 1"
CHANGED = "red: another class than in the row above, or a box whose IoU with it is < 0.5"
CELL_FORMULA = "$⟨W_c x_c, y⟩ / |y|²$, all centred"
_SPREAD = (
    "map: the cells' positive shares, as parts of their sum, spread by the adjoint of RoIAlign "
    "over the level that the box reads"
)


def stage_title(shown: FigureContents, models: str) -> str:
    """Models and what their panels show, in a line."""
    what = "attention of each stage"
    if _cells(shown):
        what = "shares of the cells of the box that enters each stage"
    title = ", ".join([f"{models}: {what}", *level_words(shown.style)])
    return f"{title}, a query's biography" if shown.biography else title


def stage_foot(shown: FigureContents) -> list[str]:
    """The words under a figure, after the model's name."""
    layers = {s.layers for s in shown.subjects}
    words = ["boxes entering stages"]
    if len(layers) == 1 and len(next(iter(layers))) == 1:
        words = [f"stage {next(iter(layers))[0]}", "the box that enters"]
    if _cells(shown):
        return [*words, "cells + bias = 1"]
    words += level_words(shown.style)
    if shown.style.name == "contour":
        words.append("%: of the image, in the line")
    elif shown.style.scaling != "even":
        words.append("% in box, largest weight")
    return words


def stage_notes(shown: FigureContents) -> list[str]:
    """What a reader must know, after names and stages."""
    notes = ["panels: the box that enters a stage"]
    if any(len(s.layers) > 1 for s in shown.subjects) and not shown.biography:
        notes.append("photo, class and score: the output of the last stage shown")
    elif any(s.layers != (s.explanation.num_layers - 1,) for s in shown.subjects):
        notes.append("box, class and score: that stage's own output")
    if shown.biography:
        notes += [CHANGED, entering_note("stage")]
    if _cells(shown):
        notes += [f"cells: {SHARES}", CELL_FORMULA]
        notes.append("below a panel: the sum of the cells' shares + the bias share")
    else:
        notes.append(_SPREAD)
        notes += number_notes(shown.style)
        notes.append("% off: what of the map falls off the image")
    if len(shown.subjects) > 1:
        notes.append("queries matched by box IoU")
    if not _cells(shown):
        notes += dict.fromkeys(grid_of(s, shown.style) for s in shown.subjects)
    return notes


def mixed_notes(shown: FigureContents) -> list[str]:
    """What panels of stages show beside panels of heads."""
    staged = [clean(s.name) for s in shown.subjects if s.explanation.stages]
    if not staged or shown.of_stages:
        return []
    what = "one map a stage, without heads, and in its panel the box that enters it"
    return [f"{listed(staged)}: {what}"]


def _cells(shown: FigureContents) -> bool:
    return shown.style.name == "cells"
