"""Do a map's top cells matter? A query's score as they are hidden from it, or alone left to it.

found = faithfulness(e, [3], ["combine"])
found.deletion["combine"], found.insertion["combine"]      # (1, S) over found.shares (S,)
area(found.deletion["combine"], found.shares)               # (1,)

Petsiuk et al., "RISE", BMVC 2018, delete and insert pixels of the image; here cells of the memory
are hidden from one query's cross-attention, and the other queries still see all. A map that tells
what the query's class rests on lets the score fall early in deletion (a small area under the curve)
and rise early in insertion (a large one), both measured against cells in random order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from detr_viz.explanation.ablation import check_removable
from detr_viz.explanation.curves import Faithfulness, area
from detr_viz.explanation.precision import own_arithmetic
from detr_viz.explanation.sites import resolve_layers

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation

__all__ = ["ORDERS", "SHARES", "Faithfulness", "area", "faithfulness"]

# Of the cells; dense at both ends, where curves bend, and the same counted from either end.
SHARES = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
ORDERS = 5  # random ones
_SEED = 2018
_MOST_FLOATS = 50_000_000  # of a pass: 200 MB


def faithfulness(
    e: Explanation,
    queries: Sequence[int],
    modes: Sequence[str] = ("combine",),
    layers: str | int | Sequence[int] = "all",
    scale: str = "mode",
    orders: int = ORDERS,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Faithfulness:
    """Run the decoder again for each query alone, in batches, with more and more cells hidden.

    modes, scale  the maps that rank cells, as of Explanation.maps, at the last layer
    layers        decoder layers in which cells are hidden: as in `explain`
    watch         gives the queries back one by one, and so sees how far the run is
    The score is that of the class which the query has with all cells. Where no cell is left the
    attention is 0. Random orders are the same in every run. ValueError for a mode or a query that
    there is not, UserError for a layer.
    """
    ids, places = list(queries), resolve_layers(layers, e.num_layers)
    check_removable(e.model, e.attention_at(("cross", e.num_layers - 1)))
    modes = tuple(dict.fromkeys(modes))
    if not modes:
        raise ValueError("faithfulness of no mode: name one")
    cells = e.grid(e.num_layers - 1).cells
    maps = {mode: e.maps(mode, ids, e.num_layers - 1, scale).mean(1) for mode in modes}
    counts = _counts(cells)
    curves = {way: {mode: [] for mode in modes} for way in ("deletion", "insertion")}
    random = []
    for i, query in enumerate(watch(ids)):
        ranked = [np.argsort(-maps[mode][i].ravel(), kind="stable") for mode in modes]
        rng = np.random.default_rng((_SEED, query))
        shuffled = [rng.permutation(cells) for _ in range(orders)]
        # an order from its end inserts what the order deletes
        asked = [*ranked, *(order[::-1] for order in ranked), *shuffled]
        found = _deletion(e, query, asked, counts, places)
        for k, mode in enumerate(modes):
            curves["deletion"][mode].append(found[k])
            curves["insertion"][mode].append(found[len(modes) + k][::-1])
        random.append(found[2 * len(modes) :])
    shape = (len(ids), len(counts))
    made = {
        way: {mode: np.reshape(rows, shape) for mode, rows in by_mode.items()}
        for way, by_mode in curves.items()
    }
    baseline = np.reshape(random, (len(ids), orders, len(counts)))
    plain = next(iter(made["deletion"].values()))[:, 0]
    return Faithfulness(
        tuple(ids), places, scale, counts / cells, plain, maps, **made, random=baseline
    )


def _counts(cells: int) -> NDArray[np.intp]:
    """How many cells are hidden, step by step: from none to all."""
    low = {round(share * cells) for share in SHARES}
    return np.array(sorted(low | {cells - count for count in low}))


def _deletion(
    e: Explanation,
    query: int,
    orders: Sequence[NDArray[np.intp]],
    counts: NDArray[np.intp],
    layers: Sequence[int],
) -> NDArray[np.float64]:
    """(orders, S): the score left when the first cells of an order, so many, are hidden.

    None and all are the same in every order, and are run once.
    """
    inner = counts[1:-1]
    hidden = np.zeros((2 + len(orders) * len(inner), counts[-1]), bool)
    hidden[1] = True
    for k, order in enumerate(orders):
        for j, count in enumerate(inner):
            hidden[2 + k * len(inner) + j, order[:count]] = True
    scores = _scores(e, query, hidden, layers)
    inside = scores[2:].reshape(len(orders), len(inner))
    first, last = (np.full((len(orders), 1), end) for end in scores[:2])
    return np.hstack([first, inside, last])


def _scores(
    e: Explanation, query: int, hidden: NDArray[np.bool_], layers: Sequence[int]
) -> NDArray[np.float64]:
    """What the query gives its class, (n,), with cells (n, K) hidden from it alone."""
    info = e.model.info
    cells, label = hidden.shape[1], int(e.labels[query])
    value = e.attention_at(("cross", e.num_layers - 1)).value
    assert value is not None
    width = info.num_heads * value.shape[-1]
    each = cells * (info.num_heads * e.num_queries + 4 * width)
    step = max(1, _MOST_FLOATS // each)
    scores = []
    for start in range(0, len(hidden), step):
        rows = torch.from_numpy(hidden[start : start + step]).to(e.model.device)
        mask = torch.zeros((len(rows), e.num_queries, cells), dtype=torch.bool, device=rows.device)
        mask[:, query] = rows
        with own_arithmetic(e.model.precision, e.model.device):
            made = e.model.scores_with_hidden(e.memory, mask, layers)
        scores.append(made[:, query, label].cpu())
    return torch.cat(scores).double().numpy()
