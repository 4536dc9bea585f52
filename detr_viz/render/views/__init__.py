"""Further figures of one image and one model, beside the maps of its queries.

A view is a module with check(args), which raises UserError for flags that do not go with it, and
make(args, model, exact, picture, recipe) -> Made. It is asked for by --attention, or by a flag of
its own name.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.attention.terms import ALL_TERMS
from detr_viz.checkpoints.sources import named
from detr_viz.cli.settings import precise, suffixes
from detr_viz.common.errors import UserError
from detr_viz.render.paths import Target, is_folder, target_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.images.collect import Input
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe

CROSS = "cross"  # the maps themselves: render.py
_MODULES = {
    "encoder": "detr_viz.render.views.encoder",
    "decoder": "detr_viz.render.views.decoder",
    "rollout": "detr_viz.render.views.rollout",
    "faithfulness": "detr_viz.render.views.faithfulness",
}
_FLAGS = ("rollout", "faithfulness")  # names of those that have a flag of their own
_NOT_HERE = ("ablate", "save_maps", "caption", "list_queries")


@dataclass(frozen=True, eq=False)
class Made:
    """What a view has made of an image.

    figures  what follows the stem of a figure's file ("" for the first) -> the figure
    lines    to be printed
    told     what the figures depend on beside the recipe
    """

    figures: Mapping[str, Figure]
    lines: Sequence[str] = ()
    told: str = ""


def chosen(args: argparse.Namespace) -> list[str]:
    """What the flags ask for: CROSS, and names of views."""
    flags = [name for name in _FLAGS if getattr(args, name)]
    if len(flags) > 1:
        raise UserError(f"--{flags[0]} and --{flags[1]} are figures of their own: one at a time")
    return flags or list(dict.fromkeys(args.attention or [CROSS]))


def check(args: argparse.Namespace, names: Sequence[str], models: int) -> None:
    """UserError for flags that do not go with what is asked for."""
    if args.points and "encoder" not in (args.attention or ()):
        raise UserError("--points are for --attention encoder, where cells look at cells")
    if len(names) > 1 and args.out and not is_folder(args.out):
        raise UserError(
            f"--out {args.out} is one file, but {' and '.join(names)} make one each: give a folder"
        )
    for name in names:
        if name == CROSS:
            continue
        said = _said(name)
        if models > 1:
            raise UserError(f"{said} is for one model: give one --type or --weights")
        if args.plot == ALL_TERMS:
            raise UserError(f"--plot terms is not for {said}: leave one of them out")
        if args.biography is not None:
            raise UserError(f"--biography is not for {said}: leave one of them out")
        for flag in _NOT_HERE:
            if getattr(args, flag):
                word = flag.replace("_", "-")
                raise UserError(f"--{word} is not for {said}: leave one of them out")
        if ".npz" in (args.format or ()):
            raise UserError(f"{said} saves no maps: leave npz out of --format")
        import_module(_MODULES[name]).check(args)


def check_layers(names: Sequence[str], recipe: Recipe, loaded: Sequence[LoadedModel]) -> None:
    """UserError for a layer that one of these has not, before any is drawn."""
    from detr_viz.explanation.sites import resolve_layers

    for model in loaded:
        with named(Path(model.path).name, len(loaded)):
            for name in names:
                info = model.info
                stack = "encoder" if name == "encoder" else "decoder"
                count = info.num_encoder_layers if name == "encoder" else info.num_layers
                resolve_layers(recipe.layer, count, stack)


def said(names: Sequence[str]) -> str:
    """The flags that ask for these."""
    return _said(next(name for name in names if name != CROSS))


def _said(name: str) -> str:
    return f"--{name}" if name in _FLAGS else f"--attention {name}"


def render(
    name: str,
    args: argparse.Namespace,
    loaded: Sequence[LoadedModel],
    image: Input,
    recipe: Recipe,
) -> Iterator[str]:
    """Make a view of an image and write it; yields the lines to print."""
    from detr_viz import figures
    from detr_viz.images.read import load_image

    target = target_for(name, args, image, recipe)
    picture = load_image(image.path)
    for note in picture.notes:
        yield f"note: {image.path}: {note}"
    exact, (model,) = precise(args, list(loaded))
    view = import_module(_MODULES[name])
    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        made = view.make(args, model, exact[0] if exact else None, picture, recipe)
        asked = replace(recipe, queries=f"{recipe.queries} {name} {made.told}")
        targets = [replace(target, stem=_ended(target.stem, end)) for end in made.figures]
        for each in targets:
            each.check()  # of all, before the first is written
        written = []
        for each, figure in zip(targets, made.figures.values(), strict=True):
            for path in each.figures:
                figures.save(figure, path, {"Recipe": asked.digest(picture)})
                written.append(path)
    yield from dict.fromkeys(f"note: {one.message}" for one in caught)
    yield from made.lines
    for path in written:
        yield f"wrote {path}"
    if args.show:
        for figure in made.figures.values():
            figures.show(figure)


def target_for(name: str, args: argparse.Namespace, image: Input, recipe: Recipe) -> Target:
    """Where an image's figures of a view go, CROSS among them."""
    sites = [site for site in args.attention or () if name in _FLAGS and site != CROSS]
    what = [] if name == CROSS else [name, *dict.fromkeys(sites)]
    stem = "_".join([image.name, recipe.label, *what])
    return target_of(args.out, stem, suffixes(args), args.caption and name == CROSS)


def _ended(stem: Path, end: str) -> Path:
    return stem.with_name(stem.name + end)
