"""How far a quicker and less exact run lies from the same run in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.explanation.stored import StoredExplanation


def deviation(exact: Sequence[StoredExplanation], found: Sequence[StoredExplanation]) -> float:
    """The largest difference of a weight, of all that was kept of the same models; 0 of nothing."""
    apart = [0.0]
    for one, other in zip(exact, found, strict=True):
        for name in ("stored", "attended"):
            known = getattr(one, name)
            apart += [
                float(np.abs(known[key] - array).max())
                for key, array in getattr(other, name).items()
                if array.size
            ]
    return max(apart)


def moved(precision: str, apart: float, what: str = "attention weights") -> str:
    """How far another precision is from float32, as a line to print."""
    return f"note: {precision} moves {what} by up to {apart:.2g} from float32's"
