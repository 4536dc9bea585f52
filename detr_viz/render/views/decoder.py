"""--attention decoder: queries that look at queries."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from detr_viz.attention.terms import modes_of_plot
from detr_viz.common.errors import UserError
from detr_viz.detections.queries import select, table
from detr_viz.render.views import CROSS, Made
from detr_viz.render.views.site import deviation, self_attention

if TYPE_CHECKING:
    from detr_viz.images.read import LoadedImage
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go with it."""
    if args.style != "overlay":
        raise UserError(
            f"--style {args.style} is for maps of the image: with --attention decoder leave it out"
        )
    if args.interpolation:
        raise UserError(
            "--interpolation is for maps of the image: with --attention decoder leave it out"
        )


def make(
    args: argparse.Namespace,
    model: LoadedModel,
    exact: LoadedModel | None,
    picture: LoadedImage,
    recipe: Recipe,
) -> Made:
    """Explain and draw: the boxes of those looked at, and a matrix where queries are several."""
    from detr_viz.figures.decoder import decoder_grid
    from detr_viz.figures.decoder_matrix import query_matrix

    e = self_attention(model, picture, "decoder", recipe)
    queries = select(e, recipe.queries)
    modes = modes_of_plot(recipe.plot, e.modes)
    lines = [deviation(exact, e, "decoder", queries, recipe)] if exact else []
    shared = {"scale": recipe.scale, "style": recipe.style, "page_format": recipe.page_format}
    figures = {"": decoder_grid(e, queries, modes, **shared)}
    if len(queries) > 1:
        figures["_matrix"] = query_matrix(e, queries, modes, **shared)
    else:
        lines.append("note: one query makes no matrix of who looks at whom: show two or more")
    if CROSS not in (args.attention or ()):  # which has one of its own
        last = e.layers[-1]
        lines.append(table(e, queries, None if last == e.num_layers - 1 else last))
    return Made(figures, lines)
