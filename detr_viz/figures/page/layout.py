"""Where everything in a figure goes: whole pixels for panels, measured text around them.

    groups of one row       label | photo | panel panel ...

    groups of several       photo   name | panel panel ...
                            label   name | panel panel ...

The heading of a section stands above it, on a line of its own. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from detr_viz.figures.page import legend
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    NOTE_GRAY,
    SMALL_PT,
    TEXT_PT,
    WIDE,
    FigureError,
    Group,
    GroupPosition,
    Label,
    PageLayout,
    PageMetrics,
    Section,
    TextLine,
    all_groups,
)
from detr_viz.figures.styles import PageFormat, Style

_SECTION_GAP, _GROUP_GAP = 9.0, 5.0  # points, where groups belong together
_LABEL_SHARE = 0.15  # of the page, for labels at most: longer names are broken, then shortened
_LABEL_PT = 52.0  # of a label at least: it holds "0.98 · query 123"
_PHOTO_SHARE = 1.9  # width of the photo beside several rows, in panels
_MAX_PIXELS = 250_000_000  # 1 GB for the page, as much again to draw it
_MAX_SIDE_PX = 65_000  # matplotlib's own limit is 2 ** 16
_LEAST_PANEL_PT = 12.0  # panels do not shrink below this for a format's height


def page_layout(
    sections: Sequence[Section],
    heads: Sequence[str],
    notes: Sequence[str],
    style: Style,
    page_format: PageFormat,
) -> PageLayout:
    """The page: at most as wide as its format, as high as it must be.

    heads  a name for each column
    notes  pieces of the reading rule at the bottom right
    Panels shrink where that brings the figure down to the format's height; where it cannot, they
    keep their size. Raises FigureError for a page too narrow for its panels, or too large to draw.
    """
    first = layout = _unchecked_layout(sections, heads, notes, style, page_format)
    limit_px = page_format.height_in * page_format.dpi
    rows = sum(len(position.row_tops) for position in layout.positions)
    for _ in range(8):
        if layout.height <= limit_px or not rows:
            break
        height, width = layout.panel_hw
        smaller = min(width * (1 - (layout.height - limit_px) / rows / height), width - 1)
        if smaller < _LEAST_PANEL_PT * page_format.type_size * page_format.dpi / 72:
            break
        layout = _unchecked_layout(sections, heads, notes, style, page_format, smaller)
    if layout.height > limit_px:
        layout = first
    if style.heads == "sort" and rows and not layout.plates:
        raise FigureError(
            "the panels are too small to say which head is which: make the figure wider, show "
            "fewer rows, or name --heads by number"
        )
    check_size(layout.width, layout.height, rows)
    return layout


def check_size(width: int, height: int, rows: int) -> None:
    """FigureError for a page too large to draw; rows: how many it has."""
    if height > _MAX_SIDE_PX or height * width > _MAX_PIXELS:
        raise FigureError(
            f"{rows} row{'s' if rows > 1 else ''} make a figure of {width} x {height} pixels: "
            "choose fewer queries or modes, a lower dpi or a smaller width"
        )


def _unchecked_layout(
    sections: Sequence[Section],
    heads: Sequence[str],
    notes: Sequence[str],
    style: Style,
    page_format: PageFormat,
    panel_limit_px: float | None = None,
) -> PageLayout:
    groups = all_groups(sections)
    page = PageMetrics(page_format, groups[0].photo.shape[:2], panel_limit_px)
    stacked = max(len(g.rows) for g in groups) > 1
    layout = (_stacked if stacked else _single)(sections, heads, page)
    layout = legend.with_head_names(layout, heads, page)
    layout = legend.with_numbers(layout, groups, style, page)
    layout = legend.with_legend(layout, groups, style, page)
    signed = any(row.reach for group in groups for row in group.rows)
    return legend.with_notes(layout, notes, style, page, signed)


def label_lines(label: Label, limit: float, page: PageMetrics) -> list[TextLine]:
    """Title and details as lines; baselines from the top of the first line's capitals, x = 0."""
    title = page.pen.fit(label.title, limit, page.class_pt, label.style)
    details = page.pen.join(list(label.details), limit, page.small_pt, " · ")
    lines, baseline = [], 0
    for text in title:
        baseline += page.px(CLASS_PT * (LINE if lines else CAP))
        lines.append(TextLine(text, 0, baseline, page.class_pt, label.ink, label.style))
    for text in chain.from_iterable(page.pen.fit(d, limit, page.small_pt) for d in details):
        baseline += page.px(SMALL_PT * LINE + 0.6)
        lines.append(TextLine(text, 0, baseline, page.small_pt, GRAY))
    return lines


