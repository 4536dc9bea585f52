"""Known patterns in a change of maps: heads in another order, maps mirrored, sharper, wrong sums.

likeness(old, new)                              # "heads 2 and 5 have changed places", or ""

Mistakes in a refactoring cause such changes. Each pattern is applied to the old maps, and reported
if it alone explains nine tenths of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

_LEFT = 0.1  # share of the change that may stay unexplained
_SUM = 0.01  # largest change of a map's sum
_FLOOR = 1e-12  # smallest weight before its logarithm is taken


def likeness(old: NDArray, new: NDArray, outside: tuple[NDArray, NDArray] | None = None) -> str:
    """The pattern in the change of maps (q, heads, h, w) of one mode, in words; "" if none fits.

    outside: the mass (q, heads) that falls off the old and the new maps; None if there is none.
    """
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    change = np.abs(new - old).sum()
    if not change or not np.isfinite(change):
        return ""
    off = outside or (np.zeros(old.shape[:2]), np.zeros(new.shape[:2]))
    sums = [maps.sum((-2, -1)) + mass for maps, mass in zip((old, new), off, strict=True)]
    if (np.abs(sums[1] - sums[0]) > _SUM).any():
        return "maps do not sum to what they did, as if the softmax were not over the keys"
    for pattern in (_order, _mirrored, _sharper):
        for words, expected in pattern(old, new):
            if np.abs(new - expected).sum() <= _LEFT * change:
                return words
    return ""


Patterns = Iterator[tuple[str, NDArray]]  # (words, the old maps changed by this pattern)


def _order(old: NDArray, new: NDArray) -> Patterns:
    """The best order of heads: the assignment with the least sum of absolute differences."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and most checks pass
    from scipy.spatial.distance import cdist

    flat = (np.swapaxes(maps, 0, 1).reshape(maps.shape[1], -1) for maps in (old, new))
    rows, places = linear_sum_assignment(cdist(*flat, "cityblock"))
    moved = [(int(i), int(j)) for i, j in zip(rows, places, strict=True) if i != j]
    if not moved:
        return
    expected = np.empty_like(old)
    expected[:, places] = old[:, rows]
    if len(moved) == 2:
        yield "heads {} and {} have changed places".format(*moved[0]), expected
    else:
        order = ", ".join(f"{i} is now {j}" for i, j in moved)
        yield f"heads are in another order ({order})", expected


def _mirrored(old: NDArray, new: NDArray) -> Patterns:
    flips: dict[str, Callable[[NDArray], NDArray]] = {
        "mirrored left to right": lambda maps: maps[..., ::-1],
        "upside down": lambda maps: maps[..., ::-1, :],
        "turned by 180 degrees": lambda maps: maps[..., ::-1, ::-1],
    }
    if old.shape[-2] == old.shape[-1]:
        flips["transposed, rows for columns"] = lambda maps: np.swapaxes(maps, -2, -1)
    for name, flip in flips.items():
        yield f"maps are {name}", flip(old)


def _sharper(old: NDArray, new: NDArray) -> Patterns:
    """softmax(a x) is softmax(x)^a, normalised: a by least squares over the logarithms."""
    logs = [np.log(np.maximum(maps, _FLOOR)).reshape(*maps.shape[:2], -1) for maps in (old, new)]
    x, y = (log - log.mean(-1, keepdims=True) for log in logs)
    spread = (x * x).sum()
    if not spread:
        return
    factor = float((x * y).sum() / spread)
    powers = np.exp(factor * (logs[0] - logs[0].max(-1, keepdims=True)))
    expected = (powers / powers.sum(-1, keepdims=True)).reshape(old.shape)
    yield f"as if the logits were scaled by {factor:.3g}", expected
