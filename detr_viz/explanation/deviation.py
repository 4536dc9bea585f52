"""The difference between a run in another precision and the same run in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.explanation.stored import StoredExplanation


def deviation(exact: Sequence[StoredExplanation], other: Sequence[StoredExplanation]) -> float:
    """The largest difference of a stored weight, model by model; 0 if nothing is stored."""
    differences = [0.0]
    for in_float32, in_precision in zip(exact, other, strict=True):
        for name in ("stored", "attended"):
            arrays = getattr(in_float32, name)
            differences += [
                float(np.abs(arrays[key] - array).max())
                for key, array in getattr(in_precision, name).items()
                if array.size
            ]
    return max(differences)


def deviation_note(precision: str, difference: float, subject: str = "attention weights") -> str:
    """The difference between another precision and float32, as a line to print."""
    return f"note: {precision} moves {subject} by up to {difference:.2g} from float32's"
