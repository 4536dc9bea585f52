"""How far apart maps are still the same. Imports nothing heavy, for --help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The largest differences that are no difference.

    atol       of a weight
    max_tv     total variation of a map, 0 to 1
    max_shift  of a map's peak and of its centre of mass, cells
    min_iou    smallest overlap of a query's boxes
    """

    atol: float = 1e-3
    max_tv: float = 0.01
    max_shift: float = 0.5
    min_iou: float = 0.98


DEFAULT = Limits()
