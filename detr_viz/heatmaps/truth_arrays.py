"""The annotated objects of an image as arrays of a file; schema.TRUTH names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detr_viz.detections.mistakes import Truth


def truth_arrays(truth: Truth | None) -> dict[str, NDArray[Any]]:
    """(n, 4) boxes in pixels, (n,) labels of a model, names and crowds; {} without a file."""
    if truth is None:
        return {}
    return {
        "truth_boxes_xyxy_px": np.asarray(truth.boxes_xyxy_px, np.float64).reshape(-1, 4),
        "truth_labels": np.asarray(truth.labels, np.int64),
        "truth_names": np.asarray(truth.names, np.str_),
        "truth_crowd": np.asarray(truth.crowd, np.bool_),
    }
