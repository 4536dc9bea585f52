"""Deletion and insertion curves as plain data, for processes without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """The score that each of q queries gives its class, over S shares of the K cells.

    queries    their ids
    layers     decoder layers in whose cross-attention cells are hidden
    scale      that of the maps, as of Explanation.maps
    shares     (S,) from 0 to 1, the same counted from either end
    scores     (q,) as it is, with no cell hidden
    maps       mode -> (q, h, w) mean of the heads in the last layer, by which cells are ranked
    deletion   mode -> (q, S): the cells of most weight, so many, are hidden
    insertion  mode -> (q, S): they alone are seen
    random     (q, R, S): deletion in R random orders. Insertion in the same orders from their ends
               hides the same cells: random[..., ::-1]. The area is one.
    """

    queries: tuple[int, ...]
    layers: tuple[int, ...]
    scale: str
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]
    maps: Mapping[str, NDArray[np.float32]]
    deletion: Mapping[str, NDArray[np.float64]]
    insertion: Mapping[str, NDArray[np.float64]]
    random: NDArray[np.float64]


def area(curves: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Under curves (..., S) over shares (S,), by the trapezoid rule: (...)."""
    return ((curves[..., 1:] + curves[..., :-1]) / 2 * np.diff(shares)).sum(-1)
