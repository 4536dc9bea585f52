"""Distances between attention maps, head by head: pure arithmetic, in float64.

apart = distances(old, new, atol=1e-4)          # maps (q, heads, h, w)
apart.total_variation                           # (q, heads), 0 to 1
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CELLS = 1 << 22  # that are compared at a time: in float64 a few times over


@dataclass(frozen=True, eq=False)
class Distances:
    """Each field (...) has one number for each map; p and q are the maps, i the cells.

    max_abs          max_i |p_i - q_i|
    total_variation  sum_i |p_i - q_i| / 2: the mass to move from one map to the other, 0 to 1
    jensen_shannon   (KL(p || m) + KL(q || m)) / 2 in bits, m = (p + q) / 2: 0 to 1
                     (Lin 1991, IEEE Trans. Inf. Theory 37)
    peak_shift       distance of the largest cells, in cells; 0 if neither map distinguishes them
    centroid_shift   distance of the centres of mass, in cells
    """

    max_abs: NDArray[np.float64]
    total_variation: NDArray[np.float64]
    jensen_shannon: NDArray[np.float64]
    peak_shift: NDArray[np.float64]
    centroid_shift: NDArray[np.float64]


def distances(p: ArrayLike, q: ArrayLike, atol: float = 0.0) -> Distances:
    """Compare maps (..., h, w) of equal shapes, of weights that are not negative.

    atol: a map distinguishes two cells if their weights differ by more. In a flat map the largest
    cell depends only on rounding, so a shift of it has no meaning.
    ValueError if shapes differ or there is no cell.
    """
    p, q = np.asarray(p), np.asarray(q)
    if p.shape != q.shape or p.ndim < 2 or not p.shape[-1] or not p.shape[-2]:
        raise ValueError(f"maps of equal shapes (..., h, w) are needed, not {p.shape}, {q.shape}")
    if p.ndim < 3 or p.size <= _CELLS:
        return _distances(p.astype(np.float64), q.astype(np.float64), atol)
    step = max(1, _CELLS * len(p) // p.size)
    rows = [slice(start, start + step) for start in range(0, len(p), step)]
    parts = [_distances(p[r].astype(np.float64), q[r].astype(np.float64), atol) for r in rows]
    names = [field.name for field in fields(Distances)]
    return Distances(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def _distances(p: NDArray[np.float64], q: NDArray[np.float64], atol: float) -> Distances:
    change = np.abs(p - q)
    return Distances(
        max_abs=change.max((-2, -1)),
        total_variation=change.sum((-2, -1)) / 2,
        jensen_shannon=_jensen_shannon(p, q),
        peak_shift=_peak_shift(p, q, atol),
        centroid_shift=_length(_centroid(p) - _centroid(q)),
    )


def _jensen_shannon(p: NDArray, q: NDArray) -> NDArray[np.float64]:
    middle = (p + q) / 2
    total = np.zeros(p.shape[:-2])
    for part in (p, q):
        ratio = np.divide(part, middle, out=np.ones_like(part), where=part > 0)
        total += (part * np.log2(ratio)).sum((-2, -1)) / 2
    return np.maximum(total, 0)  # of equal maps rounding makes it a little less


def _peak_shift(p: NDArray, q: NDArray, atol: float) -> NDArray[np.float64]:
    flat_p, flat_q = (maps.reshape(*maps.shape[:-2], -1) for maps in (p, q))
    at_p, at_q = flat_p.argmax(-1), flat_q.argmax(-1)

    def distinct(maps: NDArray, peak: NDArray, other: NDArray) -> NDArray[np.bool_]:
        values = (np.take_along_axis(maps, at[..., None], -1)[..., 0] for at in (peak, other))
        return next(values) - next(values) > atol

    has_shift = distinct(flat_p, at_p, at_q) | distinct(flat_q, at_q, at_p)
    shifts = np.stack(np.unravel_index(at_p, p.shape[-2:]), -1) - np.stack(
        np.unravel_index(at_q, q.shape[-2:]), -1
    )
    return np.where(has_shift, _length(shifts.astype(np.float64)), 0.0)


def _centroid(maps: NDArray) -> NDArray[np.float64]:
    """(..., 2): row and column; the middle of the grid for a map of zeros."""
    mass = maps.sum((-2, -1))
    centres = []
    for axis, size in ((-1, maps.shape[-2]), (-2, maps.shape[-1])):
        weighted = (maps.sum(axis) * np.arange(size)).sum(-1)
        middle = np.full_like(mass, (size - 1) / 2)
        centres.append(np.divide(weighted, mass, out=middle, where=mass > 0))
    return np.stack(centres, -1)


def _length(shifts: NDArray) -> NDArray[np.float64]:
    return np.hypot(shifts[..., 0], shifts[..., 1])
