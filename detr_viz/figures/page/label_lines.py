"""The label of a query as lines of text under each other."""

from __future__ import annotations

import string
from dataclasses import replace
from itertools import chain

from detr_viz.figures.page.elements import (
    ALERT,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    SMALL_PT,
    Label,
    TextLine,
)
from detr_viz.figures.page.metrics import PageMetrics

_NOTE_LINES = 16  # of a sentence in a narrow column
_LETTERS = (*string.ascii_lowercase, *(f"a{c}" for c in string.ascii_lowercase))


def with_letter(label: Label, index: int) -> Label:
    """The label with (a), (b) and so on before it; with (?) from the 53rd on."""
    letter = _LETTERS[index] if index < len(_LETTERS) else "?"
    return replace(label, title=f"({letter}) {label.title}")


def label_lines(label: Label, limit: float, page: PageMetrics) -> list[TextLine]:
    """A label as lines under each other, x = 0, baselines from the top of the first line.

    The score stands after the title, on a line of its own where there is no room.
    """
    pen = page.pen
    ink = GRAY if label.weak else INK
    lines, baseline = [], 0
    title = pen.fit(label.title, limit, page.class_pt, label.style)
    for text in title:
        baseline += page.px(CLASS_PT * (LINE if lines else CAP))
        lines.append(TextLine(text, 0, baseline, page.class_pt, ink, label.style))
    details = list(label.details)
    if label.score:
        after = pen.width(title[-1], page.class_pt, label.style) + page.px(2.2)
        if after + pen.width(label.score, page.class_pt) <= limit:
            lines.append(TextLine(label.score, after, baseline, page.class_pt, ink))
        else:
            details.insert(0, label.score)
    if label.alert:
        for text in pen.fit(label.alert, limit, page.small_pt):
            baseline += page.px(SMALL_PT * LINE + 0.6)
            lines.append(TextLine(text, 0, baseline, page.small_pt, ALERT))
    joined = pen.join(details, limit, page.small_pt, " · ")
    for text in chain.from_iterable(pen.fit(d, limit, page.small_pt) for d in joined):
        baseline += page.px(SMALL_PT * LINE + 0.6)
        lines.append(TextLine(text, 0, baseline, page.small_pt, GRAY))
    for text in pen.fit(label.note, limit, page.small_pt, lines=_NOTE_LINES) if label.note else ():
        baseline += page.px(SMALL_PT * LINE + 0.6)
        lines.append(TextLine(text, 0, baseline, page.small_pt, INK))
    return lines
