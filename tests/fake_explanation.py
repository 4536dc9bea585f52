"""A stand-in for detr_viz.Explanation with maps a test can reason about: no network, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import numpy as np

from detr_viz.attention.grids import Grid
from detr_viz.attention.terms import MODES as TERMS_MODES
from detr_viz.attention.terms import Mode, formula_of

MODES = ("combine", "position", "content")


@dataclass
class FakeExplanation:
    """What figures use of an Explanation.

    `maps` returns `made` (Q, M, h, w), or what `made_by` has for a mode and layer; labels are those
    of the last layer in every layer that `labels_by` has no others for.
    """

    image: SimpleNamespace
    input_hw: tuple[int, int]
    grid_hw: tuple[int, int]
    stride: int
    made: np.ndarray
    boxes_xyxy_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    num_heads: int
    cell_rule: str = "aligned"
    attention_kind: str = "dense"
    has_axes: bool = False
    stages: bool = False
    shares: Mapping[int, tuple[np.ndarray, ...]] | None = None
    model_type: str = "cd_detr"
    model_title: str = "Conditional DETR"
    modes: tuple[str, ...] = MODES
    num_layers: int = 6
    reference_px: np.ndarray | None = None
    layer_references: Mapping[int, np.ndarray] = field(default_factory=dict)
    reference_boxes: Mapping[int, np.ndarray] = field(default_factory=dict)
    layers: tuple[int, ...] = (5,)
    residuals: Mapping[int, float] = field(default_factory=lambda: {5: 2.3e-7})
    meta: Mapping[str, object] = field(default_factory=lambda: {"weights_sha256": "ab" * 32})
    made_by: Mapping[tuple[object, int], np.ndarray] = field(default_factory=dict)
    labels_by: Mapping[int, np.ndarray] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def layer_word(self) -> str:
        return "stage" if self.stages else "decoder layer"

    @property
    def layer_noun(self) -> str:
        return "stage" if self.stages else "layer"

    def outside(self, mode: str, queries: Sequence[int], layer: int | None = None) -> np.ndarray:
        """What the maps lack."""
        return 1 - self.maps(mode, queries, layer).sum((2, 3))

    def grid(self, layer: int | None = None) -> Grid:
        return Grid(self.grid_hw, self.input_hw, self.stride, self.cell_rule)

    def grids(self, layer: int | None = None) -> tuple[Grid, ...]:
        return (self.grid(layer),)

    @property
    def self_heads(self) -> int:
        return self.num_heads

    def cells(self, queries: Sequence[int], layer: int | None = None) -> tuple | None:
        """shares: layer -> shares (Q, 1, n, n), boxes (Q, 4), bias shares (Q,) of all queries."""
        if self.shares is None:
            return None
        return tuple(part[list(queries)] for part in self.shares[self.pick_layer(layer)])

    def label_name(self, query: int) -> str:
        return self.class_names[self.labels[query]]

    def pick_layer(self, layer: int | None = None) -> int:
        return self.layers[-1] if layer is None else layer

    def formula(self, mode: object, layer: int | None = None) -> str:
        return mode.formula if isinstance(mode, Mode) else TERMS_MODES[mode].formula

    def self_formula(self, mode: str) -> str:
        return formula_of(mode)

    def output(self, layer: int | None = None) -> SimpleNamespace:
        """Each layer before the last is less sure, and its box smaller."""
        early = (self.num_layers - 1 - self.pick_layer(layer)) / self.num_layers
        low, high = np.split(self.boxes_xyxy_px, 2, axis=1)
        inset = early * (high - low) / 4
        boxes = np.hstack([low + inset, high - inset])
        scores = (self.scores * (1 - early)).astype(np.float32)
        labels = self.labels_by.get(self.pick_layer(layer), self.labels)
        return SimpleNamespace(scores=scores, labels=labels, boxes_xyxy_px=boxes)

    def maps(
        self,
        mode: str = "combine",
        queries: Sequence[int] | None = None,
        layer: int | None = None,
        scale: str = "mode",
    ) -> np.ndarray:
        self.calls.append((mode, layer, scale))
        made = self.made_by.get((mode, self.pick_layer(layer)), self.made)
        return made[list(queries if queries is not None else range(len(self.scores)))]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some texture, (height, width, 3) uint8."""
    return _photo(height, width, seed).copy()


@cache
def _photo(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    smooth = 90 + 80 * np.stack([np.sin(4 * x + c) * np.cos(3 * y + 2 * c) for c in range(3)], -1)
    return np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)


def one_hot(hw: tuple[int, int], cell: tuple[int, int], weight: float = 1.0) -> np.ndarray:
    """A map that has `weight` on one cell and spreads the rest evenly over the others."""
    out = np.full(hw, (1 - weight) / max(hw[0] * hw[1] - 1, 1), np.float32)
    out[cell] = weight
    return out


def fake(
    image_hw: tuple[int, int] = (96, 128),
    input_hw: tuple[int, int] = (96, 128),
    stride: int = 8,
    names: Sequence[str] = ("cat", "dog", "teapot"),
    scores: Sequence[float] = (0.98, 0.75, 0.3),
    heads: int = 8,
    **more: object,
) -> FakeExplanation:
    """A query a name; head m of query q has 0.5 on the cell (q, m), modulo the grid."""
    h, w = (-(-side // stride) for side in input_hw)
    count = len(names)
    made = np.array(
        [[one_hot((h, w), (q % h, m % w), 0.5) for m in range(heads)] for q in range(count)]
    )
    boxes = [[0.1 + 0.6 * q / count, 0.2, 0.35 + 0.6 * q / count, 0.7] for q in range(count)]
    values = {
        "image": SimpleNamespace(rgb=photo(*image_hw)),
        "input_hw": input_hw,
        "grid_hw": (h, w),
        "stride": stride,
        "made": made,
        "boxes_xyxy_px": np.array(boxes, np.float32) * [*image_hw[::-1], *image_hw[::-1]],
        "scores": np.array(scores, np.float32),
        "labels": np.arange(count),
        "class_names": tuple(names),
        "num_heads": heads,
    }
    return FakeExplanation(**{**values, **more})
