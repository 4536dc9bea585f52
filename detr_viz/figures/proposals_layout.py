"""Where everything goes in a figure of proposals: the photo, a panel for each level, the queries.

proposal and box   level 0   level 1
level 2            level 3   1 cat .98
                               query 4 . level 1, score .83
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import (
    AIR,
    BOX_BLUE,
    CAP,
    GRAY,
    INK,
    LINE,
    PHOTO,
    SMALL_PT,
    TEXT_PT,
    WIDE,
    Group,
    Label,
    PageLayout,
    Panel,
    TextLine,
)
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.label_lines import with_letter
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.styles import PageFormat, Style

_ABREAST, _NARROW, _NARROW_IN = 3, 2, 4.0  # panels in a line; on pages narrower than this
_ROW_GAP = 5.0  # points
_LEAST_LISTED = 5  # queries in a column of the list, even if it ends below the panels
_LEAST_PANEL_PT = 24.0  # panels do not shrink below this for a format's height


@dataclass(frozen=True)
class Tile:
    """A panel's name over it and the text under it."""

    name: str
    caption: str


def fitted_layout(
    group: Group,
    tiles: Sequence[Tile],
    queries: Sequence[tuple[str, Label]],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
) -> tuple[PageLayout, int]:
    """The page, and how many queries it lists; panels shrink where it is higher than its format.

    group    one photo, whose rows are the levels
    tiles    of the photo, then of each level
    queries  (number, label) of those listed
    """
    type_in = page_format.width_in / page_format.type_size
    usual = _NARROW if type_in < _NARROW_IN else _ABREAST
    if usual == _ABREAST and len(tiles) == _ABREAST + 1:
        usual = len(tiles)  # one line, where a second one would be two thirds empty
    most = page_format.height_in * page_format.dpi + 1e-6
    found = []
    for across in range(usual, max(usual, len(tiles) + 1) + 1):
        found.append(_fitted(across, most, group, tiles, queries, foot, style, page_format))
        if found[0][0].height <= most and _is_whole(found[0][0], page_format):
            return found[0]  # no panel had to shrink
    fitting = [one for one in found if one[0].height <= most]
    if fitting:
        return max(fitting, key=lambda one: one[0].panels[0].width)
    return min(found, key=lambda one: one[0].height)


def _is_whole(layout: PageLayout, page_format: PageFormat) -> bool:
    """Whether a layout takes the whole width of its page."""
    return layout.width > 0.97 * page_format.width_in * page_format.dpi


def _fitted(
    across: int,
    most: float,
    group: Group,
    tiles: Sequence[Tile],
    queries: Sequence[tuple[str, Label]],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
) -> tuple[PageLayout, int]:
    """The page with so many panels in a line, at most so many pixels high if panels can shrink."""
    limit, first = None, None
    for _ in range(8):
        page = PageMetrics(page_format, group.photo.shape[:2], limit)
        if limit is None:
            page.panel_limit = page.width
        layout, listed = _laid_out(across, group, tiles, queries, page)
        rows = len({panel.top for panel in layout.panels})
        layout = with_foot(layout, (group,), foot, style, page)
        first = first or (layout, listed)
        if layout.height <= most:
            return layout, listed
        high, wide = layout.panels[0].hw
        limit = min(wide * (1 - (layout.height - most) / rows / high), wide - 1)
        if limit < page.px(_LEAST_PANEL_PT):
            break
    return first


