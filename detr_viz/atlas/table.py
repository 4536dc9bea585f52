"""The atlas of one model as a table: statistics of each mode and layer, and of two even maps.

table = AtlasTable("DETR (detr_demo.pth)", ["combine"], layers=[5], heads=8, scale="mode")
table.add(e, queries)                           # of each image
table.rows()                                    # texts, for the columns table.columns
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np

from detr_viz.atlas.box_frame import ZONES, BoxFrame, cell_frame, frame_of
from detr_viz.atlas.cell_shares import CellShares, positive_parts
from detr_viz.atlas.levels import SIZES, LevelShares, level_weights, sizes_of
from detr_viz.atlas.statistics import MEANS, HeadRole, HeadStatistics
from detr_viz.common.short_repr import folded
from detr_viz.explanation.results import ExplanationBase

EVEN, IN_BOX = "even over the image", "even in the box"  # maps to compare with
_MEASURED = ("entropy", "entropy_sd", *MEANS[1:], "peak_x", "peak_y")
_ROLE = ("kind", "share", "share_low", "share_high", "second", "second_share", "clear")
_ZERO = 1e-12
COLUMNS = (
    *("model", "layer", "mode", "head", "objects", "objects_resolved"),
    *_ROLE,
    *_MEASURED,
    *(f"mass_{zone}" for zone in ZONES),
)


class AtlasTable:
    """Statistics of the maps of one model, and of two even maps of the same objects.

    statistics  by (layer, mode)
    levels      the same, of detectors with several levels: how much of the maps lies on each
    cells       by layer, of attention that reads cells of boxes: their shares. All that is said in
                coordinates of a box is taken from them, and means the box that enters the layer
    chance      of EVEN, an even map over the image, and of IN_BOX, an even map over the cells whose
                centres the box holds (objects without such a cell do not count)
    images      how many were added, including those without an object
    source      weights and queries in words, for the figure's metadata
    noun        what a layer is called: "layer" or "stage"
    """

    def __init__(
        self,
        name: str,
        modes: Sequence[str],
        layers: Sequence[int],
        heads: int,
        scale: str,
        source: str = "",
        noun: str = "layer",
    ) -> None:
        self.name, self.scale, self.source, self.images = name, scale, source, 0
        self.noun = noun
        self.statistics = {
            (layer, mode): HeadStatistics(heads) for layer in layers for mode in modes
        }
        self.levels: dict[tuple[int, str], LevelShares] = {}
        self.cells: dict[int, CellShares] = {}
        self.chance = {EVEN: HeadStatistics(1), IN_BOX: HeadStatistics(1)}

    def __repr__(self) -> str:
        rows = ", ".join(f"{self.noun} {layer} {mode}" for layer, mode in self.statistics)
        return folded(
            f"AtlasTable {self.name}: {self.objects} objects of {self.images} images, "
            f"scale {self.scale}, {len(self.statistics)} tables ({rows})"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        return (*COLUMNS, *self._level_columns, *self._cell_columns)

    @property
    def _level_columns(self) -> tuple[str, ...]:
        if not self.levels:
            return ()
        names = [f"level_{level}" for level in range(self._num_levels)]
        by_size = [f"{name}_{size}" for size in SIZES for name in names]
        return (*(f"objects_{size}" for size in SIZES), *names, *by_size)

    @property
    def _cell_columns(self) -> tuple[str, ...]:
        """Signed shares, cell_<row>_<column> from the top left, and the bias's."""
        if not self.cells:
            return ()
        side = range(next(iter(self.cells.values())).side)
        return (*(f"cell_{row}_{column}" for row in side for column in side), "bias_share")

    @property
    def _num_levels(self) -> int:
        return next(iter(self.levels.values())).means().shape[-1]

    @property
    def of_stages(self) -> bool:
        """Whether layers are stages, each of which reads the cells of one box a query."""
        return self.noun == "stage"

    @property
    def objects(self) -> int:
        return self.chance[EVEN].objects

    def add(self, e: ExplanationBase, queries: Sequence[int]) -> None:
        """The maps of some queries of an image; those whose box is not finite are left out."""
        self.images += 1
        sound = [q for q in queries if np.isfinite(e.boxes_xyxy_px[q]).all()]
        if not sound:
            return
        frame = frame_of(e, sound)
        for (layer, mode), statistics in self.statistics.items():
            self._add_maps(statistics, e, mode, sound, layer, frame)
            weights = level_weights(e, mode, sound, layer)
            if weights is not None:
                shares = self.levels.setdefault((layer, mode), LevelShares(*weights.shape[1:]))
                shares.add(weights, sizes_of(e.boxes_xyxy_px[sound]))
        self._add_chance(e, sound, frame)

    def _add_maps(
        self,
        statistics: HeadStatistics,
        e: ExplanationBase,
        mode: str,
        queries: list[int],
        layer: int,
        frame: BoxFrame,
    ) -> None:
        """Maps of one layer; where it reads cells of boxes, their shares as well.

        Without a positive cell an object has no map: it does not count in that layer.
        """
        maps, cells = e.maps(mode, queries, layer, self.scale), e.cells(queries, layer)
        if cells is None:
            statistics.add(maps, frame)
            return
        share, boxes, bias_share = cells
        positive, around = positive_parts(share), cell_frame(e, boxes, share.shape[-1])
        some = positive.sum((1, 2, 3)) > 0
        statistics.add(maps[some], frame.of(some), cells=(positive[some], around.of(some)))
        shares = self.cells.setdefault(layer, CellShares(share.shape[-1]))
        shares.add(share, bias_share, positive, around.resolved & some)

    def _add_chance(self, e: ExplanationBase, queries: list[int], frame: BoxFrame) -> None:
        """The even maps; in coordinates of a box, of attention to its cells, even cells."""
        inside = frame.inside.astype(np.float64)
        even = np.full_like(inside, 1 / inside.shape[1])
        some = frame.inside.any(1)
        cells, cells_of_some = None, None
        if self.cells:
            side = next(iter(self.cells.values())).side
            around = cell_frame(e, e.boxes_xyxy_px[queries], side)
            weights = np.full((len(queries), 1, side, side), 1 / side**2)
            cells, cells_of_some = (weights, around), (weights[some], around.of(some))
        self.chance[EVEN].add(even.reshape(-1, 1, *e.grid_hw), frame, even=True, cells=cells)
        if some.any():
            within = inside[some] / inside[some].sum(1, keepdims=True)
            within = within.reshape(-1, 1, *e.grid_hw)
            self.chance[IN_BOX].add(within, frame.of(some), even=True, cells=cells_of_some)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A row for each head, one for the mean of all heads, then those of the even maps."""
        for (layer, mode), statistics in self.statistics.items():
            rows = self._of(statistics, str(layer), mode)
            more = self._of_levels(self.levels.get((layer, mode)))
            cells = self._of_cells(layer)
            # without levels `more` has no end: empty cells for each row
            yield from ((*row, *own, *cells) for row, own in zip(rows, more, strict=False))
        empty = ("",) * (len(self.columns) - len(COLUMNS))
        for mode, statistics in self.chance.items():
            yield from ((*row, *empty) for row in self._of(statistics, "", mode))

    def _of_levels(self, shares: LevelShares | None) -> Iterator[tuple[str, ...]]:
        """The columns after COLUMNS: of each head, and of their mean."""
        if shares is None:
            yield from repeat(())
        else:
            counts = [*map(str, shares.counts)]
            parts = np.concatenate([shares.means(size) for size in ("", *SIZES)], -1)  # (M, 4 L)
            for row in (*parts, parts.mean(0)):
                yield (*counts, *map(_text, row))

    def _of_cells(self, layer: int) -> tuple[str, ...]:
        """The last columns: mean shares of a layer's cells, and of its bias."""
        shares = self.cells.get(layer)
        if shares is None:
            return ("",) * len(self._cell_columns)
        return (*map(_text, shares.signed().ravel()), _text(shares.bias()))

    def _of(self, statistics: HeadStatistics, layer: str, mode: str) -> Iterator[tuple[str, ...]]:
        means, zones, roles = statistics.means(), statistics.zones(), statistics.roles()
        about = (self.name, layer, mode)
        counts = (str(statistics.objects), str(statistics.resolved))
        for head in range(statistics.heads):
            numbers = [*(means[name][head] for name in _MEASURED), *zones[head]]
            number = str(head) if statistics.heads > 1 else ""
            yield (*about, number, *counts, *_words(roles[head]), *map(_text, numbers))
        if statistics.heads > 1:
            numbers = [*(means[name].mean() for name in _MEASURED), *zones.mean(0)]
            yield (*about, "mean", *counts, *_words(None), *map(_text, numbers))


def _words(role: HeadRole | None) -> tuple[str, ...]:
    if role is None:
        return ("",) * len(_ROLE)
    shares = map(_text, (role.share, role.low, role.high))
    return (
        role.zone,
        *shares,
        role.second,
        _text(role.second_share),
        "yes" if role.clear else "no",
    )


def _text(value: float) -> str:
    """A number with four digits; "" where it is not finite, 0 for what rounding leaves of 0."""
    if abs(value) < _ZERO:
        return "0"
    return f"{value:.4g}" if np.isfinite(value) else ""
