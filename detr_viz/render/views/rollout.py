"""--rollout: what queries, or points in the encoder, have of the image through all layers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.detections.queries import select
from detr_viz.render.views import CROSS, Made, encoder
from detr_viz.render.write import moved

if TYPE_CHECKING:
    import numpy as np

    from detr_viz.explanation.captured import Explanation
    from detr_viz.images.read import LoadedImage
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go with it."""
    sites = dict.fromkeys(args.attention or [CROSS])
    if len(sites) > 1:
        raise UserError("--rollout starts at queries or at points: give --attention one of them")
    (site,) = sites
    if site not in (CROSS, "encoder"):
        raise UserError(f"there is no --rollout of --attention {site}: say cross or encoder")
    for flag, given, why in (
        ("--plot and --terms", args.plot != "combine", "takes the weights as they are used"),
        ("--heads", args.heads is not None, "takes the mean of the heads"),
        ("--layer", args.layer != "last", "goes through all layers"),
        ("--scale", args.scale != "mode", "takes the weights as they are used"),
    ):
        if given:
            raise UserError(f"--rollout {why}: leave {flag} out")
    if site == "encoder":
        encoder.check(args)


def make(
    args: argparse.Namespace,
    model: LoadedModel,
    exact: LoadedModel | None,
    picture: LoadedImage,
    recipe: Recipe,
) -> Made:
    """Explain and draw."""
    from detr_viz.explanation import rollout
    from detr_viz.figures.encoder import places
    from detr_viz.figures.rollout import encoder_rollout_grid, rollout_grid

    style, page_format = recipe.style, recipe.page_format
    of_encoder = "encoder" in (args.attention or ())
    e = _explain(model, picture, recipe, of_encoder)
    if of_encoder:
        points, names = encoder.points_of(args, e, recipe)
        cells = [one.cell for one in places(e, points)]
        figure = encoder_rollout_grid(e, points, names=names, style=style, page_format=page_format)
        told = str(points)
    else:
        ids = select(e, recipe.queries)
        figure, told = rollout_grid(e, ids, style=style, page_format=page_format), str(ids)

    def maps(found: Explanation) -> np.ndarray:
        return rollout.of_cells(found, cells) if of_encoder else rollout.of_queries(found, ids).both

    lines = [_deviation(maps, _explain(exact, picture, recipe, of_encoder), e)] if exact else []
    return Made({"": figure}, lines, told)


def _explain(
    model: LoadedModel, picture: LoadedImage, recipe: Recipe, of_encoder: bool
) -> Explanation:
    from detr_viz.explanation.explain_image import explain

    return explain(
        model,
        picture,
        layers="last" if of_encoder else "all",
        sites=["encoder"] if of_encoder else ["encoder", "decoder"],
        size=recipe.size,
        max_size=recipe.max_size,
    )


def _deviation(
    maps: Callable[[Explanation], np.ndarray], exact: Explanation, e: Explanation
) -> str:
    apart = float(abs(maps(exact) - maps(e)).max())
    return moved(e.model.precision, apart, "rolled out weights")
