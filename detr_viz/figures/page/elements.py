"""What a figure consists of, and the measures of its page. Nothing here places or draws.

    Section   one object; it has a heading where it has several groups
      Group   one photo with one box and a label: a query of one model at one layer
        MapRow   one mode: a panel for each head

Pixels count from the page's top left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detr_viz.figures.page.text import Lettering
from detr_viz.figures.styles import FigureError, PageFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detr_viz.attention.grids import Grid

# Points, times the format's type_size.
CLASS_PT, TEXT_PT, SMALL_PT = 7.0, 6.5, 6.0
INK, GRAY, NOTE_GRAY, NUMBER_INK = "#262626", "#5c5c5c", "#707070", "#e0e0e0"
CAP = 0.73  # height of a capital, in font sizes
LINE = 1.28  # from baseline to baseline
AIR = 3.0  # points between text and what it belongs to
WIDE = 4.0  # points between the photo and its panels

_MARGIN, _GAP, _PAD = 2.0, 1.4, 5.0
_ASPECTS = (0.4, 4.0)  # width / height of a panel; a photo beyond is stretched
_MIN_PANEL_PX = 8


@dataclass(frozen=True, eq=False)
class AttendedQueries:
    """All queries by their boxes (Q, 4), where weights (M, 1, Q) are those of queries, not cells.

    query: the one that attends; it is one of them.
    """

    query: int
    boxes_xyxy_px: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MapRow:
    """One row of panels: maps (M, h, w), where their cells lie, a name if its group has several.

    numbers      what is printed in the panels; None: each map's largest weight
    reach        of signed maps: the value at which colours end, either way; 0 for weights
    box_xyxy_px  in its panels, in place of the group's
    attended     the queries, where the weights are those of queries
    """

    maps: NDArray[np.float32]
    grid: Grid
    name: str = ""
    numbers: tuple[str, ...] | None = None
    reach: float = 0.0
    box_xyxy_px: NDArray[np.float32] | None = None
    attended: AttendedQueries | None = None


@dataclass(frozen=True)
class Label:
    """What names a query: a title, details under or after it, the class colour."""

    title: str
    details: tuple[str, ...]
    color: str
    weak: bool = False

    @property
    def ink(self) -> str:
        """The class colour, dark enough for the title."""
        return legible(self.color, self.weak)

    @property
    def style(self) -> str:
        """The font style of the title."""
        return "" if self.weak else "bold"


@dataclass(frozen=True, eq=False)
class Group:
    """A photo (H0, W0, 3), a box in its pixels (None: no box), and the rows of maps beside it.

    remark  stands in place of photo and panels where there are no rows
    mark    a point (x, y) of the photo that is marked in it and in every panel
    """

    label: Label
    photo: NDArray[np.uint8]
    box_xyxy_px: NDArray[np.float32] | None
    rows: tuple[MapRow, ...]
    remark: str = ""
    mark: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """The groups of one object, with a heading where the labels of groups do not name it."""

    groups: tuple[Group, ...]
    heading: Label | None = None


@dataclass(frozen=True)
class TextLine:
    """Text in one font: x of its `align` edge and its baseline, in pixels."""

    text: str
    x: float
    baseline: float
    size_pt: float
    color: str
    style: str = ""
    align: str = "left"


@dataclass(frozen=True)
class GroupPosition:
    """Where a group's photo and rows begin, pixels from the top; None: the group is a remark."""

    photo_top: int | None = None
    row_tops: tuple[int, ...] = ()


@dataclass(frozen=True)
class PageLayout:
    """Where everything on the page is, edges and sizes in pixels.

    positions   of the groups, in the order of their sections
    plates      for every row of panels, in order, the plate of each panel's number: (height, width)
                and the corner (1 low, 1 right); () where panels have no numbers
    bar         top, left, height, width of the colour bar
    samples     left, right and middle of a sample line for each contour
    """

    width: int
    height: int
    panel_hw: tuple[int, int]
    photo_hw: tuple[int, int]
    panel_lefts: tuple[int, ...]
    photo_left: int
    positions: tuple[GroupPosition, ...]
    lines: tuple[TextLine, ...]
    plates: tuple[tuple[tuple[tuple[int, int], tuple[int, int]], ...], ...] = ()
    bar: tuple[int, int, int, int] | None = None
    samples: tuple[tuple[float, float, float], ...] = ()


class PageMetrics:
    """The page's measures: points to pixels, text widths, the shape of a panel."""

    def __init__(
        self,
        page_format: PageFormat,
        photo_hw: tuple[int, int],
        panel_limit_px: float | None = None,
    ) -> None:
        self.page_format = page_format
        self.pen = Lettering(page_format.dpi)
        self.width = round(page_format.width_in * page_format.dpi)
        # few heads: a narrower figure, not huge panels
        self.panel_limit = self.width // 4 if panel_limit_px is None else int(panel_limit_px)
        true_aspect = photo_hw[1] / photo_hw[0]
        self.aspect = min(max(true_aspect, _ASPECTS[0]), _ASPECTS[1])
        self.stretched = self.aspect != true_aspect
        self.class_pt, self.text_pt, self.small_pt = (
            pt * page_format.type_size for pt in (CLASS_PT, TEXT_PT, SMALL_PT)
        )
        self.margin, self.gap, self.pad = self.px(_MARGIN), self.px(_GAP), self.px(_PAD)
        self.header = self.margin + self.px(TEXT_PT * CAP) + self.px(AIR)
        self.name_height = self.px(TEXT_PT * LINE)

    def px(self, pt: float) -> int:
        """Points at the default size of type to whole pixels, one at least."""
        return self.pen.px(pt * self.page_format.type_size)

    def panel_height(self, width: float) -> int:
        return max(_MIN_PANEL_PX, round(width / self.aspect))

    def panel_width(self, room: float, panels: float) -> int:
        width = int(room / panels)
        if width < _MIN_PANEL_PX:
            inches = self.page_format.width_in
            raise FigureError(
                f"a figure {inches:g} in wide is too narrow for its panels: make it wider"
            )
        return max(min(width, self.panel_limit), _MIN_PANEL_PX)

    def widest(self, lines: Sequence[TextLine]) -> int:
        return int(max(self.pen.width(t.text, t.size_pt, t.style) for t in lines)) + 1

    def columns(self, right: int, count: int, width: int) -> tuple[int, ...]:
        step = width + self.gap
        return tuple(right - width - (count - 1 - i) * step for i in range(count))


def all_groups(sections: Sequence[Section]) -> list[Group]:
    return [group for section in sections for group in section.groups]


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


def number(value: float) -> str:
    """A weight in few characters: .62, .04, .003, .0003, <.0001."""
    if value >= 0.995:
        return "1"
    if value < 0.00005:
        return "<.0001"
    digits = 2 if value >= 0.0095 else 3 if value >= 0.00095 else 4
    return f"{value:.{digits}f}"[1:]
