"""Whether a map's top cells matter: a query's score with these cells hidden, or with only these.

curves = faithfulness(e, [3], ["combine"])
curves.deletion["combine"], curves.insertion["combine"]     # (1, S) over curves.shares (S,)
area(curves.deletion["combine"], curves.shares)             # (1,)

Petsiuk et al., "RISE", BMVC 2018, delete and insert pixels of the image. Here cells of the memory
are hidden from one query's cross-attention; the other queries still see all cells. If a map shows
the cells that the query's class depends on, its score falls early in deletion (a small area under
the curve) and rises early in insertion (a large one), compared with cells in random order.

Attention to several levels: a cell is one of the finest grid, that of the map, and hides the cells
of all levels under it; a sample of any level is left out of the softmax where it lies in the cell.

Attention to the cells of boxes: a cell is one of the query's own box, in whatever place the box has
at each stage, and its signed share in the last stage ranks it. A hidden cell's part of the sum is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from detr_viz.attention.grids import by_level, finest
from detr_viz.attention.roi import RoIAttention
from detr_viz.explanation.ablation import check_removable
from detr_viz.explanation.curves import Faithfulness, area
from detr_viz.explanation.sites import resolve_layers

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation

__all__ = ["ORDERS", "SHARES", "Faithfulness", "area", "faithfulness"]

# Shares of the cells up to one half; 1 - share is used too. Dense at both ends, where curves bend.
SHARES = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
ORDERS = 5  # random ones
_SEED = 2018
_MOST_FLOATS = 50_000_000  # in one pass: 200 MB


def faithfulness(
    e: Explanation,
    queries: Sequence[int],
    modes: Sequence[str] = ("combine",),
    layers: str | int | Sequence[int] = "all",
    scale: str = "mode",
    orders: int = ORDERS,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Faithfulness:
    """Run the decoder again for one query after the other, with more and more cells hidden.

    modes, scale  the maps that rank cells, as in Explanation.maps, at the last layer
    layers        decoder layers in which cells are hidden, as in `explain`
    watch         a wrapper that yields the queries again, to show progress
    The score is of the class that the query has with all cells. Attention without any cell left
    is 0. Random orders are the same in every run. ValueError for an unknown mode or query,
    UserError for an unknown layer.
    """
    ids, hidden_layers = list(queries), resolve_layers(layers, e.num_layers, e.layer_word)
    check_removable(e.model, e.attention_at(("cross", e.num_layers - 1)))
    modes = tuple(dict.fromkeys(modes))
    if not modes:
        raise ValueError("faithfulness of no mode: name one")
    valid = _valid_cells(e)
    maps = {mode: e.maps(mode, ids, e.num_layers - 1, scale).mean(1) for mode in modes}
    cells = e.cells(ids, e.num_layers - 1)
    ranks = dict.fromkeys(modes, cells[0]) if cells else maps
    flat = {mode: each.reshape(len(ids), -1) for mode, each in ranks.items()}
    counts = _counts(len(valid))
    curves = {way: {mode: [] for mode in modes} for way in ("deletion", "insertion")}
    random = []
    for i, query in enumerate(watch(ids)):
        ranked = [valid[np.argsort(-flat[mode][i][valid], kind="stable")] for mode in modes]
        rng = np.random.default_rng((_SEED, query))
        shuffled = [valid[rng.permutation(len(valid))] for _ in range(orders)]
        # insertion in an order is deletion in the reversed order
        orders_of_query = [*ranked, *(order[::-1] for order in ranked), *shuffled]
        scores = _deletion(e, query, orders_of_query, counts, hidden_layers)
        for k, mode in enumerate(modes):
            curves["deletion"][mode].append(scores[k])
            curves["insertion"][mode].append(scores[len(modes) + k][::-1])
        random.append(scores[2 * len(modes) :])
    shape = (len(ids), len(counts))
    arrays = {
        way: {mode: np.reshape(rows, shape) for mode, rows in by_mode.items()}
        for way, by_mode in curves.items()
    }
    baseline = np.reshape(random, (len(ids), orders, len(counts)))
    plain = next(iter(arrays["deletion"].values()))[:, 0]
    return Faithfulness(
        tuple(ids),
        hidden_layers,
        scale,
        counts / len(valid),
        plain,
        maps,
        **arrays,
        random=baseline,
    )


def _cells(e: Explanation) -> int:
    """The number of cells of the finest grid at the last layer, or of a box: K."""
    attention = e.attention_at(("cross", e.num_layers - 1))
    if isinstance(attention, RoIAttention):
        return attention.rule.side**2
    grids = e.grids(e.num_layers - 1)
    return grids[finest(grids)].cells


def _valid_cells(e: Explanation) -> NDArray[np.intp]:
    """The cells of the finest grid that are not padding, in which no query can look."""
    last = e.num_layers - 1
    attention, grids = e.attention_at(("cross", last)), e.grids(last)
    mask = getattr(attention, "key_padding_mask", getattr(attention, "padding", None))
    if mask is None:
        return np.arange(_cells(e))
    return np.flatnonzero(~by_level(mask.cpu().numpy().ravel(), grids)[finest(grids)])


def _counts(cells: int) -> NDArray[np.intp]:
    """Number of hidden cells at each step, from none to all."""
    low = {round(share * cells) for share in SHARES}
    return np.array(sorted(low | {cells - count for count in low}))


def _deletion(
    e: Explanation,
    query: int,
    orders: Sequence[NDArray[np.intp]],
    counts: NDArray[np.intp],
    layers: Sequence[int],
) -> NDArray[np.float64]:
    """(orders, S): the score if the first `counts` cells of an order are hidden.

    The steps with none and with all cells hidden are the same in every order, and run once.
    """
    inner = counts[1:-1]
    hidden = np.zeros((2 + len(orders) * len(inner), _cells(e)), bool)
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
    """The query's score for its class, (n,), with cells (n, K) hidden from this query only."""
    info = e.model.info
    cells, label = hidden.shape[1], int(e.labels[query])
    attention = e.attention_at(("cross", e.num_layers - 1))
    if isinstance(attention, RoIAttention):
        each = 4 * attention.features.numel()
    else:
        assert attention.value is not None
        width = info.num_heads * attention.value.shape[-1]
        each = cells * (info.num_heads * e.num_queries + 4 * width)
    step = max(1, _MOST_FLOATS // each)
    scores = []
    for start in range(0, len(hidden), step):
        rows = torch.from_numpy(hidden[start : start + step]).to(e.model.device)
        mask = torch.zeros((len(rows), e.num_queries, cells), dtype=torch.bool, device=rows.device)
        mask[:, query] = rows
        with e.arithmetic():
            class_scores = e.model.scores_with_hidden(e.memory, mask, layers)
        scores.append(class_scores[:, query, label].cpu())
    return torch.cat(scores).double().numpy()
