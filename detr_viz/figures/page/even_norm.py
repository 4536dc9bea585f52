"""The scale of times an even spread as a norm of matplotlib, for colour bars."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import FuncNorm
from numpy.typing import ArrayLike, NDArray

from detr_viz.figures.page.scale import MOST, even_times, even_tone


def _tones(times: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(times, np.float64)
    return even_tone(np.atleast_1d(values)).reshape(values.shape)


class EvenNorm(FuncNorm):
    """Times an even spread, 1 to 256 -> tones in [0, 1]."""

    def __init__(self) -> None:
        super().__init__((_tones, even_times), 1, MOST)

    def autoscale_None(self, A: ArrayLike | None) -> None:
        """Both ends are known. The pixels of the image, which a colour bar offers, are no times."""
