"""What a network's heads say, as numbers of an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from detr_viz.detections import boxes
from detr_viz.explanation.results import Detections
from detr_viz.models.spec import ModelSpec


def read_output(
    raw: Mapping[str, Tensor], i: int, spec: ModelSpec, image_hw: tuple[int, int]
) -> Detections:
    """pred_logits (B, Q, L), pred_boxes (B, Q, 4) of one layer -> numbers of image i."""
    logits, box = raw["pred_logits"][i : i + 1], raw["pred_boxes"][i]
    class_scores = spec.class_probabilities(logits)[0].float().cpu().numpy()
    normalised = box.float().cpu().numpy()
    return Detections(
        scores=class_scores.max(-1),
        labels=class_scores.argmax(-1).astype(np.int64),
        boxes_xyxy_px=boxes.to_pixels(boxes.cxcywh_to_xyxy(normalised), image_hw),
        class_scores=class_scores,
    )
