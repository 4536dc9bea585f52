"""The foot of a page: one line of what is shown at the left, the key of the colours at the right.

All else that a reader must know stands in the caption and in the metadata, and here if asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    GRAY,
    LINE,
    SMALL_PT,
    TEXT_PT,
    Group,
    KeySign,
    PageLayout,
    TextLine,
)
from detr_viz.figures.page.key import baseline_of, key_of
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.styles import Style

_SEPARATOR = " · "


@dataclass(frozen=True)
class Foot:
    """What stands under the panels.

    words    of the line at the left; the last ones are left out where there is no room
    cells    (h, w) of the maps; None: no note on their size
    notes    all that a reader must know, printed where the format asks for it
    """

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cells: tuple[int, int] | None = None


def with_foot(
    layout: PageLayout, groups: Sequence[Group], foot: Foot, style: Style, page: PageMetrics
) -> PageLayout:
    """The layout with its foot: a line, or two where words and key do not fit beside each other."""
    words = list(foot.words)
    if page.stretched:
        words.append("photo not in its true proportions")
    place, end = _Place(layout, groups, page), layout.width - page.margin
    keys = [key_of(layout, page, style, groups, size) for size in (2, 1, 0)]
    below = 0
    for key, with_cells in zip(keys[:2], (True, False), strict=True):
        room = key.x - page.px(6) if key.lines else end
        left = place.left(words, foot, room, with_cells) if key.x >= page.margin else None
        if left is not None:
            break
    else:  # the key alone, the words under it
        key = next((key for key in keys if key.x >= page.margin), keys[-1])
        left = place.left(words, foot, end, True) or place.shortened(words, end)
        below = page.px(SMALL_PT * LINE + AIR) if key.lines and words else 0
    lines, signs = left
    layout = replace(
        layout,
        height=key.baseline + below + page.px(SMALL_PT * 0.3) + page.margin,
        lines=(
            *layout.lines,
            *key.lines,
            *(replace(line, baseline=line.baseline + below) for line in lines),
        ),
        ramps=(*layout.ramps, *key.ramps),
        signs=(*layout.signs, *key.signs, *(replace(sign, y=sign.y + below) for sign in signs)),
    )
    return with_notes(layout, foot.notes, page) if page.page_format.notes else layout


def with_notes(layout: PageLayout, notes: Sequence[str], page: PageMetrics) -> PageLayout:
    """Notes under the page from the left, on as few lines as they need."""
    limit = layout.width - 2 * page.margin
    baseline, lines = layout.height - page.margin + page.px(AIR), []
    for text in page.pen.join(
        page.pen.broken(list(notes), limit, page.small_pt), limit, page.small_pt, f" {_SEPARATOR} "
    ):
        baseline += page.px(SMALL_PT * (LINE if lines else CAP))
        for run in page.pen.runs(text, page.small_pt):
            middle, base = page.margin + run.left + run.width / 2, baseline + run.drop
            lines.append(TextLine(run.text, middle, base, run.size_pt, GRAY, run.style, "center"))
    height = baseline + page.px(SMALL_PT * 0.3) + page.margin
    return replace(layout, height=height, lines=(*layout.lines, *lines))


class _Place:
    """The line at the left of a layout's foot."""

    def __init__(self, layout: PageLayout, groups: Sequence[Group], page: PageMetrics) -> None:
        self._layout, self._groups, self._page = layout, groups, page

    def left(
        self, words: list[str], foot: Foot, limit: float, with_cells: bool
    ) -> tuple[list[TextLine], list[KeySign]] | None:
        """The words, and the size of a cell if there is room; None where the words do not fit."""
        page = self._page
        base = baseline_of(self._layout.height, page)
        text = _SEPARATOR.join(words)
        width, x = page.pen.length(text, page.text_pt) if text else 0, page.margin
        if x + width > limit:
            return None
        lines = []
        for run in page.pen.runs(text, page.text_pt):
            middle, at = x + run.left + run.width / 2, base + run.drop
            lines.append(TextLine(run.text, middle, at, run.size_pt, GRAY, run.style, "center"))
        if foot.cells is None or not with_cells:
            return lines, []
        h, w = foot.cells
        note, side = f"1 of {w} \N{MULTIPLICATION SIGN} {h} cells", self._cell_px()
        start = x + width + page.px(7)
        end = start + side + page.px(2) + page.pen.width(note, page.text_pt)
        if end > limit or not 1.5 <= side <= page.px(12):
            return lines, []
        middle = base - page.px(TEXT_PT * CAP) / 2
        lines.append(TextLine(note, start + side + page.px(2), base, page.text_pt, GRAY))
        return lines, [KeySign("cell", start + side / 2, middle, side)]

    def shortened(self, words: list[str], limit: float) -> tuple[list[TextLine], list[KeySign]]:
        """As many of the words as fit; the first is shortened where it alone is too long."""
        page = self._page
        texts = [word.replace("$", "") for word in words]
        while (
            len(texts) > 1
            and page.margin + page.pen.width(_SEPARATOR.join(texts), page.text_pt) > limit
        ):
            texts.pop()
        text = _SEPARATOR.join(texts)
        text = page.pen.shorten(text, limit - page.margin, page.text_pt)
        base = baseline_of(self._layout.height, page)
        return [TextLine(text, page.margin, base, page.text_pt, GRAY)], []

    def _cell_px(self) -> float:
        """The width of a cell in the panels, where all show the whole photo; else 0."""
        maps = self._layout.maps
        if not maps or any(self._layout.crop_of(m).is_part for m in maps):
            return 0.0
        group = self._groups[maps[0].group]
        row = group.rows[maps[0].row]
        if row.attended or row.grid.hw[1] < 2:
            return 0.0
        centers = row.grid.centers(group.photo.shape[1], 1)
        return float(centers[1] - centers[0]) * maps[0].width / group.photo.shape[1]
