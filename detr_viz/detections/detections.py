"""The detections of one decoder layer: scores, labels and boxes of all queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class Detections(ShortRepr):
    """Detections of all Q queries in one image.

    scores         (Q,) float32, the largest probability over the real classes
    labels         (Q,) int64, the class that has it
    boxes_xyxy_px  (Q, 4) float32, pixels of the original image
    class_scores   (Q, classes) float32
    """

    scores: NDArray[np.float32]  # (Q,)
    labels: NDArray[np.int64]  # (Q,)
    boxes_xyxy_px: NDArray[np.float32]  # (Q, 4)
    class_scores: NDArray[np.float32]  # (Q, C)
