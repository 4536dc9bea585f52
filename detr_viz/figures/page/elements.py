"""What a figure consists of, and what a laid out page does. Nothing here places or draws.

    Section   one object; it has a heading where it has several groups
      Group   one photo with one box and a label: a query of one model at one layer
        MapRow   one mode: a panel for each head

Pixels count from the page's top left corner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detr_viz.attention.grids import Grid
    from detr_viz.figures.page.crop import Crop
    from detr_viz.figures.page.shown import AttendedQueries, BoxCells, LinearScale, SamplePoints

# Points, times the format's type_size.
CLASS_PT, TEXT_PT, SMALL_PT = 7.0, 5.8, 5.4
INK, GRAY, WHITE = "#1a1a1a", "#666666", "#ffffff"  # text of first and second rank
NOTE_GRAY = GRAY
BOX_BLUE, ALERT = "#0057b8", "#b3261e"  # the box; what a removal has changed
TRUTH_GREEN = "#00734a"  # annotated boxes
CAP = 0.73  # height of a capital, in font sizes
LINE = 1.28  # from baseline to baseline
AIR = 2.6  # points between text and what it belongs to
WIDE = 6.0  # points between the photo and its panels
PHOTO = -1  # the row of a Panel that is the photo
LOCATOR = -2  # the row of a Panel that is the whole photo beside a crop


@dataclass(frozen=True, eq=False)
class MapRow:
    """One row of panels: maps (M, h, w), where their cells lie, a name if its group has several.

    captions     the text under each panel; None: the share of the map in the box
    reach        of signed maps: the value at which colours end, either way; 0 for weights
    bars         a value in [0, 1] for each panel, drawn as a bar under it
    short_captions  the same in fewer letters, for narrow panels
    boxes_xyxy_px  (M, 4) a box for each panel, in place of the group's
    off          (M,) the part of each map that falls off the image, said under its panel
    noun         what a panel is of, before its number
    attended     the queries, where the weights are those of queries
    samples      the points, where the panels show these
    cells        the cells of a box, where the panels show these
    crossed      heads (places in the row) that are crossed out
    head_names   of each panel, where panels are not in the order of the page's columns
    linear       of maps that are no attention: what their colours mean
    profiles     row (M, w) and column (M, h), where each map is their product
    """

    maps: NDArray[np.float32]
    grid: Grid
    name: str = ""
    captions: tuple[str, ...] | None = None
    reach: float = 0.0
    bars: tuple[float, ...] = ()
    short_captions: tuple[str, ...] = ()
    boxes_xyxy_px: NDArray[np.float32] | None = None
    off: tuple[float, ...] = ()
    noun: str = "head"
    attended: AttendedQueries | None = None
    samples: SamplePoints | None = None
    cells: BoxCells | None = None
    crossed: frozenset[int] = frozenset()
    head_names: tuple[str, ...] = ()
    linear: LinearScale | None = None
    profiles: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def box_of(self, head: int, group: Group) -> NDArray[np.float32] | None:
        """The box that a panel shows; not finite boxes are none."""
        if self.boxes_xyxy_px is None:
            return group.box_xyxy_px
        box = self.boxes_xyxy_px[head]
        return box if all(map(math.isfinite, box)) else None


@dataclass(frozen=True)
class Label:
    """What names a query: title and score, what has changed, details in second rank.

    weak: the title is not bold, for a detection of a low score
    """

    title: str
    details: tuple[str, ...] = ()
    score: str = ""
    alert: str = ""
    weak: bool = False

    @property
    def style(self) -> str:
        """The font style of the title."""
        return "" if self.weak else "bold"


@dataclass(frozen=True)
class TruthBox:
    """An annotated box in pixels of the photo.

    is_nearest: to the box of the group. is_crowd: it holds a group of objects
    """

    box_xyxy_px: tuple[float, ...]
    is_nearest: bool = False
    is_crowd: bool = False

    @property
    def kind(self) -> str:
        """What it is in two words at most."""
        crowd = " crowd" if self.is_crowd else ""
        return f"nearest{crowd}" if self.is_nearest else crowd.strip() or "other"


@dataclass(frozen=True, eq=False)
class Group:
    """A photo (H0, W0, 3), a box in its pixels (None: no box), and the rows of maps beside it.

    remark   stands in place of photo and panels where there are no rows
    mark     a point (x, y) of the photo that is marked in it and in every panel
    old_box  the box before something was removed, drawn on the photo under the box
    score    a share in [0, 1] drawn as a bar under the photo; None: no bar
    anchor   the point (x, y) of the photo where the query stands, a plus in it and in every panel
    truth    annotated boxes, where the figure shows them
    """

    label: Label
    photo: NDArray[np.uint8]
    box_xyxy_px: NDArray[np.float32] | None
    rows: tuple[MapRow, ...]
    remark: str = ""
    mark: tuple[float, float] | None = None
    old_box_xyxy_px: NDArray[np.float32] | None = None
    score: float | None = None
    anchor: tuple[float, float] | None = None
    truth: tuple[TruthBox, ...] = ()

    @property
    def photo_samples(self) -> SamplePoints | None:
        """The points of all heads, which its photo shows; None where one panel has them all."""
        first = self.rows[0] if self.rows else None
        return None if first is None or len(first.maps) == 1 else first.samples


@dataclass(frozen=True, eq=False)
class Section:
    """The groups of one object, with a heading where the labels of groups do not name it."""

    groups: tuple[Group, ...]
    heading: Label | None = None


@dataclass(frozen=True)
class TextLine:
    """Text in one font: x of its `align` edge and its baseline, in pixels; turned: upwards."""

    text: str
    x: float
    baseline: float
    size_pt: float
    color: str
    style: str = ""
    align: str = "left"
    turned: bool = False


@dataclass(frozen=True)
class Panel:
    """A picture on the page: group (their order on the page), row and head in it, pixels.

    row: PHOTO for the photo, LOCATOR for the whole photo beside a crop
    """

    group: int
    row: int
    head: int
    top: int
    left: int
    height: int
    width: int

    @property
    def hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class Ramp:
    """The colours of a scale in the key: top, left, height, width; kind: a key of scale.KINDS."""

    kind: str
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] as a part of a thin bar: left, top, width, height in pixels."""

    value: float
    left: float
    top: float
    width: float
    height: float
    color: str


