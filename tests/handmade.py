"""A StoredExplanation made by hand: what each query says and where it looks is given in cells.

The image is 80 x 60 pixels, a cell of the map 10 x 10. A query: its box, class, score, and cells
(row, column) that it looks at, evenly; None: all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.detections.detections import Detections
from detr_viz.explanation.stored import StoredExplanation
from detr_viz.images.annotated import Annotated
from detr_viz.images.loaded_image import ImageFacts

NAMES = ("cat", "dog", "traffic light")
HW, GRID = (60, 80), (6, 8)
Query = tuple[Sequence[float], str, float, Sequence[tuple[int, int]] | None]


def annotated(*objects: tuple[Sequence[float], str], crowd: Sequence[int] = ()) -> Annotated:
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    names = tuple(name for _, name in objects)
    group = np.isin(np.arange(len(names)), crowd)
    return Annotated(boxes, names, group, tuple(range(1, len(names) + 1)), "instances.json")


def cells_of(box: Sequence[float]) -> list[tuple[int, int]]:
    """The cells of a box whose edges are multiples of 10."""
    left, top, right, bottom = (int(side) // 10 for side in box)
    return [(row, column) for row in range(top, bottom) for column in range(left, right)]


def handmade(
    truth: Annotated | None,
    *queries: Query,
    pairwise: bool = False,
    more: dict[int, dict[str, float]] | None = None,
) -> StoredExplanation:
    """more: query -> further classes with their scores."""
    count = len(queries)
    boxes = np.array([q[0] for q in queries], np.float32).reshape(-1, 4)
    class_scores = np.zeros((count, len(NAMES)), np.float32)
    maps = np.zeros((count, 2, *GRID), np.float32)
    for i, (_, name, score, cells) in enumerate(queries):
        class_scores[i, NAMES.index(name)] = score
        for other, least in (more or {}).get(i, {}).items():
            class_scores[i, NAMES.index(other)] = least
        for row, column in cells_of((0, 0, 80, 60)) if cells is None else cells:
            maps[i, :, row, column] = 1 / (48 if cells is None else len(cells))
    labels = class_scores.argmax(1).astype(np.int64)
    scores = class_scores.max(1)
    return StoredExplanation(
        model_type="detr",
        model_title="DETR",
        modes=("combine",),
        image=ImageFacts(HW, "photo.png", "0" * 64, (), truth),
        attention_kind="dense",
        term_names=(),
        layer_grids={5: (Grid(GRID, HW, 10, "centered"),)},
        scores=scores,
        labels=labels,
        class_names=NAMES,
        boxes_xyxy_px=boxes,
        class_scores=class_scores,
        num_heads=2,
        num_layers=6,
        num_encoder_layers=6,
        layers=(5,),
        outputs={5: Detections(scores, labels, boxes, class_scores)},
        formulas={5: {}},
        separate=frozenset(),
        reference_px=None,
        residuals={5: 0.0},
        meta={"weights": "handmade.pth"},
        pairwise=pairwise,
        kept=tuple(range(count)),
        scale="mode",
        stored={("combine", 5): (maps,)},
        stored_samples={},
        stored_terms={},
    )
