"""The last layer's maps in numbers: by model, mode and head, over held-out scenes.

    python -m detr_viz.demo.measure --scenes 200

For every query that matches an object (score >= 0.5, its class, IoU >= 0.5 with it), per head:

    mass in box      share of the map on cells whose centre lies in the predicted box
    mass on objects  the same for the union of all objects of the scene (drawn boxes)
    peak to edge     distance of the largest cell's centre to the nearest edge of the predicted box,
                     in cells, inside or outside
    peak in box      share of the peaks that lie in the predicted box
    entropy          of the map / log(h * w): 1 is uniform

A cell's centre is where the ResNet's symmetric windows put it (ExplanationBase.cell_centers_px).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_viz import models
from detr_viz.attention.terms import Mode
from detr_viz.checkpoints.load_model import load_model
from detr_viz.cli.arguments import positive
from detr_viz.demo.measure_samples import BOX_ALONE, References, Samples, alone, maps_alone
from detr_viz.demo.shapes import Scene, held_out_seeds, scene
from detr_viz.detections import boxes
from detr_viz.explanation.captured import Explanation
from detr_viz.explanation.explain_image import explain

SCORE, OVERLAP = 0.5, 0.5
SCENE_PX = 512
# what the Conditional DETR paper's Fig. 1 draws as DETR's spatial attention
FULL_QUERY = Mode("cpb", "p", "(c_q + p_q) · p_k")
COLUMNS = ("entropy", "mass in box", "mass on objects", "peak to edge", "peak in box")


@dataclass(frozen=True)
class Geometry:
    """Cell centres in pixels of the image, x (w,) and y (h,), and the distance between two."""

    x: NDArray
    y: NDArray
    pitch_px: float

    @classmethod
    def of(cls, e: Explanation) -> Geometry:
        y, x = e.cell_centers_px()
        return cls(x, y, e.stride * e.image.hw[1] / e.input_hw[1])

    def inside(self, corners: NDArray) -> NDArray[np.bool_]:
        """Which cells (h, w) have their centre in any of the boxes (n, 4)."""
        left, top, right, bottom = (corners[:, i, None] for i in range(4))
        columns = (left <= self.x) & (self.x <= right)  # (n, w)
        rows = (top <= self.y) & (self.y <= bottom)  # (n, h)
        return (rows[:, :, None] & columns[:, None, :]).any(0)

    def to_edge(self, box: NDArray) -> NDArray:
        """Distance of every cell's centre to the outline of a box (4,), in cells: (h, w)."""
        left, top, right, bottom = box
        dx = np.maximum(left - self.x, self.x - right)[None, :]  # negative inside
        dy = np.maximum(top - self.y, self.y - bottom)[:, None]
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        inside = np.minimum(-dx, -dy)
        return np.where((dx <= 0) & (dy <= 0), inside, outside) / self.pitch_px


def matched_queries(e: Explanation, drawn: Scene) -> list[int]:
    """Queries that match an object, at most one for each object, the best first."""
    overlap = boxes.iou(e.boxes_xyxy_px, drawn.boxes_xyxy_px)
    taken: set[int] = set()
    queries = []
    for q in e.by_score():
        good = (overlap[q] >= OVERLAP) & (drawn.labels == e.labels[q])
        good[list(taken)] = False
        if e.scores[q] >= SCORE and good.any():
            taken.add(int(np.argmax(np.where(good, overlap[q], -1))))
            queries.append(q)
    return queries


def measure_maps(
    maps: NDArray, predicted: NDArray, objects: NDArray, geometry: Geometry
) -> NDArray:
    """Columns of COLUMNS for maps (q, heads, h, w) and their boxes (q, 4): (q, heads, 5)."""
    on_objects = geometry.inside(objects)
    rows = []
    for of_query, box in zip(maps.astype(np.float64), predicted, strict=True):
        in_box, to_edge = geometry.inside(box[None]), geometry.to_edge(box)
        flat = of_query.reshape(len(of_query), -1)
        logs = np.log(np.where(flat > 0, flat, 1))
        peak = flat.argmax(-1)
        rows.append(
            np.stack(
                (
                    -(flat * logs).sum(-1) / np.log(flat.shape[-1]),
                    flat @ in_box.ravel(),
                    flat @ on_objects.ravel(),
                    to_edge.ravel()[peak],
                    in_box.ravel()[peak],
                ),
                -1,
            )
        )
    return np.stack(rows)


def peak_offsets(maps: NDArray, predicted: NDArray, geometry: Geometry) -> NDArray:
    """Where each head's peak lies in the box: (q, heads, 2), x and y, 0 its centre, 1 its edge."""
    flat = maps.reshape(*maps.shape[:2], -1).argmax(-1)
    y, x = np.divmod(flat, maps.shape[-1])
    peaks = np.stack((geometry.x[x], geometry.y[y]), -1)
    centre = (predicted[:, None, :2] + predicted[:, None, 2:]) / 2
    half = np.maximum(predicted[:, None, 2:] - predicted[:, None, :2], 1e-6) / 2
    return (peaks - centre) / half


