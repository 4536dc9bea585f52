"""Where queries, or cells of the encoder, sample the image, in pixels of the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.labels import finite
from detr_viz.figures.page.shown import SamplePoints
from detr_viz.figures.page.text import clean
from detr_viz.figures.styles import FigureError, Style, check_samples

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.figures.reading_rule import ShownModel


def sample_points(
    subject: ShownModel, mode: str, queries: Sequence[int], layer: int, style: Style
) -> list[SamplePoints]:
    """The sampling points of queries in pixels of the photo; FigureError where there are none."""
    e = subject.explanation
    samples = e.samples(mode, queries, layer)
    check_samples(style, subject.name, samples is not None, subject.explanation.stages)
    xy, weights = samples
    grids, photo_hw = e.grids(layer), e.image.rgb.shape[:2]
    # xy is in [0, 1] of each level's whole input, padding included
    scale = np.array(
        [[grid.input_hw[k] / grid.shown_hw[k] * photo_hw[k] for k in (1, 0)] for grid in grids]
    )
    strides = tuple(grid.stride for grid in grids)
    references = e.layer_references.get(layer, e.reference_px)
    boxes = e.reference_boxes.get(layer)
    return [
        SamplePoints(
            np.asarray(xy[i] * scale[:, None], np.float32),
            weights[i],
            strides,
            None if references is None else tuple(map(float, references[query])),
            None if boxes is None else finite(boxes[query]),
        )
        for i, query in enumerate(queries)
    ]


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
