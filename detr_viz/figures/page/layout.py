"""Where everything in a figure goes: whole pixels for panels, measured text around them.

    lines     label                          one row of panels: the default
              photo  panel panel ...

    grid      label                          narrow pages, slides, and more than eight heads
              photo  panel panel
                     panel panel

    stacked   photo  name  panel panel ...   several rows beside a photo
              label  name  panel panel ...

    merged    label                          one panel a row: the rows stand side by side
              photo  row row row

Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from detr_viz.figures.page.builder import PageBuilder
from detr_viz.figures.page.elements import (
    AIR,
    CAP,
    CLASS_PT,
    TEXT_PT,
    WIDE,
    Group,
    Label,
    PageLayout,
    Section,
    all_groups,
)
from detr_viz.figures.page.foot import Foot, with_foot
from detr_viz.figures.page.layout_grid import grid
from detr_viz.figures.page.layout_stacked import stacked
from detr_viz.figures.page.profiles import with_room
from detr_viz.figures.styles import FigureError, PageFormat, Style

SECTION_GAP, ROW_GAP = 6.0, 4.2  # points
_MAX_PIXELS = 250_000_000  # 1 GB for the page, as much again to draw it
_MAX_SIDE_PX = 65_000  # matplotlib's own limit is 2 ** 16
_LEAST_PANEL_PT = 12.0  # panels do not shrink below this for a format's height
_PANORAMA = 2.2  # width / height from which on heads stand in two lines
_MOST_ABREAST = 8  # heads in a line
_FEW = 3  # panels that stand in one line on every page
_ABREAST_FROM_IN = 10.0  # pages this wide may have two queries abreast
_MERGED_SHARE = 0.26  # of the page, for the one panel of a row at most

Layout = Callable[[PageBuilder], tuple[int, int]]


def page_layout(
    sections: Sequence[Section],
    heads: Sequence[str],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
    arrange: Layout | None = None,
) -> PageLayout:
    """The page: at most as wide as its format, as high as it must be.

    heads  a name for each column
    foot   what is written under the panels
    arrange  the layout; None: the one that suits
    Panels shrink where that brings the figure down to the format's height; where it cannot, they
    keep their size. Raises FigureError for a page too narrow for its panels, or too large to draw.
    """
    layouts = [
        _fitted(one, sections, heads, foot, style, page_format)
        for one in ([arrange] if arrange else _arrangements(sections, heads, style, page_format))
    ]
    limit_px = _limit_px(page_format)
    fitting = [layout for layout in layouts if layout.height <= limit_px]
    layout = max(fitting, key=_size) if fitting else min(layouts, key=lambda one: one.height)
    check_size(layout.width, layout.height, len({panel.top for panel in layout.maps}))
    return layout


def _limit_px(page_format: PageFormat) -> float:
    """The height to keep to; a page exactly as high keeps to it, whatever rounding says."""
    return page_format.height_in * page_format.dpi + 1e-6


def _size(layout: PageLayout) -> int:
    """By which the best is chosen of layouts that keep to the height: the width of panels."""
    return max((panel.width for panel in layout.maps), default=0)


def _fitted(
    arrange: Layout,
    sections: Sequence[Section],
    heads: Sequence[str],
    foot: Foot,
    style: Style,
    page_format: PageFormat,
) -> PageLayout:
    """A layout whose panels shrink to the format's height, as far as they can."""

    def unchecked(limit: float | None = None) -> PageLayout:
        builder = PageBuilder(sections, heads, style, page_format, limit)
        layout = with_room(builder.layout(*arrange(builder)), builder.groups, builder.page)
        words = foot.words if builder.says_in_box else (*foot.words, "% in box")
        return with_foot(layout, builder.groups, replace(foot, words=words), style, builder.page)

    first = layout = unchecked()
    limit_px = _limit_px(page_format)
    for _ in range(8):
        maps = layout.maps
        if layout.height <= limit_px or not maps:
            break
        lines = len({panel.top for panel in maps})
        width, height = maps[0].width, maps[0].height
        smaller = min(width * (1 - (layout.height - limit_px) / lines / height), width - 1)
        if smaller < _LEAST_PANEL_PT * page_format.type_size * page_format.dpi / 72:
            break
        layout = unchecked(smaller)
    return first if layout.height > limit_px else layout


