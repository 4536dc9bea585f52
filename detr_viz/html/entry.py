"""One explained image as the plain data of a page: quantised maps, detections, truth, a command.

entry = measure(explanation, queries=[17])          # needs the network's process, gives plain data
document([(entry, picture)])                        # does not
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detr_viz.attention.grids import Grid, finest
from detr_viz.common.errors import UserError
from detr_viz.detections.judged import judged
from detr_viz.detections.reasons import misses_of
from detr_viz.html.ledger import ledger_of
from detr_viz.html.quantise import LEVELS, Block, Curve, linear, packed, packed_bytes

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

MOST_QUERIES = 100
# Bytes that the maps of one layer may take in the page; more, and the steps of the codes grow.
MAPS_BYTES = 760_000
_FEW = 25  # queries whose maps are in memory as floats at a time
SUM = "sum"


@dataclass(frozen=True, eq=False, repr=False)
class Entry:
    """What a page shows of one image and one model, without the photo.

    facts   plain values, as page.js reads them
    blocks  name -> quantised array
    errors  what the quantisation costs: largest error of a weight, and of a logit term
    """

    facts: Mapping[str, Any]
    blocks: Mapping[str, Block]
    errors: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        blocks = {name: block.as_json() for name, block in self.blocks.items()}
        return {**self.facts, "blocks": blocks, "errors": dict(self.errors)}


def measure(
    e: ExplanationBase,
    queries: Sequence[int] = (),
    *,
    scale: str = "mode",
    mode: str = "combine",
    layers: Sequence[int] | None = None,
    model_words: Sequence[str] | None = None,
    run_words: Sequence[str] = (),
    least: float = 0.5,
) -> Entry:
    """The data of a page.

    queries      that must be kept, the first of them shown at the start; others are kept by score,
                 MOST_QUERIES in all
    mode, scale  shown at the start; of all maps
    layers       that were captured, None: all
    model_words  of a command that names the model; None: by its file, and its type
    run_words    further words of that command
    least        scores below it are no detections, for errors
    """
    kept = kept_queries(e, queries)
    chosen = e.layers if layers is None else tuple(sorted({*layers}))
    blocks: dict[str, Block] = {}
    curves: dict[str, list[int]] = {}
    worst: dict[str, float] = {}
    for layer in chosen:
        more, their_curves, their_errors = _maps(e, kept, layer, scale)
        blocks |= more
        curves |= their_curves
        worst |= their_errors
    facts: dict[str, Any] = {"ledger": None, "no_ledger": ""}
    errors = {"weight": max(worst.values(), default=0.0)}
    first = [q for q in dict.fromkeys(queries) if q in kept]
    try:
        facts["ledger"], terms, errors["term"] = ledger_of(e, kept, first, chosen)
        blocks |= terms
    except UserError as error:  # attention whose logits are no sums of products
        facts["no_ledger"] = str(error)
    facts["cells"] = _cells(e, kept, chosen, blocks)
    facts |= {
        "model": {
            "title": e.model_title,
            "type": e.model_type,
            "weights": str(e.meta.get("weights", "")),
        },
        "image": {"name": _name(e), "hw": list(e.image.hw), "path": e.image.path},
        "queries": list(kept),
        "num_queries": e.num_queries,
        "start": (first or kept)[0] if kept else None,
        "classes": list(e.class_names),
        "heads": e.num_heads,
        "stages": e.stages,
        "layer_noun": e.layer_noun,
        "layers": list(chosen),
        "modes": list(e.modes),
        "mode": mode if mode in e.modes else e.modes[0],
        "scale": scale,
        "formulas": {str(n): {m: e.formula(m, n) for m in e.modes} for n in chosen},
        "why_undivided": e.why_undivided,
        "grids": {str(n): [_grid(g) for g in e.grids(n)] for n in chosen},
        "finest": {str(n): finest(e.grids(n)) for n in chosen},
        "curves": curves,
        "outputs": {str(n): _output(e, n, kept) for n in chosen},
        "samples": any(name.startswith("samples/") for name in blocks),
        "truth": _truth(e, kept, least),
        "words": _model_words(e) if model_words is None else list(model_words),
        "run_words": list(run_words),
    }
    return Entry(facts, blocks, errors)


def kept_queries(e: ExplanationBase, queries: Sequence[int]) -> list[int]:
    """The queries of a page, best first: all, or the best MOST_QUERIES and those asked for."""
    order = e.by_score()
    if len(order) <= MOST_QUERIES:
        return order
    kept = {*order[:MOST_QUERIES], *queries}
    return [q for q in order if q in kept]


def _maps(
    e: ExplanationBase, kept: Sequence[int], layer: int, scale: str
) -> tuple[dict[str, Block], dict[str, list[int]], dict[str, float]]:
    """The blocks of a layer, (cells, levels) of the curve of each, and the largest error of each.

    Where they are too large together, the largest takes coarser steps, until they fit. Maps of
    several levels are mostly zeros, of which coarser steps would save little.
    """
    grids = e.grids(layer)
    grid_of = {SUM: grids[finest(grids)]}
    if len(grids) > 1:
        grid_of |= {str(i): grid for i, grid in enumerate(grids)}
    blocks: dict[str, Block] = {}
    curves: dict[str, list[int]] = {}
    errors: dict[str, float] = {}

    def add(mode: str, level: str, levels: int) -> None:
        name = f"maps/{layer}/{mode}/{level}"
        curve = Curve(grid_of[level].cells, levels)
        codes, errors[name] = _codes(e, kept, mode, layer, scale, level, curve)
        blocks[name], curves[name] = packed(codes), [curve.cells, levels]

    for mode in e.modes:
        for level in grid_of:
            add(mode, level, LEVELS[0])
    while len(grids) == 1 and sum(map(len, blocks.values())) > MAPS_BYTES:
        coarser = [name for name in blocks if curves[name][1] > LEVELS[-1]]
        if not coarser:
            break
        name = max(coarser, key=lambda name: len(blocks[name]))
        _, _, mode, level = name.split("/")
        add(mode, level, LEVELS[LEVELS.index(curves[name][1]) + 1])
    for mode in e.modes:
        if (samples := e.samples(mode, kept, layer)) is not None:
            blocks[f"samples/{layer}/{mode}"] = _samples(*samples)
    return blocks, curves, errors


def _codes(
    e: ExplanationBase,
    kept: Sequence[int],
    mode: str,
    layer: int,
    scale: str,
    level: str,
    curve: Curve,
) -> tuple[NDArray[np.uint8], float]:
    """Codes (q, M, h, w) of a level's maps, and their largest error."""
    parts, worst = [], 0.0
    table = curve.weights(np.arange(256))
    for start in range(0, len(kept), _FEW):
        some = kept[start : start + _FEW]
        maps = e.maps(mode, some, layer, scale, level if level == SUM else int(level))
        codes = curve.codes(maps)
        worst = max(worst, float(np.abs(table[codes] - maps).max(initial=0)))
        parts.append(codes)
    return np.concatenate(parts), worst


