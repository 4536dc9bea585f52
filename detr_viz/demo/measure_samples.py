"""Samples and references in numbers, over the held-out scenes and matched queries of measure.py.

samples in box   share of a head's sampling points that lie in the predicted box
weight in box    share of their weight
level l          share of the weight on each level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from detr_viz.attention.grids import on_finest
from detr_viz.attention.sampled import SampledAttention
from detr_viz.detections import boxes
from detr_viz.explanation.captured import Explanation

BOX_ALONE = "reference alone"  # only the biases place and weight the samples


def alone(e: Explanation) -> SampledAttention | None:
    """The last cross-attention as its references and biases alone give it; None: it is dense.

    What lies in the box then says how the network places its samples, not what it sees: at a
    training's first values all lie in a reference box.
    """
    attention = e.attention_at(("cross", e.layers[-1]))
    if not isinstance(attention, SampledAttention):
        return None
    names = ("c_logits", "p_logits", "c_offsets", "p_offsets")
    return replace(attention, **{n: torch.zeros_like(getattr(attention, n)) for n in names})


def maps_alone(e: Explanation, attention: SampledAttention, queries: Sequence[int]) -> NDArray:
    """Its maps on the finest grid, (q, heads, h, w)."""
    weights = attention.weights("combine", list(queries)).transpose(0, 1)
    parts = weights.split([h * w for h, w in attention.shapes], -1)
    levels = [p.unflatten(-1, hw).numpy() for p, hw in zip(parts, attention.shapes, strict=True)]
    return on_finest(tuple(levels), e.grids())


def sample_columns(xy: NDArray, weights: NDArray, corners: NDArray) -> NDArray:
    """Samples xy (q, M, L, P, 2) and boxes (q, 4) in [0, 1] of the image -> (q, M, 2 + L)."""
    low, high = (corners[:, None, None, None, k : k + 2] for k in (0, 2))
    inside = ((xy >= low) & (xy <= high)).all(-1)
    total = weights.sum((2, 3))
    return np.concatenate(
        [
            inside.mean((2, 3))[..., None],
            ((weights * inside).sum((2, 3)) / total)[..., None],
            weights.sum(3) / total[..., None],
        ],
        -1,
    )


@dataclass
class Samples:
    """Rows of `sample_columns` by mode, gathered scene by scene."""

    rows: dict[str, list[NDArray]] = field(default_factory=dict)

    def add(self, e: Explanation, queries: Sequence[int]) -> None:
        """The samples of these queries in all modes; nothing of dense attention."""
        attention = alone(e)
        if attention is None:
            return
        h, w = e.image.hw
        corners = e.boxes_xyxy_px[list(queries)] / np.array([w, h, w, h])
        found = {mode: e.samples(mode, queries) for mode in e.modes}
        found[BOX_ALONE] = tuple(x.numpy() for x in attention.samples("combine", list(queries)))
        for label, (xy, weights) in found.items():
            self.rows.setdefault(label, []).append(sample_columns(xy, weights, corners))

    def lines(self) -> list[str]:
        """A table in Markdown; [] if there were no samples."""
        if not self.rows:
            return []
        joined = {label: np.concatenate(parts) for label, parts in self.rows.items()}
        levels = next(iter(joined.values())).shape[-1] - 2
        names = ["samples in box", "weight in box", *(f"level {n}" for n in range(levels))]
        lines = ["", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for label, rows in joined.items():
            cells = " | ".join(f"{value:.2f}" for value in rows.mean((0, 1)))
            lines.append(f"| {label} | {cells} |")
        return lines


@dataclass
class References:
    """How near the references of matched queries are to their boxes, gathered scene by scene."""

    rows: dict[str, list[NDArray]] = field(default_factory=dict)

    def add(self, e: Explanation, queries: Sequence[int]) -> None:
        """Before the decoder, and as they enter the last layer if they move."""
        chosen = list(queries)
        predicted, last = e.boxes_xyxy_px[chosen], e.layers[-1]
        if e.reference_px is not None:
            before = e.reference_boxes.get(0) if last == 0 else None
            self._add("before the decoder", e.reference_px[chosen], before, predicted, chosen)
        if last and last in e.layer_references:
            points, around = e.layer_references[last][chosen], e.reference_boxes.get(last)
            self._add("into the last layer", points, around, predicted, chosen)

    def _add(
        self,
        label: str,
        points: NDArray,
        around: NDArray | None,
        predicted: NDArray,
        chosen: Sequence[int],
    ) -> None:
        centre = (predicted[:, :2] + predicted[:, 2:]) / 2
        half = np.maximum(predicted[:, 2:] - predicted[:, :2], 1e-6) / 2
        off = np.abs(points - centre) / half
        overlap = np.full(len(points), np.nan)
        if around is not None:
            overlap = np.diag(boxes.iou(around[list(chosen)], predicted))
        columns = (np.linalg.norm(off, axis=-1), (off <= 1).all(-1), overlap)
        self.rows.setdefault(label, []).append(np.stack(columns, -1))

    def lines(self) -> list[str]:
        """A table in Markdown; [] if no query has a reference."""
        if not self.rows:
            return []
        names = ("distance to the box's centre, half sizes", "in the box", "IoU with the box")
        lines = ["", "| reference | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for label, parts in self.rows.items():
            values = np.concatenate(parts).mean(0)
            cells = " | ".join("-" if np.isnan(v) else f"{v:.2f}" for v in values)
            lines.append(f"| {label} | {cells} |")
        return lines