def check_size(width: int, height: int, rows: int) -> None:
    """FigureError for a page too large to draw; rows: how many it has."""
    if height > _MAX_SIDE_PX or height * width > _MAX_PIXELS:
        raise FigureError(
            f"{rows} row{'s' if rows > 1 else ''} make a figure of {width} x {height} pixels: "
            "choose fewer queries or modes, a lower dpi or a smaller width"
        )


def _arrangements(
    sections: Sequence[Section], heads: Sequence[str], style: Style, page_format: PageFormat
) -> list[Layout]:
    """The layouts that suit; of several the one with the largest panels is taken."""
    groups = all_groups(sections)
    if len(heads) == 1:
        return [partial(grid, abreast=2)] if any(map(_is_step, groups)) else [merged]
    if max(len(g.rows) for g in groups) > 1:
        return [stacked]
    height, width = groups[0].photo.shape[:2]
    points = any(row.samples for g in groups for row in g.rows)
    two_lines = points or (page_format.grid and len(heads) > _FEW)
    # a large photo shows the lines of all heads together
    own_views = any(row.boxes_xyxy_px is not None for g in groups for row in g.rows)
    two_lines = two_lines or (style.name == "contour" and len(heads) > _FEW and not own_views)
    if two_lines or len(heads) > _MOST_ABREAST or width / height > _PANORAMA:
        wide = page_format.width_in >= _ABREAST_FROM_IN and len(groups) > 1
        return [grid, partial(grid, abreast=2)] if wide else [grid]
    return [lines]


def _is_step(group: Group) -> bool:
    """Whether this is a step of a query whose panel has a box of its own: a block of its own."""
    own = any(row.boxes_xyxy_px is not None for row in group.rows)
    return own and group.old_box_xyxy_px is not None


def lines(b: PageBuilder) -> tuple[int, int]:
    """A label over each photo with its panels in a line; head names once on top."""
    page, count = b.page, len(b.columns.names)
    fixed = 2 * page.margin + page.px(WIDE) + (count - 1) * page.gap
    width = page.panel_width(page.width - fixed, count + 1)
    hw = page.panel_height(width), width
    first = page.margin + width + page.px(WIDE)
    lefts = [first + i * (width + page.gap) for i in range(count)]
    right = lefts[-1] + width
    b.head_names(lefts, width, page.margin + page.px(TEXT_PT * CAP))
    top = page.margin + b.names_height
    index = 0
    for k, section in enumerate(b.sections):
        top += page.px(SECTION_GAP) if k and len(section.groups) > 1 else 0
        if section.heading:
            heading = b.lettered(section.heading)
            # beside the names of the heads where it is short
            beside = k == 0 and page.margin + b.label_width(heading) < first - page.px(WIDE)
            beside = beside and not heading.note
            base = page.margin + page.px(TEXT_PT * CAP) if beside else top + page.px(CLASS_PT * CAP)
            b.label(heading, page.margin, base, right)
            top += 0 if beside else b.label_height + page.px(0.8)
            top += b.note(heading, page.margin, top, right)
        for group in section.groups:
            label = group.label if section.heading else b.lettered(group.label)
            b.label(label, page.margin, top + page.px(CLASS_PT * CAP), right)
            top += b.label_height
            top += b.note(label, page.margin, top, right)
            if not group.rows:
                bottom = b.remark(group, page.margin, right, top)
            else:
                bottom = _line(b, index, top, lefts, hw)
            top = bottom + page.px(ROW_GAP)
            index += 1
    return right + page.margin, bottom


def _line(b: PageBuilder, index: int, top: int, lefts: Sequence[int], hw: tuple[int, int]) -> int:
    """Photo and panels of a group of one row; gives its bottom."""
    b.photo(index, top, b.page.margin, hw)
    b.score_bar(index, b.page.margin, top + hw[0], hw[1])
    for head, left in enumerate(lefts[: len(b.groups[index].rows[0].maps)]):
        panel = b.panel(index, 0, head, top, left, hw)
        b.row_bar(panel)
        b.caption(panel)
    return top + hw[0] + (b.page.px(AIR * 0.8 + TEXT_PT * CAP) if b.has_captions else 0)


