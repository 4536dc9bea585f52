"""--attention encoder: points that look around."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detr_viz.errors import UserError
from detr_viz.points import parse
from detr_viz.queries import select
from detr_viz.terms import modes_of_plot
from detr_viz.views import Made

if TYPE_CHECKING:
    from detr_viz.explanation import Explanation
    from detr_viz.images import LoadedImage
    from detr_viz.loading import LoadedModel
    from detr_viz.recipe import Recipe


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go with it."""
    if args.points and args.queries is not None:
        raise UserError("--points and --queries both say where: give one of them")


def make(
    args: argparse.Namespace,
    model: LoadedModel,
    exact: LoadedModel | None,
    picture: LoadedImage,
    recipe: Recipe,
) -> Made:
    """Explain and draw."""
    from detr_viz.encoder_figures import encoder_grid
    from detr_viz.explanation import explain

    layers = [recipe.layer] if isinstance(recipe.layer, str | int) else recipe.layer
    e = explain(
        model,
        picture,
        sites=[("encoder", layer) for layer in layers],
        size=recipe.size,
        max_size=recipe.max_size,
    )
    points, names = points_of(args, e, recipe)
    figure = encoder_grid(
        e,
        points,
        modes_of_plot(recipe.plot, e.modes),
        names=names,
        scale=recipe.scale,
        look=recipe.look,
        page=recipe.page,
    )
    lines = [_deviation(exact, e, points, recipe)] if exact else []
    return Made({"": figure}, lines, str(points))


def _deviation(
    exact: LoadedModel, e: Explanation, points: Sequence[tuple[float, float]], recipe: Recipe
) -> str:
    from detr_viz.encoder_figures import cell_of
    from detr_viz.explanation import explain

    other = explain(exact, e.image, sites=e.sites, size=recipe.size, max_size=recipe.max_size)
    cells = [row * e.grid_hw[1] + column for row, column in (cell_of(e, *xy) for xy in points)]
    apart = max(
        float(abs(e.attention(site, mode, cells) - other.attention(site, mode, cells)).max())
        for site in e.sites
        if site[0] == "encoder"
        for mode in modes_of_plot(recipe.plot, e.modes)
    )
    return f"note: {recipe.precision} moves attention weights by up to {apart:.2g} from float32's"


def points_of(
    args: argparse.Namespace, e: Explanation, recipe: Recipe
) -> tuple[list[tuple[float, float]], list[str] | None]:
    """The points asked for; else the middles of the boxes of the queries, and their classes."""
    if args.points:
        try:
            return [xy for said in args.points for xy in parse(said).on(e.image.hw)], None
        except ValueError as error:
            raise UserError(f"--points {error}") from None
    ids = select(e, recipe.queries)
    height, width = e.image.hw
    middles = [(box[:2] + box[2:]) / 2 for box in e.boxes_xyxy_px[ids]]
    inside = [(min(max(float(x), 0), width), min(max(float(y), 0), height)) for x, y in middles]
    return inside, [e.label_name(q) for q in ids]
