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

INK, GRAY, NOTE_GRAY = "#262626", "#5c5c5c", "#707070"

# Points. At a page's width no letter is smaller than 6.
CLASS_PT, TEXT_PT, SMALL_PT = 7.0, 6.5, 6.0
_MARGIN, _GAP, _WIDE, _GROUP_GAP, _PAD = 2.0, 1.4, 4.0, 9.0, 5.0
CAP = 0.73  # height of a capital, of the font size
_LINE = 1.25  # distance of baselines, of the font size
_LABEL_SHARE = 0.15  # of the width at most for labels; longer names are broken, then shortened
_PHOTO_SHARE = 1.9  # stacked rows: width of the one photo, in panels
_ASPECTS = (0.4, 4.0)  # width / height of a panel; a photo beyond is stretched
_MIN_PANEL_PX = 8
_MAX_PIXELS = 250_000_000  # 1 GB for the page, as much again to draw it
_MAX_SIDE_PX = 65_000  # matplotlib's own limit is 2 ** 16


class FigureError(UserError):
    """A figure that cannot be drawn, written or shown."""


@dataclass(frozen=True, eq=False)
class MapRow:
    """One row of panels: maps (M, h, w), where their cells lie, and a name where a group has several rows."""

    maps: NDArray[np.float32]
    place: Placement
    name: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """One object: what stands once at the left, its box in pixels of the photo, and its rows of panels."""

    title: str
    detail: str
    color: str
    weak: bool
    photo: NDArray[np.uint8]
    box_xyxy_px: NDArray[np.float32]
    rows: tuple[MapRow, ...]


@dataclass(frozen=True)
class Line:
    """A line of text: x of its ``align`` edge and its baseline, in pixels; may hold formulas between dollars."""

    text: str
    x: float
    baseline: float
    size_pt: float
    color: str
    bold: bool = False
    align: str = "left"
    math: bool = False


@dataclass(frozen=True)
class Plan:
    """Page size, left and top edges in pixels, and every line of text but the numbers in the panels."""

    width: int
    height: int
    panel_hw: tuple[int, int]
    photo_hw: tuple[int, int]
    panel_lefts: tuple[int, ...]
    photo_left: int
    photo_tops: tuple[int, ...]  # a group
    row_tops: tuple[int, ...]  # a row, groups one after another
    lines: tuple[Line, ...]
    numbers_fit: bool
    inset: int  # of a panel's number from the panel's corner
    stretched: bool


def legible(color: str, weak: bool = False) -> str:
    """The colour dark enough for text on white: a contrast of 4.5 at least (WCAG 2), greyed for a weak detection."""
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    if weak:
        rgb = [0.35 * c + 0.65 * 0.5 for c in rgb]
    while luminance(rgb) > 1.05 / 4.5 - 0.05:
        rgb = [c * 0.96 for c in rgb]
    return "#" + "".join(f"{round(c * 255):02x}" for c in rgb)


def luminance(rgb: Sequence[float]) -> float:
    """Relative luminance (WCAG 2) of an sRGB colour in [0, 1]."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class _Ruler:
    """The figure's measures in pixels."""

    def __init__(self, width_in: float, dpi: float, photo_hw: tuple[int, int]) -> None:
        self.dpi = dpi
        self.width = round(width_in * dpi)
        self.aspect = min(max(photo_hw[1] / photo_hw[0], _ASPECTS[0]), _ASPECTS[1])
        self.stretched = self.aspect != photo_hw[1] / photo_hw[0]

    def px(self, pt: float) -> int:
        return max(1, round(pt * self.dpi / 72))

    def height_of(self, width: float) -> int:
        return max(_MIN_PANEL_PX, round(width / self.aspect))


def plan(
    groups: Sequence[Group], heads: Sequence[str], notes: Sequence[str], *, width_in: float, dpi: float
) -> Plan:
    """Lay the page out. Raises FigureError for a page too narrow for its panels, or too large to draw."""
    photo_hw = groups[0].photo.shape[:2]
    ruler, pen = _Ruler(width_in, dpi, photo_hw), Lettering(dpi)
    place = _place_stacked if max(len(g.rows) for g in groups) > 1 else _place_single
    made = place(groups, len(heads), ruler, pen)
    lines = [*made.lines, *_head_names(heads, made, ruler, pen)]
    height, rule = _reading_rule(notes, made, ruler, pen)
    if height > _MAX_SIDE_PX or height * made.width > _MAX_PIXELS:
        rows = len(made.row_tops)
        raise FigureError(
            f"{rows} rows make a figure of {made.width} x {height} pixels: choose fewer queries or a lower dpi"
        )
    return replace(made, height=height, lines=(*lines, *rule))


