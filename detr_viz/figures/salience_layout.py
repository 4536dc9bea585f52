"""Where everything goes in a figure of salience: two blocks of panels, each from the left.

photo    level 0  level 1  level 2  level 3
layer 0  layer 1  layer 2  layer 3  layer 4  layer 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detr_viz.figures.page.crop import Crop
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    GRAY,
    INK,
    PHOTO,
    SMALL_PT,
    TEXT_PT,
    Group,
    PageLayout,
    Panel,
    TextLine,
)
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.styles import PageFormat, Style

_MOST, _MOST_NARROW, _NARROW_IN = 6, 3, 4.0  # panels in a line; on pages narrower than this
_ROW_GAP, _BLOCK_GAP = 4.0, 8.0  # points
_LEAST_PANEL_PT = 24.0  # panels do not shrink below this for a format's height


@dataclass(frozen=True)
class Tile:
    """A panel's name over it and the text under it."""

    name: str
    caption: str


def salience_layout(
    group: Group,
    blocks: Sequence[Sequence[Tile]],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
    most: int = _MOST,
) -> PageLayout:
    """The page; panels shrink where it is higher than its format.

    group: one photo, which is the first tile, and a row for each of the other tiles, in order.
    most: panels in a line, on pages that are not narrow.
    """
    narrow = page_format.width_in / page_format.type_size < _NARROW_IN
    across = min(_MOST_NARROW if narrow else most, max(map(len, blocks)))
    highest = page_format.height_in * page_format.dpi + 1e-6
    limit, first = None, None
    for _ in range(8):
        page = PageMetrics(page_format, group.photo.shape[:2], limit)
        layout = _laid_out(across, blocks, group, page)
        layout = with_foot(layout, (group,), foot, style, page)
        first = first or layout
        if layout.height <= highest:
            return layout
        high, wide = layout.panels[0].hw
        rows = len({panel.top for panel in layout.panels})
        limit = min(wide * (1 - (layout.height - highest) / rows / high), wide - 1)
        if limit < page.px(_LEAST_PANEL_PT):
            break
    return first


def _laid_out(
    across: int, blocks: Sequence[Sequence[Tile]], group: Group, page: PageMetrics
) -> PageLayout:
    width = page.panel_width(page.width - 2 * page.margin - (across - 1) * page.gap, across)
    hw = page.panel_height(width), width
    name_high, caption_high = page.px(TEXT_PT * CAP + AIR), page.px(SMALL_PT * CAP + AIR * 0.8)
    lines, panels, top = [], [], page.margin
    for tiles in blocks:
        for k, tile in enumerate(tiles):
            left, column = page.margin + k % across * (width + page.gap), k % across
            if k and not column:
                top += name_high + hw[0] + caption_high + page.px(_ROW_GAP)
            panels.append(
                Panel(0, len(panels) - 1 if panels else PHOTO, 0, top + name_high, left, *hw)
            )
            name = page.pen.shorten(tile.name, width, page.text_pt)
            lines.append(TextLine(name, left, top + name_high - page.px(AIR), page.text_pt, INK))
            text = page.pen.shorten(tile.caption, width, page.small_pt)
            base = top + name_high + hw[0] + caption_high
            middle = left + width / 2
            lines.append(TextLine(text, middle, base, page.small_pt, GRAY, align="center"))
        top += name_high + hw[0] + caption_high + page.px(_BLOCK_GAP)
    return PageLayout(
        width=page.margin * 2 + across * (width + page.gap) - page.gap,
        height=top - page.px(_BLOCK_GAP) + page.px(SMALL_PT * 0.3),
        panels=tuple(panels),
        lines=tuple(line for line in lines if line.text),
        crops=(Crop.whole(group.photo.shape[:2]),),
    )
