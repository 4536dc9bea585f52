"""Sums over objects: what heads do. A million objects need no more memory than one.

statistics = HeadStatistics(heads=8)
statistics.add(e.maps("position", queries), frame_of(e, queries))
statistics.mean_map(), statistics.roles()
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz.atlas.box_frame import BINS, PER_BOX, ZONES, BoxFrame, zone_masks

MEANS = (
    *("entropy", "mass_in_box", "mass_on_found", "peak_in_box", "peak_to_edge"),
    *("peak_to_left", "peak_to_right", "peak_to_top", "peak_to_bottom"),
)
SEEN = 0.05  # of the objects
_SIGMAS = 1.96  # of a 95 % interval
# Bins of 1/64 of a box; the last ones at both ends also hold what lies beyond.
_PLACE_RANGE, _PLACE_BINS = (-2.0, 3.0), 320


@dataclass(frozen=True)
class HeadRole:
    """What a head does: the zone that holds most of its map for the most objects.

    share        of the objects, with its 95 % interval (Wilson 1927) from low to high
    second       the zone of the second largest share, and that share
    clear        whether the whole interval is above one half
    """

    zone: str
    share: float
    low: float
    high: float
    second: str
    second_share: float
    clear: bool


class HeadStatistics:
    """One mode (and layer) of a model, over the objects of many images.

    objects, resolved   how many were added; how many of them count for maps, zones and roles
    """

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.objects = self.resolved = 0
        self._sums = dict.fromkeys(MEANS, np.zeros(heads))
        self._squares = np.zeros(heads)  # of the entropy
        self._places = np.zeros((heads, 2, _PLACE_BINS))
        self._mass = np.zeros((heads, BINS, BINS))
        self._visible = np.zeros((BINS, BINS))
        self._zones = np.zeros((heads, len(ZONES)))
        self._votes = np.zeros((heads, len(ZONES)))
        self._masks = zone_masks()

    def add(
        self,
        maps: NDArray,
        frame: BoxFrame,
        even: bool = False,
        cells: tuple[NDArray, BoxFrame] | None = None,
    ) -> None:
        """Add maps (q, M, h, w) of q objects.

        even   every cell is the peak, in its share
        cells  the same attention as weights (q, M, n, n) of cells of boxes, and their frame: all
               that is said in coordinates of a box is taken from them; from the maps, what of them
               lies in the boxes found
        """
        weights, around = (maps, frame) if cells is None else cells
        weights = weights.astype(np.float64)
        flat, in_image = (_flat(x.astype(np.float64)) for x in (weights, maps))
        peaks = flat if even else _peaks(flat)
        tops = in_image if even else _peaks(in_image)
        logs = np.log(flat, out=np.zeros_like(flat), where=flat > 0)
        entropy = -(flat * logs).sum(-1) / max(math.log(flat.shape[-1]), 1e-9)
        of_each = {
            "entropy": entropy,
            "mass_in_box": _dot(in_image, frame.inside),
            "mass_on_found": in_image @ frame.in_any.astype(np.float64),
            "peak_in_box": _dot(tops, frame.inside),
            "peak_to_edge": _dot(peaks, around.to_edge),
        }
        sides = np.einsum("qmk,qsk->sqm", peaks, around.to_sides)
        of_each |= dict(zip(MEANS[5:], sides, strict=True))
        self.objects += len(flat)
        for name, values in of_each.items():
            self._sums[name] = self._sums[name] + values.sum(0)
        self._squares += (entropy**2).sum(0)
        self._add_places(peaks, around)
        self._add_zones(weights, around)

    def _add_places(self, peaks: NDArray, frame: BoxFrame) -> None:
        low, high = _PLACE_RANGE
        share = (frame.places - low) / (high - low)
        bins = np.clip(share * _PLACE_BINS, 0, _PLACE_BINS - 1).astype(np.intp)  # (q, 2, K)
        q, m, k = np.nonzero(peaks)
        for axis in (0, 1):
            np.add.at(self._places, (m, axis, bins[q, axis, k]), peaks[q, m, k])

    def _add_zones(self, weights: NDArray, frame: BoxFrame) -> None:
        some = frame.resolved
        if not some.any():
            return
        mass = np.einsum(
            "qby,qmyx,qcx->qmbc",
            frame.rows[some],
            weights[some],
            frame.columns[some],
            optimize=True,
        )
        zones = np.einsum("qmbc,zbc->qmz", mass, self._masks)
        zones = np.concatenate([zones, 1 - zones.sum(-1, keepdims=True)], -1)
        self.resolved += int(some.sum())
        self._mass += mass.sum(0)
        self._visible += frame.visible[some].sum(0)
        self._zones += zones.sum(0)
        np.add.at(
            self._votes, (np.arange(self.heads)[None].repeat(len(zones), 0), zones.argmax(-1)), 1
        )

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Name of MEANS, "entropy_sd" and "peak_x", "peak_y" (medians, places as in BoxFrame)
        -> (M,); NaN without objects.

        Entropy is divided by log K; distances are in cells.
        """
        count = self.objects or math.nan
        means = {name: total / count for name, total in self._sums.items()}
        spread = np.maximum(self._squares / count - means["entropy"] ** 2, 0)
        means["entropy_sd"] = np.sqrt(spread)
        for axis, name in enumerate(("peak_x", "peak_y")):
            means[name] = _medians(self._places[:, axis])
        return means

    def zones(self) -> NDArray[np.float64]:
        """Mean mass in each of ZONES, (M, 6); NaN without resolved objects."""
        return self._zones / (self.resolved or math.nan)

    def mean_map(self) -> NDArray[np.float64]:
        """(M, BINS, BINS): mean attention in each bin, over the objects that have it in the image.

        Unit: share of a map per area of the box; 1 everywhere in the box is all attention, evenly
        spread over it. NaN where fewer than SEEN of the objects have the bin in the image: the mean
        of so few would not compare.
        """
        enough = self._visible > SEEN * max(self.resolved, 1)
        visible = np.where(enough, self._visible, np.nan)
        return self._mass * PER_BOX**2 / visible

    def roles(self) -> list[HeadRole | None]:
        """What each head does; None without resolved objects."""
        return [self._role(votes) for votes in self._votes]

    def _role(self, votes: NDArray) -> HeadRole | None:
        if not self.resolved:
            return None
        first, second = np.argsort(-votes, kind="stable")[:2]
        low, high = interval(votes[first], self.resolved)
        return HeadRole(
            zone=ZONES[first],
            share=votes[first] / self.resolved,
            low=low,
            high=high,
            second=ZONES[second],
            second_share=votes[second] / self.resolved,
            clear=low > 0.5,
        )