def measurements(
    name: str, weights: str | None, count: int
) -> tuple[dict[str, NDArray], dict[str, NDArray], list[str]]:
    """mode -> (n, heads, 5) of COLUMNS, mode -> (n, heads, 2) offsets, further tables as lines.

    n matched queries.
    """
    model = load_model(weights, name, device="cpu")
    modes: dict[str, str | Mode] = {mode: mode for mode in model.spec.modes}
    if name == "detr":
        modes["(c_q + p_q) . p_k"] = FULL_QUERY
    table: dict[str, list[NDArray]] = {}
    offsets: dict[str, list[NDArray]] = {}
    samples, references = Samples(), References()
    for drawn in scenes(count):
        e = explain(model, drawn.rgb)
        queries = matched_queries(e, drawn)
        if not queries:
            continue
        geometry, predicted = Geometry.of(e), e.boxes_xyxy_px[queries]
        for label, mode in modes.items():
            maps = e.maps(mode, queries)
            rows = measure_maps(maps, predicted, drawn.boxes_xyxy_px, geometry)
            table.setdefault(label, []).append(rows)
            offsets.setdefault(label, []).append(peak_offsets(maps, predicted, geometry))
        samples.add(e, queries)
        references.add(e, queries)
        if (attention := alone(e)) is not None:
            maps = maps_alone(e, attention, queries)
            rows = measure_maps(maps, predicted, drawn.boxes_xyxy_px, geometry)
            table.setdefault(BOX_ALONE, []).append(rows)
        for label, rows in baselines(predicted, drawn.boxes_xyxy_px, geometry).items():
            table.setdefault(label, []).append(rows)
    joined = {label: np.concatenate(parts) for label, parts in table.items()}
    places = {label: np.concatenate(parts) for label, parts in offsets.items()}
    return joined, places, [*samples.lines(), *references.lines()]


def baselines(predicted: NDArray, objects: NDArray, geometry: Geometry) -> dict[str, NDArray]:
    """Columns of an even map over the image, and of an even map over the box: (q, 1, 5) each.

    Every cell with weight is the peak, in its share.
    """
    everywhere, in_box_only = [], []
    on_objects = geometry.inside(objects)
    for box in predicted:
        in_box, to_edge = geometry.inside(box[None]), geometry.to_edge(box)
        everywhere.append([1, in_box.mean(), on_objects.mean(), to_edge.mean(), in_box.mean()])
        if in_box.any():
            entropy = np.log(in_box.sum()) / np.log(in_box.size)
            share = on_objects[in_box].mean()
            in_box_only.append([entropy, 1, share, to_edge[in_box].mean(), 1])
    rows = {"uniform": everywhere, "uniform in the box": in_box_only}
    return {label: np.array(part)[:, None] for label, part in rows.items() if part}


def scenes(count: int) -> Iterator[Scene]:
    """Held-out scenes of the first distribution, drawn at the size of the samples in image/."""
    return (scene(seed, SCENE_PX) for seed in held_out_seeds(count))


def report(name: str, weights: str | None, count: int) -> str:
    """Markdown: a table of the modes, then where each head of `combine` looks in the box."""
    table, offsets, more = measurements(name, weights, count)
    title = models.REGISTRY[name].title
    queries = len(next(iter(table.values())))
    lines = [f"{title}, {count} scenes, {queries} objects found", ""]
    lines += ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for label, rows in table.items():
        cells = " | ".join(f"{value:.2f}" for value in rows.mean((0, 1)))
        lines.append(f"| {label} | {cells} |")
    lines += [
        *more,
        "",
        "median place of each head's peak, half box sizes right and down of the centre:",
    ]
    for label, places in offsets.items():
        heads = "  ".join(f"{x:+.1f},{y:+.1f}" for x, y in np.median(places, 0))
        lines.append(f"    {label:<18} {heads}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report of each type's demo, or of one checkpoint."""
    parser = argparse.ArgumentParser(
        description="Measure attention maps on held-out scenes.", allow_abbrev=False
    )
    parser.add_argument("--type", choices=models.demos(), nargs="+", default=models.demos())
    parser.add_argument("--weights", help="a demo checkpoint of one type (default: those shipped)")
    parser.add_argument(
        "--scenes", type=positive, default=200, help="how many (default %(default)s)"
    )
    args = parser.parse_args(argv)
    for name in args.type:
        print(report(name, args.weights, args.scenes), end="\n\n")


if __name__ == "__main__":
    main()
