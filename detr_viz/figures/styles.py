"""How figures are drawn: names of styles, norms and presets. Imports nothing heavy, for --help.

style = Style("heat", norm="figure", cmap="viridis")
page_format = PageFormat.of("slide", dpi=200)     # 13.3 in wide, its own size of type, 200 dpi
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from detr_viz.common.errors import UserError

STYLES = {
    "overlay": "the map's colour over the grey photo",
    "heat": "the map alone, cell by cell",
    "contour": "lines around 50, 80 and 95 % of the map's mass, over the untouched photo",
}
NORMS = {
    "head": "each panel on a scale of its own, from 0 to its largest weight",
    "query": "each row on one scale, from 0 to its largest weight",
    "figure": "all panels on one scale, with a colour bar",
}
HEADS = {
    "mean": "the mean of all heads",
    "max": "the largest weight of any head, cell by cell",
    "sort": "the most concentrated head of a row first (by entropy)",
}
INTERPOLATIONS = ("cubic", "linear", "nearest")
SUFFIXES = (".png", ".pdf", ".svg")  # of figures
CONTOUR_SHARES = (0.5, 0.8, 0.95)  # of a map's mass
_MAX_WIDTH_PX = 20_000  # matplotlib's limit is 2 ** 16, for either side


class FigureError(UserError):
    """A figure that cannot be drawn, written or shown."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn. FigureError for unknown names, and for options that exclude each other.

    name           one of STYLES
    norm           one of NORMS; None: head. Contours have no norm: they are shares of a map's mass
    cmap           name of a matplotlib colour map; None: inferno
    interpolation  between cell centres; None: nearest for heat, else cubic
    heads          numbers of the heads to show, in that order, or one of HEADS; None: all
    """

    name: str = "overlay"
    norm: str | None = None
    cmap: str | None = None
    interpolation: str | None = None
    heads: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("style", self.name, STYLES),
            ("norm", self.norm or "head", NORMS),
            ("interpolation", self.interpolation or "cubic", INTERPOLATIONS),
            ("heads", self.heads if isinstance(self.heads, str) else "mean", HEADS),
        ):
            if value not in known:
                raise FigureError(f"{name} {value!r} is not one of {', '.join(known)}")
        numbers = () if self.heads is None or isinstance(self.heads, str) else self.heads
        sound = isinstance(numbers, tuple) and all(type(n) is int and n >= 0 for n in numbers)
        if not sound or len(set(numbers)) < len(numbers) or self.heads == ():
            raise FigureError(f"heads {self.heads!r}: a tuple of numbers from 0, each once")
        if self.name == "contour" and self.norm is not None:
            raise FigureError(
                f"norm {self.norm!r} says nothing about contours, which hold shares of each map's "
                "own mass: leave it out, or take style overlay or heat"
            )

    @property
    def scaling(self) -> str | None:
        """The norm in force; None for contours."""
        return None if self.name == "contour" else self.norm or "head"

    @property
    def smoothing(self) -> str:
        """The interpolation in force."""
        return self.interpolation or ("nearest" if self.name == "heat" else "cubic")


DEFAULT_STYLE = Style()


@dataclass(frozen=True)
class PageFormat:
    """The page that a figure is for. Inches; `type_size` multiplies text, gaps and lines.

    height_in  the height to keep to: panels shrink for it as far as they can
    """

    width_in: float
    dpi: float
    type_size: float = 1.0
    height_in: float = math.inf

    @classmethod
    def of(
        cls, preset: str | None = None, width_in: float | None = None, dpi: float | None = None
    ) -> PageFormat:
        """The preset's format (None: the default), with another width or resolution if given."""
        if preset is not None and preset not in PRESETS:
            raise FigureError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
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


# 1541 pixels. Text of 6 to 7 pt at this width is still read when the figure is printed in a column
# (3.25 in) and is not too large across a page.
DEFAULT_PAGE_FORMAT = PageFormat(4.6, 335)
PRESETS = {
    "column": PageFormat(3.25, 600, 0.92, 8.2),  # one column of two; a caption fits under it
    "page": PageFormat(6.875, 300, 1.15, 8.2),  # both columns
    "slide": PageFormat(13.3, 150, 2.1, 7.5),  # 16:9
    "poster": PageFormat(23.4, 150, 4.2, 33.1),  # A1, upright
}
