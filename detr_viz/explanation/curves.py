"""Deletion and insertion curves as plain data, for processes without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz.common.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(ShortRepr):
    """Scores of q queries for their own classes, at S shares of the K cells.

    queries    their ids
    layers     decoder layers in which cells are hidden from the cross-attention
    scale      of the maps, as in Explanation.maps
    shares     (S,) from 0 to 1, symmetric: 1 - share is a share too
    scores     (q,) with no cell hidden
    maps       mode -> (q, h, w) mean of the heads in the last layer; they rank the cells
    deletion   mode -> (q, S): this share of the cells, those of most weight, is hidden
    insertion  mode -> (q, S): only this share of the cells is visible
    random     (q, R, S): deletion in R random orders. Insertion in the reversed orders hides the
               same cells: it is random[..., ::-1], with the same area.
    """

    queries: tuple[int, ...]
    layers: tuple[int, ...]
    scale: str
    shares: NDArray[np.float64]  # (S,)
    scores: NDArray[np.float64]  # (q,)
    maps: Mapping[str, NDArray[np.float32]]  # (q, h, w)
    deletion: Mapping[str, NDArray[np.float64]]  # (q, S)
    insertion: Mapping[str, NDArray[np.float64]]  # (q, S)
    random: NDArray[np.float64]  # (q, R, S)


def area(
    curves: NDArray[np.float64],  # (..., S)
    shares: NDArray[np.float64],  # (S,)
) -> NDArray[np.float64]:  # (...)
    """Areas (...) under curves (..., S) over shares (S,), by the trapezoid rule."""
    return ((curves[..., 1:] + curves[..., :-1]) / 2 * np.diff(shares)).sum(-1)