def _panel_width(room: float, panels: float, ruler: _Ruler, what: int) -> int:
    width = int(room / panels)
    if width < _MIN_PANEL_PX:
        raise FigureError(
            f"a figure {ruler.width / ruler.dpi:.3g} in wide has no room for {what} heads: make it wider"
        )
    return min(width, ruler.width // 4)  # few heads: a narrower figure rather than huge panels


def _label(group: Group, limit: float, pen: Lettering) -> list[Line]:
    """Class and detail as lines with baselines from the top of the block, x still to be set."""
    ink = legible(group.color, group.weak)
    lines = [
        Line(t, 0, 0, CLASS_PT, ink, bold=not group.weak)
        for t in pen.fit(group.title, limit, CLASS_PT, not group.weak)
    ]
    detail = pen.fit(group.detail, limit, SMALL_PT, lines=2)
    return lines + [Line(t, 0, 0, SMALL_PT, GRAY) for t in detail]


def _set_label(lines: list[Line], x: float, top: float, align: str, ruler: _Ruler) -> list[Line]:
    """Give a label its place; `top` is where the first line's capitals begin."""
    out, baseline = [], top
    for i, line in enumerate(lines):
        baseline += ruler.px(line.size_pt * (_LINE + 0.1 if i else CAP))
        out.append(replace(line, x=x, baseline=baseline, align=align))
    return out


def _label_height(lines: list[Line], ruler: _Ruler) -> float:
    return _set_label(lines, 0, 0, "left", ruler)[-1].baseline


def _header_height(ruler: _Ruler) -> int:
    return ruler.px(_MARGIN) + ruler.px(TEXT_PT * CAP) + ruler.px(3.2)


def _columns(right: int, count: int, width: int, gap: int) -> tuple[int, ...]:
    return tuple(right - (count - i) * width - (count - 1 - i) * gap for i in range(count))


def _numbers_fit(panel_hw: tuple[int, int], ruler: _Ruler) -> bool:
    return panel_hw[1] >= ruler.px(4.5 * SMALL_PT) and panel_hw[0] >= ruler.px(1.8 * SMALL_PT)


def _place_single(groups: Sequence[Group], heads: int, ruler: _Ruler, pen: Lettering) -> Plan:
    """label | photo | panels: a row a group, the label right-aligned beside its photo."""
    margin, gap, wide, pad = (ruler.px(v) for v in (_MARGIN, _GAP, _WIDE, _PAD))
    labels = [_label(g, _LABEL_SHARE * ruler.width, pen) for g in groups]
    column = int(max(pen.width(t.text, t.size_pt, t.bold) for lines in labels for t in lines)) + 1
    fixed = 2 * margin + column + pad + wide + (heads - 1) * gap
    width = _panel_width(ruler.width - fixed, heads + 1, ruler, heads)
    panel_hw = (ruler.height_of(width), width)
    page = fixed + (heads + 1) * width
    row_height = max(panel_hw[0], *(int(_label_height(t, ruler)) + ruler.px(1) for t in labels))
    tops, lines = [], []
    for i, label in enumerate(labels):
        top = _header_height(ruler) + i * (row_height + gap)
        tops.append(top + (row_height - panel_hw[0]) // 2)
        label_top = top + (row_height - _label_height(label, ruler)) / 2
        lines += _set_label(label, margin + column, label_top, "right", ruler)
    return Plan(
        width=page,
        height=top + row_height,
        panel_hw=panel_hw,
        photo_hw=panel_hw,
        panel_lefts=_columns(page - margin, heads, width, gap),
        photo_left=margin + column + pad,
        photo_tops=tuple(tops),
        row_tops=tuple(tops),
        lines=tuple(lines),
        numbers_fit=_numbers_fit(panel_hw, ruler),
        inset=ruler.px(2.0),
        stretched=ruler.stretched,
    )


def _place_stacked(groups: Sequence[Group], heads: int, ruler: _Ruler, pen: Lettering) -> Plan:
    """photo over label | names | panels: one larger photo a group, a row a mode beside it."""
    margin, gap, pad, between = (ruler.px(v) for v in (_MARGIN, _GAP, _PAD, _GROUP_GAP))
    names = int(max(pen.width(r.name, TEXT_PT) for g in groups for r in g.rows)) + 1
    fixed = 2 * margin + 2 * pad + names + (heads - 1) * gap
    width = _panel_width(ruler.width - fixed, heads + _PHOTO_SHARE, ruler, heads)
    count = max(len(g.rows) for g in groups)
    # The photo fills its column or the group's height, whichever is reached first; then the panels take the rest.
    for _ in range(3):
        height = max(ruler.height_of(width), ruler.px(TEXT_PT * _LINE))
        column = max(_PHOTO_SHARE * width, 0.08 * ruler.width)
        labels = [_label(g, column, pen) for g in groups]
        label_height = max(_label_height(t, ruler) for t in labels) + ruler.px(3)
        room = count * (height + gap) - gap - label_height
        photo = max(min(column, room * ruler.aspect), _MIN_PANEL_PX, width)
        column = int(max(photo, *(pen.width(t.text, t.size_pt, t.bold) for ls in labels for t in ls))) + 1
        width = _panel_width(ruler.width - fixed - column, heads, ruler, heads)
    panel_hw = (ruler.height_of(width), width)
    photo_hw = (ruler.height_of(photo), int(photo))
    page = fixed + column + heads * width
    row_height = max(panel_hw[0], ruler.px(TEXT_PT * _LINE))
    top, photo_tops, row_tops, lines = _header_height(ruler), [], [], []
    for group, label in zip(groups, labels, strict=True):
        photo_tops.append(top)
        lines += _set_label(label, margin, top + photo_hw[0] + ruler.px(3), "left", ruler)
        for i, row in enumerate(group.rows):
            row_top = top + i * (row_height + gap)
            row_tops.append(row_top + (row_height - panel_hw[0]) // 2)
            baseline = row_top + row_height / 2 + ruler.px(TEXT_PT * CAP) / 2
            x = margin + column + pad + names
            lines.append(Line(row.name, x, baseline, TEXT_PT, INK, align="right"))
        rows_bottom = top + len(group.rows) * (row_height + gap) - gap
        bottom = max(rows_bottom, lines[-len(group.rows) - 1].baseline + ruler.px(2))
        top = int(bottom) + between
    return Plan(
        width=page,
        height=top - between,
        panel_hw=panel_hw,
        photo_hw=photo_hw,
        panel_lefts=_columns(page - margin, heads, width, gap),
        photo_left=margin,
        photo_tops=tuple(photo_tops),
        row_tops=tuple(row_tops),
        lines=tuple(lines),
        numbers_fit=_numbers_fit(panel_hw, ruler),
        inset=ruler.px(2.0),
        stretched=ruler.stretched,
    )


def _head_names(heads: Sequence[str], made: Plan, ruler: _Ruler, pen: Lettering) -> list[Line]:
    """Over the panels, once: "head 0" ..., or only numbers, after one "head", where panels are narrow."""
    baseline = _header_height(ruler) - ruler.px(3.2)
    width = made.panel_hw[1]
    names = [f"head {h}" for h in heads]
    lines = []
    if max(pen.width(n, TEXT_PT) for n in names) > width:
        names = list(heads)
        x = made.panel_lefts[0] - ruler.px(_WIDE)
        lines.append(Line("head", x, baseline, TEXT_PT, INK, align="right"))
    for left, name in zip(made.panel_lefts, names, strict=True):
        lines.append(Line(name, left + width / 2, baseline, TEXT_PT, INK, align="center"))
    return lines


def _reading_rule(
    notes: Sequence[str], made: Plan, ruler: _Ruler, pen: Lettering
) -> tuple[int, list[Line]]:
    """The page's height and the notes at the bottom right, on as few lines as they need."""
    pieces = list(notes)
    own = "each panel scaled to its own maximum"
    pieces.append(f"{own}, the number in it" if made.numbers_fit else own)
    if made.stretched:
        pieces.append("photo stretched")
    limit = made.width - 2 * ruler.px(_MARGIN)
    baseline = made.height + ruler.px(4)
    lines = []
    for i, text in enumerate(pen.join(pieces, limit, SMALL_PT, "  ·  ")):
        baseline += ruler.px(SMALL_PT * (_LINE if i else CAP))
        x = made.width - ruler.px(_MARGIN)
        lines.append(Line(text, x, baseline, SMALL_PT, NOTE_GRAY, align="right", math="$" in text))
    return baseline + ruler.px(SMALL_PT * 0.25) + ruler.px(_MARGIN), lines
