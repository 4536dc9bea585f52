"""The atlas of one model: a tally a mode and layer, and two of maps that know nothing, as a table.

book = Book("DETR (detr_demo.pth)", ["combine"], layers=[5], heads=8, scale="mode")
book.add(e, queries)                            # of each image
book.rows()                                     # texts, for the columns COLUMNS
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from detr_viz.atlas.box_frame import ZONES, surroundings
from detr_viz.atlas.statistics import MEANS, HeadRole, HeadStatistics
from detr_viz.explanation.results import ExplanationBase

EVEN, IN_BOX = "even over the image", "even in the box"  # what chance does
_MEASURED = ("entropy", "entropy_sd", *MEANS[1:], "peak_x", "peak_y")
_KIND = ("kind", "share", "share_low", "share_high", "second", "second_share", "clear")
COLUMNS = (
    *("model", "layer", "mode", "head", "objects", "objects_resolved"),
    *_KIND,
    *_MEASURED,
    *(f"mass_{zone}" for zone in ZONES),
)


class AtlasTable:
    """Tallies by (layer, mode), and of two maps to compare with: of the same objects, EVEN over
    the image and even IN_BOX, on the cells whose centres it holds (objects without are left out).

    images: how many were added, those without an object too. made_of: weights and queries in words,
    for the figure's metadata.
    """

    def __init__(
        self,
        name: str,
        modes: Sequence[str],
        layers: Sequence[int],
        heads: int,
        scale: str,
        made_of: str = "",
    ) -> None:
        self.name, self.scale, self.made_of, self.images = name, scale, made_of, 0
        self.tallies = {(layer, mode): HeadStatistics(heads) for layer in layers for mode in modes}
        self.chance = {EVEN: HeadStatistics(1), IN_BOX: HeadStatistics(1)}

    @property
    def objects(self) -> int:
        return self.chance[EVEN].objects

    def add(self, e: ExplanationBase, queries: Sequence[int]) -> None:
        """The maps of some queries of an image; those whose box is not finite are left out."""
        self.images += 1
        sound = [q for q in queries if np.isfinite(e.boxes_xyxy_px[q]).all()]
        if not sound:
            return
        around = surroundings(e, sound)
        for (layer, mode), tally in self.tallies.items():
            tally.add(e.maps(mode, sound, layer, self.scale), around)
        inside = around.inside.astype(np.float64)
        even = np.full_like(inside, 1 / inside.shape[1])
        self.chance[EVEN].add(even.reshape(-1, 1, *e.grid_hw), around, even=True)
        some = around.inside.any(1)
        if some.any():
            within = inside[some] / inside[some].sum(1, keepdims=True)
            within = within.reshape(-1, 1, *e.grid_hw)
            self.chance[IN_BOX].add(within, around.of(some), even=True)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row a head, one of the mean of all heads, then what chance does."""
        for (layer, mode), tally in self.tallies.items():
            yield from self._of(tally, str(layer), mode)
        for mode, tally in self.chance.items():
            yield from self._of(tally, "", mode)

    def _of(self, tally: HeadStatistics, layer: str, mode: str) -> Iterator[tuple[str, ...]]:
        means, zones, kinds = tally.means(), tally.zones(), tally.kinds()
        about = (self.name, layer, mode)
        counts = (str(tally.objects), str(tally.resolved))
        for head in range(tally.heads):
            numbers = [*(means[name][head] for name in _MEASURED), *zones[head]]
            number = str(head) if tally.heads > 1 else ""
            said = _words(kinds[head])
            yield (*about, number, *counts, *said, *map(_text, numbers))
        if tally.heads > 1:
            numbers = [*(means[name].mean() for name in _MEASURED), *zones.mean(0)]
            yield (*about, "mean", *counts, *_words(None), *map(_text, numbers))


def _words(kind: HeadRole | None) -> tuple[str, ...]:
    if kind is None:
        return ("",) * len(_KIND)
    shares = map(_text, (kind.share, kind.low, kind.high))
    return (
        kind.zone,
        *shares,
        kind.second,
        _text(kind.second_share),
        "yes" if kind.clear else "no",
    )


def _text(value: float) -> str:
    """Four digits; nothing where there is no number."""
    return f"{value:.4g}" if np.isfinite(value) else ""