def _flat(weights: NDArray) -> NDArray:
    """(q, M, h, w) -> (q, M, K)."""
    return weights.reshape(*weights.shape[:2], -1)


def _peaks(flat: NDArray) -> NDArray:
    """1 at the first largest of K, else 0: (q, M, K)."""
    peaks = np.zeros_like(flat)
    np.put_along_axis(peaks, flat.argmax(-1)[..., None], 1, -1)
    return peaks


def _dot(weights: NDArray, values: NDArray) -> NDArray:
    """(q, M, K), (q, K) -> (q, M)."""
    return np.einsum("qmk,qk->qm", weights, values.astype(np.float64))


def _medians(counts: NDArray) -> NDArray[np.float64]:
    """Medians of histograms (M, bins) over _PLACE_RANGE; NaN of empty histograms."""
    below = counts.cumsum(-1)
    total = below[:, -1:]
    at = (below >= total / 2).argmax(-1)
    low, high = _PLACE_RANGE
    middles = low + (at + 0.5) * (high - low) / counts.shape[-1]
    return np.where(total[:, 0] > 0, middles, np.nan)


def interval(hits: float, trials: int) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 %. Wilson (1927), JASA 22."""
    share, z2 = hits / trials, _SIGMAS**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _SIGMAS / (1 + z2 / trials)
    half *= math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
