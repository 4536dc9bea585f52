"""The points at which cells of the encoder sample the image, in pixels of the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.elements import SamplePoints
from detr_viz.figures.page.text import clean
from detr_viz.figures.styles import FigureError

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation


def site_samples(
    e: Explanation | StoredExplanation,
    site: tuple[str, int],
    mode: str,
    cells: Sequence[int],
    marks: Sequence[tuple[float, float]],
) -> list[SamplePoints]:
    """The points of these cells of a site; marks: where each cell lies, pixels of the photo.

    FigureError where the site takes no samples.
    """
    samples = e.samples_at(site, mode, cells)
    if samples is None:
        raise FigureError(
            f"style points shows where heads sample the image, and the {site[0]} of "
            f"{clean(e.model_title)} attends to all of it: take overlay, heat or contour"
        )
    grids, photo_hw = e.grids(), e.image.rgb.shape[:2]
    # points are in [0, 1] of each level's whole input, padding included
    scale = [[grid.input_hw[k] / grid.shown_hw[k] * photo_hw[k] for k in (1, 0)] for grid in grids]
    strides = tuple(grid.stride for grid in grids)
    return [
        SamplePoints(np.asarray(xy * np.array(scale)[:, None], np.float32), weight, strides, mark)
        for xy, weight, mark in zip(*samples, marks, strict=True)
    ]
