"""A stand-in for an explanation of sampled attention on two levels, small enough to work out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

GRIDS = ((6, 8), (3, 4))  # at strides 8 and 16
STRIDES = (8, 16)
QUERIES, HEADS, POINTS = 4, 2, 3
INPUT_HW, VALID_HW = (48, 64), (40, 64)


class FakeSampled:
    """Points at centres of cells, so that each gives all of its weight to one cell.

    The last point of each level lies left of the map. Coarse cells cover 2 x 2 fine ones.
    """

    class_names = ("cat", "dog")
    modes = ("combine", "position")
    layers = (5,)

    class image:
        hw = (80, 128)

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shape = (QUERIES, HEADS, len(GRIDS), POINTS)
        self.num_queries = QUERIES
        self.meta = {"num_heads": HEADS, "weights_sha256": "ab" * 32, "image_sha256": "cd" * 32}
        self.cells, self.points, self.weights = {}, {}, {}
        for mode in self.modes:
            columns = np.stack([rng.integers(0, w, (*shape[:2], POINTS)) for _, w in GRIDS], 2)
            rows = np.stack([rng.integers(0, h, (*shape[:2], POINTS)) for h, _ in GRIDS], 2)
            columns[..., -1] = -1
            sizes = np.asarray(GRIDS)[:, None, ::-1]  # (L, 1, 2): w, h
            self.cells[mode] = np.stack([columns, rows], -1)
            self.points[mode] = ((self.cells[mode] + 0.5) / sizes).astype(np.float32)
            drawn = rng.dirichlet(np.ones(len(GRIDS) * POINTS), shape[:2])
            self.weights[mode] = drawn.reshape(shape).astype(np.float32)

    def pick_layer(self, layer):
        return 5

    def output(self, layer):
        boxes = np.asarray([[10.0 * q, 0, 10 * q + 8, 8] for q in range(QUERIES)], np.float32)
        return SimpleNamespace(
            scores=np.linspace(0.9, 0.5, QUERIES, dtype=np.float32),
            labels=np.arange(QUERIES) % 2,
            boxes_xyxy_px=boxes,
        )

    def kind(self, layer):
        return "sampled"

    def grids(self, layer):
        return tuple(
            SimpleNamespace(
                hw=hw, stride=stride, rule="centered", input_hw=INPUT_HW, valid_hw=VALID_HW
            )
            for hw, stride in zip(GRIDS, STRIDES, strict=True)
        )

    def maps(self, mode, queries, layer=None, scale="mode", level="sum"):
        if level == "sum":
            fine, coarse = (self.maps(mode, queries, layer, scale, k) for k in range(2))
            return fine + np.kron(coarse, np.full((2, 2), 0.25, np.float32))
        made = np.zeros((len(queries), HEADS, *GRIDS[level]), np.float32)
        for n, q in enumerate(queries):
            for head in range(HEADS):
                for point in range(POINTS - 1):
                    column, row = self.cells[mode][q, head, level, point]
                    made[n, head, row, column] += self.weights[mode][q, head, level, point]
        return made

    def outside(self, mode, queries, layer=None, scale="mode"):
        return self.weights[mode][list(queries), :, :, -1].sum(-1)

    def references(self, layer):
        return None

    def samples(self, mode, queries, layer=None):
        return self.points[mode][list(queries)], self.weights[mode][list(queries)]
