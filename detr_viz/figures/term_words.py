"""How to read the rows of the terms of logits, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.common.words import listed
from detr_viz.figures.level_words import numbered
from detr_viz.figures.page.profiles import AXES_NOTE, TERMS_AXES_NOTE
from detr_viz.figures.page.text import clean

if TYPE_CHECKING:
    from detr_viz.figures.reading_rule import FigureContents


def terms_rule(shown: FigureContents) -> list[str]:
    """How to read the rows of terms."""
    scaled = "all on one scale" if shown.style.norm == "figure" else "a query's on one scale"
    if shown.style.norm != "figure" and any(len(s.layers) > 1 for s in shown.subjects):
        scaled += " in each layer"
    notes = [
        f"terms of the logits, centred over the cells, {scaled}",
        "orange adds attention, blue takes it away",
        "%, bars: cov(term, sum) / var(sum)",
        "numbers under the sum: the largest, either way",
    ]
    if any(s.explanation.has_axes for s in shown.subjects):
        notes += [TERMS_AXES_NOTE, AXES_NOTE]
    zero = [
        (s.name, [n for n in s.layers if n in s.explanation.separate])
        for s in shown.subjects
        if s.explanation.separate & {*s.layers}
    ]
    where = ""
    if zero != [(s.name, [*s.layers]) for s in shown.subjects]:
        places = [f"{clean(name)} {numbered('layer', layers)}" for name, layers in zero]
        where = f" in {listed(places)}"
    if zero:
        notes.append(f"cq · pk and pq · ck are exactly 0{where}: content and position lie apart")
    return notes
