"""Several rows beside a photo: modes, layers with modes, terms."""

from __future__ import annotations

from dataclasses import replace

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
    TextLine,
)
from detr_viz.figures.page.label_lines import label_lines

_PHOTO_SHARE = 2.05  # width of the photo beside the rows, in panels, on a wide page
_WIDE_IN, _NARROW_IN = 6.0, 4.0  # pages this wide have a larger photo; narrower ones no column
_LABEL_PT = 46.0  # of a label at least
_GROUP_GAP = 6.0  # points
_NAME_PAD = 2.5  # points beside a row's name


def stacked(b: PageBuilder) -> tuple[int, int]:
    """photo over label | names | panels; on a narrow page the photo stands over the rows."""
    if b.page.width < _NARROW_IN * b.page.page_format.dpi * max(b.page.page_format.type_size, 1):
        return _narrow(b)
    page, groups, count = b.page, b.groups, len(b.columns.names)
    names = _Names(b)
    wide = page.page_format.width_in / page.page_format.type_size >= _WIDE_IN * 0.9
    share = _PHOTO_SHARE if wide else 1.0
    fixed = 2 * page.margin + page.px(WIDE) + names.width + (count - 1) * page.gap
    width = page.panel_width(page.width - fixed, count + share)
    rows = max(len(g.rows) for g in groups)
    if not wide:  # the label needs more than a panel
        least = page.px(_LABEL_PT)
        if width < least:
            width = page.panel_width(page.width - fixed - least, count)
    photo = round(width * share) if wide else max(width, page.px(_LABEL_PT))
    hw = page.panel_height(width), width
    # a photo higher than its rows would leave them alone: it is as high as they are at most
    step = hw[0] + _under(b, 0) + page.px(0.6)
    room = max(rows * step - page.px(3 * SMALL_PT), hw[0])
    column = photo
    photo = max(min(photo, round(room * page.aspect)), width if wide else min(width, photo))
    photo_hw = page.panel_height(photo), photo
    first = page.margin + column + page.px(WIDE) + names.width
    lefts = [first + i * (width + page.gap) for i in range(count)]
    right = lefts[-1] + width
    b.head_names(lefts, width, page.margin + page.px(TEXT_PT * CAP))
    top = page.margin + b.names_height
    index = 0
    for k, section in enumerate(b.sections):
        if section.heading:
            heading = b.lettered(section.heading)
            limit = first if k == 0 else right
            beside = k == 0 and page.margin + b.label_width(heading) < first and not heading.note
            base = page.margin + page.px(TEXT_PT * CAP) if beside else top + page.px(CLASS_PT * CAP)
            b.label(heading, page.margin, base, limit if beside else right)
            top += 0 if beside else b.label_height + page.px(0.8)
            top += b.note(heading, page.margin, top, right)
        for group in section.groups:
            label = group.label if section.heading else b.lettered(group.label)
            texts = label_lines(label, column, page)
            under = top + (photo_hw[0] + page.px(AIR) if group.rows else 0)
            for t in texts:
                b.lines.append(_moved(t, page.margin, under))
            bottom = int(under + texts[-1].baseline + page.px(SMALL_PT * 0.3))
            if group.rows:
                b.photo(index, top, page.margin, photo_hw)
                bottom = max(bottom, _rows(b, index, top, lefts, hw, names))
            else:
                bottom = max(bottom, b.remark(group, first, right, top))
            top = bottom + page.px(_GROUP_GAP)
            index += 1
    return right + page.margin, bottom


def _moved(line: TextLine, x: float, top: float) -> TextLine:
    return replace(line, x=line.x + x, baseline=top + line.baseline)


def _under(b: PageBuilder, index: int) -> int:
    """The room under a row: for its captions, or its bars."""
    page, group = b.page, b.groups[index]
    has_text = any(text for row in b.texts[index] for text in row)
    has_bars = any(row.bars for row in group.rows)
    text = page.px(SMALL_PT * CAP + AIR * 1.7) if has_text else page.px(AIR)
    return text + (b.bar_height() + page.px(1.2) if has_bars else 0)


class _Names:
    """Names of rows, turned upwards where they are as short as their panels are high."""

    def __init__(self, b: PageBuilder) -> None:
        self.b, page = b, b.page
        names = {row.name for group in b.groups for row in group.rows}
        self.longest = max(page.pen.length(name, page.text_pt) for name in names)
        count = len(b.columns.names)
        width = page.panel_width(page.width - 2 * page.margin - count * page.gap, count + 1.6)
        height = page.panel_height(width)
        formulas = any("$" in name for name in names)
        self.turned = self.longest <= height * 1.3 and not formulas
        pad = page.px(_NAME_PAD)
        self.width = pad + (page.px(TEXT_PT) if self.turned else int(self.longest) + 1)

    def add(self, name: str, top: int, left: int, height: int) -> None:
        page = self.b.page
        pad = page.px(_NAME_PAD)
        if self.turned:
            text = page.pen.shorten(name, height * 1.3, page.text_pt)
            middle = top + height / 2
            line = TextLine(text, left - pad, middle, page.text_pt, INK, "", "center", turned=True)
            self.b.lines.append(line)
            return
        base = top + (height + page.px(TEXT_PT * CAP)) / 2
        length = page.pen.length(name, page.text_pt)
        for run in page.pen.runs(name, page.text_pt):
            x = left - pad - length + run.left + run.width / 2
            self.b.lines.append(
                TextLine(run.text, x, base + run.drop, run.size_pt, INK, run.style, "center")
            )


