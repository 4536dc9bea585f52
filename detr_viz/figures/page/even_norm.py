"""The scale of times an even spread as a norm of matplotlib, for colour bars."""

from __future__ import annotations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import FuncNorm
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from detr_viz.figures.page.scale import EVEN_TICKS, MOST, even_times, even_tone


def _tones(times: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(times, np.float64)
    return even_tone(np.atleast_1d(values)).reshape(values.shape)


def _set_ticks(axis: Axis) -> None:
    axis.set_major_locator(FixedLocator([1, *EVEN_TICKS, MOST]))
    axis.set_major_formatter(FormatStrFormatter("\N{MULTIPLICATION SIGN}%d"))
    axis.set_minor_locator(NullLocator())


class EvenNorm(FuncNorm):
    """Times an even spread, 1 to 256 -> tones in [0, 1]. A colour bar has ticks at powers of 4."""

    def __init__(self) -> None:
        super().__init__((_tones, even_times), 1, MOST)
        if hasattr(self, "_scale"):  # where matplotlib asks for the ticks of a colour bar
            self._scale.set_default_locators_and_formatters = _set_ticks

    def autoscale_None(self, A: ArrayLike | None) -> None:
        """Both ends are known. The pixels of the image, which a colour bar offers, are no times."""
