"""What panels show in place of weights of cells: queries, sampling points, other values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AttendedQueries:
    """All queries by their boxes (Q, 4), where weights (M, 1, Q) are those of queries, not cells.

    query: the one that attends; it is one of them.
    """

    query: int
    boxes_xyxy_px: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SamplePoints:
    """Points at which a query samples the image, in pixels of the photo.

    xy (M, L, P, 2); weights (M, L, P); strides: of the L levels, input pixels
    reference      where the query stands, (x, y); None: not known
    reference_box  (4,), the box about it in which its samples lie; None: it has none
    levels         numbers of the L levels, for their colours
    of_row         places of the levels that panels show, the photo shows all; None: panels too
    """

    xy: NDArray[np.float32]
    weights: NDArray[np.float32]
    strides: tuple[int, ...]
    reference: tuple[float, float] | None = None
    reference_box: NDArray[np.float32] | None = None
    levels: tuple[int, ...] = ()
    of_row: tuple[int, ...] | None = None

    @property
    def numbered(self) -> list[tuple[int, int]]:
        """(number, stride) of each level."""
        return list(zip(self.levels or range(len(self.strides)), self.strides, strict=True))


@dataclass(frozen=True, eq=False)
class BoxCells:
    """Signed shares (M, n, n) of the cells of a box for each panel.

    boxes_xyxy_px  (M, 4), pixels of the photo;  reach: the share at which colours end, either way
    """

    shares: NDArray[np.float32]
    boxes_xyxy_px: NDArray[np.float32]
    reach: float = 1.0


@dataclass(frozen=True)
class LinearScale:
    """What a key says of maps that are no attention; their values in [0, 1] are tones already.

    words  what the values are;  low, high: the values at the ends of the colours
    signs  (kind of KeySign, colour, text) of what is marked in the panels
    """

    words: str
    low: str
    high: str
    signs: tuple[tuple[str, str, str], ...] = ()
