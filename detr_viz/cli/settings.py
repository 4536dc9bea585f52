"""What one image and many have in common: models, recipe and formats as the flags say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.checkpoints.sources import load
from detr_viz.common.errors import UserError
from detr_viz.common.files import say
from detr_viz.detections.queries import DEFAULT
from detr_viz.figures.styles import PageFormat, Style

if TYPE_CHECKING:
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe

DEMO_LINE = (
    "demo checkpoint, trained by this project on procedural scenes; "
    "for real ones: --weights detr_resnet50 (see --list-models) or a file of yours"
)


def tell(args: argparse.Namespace, line: str) -> None:
    """Print a line, unless --quiet."""
    if not args.quiet:
        say(line)


def load_models(
    args: argparse.Namespace, pairs: Sequence[tuple[str | None, str | None]]
) -> list[LoadedModel]:
    """The models, in float32; says what must be known of them."""
    loaded = load(args, pairs)
    if args.weights is None:
        tell(args, DEMO_LINE)
    tell_notes(args, loaded)
    for model in loaded:
        if isinstance(args.heads, tuple) and max(args.heads) >= model.config.nheads:
            title, last = model.spec.title, model.config.nheads - 1
            raise UserError(f"no head {max(args.heads)}: {title} has 0..{last}")
    return loaded


def tell_notes(args: argparse.Namespace, loaded: Sequence[LoadedModel]) -> None:
    """What had to be assumed of the models."""
    for model in loaded:
        whose = f"{Path(model.path).name}: " * (len(loaded) > 1)
        for note in model.notes:
            tell(args, f"note: {whose}{note}")


def recipe_of(
    args: argparse.Namespace, loaded: Sequence[LoadedModel], style: Style, page_format: PageFormat
) -> Recipe:
    """What is drawn of an image, and how."""
    from detr_viz.render.recipe import Recipe, of_models

    layer, removed_in = (
        tuple(said) if isinstance(said, list) else said for said in (args.layer, args.ablate_in)
    )
    several = layer == "all" or isinstance(layer, tuple)
    recipe = Recipe(
        models=(),
        plot=args.plot,
        biography=args.biography is not None,
        queries=args.queries or ("top:1" if several else DEFAULT),
        layer=layer,
        scale=args.scale,
        style=style,
        page_format=page_format,
        size=args.size,
        max_size=args.max_size,
        precision=args.precision,
        removed=tuple(dict.fromkeys(args.ablate or ())),
        removed_in="all" if removed_in is None else removed_in,
    )
    return of_models(loaded, recipe)


def precise(
    args: argparse.Namespace, loaded: list[LoadedModel]
) -> tuple[list[LoadedModel] | None, list[LoadedModel]]:
    """(the models in float32 where another precision is asked for, the models to use)."""
    if args.precision == "float32":
        return None, loaded
    from detr_viz.checkpoints.load_model import in_precision

    return loaded, [in_precision(model, args.precision) for model in loaded]


def suffixes(args: argparse.Namespace) -> tuple[str, ...]:
    """Of what is written to a folder."""
    given = args.format or (".png",)
    return given if ".npz" in given or not args.save_maps else (*given, ".npz")