def _moved(label: Sequence[TextLine], x: float, top: float, align: str) -> list[TextLine]:
    return [replace(t, x=x, baseline=top + t.baseline, align=align) for t in label]


def _heading(
    label: Label, top: int, limit: float, right: float, page: PageMetrics
) -> tuple[list[TextLine], int]:
    """A section's heading, and the top of what follows it.

    The first heading of the page stands beside the names of the heads where it ends before the
    limit. All headings end before `right`.
    """
    pen, baseline = page.pen, top + page.px(CLASS_PT * CAP)
    room = right - page.margin
    title = pen.shorten(label.title, room * 0.6, page.class_pt, label.style)
    lines = [TextLine(title, page.margin, baseline, page.class_pt, label.ink, label.style)]
    if label.details:
        x = page.margin + pen.width(title, page.class_pt, label.style) + page.px(WIDE)
        text = pen.shorten(" · ".join(label.details), right - x, page.small_pt)
        lines.append(TextLine(text, x, baseline, page.small_pt, GRAY))
    end = lines[-1].x + page.widest(lines[-1:])
    if top == page.header and end < limit:
        beside = page.header - page.px(AIR)
        return [replace(line, baseline=beside) for line in lines], top
    return lines, baseline + page.px(AIR + 0.5)


def _remark(group: Group, x: float, right: float, page: PageMetrics) -> list[TextLine]:
    """A group's remark on at most two lines; their baselines are set later."""
    texts = page.pen.fit(group.remark, right - x, page.small_pt) if group.remark else []
    return [TextLine(text, x, 0, page.small_pt, NOTE_GRAY, "italic") for text in texts]


def _centred(remark: Sequence[TextLine], middle: float, page: PageMetrics) -> list[TextLine]:
    """The lines of a remark around a height."""
    step = page.px(SMALL_PT * LINE)
    first = middle + page.px(SMALL_PT * CAP) / 2 - step * (len(remark) - 1) / 2
    return [replace(line, baseline=first + i * step) for i, line in enumerate(remark)]


def _single(sections: Sequence[Section], heads: Sequence[str], page: PageMetrics) -> PageLayout:
    """label | photo | panels: labels end beside the photo and are centred on it."""
    count = len(heads)
    limit = max(_LABEL_SHARE * page.width, page.px(_LABEL_PT))
    labels = {id(g): label_lines(g.label, limit, page) for g in all_groups(sections)}
    column = page.widest([t for label in labels.values() for t in label])
    fixed = 2 * page.margin + column + page.pad + page.px(WIDE) + (count - 1) * page.gap
    width = page.panel_width(page.width - fixed, count + 1)
    height = page.panel_height(width)
    left = page.margin + column
    total = fixed + (count + 1) * width
    lefts = page.columns(total - page.margin, count, width)
    right = total - page.margin
    names_left = legend.head_names_left(lefts[0], width, heads, page)
    grouped = any(len(s.groups) > 1 or s.heading for s in sections)
    top, positions, lines = page.header, [], []
    for section in sections:
        if section.heading:
            heading, top = _heading(section.heading, top, names_left, right, page)
            lines += heading
        for group in section.groups:
            label = labels[id(group)]
            slot = max(label[-1].baseline + page.px(AIR), height if group.rows else 0)
            remark = _remark(group, left + page.pad, right, page)
            slot = max(slot, len(remark) * page.px(SMALL_PT * LINE) + page.px(AIR))
            lines += _moved(label, left, top + (slot - label[-1].baseline) / 2, "right")
            if group.rows:
                panel_top = top + (slot - height) // 2
                positions.append(GroupPosition(panel_top, (panel_top,)))
            else:
                positions.append(GroupPosition())
                lines += _centred(remark, top + slot / 2, page)
            bottom = top + slot
            top = bottom + page.gap
        top = bottom + (page.px(_SECTION_GAP) if grouped else page.gap)
    return PageLayout(
        width=total,
        height=bottom,
        panel_hw=(height, width),
        photo_hw=(height, width),
        panel_lefts=lefts,
        photo_left=left + page.pad,
        positions=tuple(positions),
        lines=tuple(lines),
    )