def merged(b: PageBuilder) -> tuple[int, int]:
    """One panel for all heads: a label over the photo and the rows of its group side by side.

    Several groups of one row each (layers, models) stand side by side too.
    """
    page = b.page
    blocks = _blocks(b)
    most = max((len(cells) for _, _, cells in blocks), default=1)
    abreast = min(most, 7)
    fixed = 2 * page.margin + page.px(WIDE) + (abreast - 1) * page.gap
    width = page.panel_width(page.width - fixed, abreast + 1)
    if not b.limited:
        width = min(width, int(_MERGED_SHARE * page.width)) if abreast > 1 else width
        page.panel_limit = page.width
    hw = page.panel_height(width), width
    first = page.margin + width + page.px(WIDE)
    lefts = [first + i * (width + page.gap) for i in range(abreast)]
    right = max(lefts[-1] + width, page.margin + page.px(150))
    top, before = page.margin, []
    for k, (label, photo, cells) in enumerate(blocks):
        top += page.px(ROW_GAP) if k else 0
        base = top + page.px(CLASS_PT * CAP)
        names = [name for name, _, _ in cells]
        named = any(names) and (k == 0 or names != before)
        before = names
        limit = first - page.px(2) if named and cells else right
        if limit < right and (label.note or page.margin + b.label_width(label) > limit):
            limit = right  # a line of its own, above the names of the panels
            top += b.note(label, page.margin, top + b.label_height, right)
            top += page.px(CLASS_PT * CAP + AIR)
        elif label.note:
            top += b.note(label, page.margin, top + b.label_height, right)
        b.label(label, page.margin, base, limit)
        top += b.label_height
        if photo is None:
            continue
        if not cells:
            top = bottom = b.remark(b.groups[photo], page.margin, right, top)
            continue
        b.photo(photo, top, page.margin, hw)
        b.score_bar(photo, page.margin, top + hw[0], hw[1])
        for start in range(0, len(cells), abreast):
            if start:
                top += page.px(TEXT_PT * CAP + AIR)
            for left, (name, group, row) in zip(lefts, cells[start:], strict=False):
                panel = b.panel(group, row, 0, top, left, hw)
                b.caption(panel)
                if named:
                    b.column_name(name, panel, top - page.px(AIR))
            bottom = top + hw[0] + page.px(AIR * 0.8 + TEXT_PT * CAP)
            top = bottom
    return right + page.margin, bottom


Cell = tuple[str, int, int]  # name of a panel, its group and row


def _blocks(b: PageBuilder) -> list[tuple[Label, int | None, list[Cell]]]:
    """(label, group of the photo, panels) for each line of a merged page; None: a heading alone.

    Groups of one object stand side by side where their labels say little: what has changed in a
    query, or that a model has no match, needs a line of its own.
    """
    blocks: list[tuple[Label, int | None, list[Cell]]] = []
    index = 0
    for section in b.sections:
        groups = section.groups
        short = all(len(g.rows) == 1 and not g.label.alert for g in groups)
        short = short and all(g.old_box_xyxy_px is None for g in groups)
        if section.heading and short and len(groups) > 1 and not any(g.mark for g in groups):
            cells = [(_short_label(b, g.label), index + i, 0) for i, g in enumerate(groups)]
            blocks.append((b.lettered(section.heading), index + len(groups) - 1, cells))
        else:
            if section.heading:
                blocks.append((b.lettered(section.heading), None, []))
            for i, group in enumerate(groups, index):
                cells = [(row.name, i, r) for r, row in enumerate(group.rows)]
                label = group.label if section.heading else b.lettered(group.label)
                blocks.append((label, i, cells))
        index += len(groups)
    return blocks


def _short_label(b: PageBuilder, label: Label) -> str:
    """A label over one panel: its title, with score and first detail where there is room."""
    room = _MERGED_SHARE * b.page.width * 0.9
    words = [word for word in (label.title, label.score, *label.details[:1]) if word]
    while len(words) > 1 and b.page.pen.width(" ".join(words), b.page.text_pt) > room:
        words.pop()
    return " ".join(words)