def _rows(b: PageBuilder, index: int, top: int, lefts: list[int], hw, names: _Names) -> int:
    """The rows of a group under each other; gives the bottom."""
    under = _under(b, index)
    for r, row in enumerate(b.groups[index].rows):
        names.add(row.name, top, lefts[0], hw[0])
        for head, left in enumerate(lefts[: len(row.maps)]):
            panel = b.panel(index, r, head, top, left, hw)
            b.row_bar(panel)
            b.caption(panel)
        bottom = top + hw[0] + under - b.page.px(AIR * 0.6)
        top += hw[0] + under
    return bottom


def _narrow(b: PageBuilder) -> tuple[int, int]:
    """The photo with its label beside it, then a row of panels for each name."""
    page, count = b.page, len(b.columns.names)
    across = count if count <= 8 else (count + 1) // 2
    fixed = 2 * page.margin + (across - 1) * page.gap
    width = page.panel_width(page.width - fixed, across)
    hw = page.panel_height(width), width
    lefts = [page.margin + i * (width + page.gap) for i in range(across)]
    right = lefts[-1] + width
    photo = min(2 * width + page.gap, round(right * 0.3))
    photo_hw = page.panel_height(photo), photo
    top, index = page.margin, 0
    for section in b.sections:
        if section.heading:
            b.label(b.lettered(section.heading), page.margin, top + page.px(CLASS_PT * CAP), right)
            top += b.label_height
            top += b.note(section.heading, page.margin, top, right)
        for group in section.groups:
            label = group.label if section.heading else b.lettered(group.label)
            x = page.margin + (photo + page.px(WIDE) if group.rows else 0)
            texts = label_lines(label, right - x, page)
            for t in texts:
                b.lines.append(_moved(t, x, top))
            bottom = top + int(texts[-1].baseline + page.px(SMALL_PT * 0.3))
            if not group.rows:
                top = b.remark(group, page.margin, right, bottom + page.px(1)) + page.px(_GROUP_GAP)
                index += 1
                continue
            b.photo(index, top, page.margin, photo_hw)
            top = max(bottom, top + photo_hw[0]) + page.px(_GROUP_GAP)
            for r, row in enumerate(group.rows):
                base = top + page.px(TEXT_PT * CAP)
                for run in page.pen.runs(row.name, page.text_pt):
                    b.lines.append(
                        TextLine(
                            run.text,
                            page.margin + run.left,
                            base + run.drop,
                            run.size_pt,
                            INK,
                            run.style,
                        )
                    )
                named = page.margin + page.pen.length(row.name, page.text_pt) + page.px(2)
                for start in range(0, len(row.maps), across):
                    if r == 0 or across < count:
                        if start == 0 and named > _head_start(b, lefts[0], width):
                            top += b.names_height  # a line of their own, under the row's name
                            base += b.names_height
                        _heads_over(b, lefts, width, base, start)
                    top += b.names_height
                    for i, left in enumerate(lefts[: len(row.maps) - start]):
                        panel = b.panel(index, r, start + i, top, left, hw)
                        b.row_bar(panel)
                        b.caption(panel)
                    top += hw[0] + _under(b, index)
                    base = top + page.px(TEXT_PT * CAP)
            bottom = top - page.px(AIR * 0.6)
            top += page.px(_GROUP_GAP)
            index += 1
    return right + page.margin, bottom


def _head_name(b: PageBuilder, head: int, first: bool, width: int) -> str:
    """The name of a head over its panel; the first says what the numbers are."""
    page, name = b.page, b.columns.names[head]
    whole = f"{b.columns.noun} {name}"
    if b.columns.numbered and first and page.pen.width(whole, page.text_pt) <= width:
        name = whole
    return page.pen.shorten(name, width, page.text_pt)


def _head_start(b: PageBuilder, left: int, width: int) -> float:
    """Where the name over the first panel begins."""
    return left + (width - b.page.pen.width(_head_name(b, 0, True, width), b.page.text_pt)) / 2


def _heads_over(b: PageBuilder, lefts: list[int], width: int, base: float, start: int) -> None:
    """Names of heads over a row, from head `start` on."""
    for i, left in enumerate(lefts[: len(b.columns.names) - start]):
        name = _head_name(b, start + i, i == 0, width)
        x = left + width / 2
        b.lines.append(TextLine(name, x, base, b.page.text_pt, GRAY, align="center"))