PLACE_RANGE = (-0.5, 1.5)  # of samples, in [0, 1] of a level's grid; those beyond are cut


def _samples(xy: NDArray[np.float32], weight: NDArray[np.float32]) -> Block:
    """Places (q, M, L, P, 2) and weights (q, M, L, P) as three rows of 16 bits: x, y, weight."""
    low, high = PLACE_RANGE
    places = (np.clip(xy, low, high) - low) / (high - low)
    rows = np.stack([places[..., 0], places[..., 1], np.clip(weight, 0, 1)])
    return packed_bytes(np.rint(rows * 65535).astype(np.uint16))


def _cells(
    e: ExplanationBase, kept: Sequence[int], layers: Sequence[int], blocks: dict[str, Block]
) -> dict[str, Any] | None:
    """What cells of boxes add: their boxes as facts, their shares as a block for each layer."""
    facts: dict[str, Any] = {}
    for layer in layers:
        if (cells := e.cells(kept, layer)) is None:
            return None
        share, boxes, bias = cells
        step = max(float(np.abs(share).max(initial=0)) / 127, 1e-6)
        blocks[f"cells/{layer}"] = packed(linear(share[:, 0], step))
        facts[str(layer)] = {
            "step": step,
            "boxes": [[round(float(x), 1) for x in box] for box in boxes],
            "bias": [round(float(x), 4) for x in bias],
        }
    return facts


def _grid(grid: Grid) -> dict[str, Any]:
    """Where the cells lie: the first one's left and top edge and its size, as shares of the photo.

    Cells are of one size on the page: the centres are those of `Grid.centers`.
    """
    rect = []
    for axis in (1, 0):
        big = 1_000_000  # pixels of a photo, so that half a pixel is nothing
        centers = grid.centers(big, axis)
        size = centers[1] - centers[0] if len(centers) > 1 else big
        rect.append(((centers[0] + 0.5 - size / 2) / big, size / big))
    (left, width), (top, height) = rect
    return {
        "hw": list(grid.hw),
        "name": grid.name,
        "rect": [left, top, width, height],
        # the outer cells reach the edges of the input, as in `Grid.of_photo`
        "borders": [[round(float(x), 5) for x in grid.of_photo(axis)] for axis in (1, 0)],
        "photo": [float(grid.input_share(1.0, 1, 1)), float(grid.input_share(1.0, 1, 0))],
    }


def _output(e: ExplanationBase, layer: int, kept: Sequence[int]) -> dict[str, Any]:
    """Detections of a layer's own output, for the queries kept."""
    output, rows = e.output(layer), list(kept)
    result: dict[str, Any] = {
        "scores": [round(float(x), 4) for x in output.scores[rows]],
        "labels": [int(x) for x in output.labels[rows]],
        "boxes": [[round(float(x), 1) for x in box] for box in output.boxes_xyxy_px[rows]],
    }
    references = e.references(layer)
    if references is not None:
        result["references"] = [[round(float(x), 1) for x in one] for one in references[rows]]
    return result


def _truth(e: ExplanationBase, kept: Sequence[int], least: float) -> dict[str, Any] | None:
    truth = e.truth
    if truth is None:
        return None
    found = judged(e, least)
    first = {int(q): d for d, q in reversed([*enumerate(found.ids)])}  # the best detection of each
    of_kept = [first.get(q) for q in kept]
    return {
        "boxes": [[round(float(x), 1) for x in box] for box in truth.boxes_xyxy_px],
        "names": list(truth.names),
        "crowd": [bool(x) for x in truth.crowd],
        "known": [int(label) >= 0 for label in truth.labels],
        "kinds": [None if d is None else found.verdicts.kinds[d] for d in of_kept],
        "objects": [-1 if d is None else int(found.verdicts.objects[d]) for d in of_kept],
        "missed": list(found.verdicts.missed),
        "why": [miss.words for miss in misses_of(e, found)],
        "least": least,
    }


def _name(e: ExplanationBase) -> str:
    path = e.image.path
    return path.replace("\\", "/").rsplit("/", 1)[-1] if path else "image"


def _model_words(e: ExplanationBase) -> list[str] | None:
    """Words of a command that names the model by its file; None: it has none, or is not known."""
    path = str(getattr(getattr(getattr(e, "model", None), "info", None), "path", "") or "")
    words = ["--type", e.model_type]
    if path:
        return ["--weights", path, *words]
    demo = str(e.meta.get("weights", "")) == f"{e.model_type}_demo.pth"
    return words if demo else None
