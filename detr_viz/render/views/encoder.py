"""--attention encoder: points that look around."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.attention.terms import modes_of_plot
from detr_viz.common.errors import UserError
from detr_viz.detections.points import parse
from detr_viz.detections.queries import select
from detr_viz.render.views import CROSS, Made
from detr_viz.render.views.site import deviation, self_attention

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.images.read import LoadedImage
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go with it."""
    others = {CROSS, "decoder"} & set(args.attention or ())  # which --queries would be for
    if args.points and args.queries is not None and not others:
        raise UserError("--points and --queries both say where: give one of them")


def make(
    args: argparse.Namespace,
    model: LoadedModel,
    exact: LoadedModel | None,
    picture: LoadedImage,
    recipe: Recipe,
) -> Made:
    """Explain and draw."""
    from detr_viz.figures.encoder import encoder_grid, places

    e = self_attention(model, picture, "encoder", recipe)
    points, names = points_of(args, e, recipe)
    figure = encoder_grid(
        e,
        points,
        modes_of_plot(recipe.plot, e.modes),
        names=names,
        scale=recipe.scale,
        style=recipe.style,
        page_format=recipe.page_format,
    )
    lines = []
    if exact:
        cells = [one.cell for one in places(e, points)]
        lines.append(deviation(exact, e, "encoder", cells, recipe))
    return Made({"": figure}, lines, str(points))


def points_of(
    args: argparse.Namespace, e: Explanation, recipe: Recipe
) -> tuple[list[tuple[float, float]], list[str] | None]:
    """The points asked for; else the middles of the boxes of the queries, and their classes."""
    if args.points:
        try:
            return [xy for said in args.points for xy in parse(said).on(e.image.hw)], None
        except ValueError as error:
            raise UserError(f"--points {error}") from None
    ids = [q for q in select(e, recipe.queries) if np.isfinite(e.boxes_xyxy_px[q]).all()]
    if not ids:
        raise UserError("none of the queries has a box whose middle could look: give --points")
    height, width = e.image.hw
    middles = [(box[:2] + box[2:]) / 2 for box in e.boxes_xyxy_px[ids]]
    inside = [(min(max(float(x), 0), width), min(max(float(y), 0), height)) for x, y in middles]
    return inside, [e.label_name(q) for q in ids]
