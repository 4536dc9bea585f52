"""--attention encoder: the self-attention of points of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.grids import on_one_grid
from detr_viz.attention.terms import modes_of_plot
from detr_viz.common.errors import UserError
from detr_viz.detections.objects import queries_of
from detr_viz.detections.points import parse
from detr_viz.explanation.cells import nearest_cell
from detr_viz.explanation.deviation import deviation
from detr_viz.explanation.results import ExplanationBase
from detr_viz.explanation.stored import StoredExplanation, store
from detr_viz.render.numbers import Arrays
from detr_viz.render.views.base import Drawn, Needs, View, Watch, layers_of, resolved

if TYPE_CHECKING:
    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.render.recipe import Recipe


@dataclass(frozen=True, eq=False)
class EncoderPoints:
    """The points whose attention is shown.

    xy: pixels of the image. names: None where the coordinates serve as names. cells: the cells with
    the nearest centres, by number (row-major).
    """

    xy: tuple[tuple[float, float], ...]
    names: tuple[str, ...] | None
    cells: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EncoderResult:
    """shown: of one model, with the weights of the points' cells at each encoder layer."""

    shown: tuple[StoredExplanation, ...]
    points: EncoderPoints


class EncoderView(View):
    name = "encoder"

    def needs(self, recipe: Recipe) -> Needs:
        return Needs(sites=tuple(("encoder", layer) for layer in layers_of(recipe)))

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> EncoderResult:
        e = explanations[0]
        layers = resolved(recipe, e.num_encoder_layers, "encoder layer")
        points = points_of(e, queries_of(objects, 0), recipe, layers)
        return EncoderResult((_stored(explanations[0], points, recipe),), points)

    def deviation(
        self, result: EncoderResult, exact: Sequence[Explanation], recipe: Recipe
    ) -> float:
        return deviation([_stored(exact[0], result.points, recipe)], result.shown)

    def draw(self, result: EncoderResult, recipe: Recipe) -> Drawn:
        from detr_viz.figures.encoder import encoder_grid

        (e,), points = result.shown, result.points
        modes = modes_of_plot(recipe.plot, e.modes)
        return Drawn(
            {
                "": lambda: encoder_grid(
                    e,
                    points.xy,
                    modes,
                    names=points.names,
                    scale=recipe.scale,
                    style=recipe.style,
                    page_format=recipe.page_format,
                )
            },
            {"": lambda: _numbers(e, points, modes, recipe)},
        )


def _stored(e: Explanation, points: EncoderPoints, recipe: Recipe) -> StoredExplanation:
    layers = resolved(recipe, e.num_encoder_layers, "encoder layer")
    return store(
        e,
        (),
        modes_of_plot(recipe.plot, e.modes),
        recipe.scale,
        layers=[e.num_layers - 1],
        attention={("encoder", layer): points.cells for layer in layers},
    )


def points_of(
    e: ExplanationBase, queries: Sequence[int], recipe: Recipe, layers: Sequence[int] = ()
) -> EncoderPoints:
    """The points of the recipe; else the middles of the queries' boxes, named by class.

    layers: of the encoder, as of nearest_cell.
    """
    if recipe.points:
        try:
            xy = [xy for words in recipe.points for xy in parse(words).on(e.image.hw)]
        except ValueError as error:
            raise UserError(f"--points {error}") from None
        return EncoderPoints(tuple(xy), None, _cells(e, xy, layers))
    ids = [q for q in queries if np.isfinite(e.boxes_xyxy_px[q]).all()]
    if not ids:
        raise UserError(
            "none of the queries has a finite box, whose middle would be a point: give --points"
        )
    height, width = e.image.hw
    middles = [(box[:2] + box[2:]) / 2 for box in e.boxes_xyxy_px[ids]]
    inside = [(min(max(float(x), 0), width), min(max(float(y), 0), height)) for x, y in middles]
    return EncoderPoints(
        tuple(inside), tuple(e.label_name(q) for q in ids), _cells(e, inside, layers)
    )


def _cells(
    e: ExplanationBase, points: Sequence[tuple[float, float]], layers: Sequence[int]
) -> tuple[int, ...]:
    return tuple(nearest_cell(e, x, y, layers) for x, y in points)


def point_arrays(e: StoredExplanation, points: EncoderPoints) -> dict[str, np.ndarray]:
    """The arrays of points in a file: pixels, (column, row) of the cells, the grid."""
    cells = np.asarray(points.cells, np.int64)
    return {
        "points_xy_px": np.asarray(points.xy, np.float64),
        "cells": np.stack([cells % e.grid_hw[1], cells // e.grid_hw[1]], -1),
        "grid_hw": np.asarray(e.grid_hw, np.int64),
        "image_hw_px": np.asarray(e.image.hw, np.int64),
    }


def _numbers(
    e: StoredExplanation, points: EncoderPoints, modes: Sequence[str], recipe: Recipe
) -> Arrays:
    layers = [layer for _, layer in e.rows]
    arrays = point_arrays(e, points) | {"layers": np.asarray(layers, np.int64)}
    for mode in modes:
        maps = [
            on_one_grid(e.attention(("encoder", n), mode, points.cells, recipe.scale), e.grids())
            for n in layers
        ]
        arrays[f"maps_{mode}"] = np.stack(maps)  # (layers, points, heads, h, w)
        samples = [e.samples_at(("encoder", n), mode, points.cells) for n in layers]
        if None not in samples:
            xy, weights = zip(*samples, strict=True)
            arrays[f"samples_{mode}"] = np.stack(xy)  # (layers, points, heads, levels, samples, 2)
            arrays[f"sample_weights_{mode}"] = np.stack(weights)
    meta = {**e.meta, "view": "encoder", "scale": recipe.scale, "modes": list(modes)}
    return Arrays(arrays, {**meta, "names": points.names and list(points.names)})


VIEW = EncoderView()
