"""--attention encoder: one image, one model, points that look around."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from detr_viz.errors import UserError
from detr_viz.points import parse
from detr_viz.preparing import precise, suffixes
from detr_viz.queries import select
from detr_viz.targets import target_of
from detr_viz.terms import LEDGER, modes_of_plot

if TYPE_CHECKING:
    from detr_viz.explanation import Explanation
    from detr_viz.inputs import Input
    from detr_viz.loading import LoadedModel
    from detr_viz.recipe import Recipe


def check(args: argparse.Namespace, models: int, many: bool) -> None:
    """UserError for flags that do not go with the attention that is asked for."""
    if args.attention == "cross":
        if args.points:
            raise UserError("--points are for --attention encoder, where cells look at cells")
        return
    said = "--attention encoder"
    if args.points and args.queries is not None:
        raise UserError("--points and --queries both say where: give one of them")
    if many:
        raise UserError(f"{said} is for one image: name a single one")
    if models > 1:
        raise UserError(f"{said} is for one model: give one --type or --weights")
    if args.plot == LEDGER:
        raise UserError(f"--plot terms is for --attention cross: with {said} leave it out")
    if args.biography is not None:
        raise UserError(f"--biography is for --attention cross: with {said} leave it out")
    for flag in ("ablate", "save_maps", "caption", "list_queries"):
        if getattr(args, flag):
            word = flag.replace("_", "-")
            raise UserError(f"--{word} is for --attention cross: with {said} leave it out")
    if ".npz" in (args.format or ()):
        raise UserError(f"{said} saves no maps: leave npz out of --format")


def render_encoder(
    args: argparse.Namespace, loaded: Sequence[LoadedModel], image: Input, recipe: Recipe
) -> Iterator[str]:
    """Explain and draw; yields the lines to print."""
    from detr_viz import figures, images
    from detr_viz.encoder_figures import encoder_grid
    from detr_viz.explanation import explain

    target = target_of(args.out, f"{image.name}_{recipe.label}_encoder", suffixes(args), False)
    target.check()
    picture = images.load(image.path)
    for note in picture.notes:
        yield f"note: {image.path}: {note}"
    exact, (model,) = precise(args, list(loaded))
    layers = [recipe.layer] if isinstance(recipe.layer, str | int) else recipe.layer
    e = explain(
        model,
        picture,
        sites=[("encoder", layer) for layer in layers],
        size=recipe.size,
        max_size=recipe.max_size,
    )
    points, names = _points(args, e, recipe)
    if exact:
        yield _deviation(exact[0], e, points, recipe)
    figure = encoder_grid(
        e,
        points,
        modes_of_plot(recipe.plot, e.modes),
        names=names,
        scale=recipe.scale,
        look=recipe.look,
        page=recipe.page,
    )
    # by what else the figure depends on, too
    digest = replace(recipe, queries=f"{recipe.queries} encoder {points}").digest(picture)
    for path in target.figures:
        figures.save(figure, path, {"Recipe": digest})
        yield f"wrote {path}"
    if args.show:
        figures.show(figure)


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


def _points(
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