def _stacked(sections: Sequence[Section], heads: Sequence[str], page: PageMetrics) -> PageLayout:
    """photo over label | names | panels: one larger photo a group, its rows beside it."""
    groups, count = all_groups(sections), len(heads)
    names = page.widest([TextLine(r.name, 0, 0, page.text_pt, INK) for g in groups for r in g.rows])
    fixed = 2 * page.margin + 2 * page.pad + names + (count - 1) * page.gap
    width = page.panel_width(page.width - fixed, count + _PHOTO_SHARE)
    most = max(len(g.rows) for g in groups)
    # The photo fills its column or its group's height, whichever ends first; panels take the rest.
    for _ in range(3):
        row_height = max(page.panel_height(width), page.name_height)
        column = max(_PHOTO_SHARE * width, page.px(_LABEL_PT))
        labels = {id(g): label_lines(g.label, column, page) for g in groups}
        room = most * (row_height + page.gap) - page.gap - page.px(AIR)
        room -= max(label[-1].baseline for label in labels.values())
        photo = int(max(min(column, room * page.aspect), width))
        column = max(photo, page.widest([t for label in labels.values() for t in label]))
        width = page.panel_width(page.width - fixed - column, count)
    height, photo_hw = page.panel_height(width), (page.panel_height(photo), photo)
    row_height = max(height, page.name_height)
    total = fixed + column + count * width
    lefts = page.columns(total - page.margin, count, width)
    right = total - page.margin
    names_left = legend.head_names_left(lefts[0], width, heads, page)
    top, positions, lines = page.header, [], []
    for section in sections:
        if section.heading:
            heading, top = _heading(section.heading, top, names_left, right, page)
            lines += heading
        for group in section.groups:
            label, row_tops, slot_bottom = labels[id(group)], [], top
            photo_top = top if group.rows else None
            text_top = top + photo_hw[0] + page.px(AIR) if group.rows else top
            placed = _moved(label, page.margin, text_top, "left")
            lines += placed
            for i, row in enumerate(group.rows):
                slot = top + i * (row_height + page.gap)
                row_tops.append(slot + (row_height - height) // 2)
                x = page.margin + column + page.pad + names
                baseline = slot + (row_height + page.px(TEXT_PT * CAP)) / 2
                lines.append(TextLine(row.name, x, baseline, page.text_pt, INK, align="right"))
                slot_bottom = slot + row_height
            if not group.rows:
                middle = top + label[-1].baseline / 2
                remark = _remark(group, lefts[0], right, page)
                slot_bottom = top + len(remark) * page.px(SMALL_PT * LINE)
                lines += _centred(remark, max(middle, (top + slot_bottom) / 2), page)
            positions.append(GroupPosition(photo_top, tuple(row_tops)))
            bottom = max(slot_bottom, int(placed[-1].baseline) + page.px(SMALL_PT * 0.3))
            top = bottom + page.px(_GROUP_GAP)
        top = bottom + page.px(_SECTION_GAP)
    return PageLayout(
        width=total,
        height=bottom,
        panel_hw=(height, width),
        photo_hw=photo_hw,
        panel_lefts=lefts,
        photo_left=page.margin,
        positions=tuple(positions),
        lines=tuple(lines),
    )
