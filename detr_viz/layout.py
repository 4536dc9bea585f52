"""Where everything in a figure goes: whole pixels for panels, measured text around them.

    one row a group          label | photo | panel panel ...

    several rows a group     photo   name | panel panel ...
                             label   name | panel panel ...

Pixels count from the page's top left corner. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detr_viz.compose import Placement
from detr_viz.errors import UserError
from detr_viz.lettering import Lettering

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Points, at the width the figure is made for.
CLASS_PT, TEXT_PT, SMALL_PT = 7.0, 6.5, 6.0
INK, GRAY, NOTE_GRAY, NUMBER_INK = "#262626", "#5c5c5c", "#707070", "#e0e0e0"

_MARGIN, _GAP, _WIDE, _GROUP_GAP, _PAD, _AIR = 2.0, 1.4, 4.0, 9.0, 5.0, 3.0
_CAP = 0.73  # height of a capital, in font sizes
_LINE = 1.28  # from baseline to baseline
_LABEL_SHARE = 0.15  # of the page for labels at most: longer names are broken, then shortened,
_LABEL_PT = 52.0  # but never below this, which holds "0.98 · query 123"
_PHOTO_SHARE = 1.9  # stacked rows: width of the one photo, in panels
_ASPECTS = (0.4, 4.0)  # width / height of a panel; a photo beyond is stretched
_MIN_PANEL_PX = 8
_MAX_PIXELS = 250_000_000  # 1 GB for the page, as much again to draw it
_MAX_SIDE_PX = 65_000  # matplotlib's own limit is 2 ** 16


class FigureError(UserError):
    """A figure that cannot be drawn, written or shown."""


@dataclass(frozen=True, eq=False)
class MapRow:
    """One row of panels: maps (M, h, w), where their cells lie, a name if its group has several."""

    maps: NDArray[np.float32]
    place: Placement
    name: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """One object: what stands once at the left, its box in pixels of the photo, its map rows."""

    title: str
    detail: str
    color: str
    weak: bool
    photo: NDArray[np.uint8]
    box_xyxy_px: NDArray[np.float32]
    rows: tuple[MapRow, ...]


@dataclass(frozen=True)
class Line:
    """Text in one font: x of its `align` edge and its baseline, in pixels."""

    text: str
    x: float
    baseline: float
    size_pt: float
    color: str
    style: str = ""
    align: str = "left"


@dataclass(frozen=True)
class Plan:
    """The page. Edges and sizes in pixels; groups and rows in the order given."""

    width: int
    height: int
    panel_hw: tuple[int, int]
    photo_hw: tuple[int, int]
    panel_lefts: tuple[int, ...]
    photo_left: int
    photo_tops: tuple[int, ...]  # a group
    row_tops: tuple[int, ...]  # a row of panels, all groups' rows one after another
    lines: tuple[Line, ...]
    number_hw: tuple[int, int] | None = None  # what a number takes of a panel's corner
    corners: tuple[tuple[int, int], ...] = ()  # a group: where its numbers are, (1 low, 1 right)


class _Page:
    """The page's measures: points to pixels, text widths, the shape of a panel."""

    def __init__(self, width_in: float, dpi: float, photo_hw: tuple[int, int]) -> None:
        self.width_in = width_in
        self.pen = Lettering(dpi)
        self.px = self.pen.px
        self.width = round(width_in * dpi)
        true_aspect = photo_hw[1] / photo_hw[0]
        self.aspect = min(max(true_aspect, _ASPECTS[0]), _ASPECTS[1])
        self.stretched = self.aspect != true_aspect
        self.margin, self.gap, self.pad = self.px(_MARGIN), self.px(_GAP), self.px(_PAD)
        self.header = self.margin + self.px(TEXT_PT * _CAP) + self.px(_AIR)
        self.name_height = self.px(TEXT_PT * _LINE)

    def panel_height(self, width: float) -> int:
        return max(_MIN_PANEL_PX, round(width / self.aspect))

    def panel_width(self, room: float, panels: float) -> int:
        width = int(room / panels)
        if width < _MIN_PANEL_PX:
            raise FigureError(f"a figure {self.width_in:g} in wide is too narrow for its panels")
        return min(width, self.width // 4)  # few heads: a narrower figure, not huge panels

    def widest(self, lines: Sequence[Line]) -> int:
        return int(max(self.pen.width(t.text, t.size_pt, t.style) for t in lines)) + 1

    def columns(self, right: int, count: int, width: int) -> tuple[int, ...]:
        step = width + self.gap
        return tuple(right - width - (count - 1 - i) * step for i in range(count))


def plan(
    groups: Sequence[Group],
    heads: Sequence[str],
    notes: Sequence[str],
    *,
    width_in: float,
    dpi: float,
) -> Plan:
    """Lay the page out: at most `width_in` wide, as high as it must be.

    heads: a name a column; notes: pieces of the reading rule at the bottom right.
    Raises FigureError for a page too narrow for its panels, or too large to draw.
    """
    page = _Page(width_in, dpi, groups[0].photo.shape[:2])
    stacked = max(len(g.rows) for g in groups) > 1
    made = (_stacked if stacked else _single)(groups, len(heads), page)
    made = _with_numbers(made, groups, page)
    made = _with_notes(_with_head_names(made, heads, page), notes, page)
    if made.height > _MAX_SIDE_PX or made.height * made.width > _MAX_PIXELS:
        raise FigureError(
            f"{len(made.row_tops)} rows make a figure of {made.width} x {made.height} pixels: "
            "choose fewer queries, or one mode"
        )
    return made


def luminance(color: str) -> float:
    """Relative luminance in [0, 1] of an sRGB colour "#rrggbb" (WCAG 2)."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def legible(color: str, weak: bool = False) -> str:
    """The colour, dark enough for text on white (contrast 4.5, WCAG 2); greyer if weak."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    if weak:
        rgb = [0.4 * c + 0.6 * 125 for c in rgb]
    while luminance(ink := "#" + "".join(f"{round(c):02x}" for c in rgb)) > 1.05 / 4.5 - 0.05:
        rgb = [c * 0.97 for c in rgb]
    return ink


def _label(group: Group, limit: float, page: _Page) -> list[Line]:
    """Class and detail as lines; baselines from the top of the first line's capitals, x = 0."""
    ink, style = legible(group.color, group.weak), "" if group.weak else "bold"
    title = page.pen.fit(group.title, limit, CLASS_PT, style)
    detail = page.pen.fit(group.detail, limit, SMALL_PT)
    lines, baseline = [], 0
    for text in title:
        baseline += page.px(CLASS_PT * (_LINE if lines else _CAP))
        lines.append(Line(text, 0, baseline, CLASS_PT, ink, style))
    for text in detail:
        baseline += page.px(SMALL_PT * _LINE + 0.6)
        lines.append(Line(text, 0, baseline, SMALL_PT, GRAY))
    return lines


def _moved(label: Sequence[Line], x: float, top: float, align: str) -> list[Line]:
    return [replace(t, x=x, baseline=top + t.baseline, align=align) for t in label]


def _single(groups: Sequence[Group], heads: int, page: _Page) -> Plan:
    """label | photo | panels: labels end beside the photo and are centred on it."""
    limit = max(_LABEL_SHARE * page.width, page.px(_LABEL_PT))
    labels = [_label(g, limit, page) for g in groups]
    column = page.widest([t for label in labels for t in label])
    fixed = 2 * page.margin + column + page.pad + page.px(_WIDE) + (heads - 1) * page.gap
    width = page.panel_width(page.width - fixed, heads + 1)
    height = page.panel_height(width)
    row_height = max(height, *(label[-1].baseline + page.px(_AIR) for label in labels))
    tops, lines = [], []
    for i, label in enumerate(labels):
        slot = page.header + i * (row_height + page.gap)
        tops.append(slot + (row_height - height) // 2)
        lines += _moved(
            label, page.margin + column, slot + (row_height - label[-1].baseline) / 2, "right"
        )
    total = fixed + (heads + 1) * width
    return Plan(
        width=total,
        height=slot + row_height,
        panel_hw=(height, width),
        photo_hw=(height, width),
        panel_lefts=page.columns(total - page.margin, heads, width),
        photo_left=page.margin + column + page.pad,
        photo_tops=tuple(tops),
        row_tops=tuple(tops),
        lines=tuple(lines),
    )


def _stacked(groups: Sequence[Group], heads: int, page: _Page) -> Plan:
    """photo over label | names | panels: one larger photo a group, its rows beside it."""
    names = page.widest([Line(r.name, 0, 0, TEXT_PT, INK) for g in groups for r in g.rows])
    fixed = 2 * page.margin + 2 * page.pad + names + (heads - 1) * page.gap
    width = page.panel_width(page.width - fixed, heads + _PHOTO_SHARE)
    count = max(len(g.rows) for g in groups)
    # The photo fills its column or its group's height, whichever ends first; panels take the rest.
    for _ in range(3):
        row_height = max(page.panel_height(width), page.name_height)
        column = max(_PHOTO_SHARE * width, page.px(_LABEL_PT))
        labels = [_label(g, column, page) for g in groups]
        room = count * (row_height + page.gap) - page.gap - page.px(_AIR)
        room -= max(label[-1].baseline for label in labels)
        photo = int(max(min(column, room * page.aspect), width))
        column = max(photo, page.widest([t for label in labels for t in label]))
        width = page.panel_width(page.width - fixed - column, heads)
    height, photo_hw = page.panel_height(width), (page.panel_height(photo), photo)
    row_height = max(height, page.name_height)
    top, photo_tops, row_tops, lines = page.header, [], [], []
    for group, label in zip(groups, labels, strict=True):
        photo_tops.append(top)
        placed = _moved(label, page.margin, top + photo_hw[0] + page.px(_AIR), "left")
        lines += placed
        for i, row in enumerate(group.rows):
            slot = top + i * (row_height + page.gap)
            row_tops.append(slot + (row_height - height) // 2)
            x = page.margin + column + page.pad + names
            baseline = slot + (row_height + page.px(TEXT_PT * _CAP)) / 2
            lines.append(Line(row.name, x, baseline, TEXT_PT, INK, align="right"))
        bottom = max(slot + row_height, int(placed[-1].baseline) + page.px(_GAP))
        top = bottom + page.px(_GROUP_GAP)
    total = fixed + column + heads * width
    return Plan(
        width=total,
        height=bottom,
        panel_hw=(height, width),
        photo_hw=photo_hw,
        panel_lefts=page.columns(total - page.margin, heads, width),
        photo_left=page.margin,
        photo_tops=tuple(photo_tops),
        row_tops=tuple(row_tops),
        lines=tuple(lines),
    )


def number(value: float) -> str:
    """A panel's maximum in few characters: .62, .04, .003, <.001."""
    if value >= 0.995:
        return "1"
    if value < 0.0005:
        return "<.001"
    return (f"{value:.2f}" if value >= 0.0095 else f"{value:.3f}")[1:]


def _with_numbers(made: Plan, groups: Sequence[Group], page: _Page) -> Plan:
    """Every panel's maximum in a corner of it, where panels are large enough."""
    height, width = made.panel_hw
    if width < page.px(4.5 * SMALL_PT) or height < page.px(1.8 * SMALL_PT):
        return made
    inset, above = page.px(2.0), page.px(1.4)
    shown = [[[number(v) for v in row.maps.max((1, 2))] for row in g.rows] for g in groups]
    texts = {text for rows in shown for row in rows for text in row}
    text_width = max(page.pen.width(text, SMALL_PT) for text in texts)
    cap = page.px(SMALL_PT * _CAP)
    number_hw = (cap + inset + above, int(text_width) + inset + above)
    corners = tuple(_corner(g, made.panel_hw, number_hw) for g in groups)
    lines, tops = [], iter(made.row_tops)
    for rows, (low, right) in zip(shown, corners, strict=True):
        for row in rows:
            top = next(tops)
            baseline = top + (height - inset if low else cap + inset)
            for text, left in zip(row, made.panel_lefts, strict=True):
                x, align = (left + width - inset, "right") if right else (left + inset, "left")
                lines.append(Line(text, x, baseline, SMALL_PT, NUMBER_INK, align=align))
    return replace(made, lines=(*made.lines, *lines), number_hw=number_hw, corners=corners)


def _corner(group: Group, panel_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple[int, int]:
    """The first corner, from the lower right, outside the object's box; else not on its outline."""
    scale = [panel_hw[1] / group.photo.shape[1], panel_hw[0] / group.photo.shape[0]] * 2
    x0, y0, x1, y1 = (float(v) * s for v, s in zip(group.box_xyxy_px, scale, strict=True))

    def in_the_way(corner: tuple[int, int]) -> int:
        top = (panel_hw[0] - size_hw[0]) * corner[0]
        left = (panel_hw[1] - size_hw[1]) * corner[1]
        bottom, right = top + size_hw[0], left + size_hw[1]
        if x0 >= right or x1 <= left or y0 >= bottom or y1 <= top:
            return 0
        return 1 if x0 < left and x1 > right and y0 < top and y1 > bottom else 2

    return min(((1, 1), (1, 0), (0, 1), (0, 0)), key=in_the_way)


def _with_head_names(made: Plan, heads: Sequence[str], page: _Page) -> Plan:
    """Over the panels, once: "head 0" ...; only numbers, after one "head", over narrow panels."""
    baseline = page.header - page.px(_AIR)
    names, lines = [f"head {h}" for h in heads], []
    if max(page.pen.width(n, TEXT_PT) for n in names) > made.panel_hw[1]:
        names = list(heads)
        x = made.panel_lefts[0] - page.px(_WIDE)
        lines.append(Line("head", x, baseline, TEXT_PT, INK, align="right"))
    for left, name in zip(made.panel_lefts, names, strict=True):
        x = left + made.panel_hw[1] / 2
        lines.append(Line(name, x, baseline, TEXT_PT, INK, align="center"))
    return replace(made, lines=(*made.lines, *lines))


def _with_notes(made: Plan, notes: Sequence[str], page: _Page) -> Plan:
    """The reading rule at the bottom right, on as few lines as it needs."""
    scaled = "each panel scaled to its own maximum"
    pieces = [*notes, f"{scaled}, the number in it" if made.number_hw else scaled]
    if page.stretched:
        pieces.append("photo stretched")
    x, limit = made.width - page.margin, made.width - 2 * page.margin
    baseline, lines = made.height + page.px(4), []
    for text in page.pen.join(pieces, limit, SMALL_PT, "  ·  "):
        baseline += page.px(SMALL_PT * (_LINE if lines else _CAP))
        start = x - page.pen.length(text, SMALL_PT)
        for run in page.pen.runs(text, SMALL_PT):
            middle, base = start + run.left + run.width / 2, baseline + run.drop
            line = Line(run.text, middle, base, run.size_pt, NOTE_GRAY, run.style, "center")
            lines.append(line)
        lines[-1] = replace(lines[-1], x=x, align="right")
    height = baseline + page.px(SMALL_PT * 0.24) + page.margin
    return replace(made, height=height, lines=(*made.lines, *lines))
