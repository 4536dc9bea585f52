"""How far apart maps are still the same. Imports nothing heavy, for --help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The largest differences that are no difference.

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


# All that tests/benchmarks/noise.py measures is below (README, "Maps as tests"): EXACT is more than
# twenty times that, and less than what 1 % of a projection does; COARSE is less than twice.
EXACT = Limits(atol=5e-4, max_tv=2e-3, max_shift=0.5, min_iou=0.99, max_score=1e-3)
COARSE = Limits(atol=0.15, max_tv=0.25, max_shift=2.5, min_iou=0.95, max_score=0.25)


def between(old: Mapping[str, Any], new: Mapping[str, Any], **own: float) -> Limits:
    """Those for the less exact of two files, as their metas say; `own` instead where given.

    TypeError for an `own` that is no limit.
    """
    coarse = any(meta.get("precision") in ("tf32", "bfloat16") for meta in (old, new))
    return replace(COARSE if coarse else EXACT, **own)
