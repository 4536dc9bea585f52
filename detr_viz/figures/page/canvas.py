"""A sheet of pixels as a matplotlib Figure, and lines of text on it.

fig, ax = figure_of(sheet, 335)                 # the axes are in the sheet's pixels, y down
write(ax, lines, 335)

No pyplot, no rcParams: a figure looks the same whatever a user has configured, and matplotlib is
imported when one is drawn, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import TextLine
from detr_viz.figures.page.text import Lettering, plain_settings
from detr_viz.figures.styles import PageFormat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_STRIP_PX = 1024


@plain_settings()
def figure_of(sheet: np.ndarray, dpi: float) -> tuple[Figure, Axes]:
    """A figure of these pixels (height, width, 4) uint8, and its only axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from detr_viz.figures.page.shown_figure import PageFigure

    # matplotlib cuts inches * dpi down to whole pixels: a hair more keeps the last one
    high, wide = (side + 1e-3 for side in sheet.shape[:2])
    fig = PageFigure(figsize=(wide / dpi, high / dpi), dpi=dpi, facecolor="white", layout="none")
    FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    _add_pixels(ax, sheet)
    ax.set_xlim(0, wide)
    ax.set_ylim(high, 0)
    return fig, ax


def _add_pixels(ax: Axes, sheet: np.ndarray) -> None:
    """The sheet as one image. On a canvas of the same size its pixels are copied unchanged."""
    height, width = sheet.shape[:2]
    image = _pixels_class()(
        ax,
        interpolation="none",
        resample=False,
        origin="upper",
        extent=(0, width, height, 0),
    )
    image.set_data(sheet)
    ax.add_image(image)


@cache
def _pixels_class() -> type[AxesImage]:
    """An AxesImage that copies its pixels where the canvas has their size.

    matplotlib would resample it, with float arrays of many times its size. The class is made once:
    for each class of artists matplotlib writes documentation.
    """
    from matplotlib.image import AxesImage

    class Pixels(AxesImage):
        def set_data(self, A: np.ndarray) -> None:
            # matplotlib's own looks for what is not finite, in a copy: there is nothing in bytes
            self._A = A
            self.stale = True

        def draw(self, renderer) -> None:
            sheet = self._A
            height, width = sheet.shape[:2]
            canvas = getattr(renderer, "height", 0), getattr(renderer, "width", 0)
            if renderer.option_scale_image() or tuple(map(int, canvas)) != (height, width):
                super().draw(renderer)
            elif self.get_visible():
                graphics = renderer.new_gc()
                for top in range(0, height, _STRIP_PX):  # agg copies what it is given
                    strip = sheet[top : top + _STRIP_PX]
                    y = height - top - len(strip)
                    renderer.draw_image(graphics, 0, y, strip[::-1])
                graphics.restore()
                self.stale = False

    return Pixels


@plain_settings()
def write(ax: Axes, lines: Sequence[TextLine], dpi: float, font: str = "sans") -> None:
    """Lines of text at their positions, over everything else; turned ones run upwards.

    The x of a turned line is where its baseline stands, and its baseline the height of its middle.
    """
    from matplotlib.transforms import TransformedPatchPath

    pen = Lettering(dpi, font)
    whole = TransformedPatchPath(ax.patch)  # of all: each would make its own, and none is clipped
    for line in lines:
        ax.text(
            line.x,
            line.baseline,
            line.text,
            fontproperties=pen.properties(line.text, line.size_pt, line.style),
            parse_math=False,
            usetex=False,
            color=line.color,
            horizontalalignment="right" if line.turned else line.align,
            verticalalignment="center" if line.turned else "baseline",
            rotation=90 if line.turned else 0,
            zorder=6,
            clip_path=whole,
        )


def warn_if_high(
    fig: Figure,
    page_format: PageFormat,
    above: int = 1,
    way_out: str = "choose fewer queries, or one mode",
) -> None:
    """Warn of a figure higher than its format; above: the caller whose line the warning names."""
    # in whole pixels, as it is laid out
    high = int(fig.get_figheight() * page_format.dpi) / page_format.dpi
    if high > page_format.height_in:
        warnings.warn(
            f"the figure is {high:.1f} in high, more than the {page_format.height_in:g} in "
            f"there is room for: {way_out}",
            stacklevel=2 + above,
        )
