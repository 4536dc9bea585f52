"""How figures are drawn: names of styles, norms and presets. Imports nothing heavy, for --help.

style = Style("heat", norm="figure", cmap="viridis")
page_format = PageFormat.of("slide", dpi=200)     # 13.3 in wide, its own size of type, 200 dpi
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from detr_viz.common.errors import UserError
from detr_viz.common.words import did_you_mean

STYLES = {
    "overlay": "the map's colour over the grey photo",
    "heat": "the map alone, cell by cell",
    "contour": "a line around the densest half of the map, over the untouched photo",
    "points": "circles where a head samples the photo, area by weight; of sampled attention",
    "cells": "the cells of the box that a query reads, signed; of attention by RoI cells",
}
NORMS = {
    "even": "relative to an even spread, on one logarithmic scale for all panels of all figures",
    "head": "each panel on a scale of its own, from 0 to its largest weight",
    "query": "each row on one scale, from 0 to its largest weight",
    "figure": "all panels on one scale, from 0 to the largest weight of the figure",
}
HEADS = {
    "mean": "the mean of all heads",
    "max": "the largest weight of any head, cell by cell",
    "sort": "the most concentrated head of a row first (by entropy)",
    "all-in-one": "the sampling points of all heads in one panel (style points)",
}
ALL_IN_ONE = "all-in-one"
LEVELS = {
    "sum": "all levels, on the finest grid",
    "all": "a row for each level, on its own grid",
}
INTERPOLATIONS = ("smooth", "cubic", "linear", "nearest")
ZOOMS = ("auto", "none")  # or a factor
# Our own colour maps, tone -> colour; lightness falls throughout, so that they read in grey print.
RAMPS = {
    "ember": (
        (0.0, "#fff3dc"),
        (0.3, "#ffb84d"),
        (0.5, "#ee6a1c"),
        (0.67, "#cf2f1a"),
        (0.84, "#8c0f48"),
        (1.0, "#26072f"),
    ),
    "violet": (
        (0.0, "#f4eefc"),
        (0.3, "#cdaaf2"),
        (0.5, "#a069e0"),
        (0.67, "#7333c4"),
        (0.84, "#4a0f92"),
        (1.0, "#1b0338"),
    ),
}
SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".eps")  # of figures
# Styles that no norm applies to, and why.
_UNSCALED = {
    "contour": "contours, which hold shares of each map's own mass",
    "points": "points, whose area is their weight",
    "cells": "cells, whose shares have one scale for both signs",
}
CONTOUR_SHARES = (0.5,)  # of a map's mass, without --contours
FONTS = ("sans", "serif")  # or the name of an installed font
_MAX_WIDTH_PX = 20_000  # matplotlib's limit is 2 ** 16, for either side


class FigureError(UserError):
    """A figure that cannot be drawn, written or shown."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn. FigureError for unknown names, and for options that exclude each other.

    name           one of STYLES
    norm           one of NORMS; None: even. Contours have no norm: they are shares of a map's mass
    cmap           one of RAMPS, or the name of a matplotlib colour map; None: ember
    interpolation  between cell centres, one of INTERPOLATIONS; None: nearest for heat and where
                   cells are large, else smooth, which spreads each cell by a small Gaussian; for
                   contours the Gaussian only says in which order cells are inside
    heads          numbers of the heads to show, in that order, or one of HEADS; None: all
    zoom           "auto": small objects are shown in a view around their box, "none": the whole
                   photo, or a factor above 1
    contours       shares of a map's mass in (0, 1), one line each, the first as a full line
    levels         of maps of several levels: one of LEVELS, or numbers of levels, a row for each;
                   points of several numbers stand in one row, where colours tell them apart
    truth          whether annotated boxes of the image are drawn, dashed, beside the predicted one
    """

    name: str = "overlay"
    norm: str | None = None
    cmap: str | None = None
    interpolation: str | None = None
    heads: str | tuple[int, ...] | None = None
    zoom: str | float = "auto"
    contours: tuple[float, ...] = CONTOUR_SHARES
    levels: str | tuple[int, ...] = "sum"
    truth: bool = field(default=False, repr=False)  # digests of other tables keep their value

    def __post_init__(self) -> None:
        for name, value, known in (
            ("style", self.name, STYLES),
            ("norm", self.norm or "even", NORMS),
            ("interpolation", self.interpolation or "cubic", INTERPOLATIONS),
            ("heads", self.heads if isinstance(self.heads, str) else "mean", HEADS),
            ("levels", self.levels if isinstance(self.levels, str) else "sum", LEVELS),
        ):
            if value not in known:
                near = did_you_mean(str(value), known)
                advice = f"; {near}" if near else ""
                raise FigureError(f"{name} {value!r} is not one of {', '.join(known)}{advice}")
        heads = "mean" if self.heads is None else self.heads
        for name, value in (("heads", heads), ("levels", self.levels)):
            if not isinstance(value, str) and not _are_numbers(value):
                raise FigureError(f"{name} {value!r}: a tuple of numbers from 0, each once")
        if self.heads == ALL_IN_ONE and self.name != "points":
            raise FigureError(
                f"heads {ALL_IN_ONE} are the sampling points of all heads, and style {self.name} "
                "draws none: take style points, or heads mean"
            )
        if self.zoom not in ZOOMS and not (
            isinstance(self.zoom, int | float) and 1 <= self.zoom < math.inf
        ):
            raise FigureError(f"zoom {self.zoom!r} is neither auto, none nor a factor from 1 on")
        if not self.contours or not all(0 < share < 1 for share in self.contours):
            raise FigureError(f"contours {self.contours!r}: shares of a map between 0 and 1")
        if self.name in _UNSCALED and self.norm is not None:
            raise FigureError(
                f"norm {self.norm!r} says nothing about {_UNSCALED[self.name]}: leave it out, or "
                "take style overlay or heat"
            )

    @property
    def scaling(self) -> str | None:
        """The norm in force; None for contours."""
        return None if self.name in _UNSCALED else self.norm or "even"

    @property
    def smoothing(self) -> str:
        """The interpolation in force where cells are small."""
        if self.interpolation:
            return self.interpolation
        if self.name == "heat":
            return "nearest"
        return "smooth" if self.name == "contour" or self.scaling == "even" else "cubic"


DEFAULT_STYLE = Style()


def _are_numbers(value: object) -> bool:
    """Whether this is a tuple of numbers from 0, each once, at least one."""
    sound = isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)
    return sound and 0 < len(value) == len(set(value))


def usual_style(options: Style, sampled: bool, cells: bool = False) -> str:
    """The name of the style where none is asked for.

    Points where attention is sampled, cells where it is of the cells of boxes, unless an option is
    one of maps in colour (a norm, a colour map, heads merged or sorted by their maps).
    """
    if options.heads == ALL_IN_ONE:
        return "points"
    of_maps = (options.norm, options.cmap, options.interpolation, isinstance(options.heads, str))
    if any(of_maps) or (cells and options.levels != "sum"):
        return "overlay"
    return "cells" if cells else "points" if sampled else "overlay"


def check_samples(style: Style, name: str, samples: bool, stages: bool = False) -> None:
    """FigureError for sampling points of a model that has none; samples: whether it has.

    stages: whether it reads cells of boxes.
    """
    if style.name != "points" or samples:
        return
    ways = "take overlay, heat or contour"
    if style.heads == ALL_IN_ONE:
        ways = "name heads by number (0,3), or take mean"
    asked = f"heads {ALL_IN_ONE} show" if style.heads == ALL_IN_ONE else "style points shows"
    how = "reads the cells of its boxes" if stages else "attends to all of it"
    raise FigureError(f"{asked} where heads sample the image, and {name} {how}: {ways}")


def check_levels(style: Style, name: str, count: int) -> None:
    """FigureError where a style names levels that a model does not have; count: its levels."""
    if style.levels == "sum":
        return
    if count == 1 and style.levels != (0,):
        asked = "all levels" if style.levels == "all" else f"level {max(style.levels)}"
        raise FigureError(f"{asked}: {name} has 1 level; give sum, or level 0")
    if isinstance(style.levels, tuple) and max(style.levels) >= count:
        most = count - 1
        raise FigureError(f"no level {max(style.levels)}: {name} has {count} levels, 0..{most}")


def check_whole(style: Style, what: str) -> None:
    """FigureError for levels and for points, in a figure that has neither; what: it shows."""
    if style.levels != "sum":
        raise FigureError(f"{what} are not shown level by level: leave levels out")
    if style.name == "points":
        raise FigureError(f"{what} are no sampling points: take style overlay, heat or contour")
    if style.name == "cells":
        raise FigureError(f"{what} are no cells of a box: take style overlay, heat or contour")


@dataclass(frozen=True)
class PageFormat:
    """The page that a figure is for. Inches; `type_size` multiplies text, gaps and lines.

    height_in  the height to keep to: panels shrink for it as far as they can
    grid       the heads of a query stand in two lines beside a larger photo, not in one
    font       one of FONTS, or the name of an installed font
    letters    whether (a), (b) and so on stand before the labels
    notes      whether all that a reader must know is printed under the figure, not only in the
               caption and the metadata
    """

    width_in: float
    dpi: float
    type_size: float = 1.0
    height_in: float = math.inf
    grid: bool = False
    font: str = "sans"
    letters: bool = False
    notes: bool = False

    @classmethod
    def of(
        cls, preset: str | None = None, width_in: float | None = None, dpi: float | None = None
    ) -> PageFormat:
        """The preset's format (None: the default), with another width or resolution if given."""
        if preset is not None and preset not in PRESETS:
            near = did_you_mean(str(preset), PRESETS)
            raise FigureError(
                f"preset {preset!r} is not one of {', '.join(PRESETS)}{f'; {near}' if near else ''}"
            )
        page_format = DEFAULT_PAGE_FORMAT if preset is None else PRESETS[preset]
        page_format = replace(
            page_format,
            width_in=page_format.width_in if width_in is None else width_in,
            dpi=page_format.dpi if dpi is None else dpi,
        )
        width, dots = page_format.width_in, page_format.dpi
        if not (0 < width < math.inf and 0 < dots < math.inf):
            raise FigureError(f"a figure cannot be {width:g} in wide at {dots:g} dpi")
        if width * dots > _MAX_WIDTH_PX:
            raise FigureError(
                f"{width:g} in at {dots:g} dpi are more than {_MAX_WIDTH_PX} pixels: "
                "lower the width or the dpi"
            )
        return page_format


# 1541 pixels. Text of 5 to 7 pt at this width is still read when the figure is printed in a column
# (3.25 in) and is not too large across a page.
DEFAULT_PAGE_FORMAT = PageFormat(4.6, 335)
PRESETS = {
    "column": PageFormat(3.25, 600, 1.0, 8.2, grid=True),  # one of two; a caption fits under it
    "page": PageFormat(6.875, 300, 1.1, 8.2),  # both columns
    "slide": PageFormat(13.3, 150, 2.4, 7.5, grid=True),  # 16:9
    "poster": PageFormat(23.4, 150, 4.2, 33.1, grid=True),  # A1, upright
}
