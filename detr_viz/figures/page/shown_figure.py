"""The Figure of a page: a matplotlib Figure that a notebook shows as one picture.

matplotlib's own Figure shows itself only after pyplot has been imported. In a script nothing is
shown. This module imports matplotlib: import it inside functions.
"""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from detr_viz.figures.page.print_files import pixels_of

_SCREEN_PX = 2 * 96  # for an inch of the page: twice its printed size, to read type of 5 pt


class PageFigure(Figure):
    """A Figure whose last line in a cell shows it."""

    def __repr__(self) -> str:
        size, dpi = self.get_size_inches(), self.dpi
        wide, high = (int(side * dpi) for side in size)
        return f"<PageFigure, {wide} x {high} px, {size[0]:.3g} x {size[1]:.3g} in>"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG, and the width and height at which a page of a browser shows it."""
        return png_of(self), dict(zip(("width", "height"), screen_size(self), strict=True))


def png_of(fig: Figure, colors: int | None = None) -> bytes:
    """A figure as PNG; with so many colours, at most 256, if a number is given (a third of it)."""
    from PIL import Image

    page = Image.fromarray(pixels_of(fig)[0])
    if colors is not None:
        page = page.quantize(colors, kmeans=1, dither=Image.Dither.NONE)
    file = BytesIO()
    page.save(file, "png", optimize=True)
    return file.getvalue()


def screen_size(fig: Figure) -> tuple[int, int]:
    """(width, height) in pixels of a browser; never more than the figure has."""
    factor = min(_SCREEN_PX, fig.dpi)
    return round(fig.get_figwidth() * factor), round(fig.get_figheight() * factor)
