"""The limits up to which maps count as the same. Imports nothing heavy, for --help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The largest differences that still count as the same.

    atol       of a weight
    max_tv     total variation of a map, 0 to 1
    max_shift  of a map's peak and of its centre of mass, cells
    min_iou    smallest overlap of a query's boxes
    max_score  of a query's score
    """

    atol: float
    max_tv: float
    max_shift: float
    min_iou: float
    max_score: float


_COARSE = ("tf32", "bfloat16")  # precisions
# tests/benchmarks/noise.py measures the noise (README, "Maps as tests"). EXACT is more than twenty
# times the noise, and less than the effect of a 1 % change of a projection. COARSE is less than
# twice the noise.
EXACT = Limits(atol=5e-4, max_tv=2e-3, max_shift=0.5, min_iou=0.99, max_score=1e-3)
COARSE = Limits(atol=0.15, max_tv=0.25, max_shift=2.5, min_iou=0.95, max_score=0.25)


def between(old: Mapping[str, Any], new: Mapping[str, Any], **own: float) -> Limits:
    """The limits for the less exact of two files, by their metas; `own` replaces single limits.

    TypeError for an `own` that is not a field of Limits.
    """
    coarse = any(meta.get("precision") in _COARSE for meta in (old, new))
    return replace(COARSE if coarse else EXACT, **own)


def of_run(precision: str, **own: float) -> Limits:
    """The limits for maps that were computed now, whatever the saved file says of itself."""
    return replace(COARSE if precision in _COARSE else EXACT, **own)
