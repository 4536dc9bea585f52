"""Heads in two lines beside a larger photo: for columns, slides, panoramas and many heads."""

from __future__ import annotations

import math

from detr_viz.figures.page.builder import PageBuilder
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    SMALL_PT,
    TEXT_PT,
    WIDE,
    Panel,
    TextLine,
)

_MOST = 8  # heads in a line
_BLOCK_GAP = 5.0  # points between queries


def grid(b: PageBuilder, abreast: int = 1) -> tuple[int, int]:
    """Blocks of a photo and its panels under each other, so many abreast."""
    page, count = b.page, len(b.columns.names)
    across = min(math.ceil(count / 2), _MOST) if count > 2 else count
    down = math.ceil(count / across)
    pad = 2 * page.px(WIDE)
    room = (page.width - 2 * page.margin - (abreast - 1) * pad) / abreast
    between = page.gap if down == 2 else _name_height(b)
    fixed = page.px(WIDE) + (across - 1) * page.gap + (down - 1) * between * page.aspect
    width = page.panel_width(room - fixed, across + down)
    height = page.panel_height(width)
    photo_hw = down * height + (down - 1) * between, 0
    photo_hw = photo_hw[0], round(photo_hw[0] * page.aspect)
    block = photo_hw[1] + page.px(WIDE) + across * width + (across - 1) * page.gap
    top, index, place, bottom = page.margin, 0, 0, page.margin
    for k, section in enumerate(b.sections):
        if section.heading:
            top = bottom + (page.px(_BLOCK_GAP) if k else 0) if place == 0 else bottom
            place = 0
            right = page.margin + block
            b.label(b.lettered(section.heading), page.margin, top + page.px(CLASS_PT * CAP), right)
            top += b.label_height + page.px(1)
            bottom = top = top + b.note(section.heading, page.margin, top, right)
        for i in range(len(section.groups)):
            if place == 0:
                # names under the panels of two lines are gap enough below a heading
                apart = index and (not section.heading or (i and down == 1))
                top = bottom + (page.px(_BLOCK_GAP) if apart else 0)
            left = page.margin + place * (block + pad)
            end = _block(
                b,
                index,
                section.heading is not None,
                top,
                left,
                photo_hw,
                (height, width),
                across,
                between,
            )
            bottom = max(bottom, end)
            place = (place + 1) % abreast
            index += 1
    total = 2 * page.margin + abreast * block + (abreast - 1) * pad
    return round(total), round(bottom)


def _name_height(b: PageBuilder) -> int:
    return b.page.px(TEXT_PT * CAP + 1.6 * AIR)


def _block(
    b: PageBuilder,
    index: int,
    headed: bool,
    top: int,
    left: int,
    photo_hw: tuple[int, int],
    hw: tuple[int, int],
    across: int,
    between: int,
) -> int:
    """Label, photo and panels of a group of one row; gives the bottom."""
    page, group = b.page, b.groups[index]
    first = left + photo_hw[1] + page.px(WIDE)
    right = first + across * hw[1] + (across - 1) * page.gap
    label = group.label if headed else b.lettered(group.label)
    own_line = bool(label.note) or left + b.label_width(label) > first
    base = top + page.px(CLASS_PT * CAP)
    b.label(label, left, base, right if own_line else first)
    if not group.rows:
        return b.remark(group, left, right, top + b.label_height)
    if own_line:
        top += b.label_height
        top += b.note(label, left, top, right)
        base = top + page.px(TEXT_PT * CAP)
    panels_top = top + (b.names_height if own_line else b.label_height)
    b.photo(index, panels_top, left, photo_hw)
    b.score_bar(index, left, panels_top + photo_hw[0], photo_hw[1])
    count = len(group.rows[0].maps)
    down = math.ceil(count / across)
    for head in range(count):
        line, place = divmod(head, across)
        x, y = first + place * (hw[1] + page.gap), panels_top + line * (hw[0] + between)
        panel = b.panel(index, 0, head, y, x, hw)
        under = down == 2 and line == 1
        over = base if line == 0 else y - page.px(AIR * 0.8)
        baseline = y + hw[0] + page.px(TEXT_PT * CAP + AIR * 0.8) if under else over
        _names(b, panel, baseline, first_of_page=index == 0 and head == 0)
    last = panels_top + down * hw[0] + (down - 1) * between
    return last + (page.px(TEXT_PT * CAP + AIR * 0.8 + SMALL_PT * 0.2) if down == 2 else 0)


def _names(b: PageBuilder, panel: Panel, baseline: float, first_of_page: bool) -> None:
    """The head at the left, the share at the right."""
    page, pen = b.page, b.page.pen
    name = b.columns.names[panel.head]
    text = b.texts[panel.group][panel.row][panel.head]
    short = b.groups[panel.group].rows[panel.row].short_captions
    needed = pen.width(short[panel.head] if short else text, page.small_pt) + page.px(2)
    if b.columns.numbered and first_of_page:
        whole = f"{b.columns.noun} {name}"
        name = whole if pen.width(whole, page.text_pt) + needed <= panel.width else name
    # the share goes before the end of a long name
    name = pen.shorten(name, max(panel.width - needed, panel.width / 3), page.text_pt)
    left = panel.width - pen.width(name, page.text_pt) - page.px(2)
    text = b.caption_text(panel.group, panel.row, panel.head, left)
    if name:
        b.lines.append(TextLine(name, panel.left, baseline, page.text_pt, INK))
    if text:
        x = panel.left + panel.width
        b.lines.append(TextLine(text, x, baseline, page.small_pt, GRAY, align="right"))
