"""Colours of a figure: those of classes, and those of the values of maps."""

from __future__ import annotations

import difflib

import numpy as np

from detr_viz.figures.styles import FigureError, Style

# Okabe and Ito (2008), distinct with any colour vision. A class has its colour in every figure.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
BLUE, VERMILION = PALETTE[:2]


def colors(style: Style) -> np.ndarray:
    """256 colours of the style's colour map, (256, 3) uint8.

    Without a name it is inferno. Where that lies over a photo, its near-black end is left out: it
    would draw dark rims around what is attended. FigureError for a map that matplotlib does not
    have.
    """
    import matplotlib

    start = 0.0 if style.cmap is not None or style.name == "heat" else 0.18
    name = "inferno" if style.cmap is None else style.cmap
    if name not in matplotlib.colormaps:
        raise FigureError(f"no colour map {name!r}: try {_near(name)}")
    return matplotlib.colormaps[name](np.linspace(start, 1, 256), bytes=True)[:, :3]


def signed_colors(over_photo: bool) -> np.ndarray:
    """256 colours for values of both signs, blue below 0 and red above, (256, 3) uint8.

    Over a photo both ends are light, because the ground is dark; opacity makes them fade.
    """
    import matplotlib

    if not over_photo:
        return matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256), bytes=True)[:, :3]
    ends = np.array([[86, 180, 255], [255, 120, 60]], np.float64)
    return ends[(np.arange(256) > 127).astype(int)].astype(np.uint8)


def _near(name: str) -> str:
    """Names of colour maps similar to this one; without any, some good ones."""
    import matplotlib

    known = {other.casefold(): other for other in matplotlib.colormaps}
    near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.75)
    return ", ".join(known[n] for n in near) or "inferno, magma, viridis or cividis"