@dataclass(frozen=True)
class KeySign:
    """A small drawing in the key: kind, centre x and y, size in pixels, colour.

    kinds: "cell" a square outline, "line" and "dashes" samples of contours, "dot" a circle,
    "plus" a reference point, "framed" one with a box, "hatch" a square that is left out
    """

    kind: str
    x: float
    y: float
    size: float
    color: str = INK
    level: int = 0


@dataclass(frozen=True)
class PageLayout:
    """Where everything on the page is, edges and sizes in pixels.

    panels   photos, maps and locators
    crops    of each group, in the order of the sections
    joined   (map, photo): a line from the map to its group's mark in the photo
    views    (group, row, head) -> the view of a panel that has not its group's
    """

    width: int
    height: int
    panels: tuple[Panel, ...] = ()
    lines: tuple[TextLine, ...] = ()
    ramps: tuple[Ramp, ...] = ()
    bars: tuple[Bar, ...] = ()
    signs: tuple[KeySign, ...] = ()
    crops: tuple[Crop, ...] = ()
    joined: tuple[tuple[Panel, Panel], ...] = ()
    views: Mapping[tuple[int, int, int], Crop] = field(default_factory=dict)

    def crop_of(self, panel: Panel) -> Crop:
        """Which part of the photo a panel shows."""
        key = panel.group, panel.row, panel.head
        return self.views.get(key, self.crops[panel.group])

    @property
    def maps(self) -> list[Panel]:
        """The panels that show maps."""
        return [panel for panel in self.panels if panel.row >= 0]


def all_groups(sections: Sequence[Section]) -> list[Group]:
    return [group for section in sections for group in section.groups]


def number(value: float) -> str:
    """A weight in few characters: .62, .04, .003, .0003, <.0001."""
    if value >= 0.995:
        return "1"
    if value < 0.00005:
        return "<.0001"
    digits = 2 if value >= 0.0095 else 3 if value >= 0.00095 else 4
    return f"{value:.{digits}f}"[1:]


def score_text(value: float) -> str:
    """A score in two decimals: .98, 1.00."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def percent(share: float) -> str:
    """A share in whole per cent; <1 % for what rounds to 0 but is not nearly 0."""
    return "<1 %" if 0.0005 < share < 0.005 else f"{round(100 * share + 0.0)} %"