def _laid_out(
    across: int,
    group: Group,
    tiles: Sequence[Tile],
    queries: Sequence[tuple[str, Label]],
    page: PageMetrics,
) -> tuple[PageLayout, int]:
    gap = page.px(WIDE)
    width = page.panel_width(page.width - 2 * page.margin - (across - 1) * gap, across)
    hw = page.panel_height(width), width
    lefts = [page.margin + i * (width + gap) for i in range(across)]
    name_high, caption_high = page.px(TEXT_PT * CAP + AIR), page.px(SMALL_PT * CAP + AIR * 0.8)
    step = name_high + hw[0] + caption_high + page.px(_ROW_GAP)
    lines, panels = [], []
    for k, tile in enumerate(tiles):
        left, top = lefts[k % across], page.margin + name_high + k // across * step
        label = Label(tile.name)
        title = with_letter(label, k).title if page.page_format.letters else label.title
        title = page.pen.shorten(title, width, page.text_pt)
        lines.append(TextLine(title, left, top - page.px(AIR), page.text_pt, INK))
        panels.append(Panel(0, k - 1 if k else PHOTO, 0, top, left, *hw))
        text = page.pen.shorten(tile.caption, width, page.small_pt)
        base, middle = top + hw[0] + caption_high, left + width / 2
        lines.append(TextLine(text, middle, base, page.small_pt, GRAY, align="center"))
    down = math.ceil(len(tiles) / across)
    bottom = page.margin + down * step - page.px(_ROW_GAP)
    free = down * across - len(tiles)
    columns, top = lefts[across - free :], page.margin + (down - 1) * step
    if not free:
        columns, top = lefts, bottom + page.px(_ROW_GAP)
    listed, count, ends = _list(queries, columns, top, step if free else 0, width, page)
    bottom = max(bottom, ends)
    layout = PageLayout(
        width=lefts[-1] + width + page.margin,
        height=bottom + page.px(SMALL_PT * 0.3),
        panels=tuple(panels),
        lines=(*lines, *listed),
        crops=(Crop.whole(group.photo.shape[:2]),),
    )
    return layout, count


def _list(
    queries: Sequence[tuple[str, Label]],
    lefts: Sequence[int],
    top: int,
    room: int,
    width: int,
    page: PageMetrics,
) -> tuple[list[TextLine], int, int]:
    """Two lines for each query, down the columns; how many queries, and where the lines end."""
    pen = page.pen
    one = page.px(SMALL_PT * LINE) + page.px(TEXT_PT * LINE)
    step = one + page.px(AIR)
    most = max(room // step, _LEAST_LISTED) * len(lefts)
    shown = list(queries if len(queries) <= most else queries[: most - 1])
    indent = max(pen.width(number, page.text_pt, "bold") for number, _ in queries) + page.px(3)
    each = math.ceil((len(shown) + (len(shown) < len(queries))) / len(lefts))
    lines, ends = [], top
    for i, (number, label) in enumerate(shown):
        left, base = lefts[i // each], top + i % each * step + page.px(TEXT_PT * CAP)
        x, limit = left + indent, width - indent
        lines.append(TextLine(number, left, base, page.text_pt, BOX_BLUE, "bold"))
        score = page.px(2.2) + pen.width(label.score, page.text_pt)
        title = pen.shorten(label.title, limit - score, page.text_pt, label.style)
        ink = GRAY if label.weak else INK
        lines.append(TextLine(title, x, base, page.text_pt, ink, label.style))
        x += pen.width(title, page.text_pt, label.style) + page.px(2.2)
        lines.append(TextLine(label.score, x, base, page.text_pt, ink))
        base += page.px(SMALL_PT * LINE)
        details = " · ".join(label.details)
        if pen.width(details, page.small_pt) > limit:
            details = details.replace("score ", "")
        details = pen.shorten(details, limit, page.small_pt)
        lines.append(TextLine(details, left + indent, base, page.small_pt, GRAY))
        ends = max(ends, base)
    if len(shown) < len(queries):
        i = len(shown)
        left, base = lefts[i // each], top + i % each * step + page.px(TEXT_PT * CAP)
        more = pen.shorten(f"and {len(queries) - i:,} more", width, page.small_pt)
        lines.append(TextLine(more, left, base, page.small_pt, GRAY))
        ends = max(ends, base)
    return lines, len(shown), int(ends)
