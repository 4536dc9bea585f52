"""The difference between a run in another precision and the same run in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from detr_viz.explanation.stored import StoredExplanation


def deviation(exact: Sequence[StoredExplanation], other: Sequence[StoredExplanation]) -> float:
    """The largest difference of a weight in all stored arrays of the same models; 0 of nothing."""
    pairs = [
        pair
        for one, two in zip(exact, other, strict=True)
        for pair in zip(_arrays(one), _arrays(two), strict=True)
    ]
    return max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0)


def _arrays(stored: StoredExplanation) -> Iterator[NDArray[np.float32]]:
    for levels in stored.stored.values():
        yield from levels
    yield from stored.attended.values()


def deviation_note(precision: str, difference: float, subject: str = "attention weights") -> str:
    """The difference between another precision and float32, as a line to print."""
    return f"note: {precision} moves {subject} by up to {difference:.2g} from float32's"
