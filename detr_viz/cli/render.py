"""The render command: images -> figures and saved maps; one image here, many through many.py."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz import models
from detr_viz.attention.terms import ALL_TERMS
from detr_viz.checkpoints.sources import named, pair
from detr_viz.cli.flags import add_arguments
from detr_viz.cli.many import run_many
from detr_viz.cli.settings import load_models, precise, recipe_of, suffixes, tell
from detr_viz.common import assets
from detr_viz.common.errors import UserError, report
from detr_viz.common.files import OutputError, say
from detr_viz.detections import labels
from detr_viz.detections.objects import choose, queries_of
from detr_viz.detections.queries import (
    DEFAULT,
    NoQueryError,
    ablation_table,
    check_syntax,
    shares_table,
    table,
)
from detr_viz.figures.styles import PageFormat, Style
from detr_viz.images import collect
from detr_viz.render import views
from detr_viz.render.paths import check_out, folder_of, is_folder, target_of

if TYPE_CHECKING:
    from detr_viz.explanation.captured import Explanation
    from detr_viz.images.collect import Input
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe

__all__ = ["DESCRIPTION", "EPILOG", "add_arguments", "run"]

DESCRIPTION = (
    "Draw each object query's attention heads over the image: what they look at, "
    "and how much of it comes from content and how much from position."
)
EPILOG = """\
examples
  %(prog)s --type detr --plot combine
  %(prog)s --type cd_detr --plot position --queries top:3 --style contour
  %(prog)s --type detr cd_detr --plot all
  %(prog)s --weights detr_resnet50 --image photo.jpg --layer all --preset page --out photo.pdf
  %(prog)s --weights detr_resnet50 --image val2017/ --out figures/ --format png,npz --resume
"""
EXIT_FAILURES = 1  # some images failed
_FOR_MANY = ("resume", "shard", "contact_sheet", "jobs", "batch_size", "ray_address")


def run(args: argparse.Namespace) -> int:
    """Render the images of the arguments.

    The exit code is 0; for several images 1 where some failed, 130 after Ctrl-C.
    """
    if args.list_models:
        say(list_models())
        return 0
    if not args.show:  # the variable may name a window system that is not here; files need none
        os.environ["MPLBACKEND"] = "agg"
    if args.biography is not None:
        if args.queries is not None or args.layer != "last":
            raise UserError(
                "--biography names the query and takes all layers: leave --queries and --layer out"
            )
        args.queries, args.layer = str(args.biography), "all"
    _check_combinations(args)
    check_syntax(DEFAULT if args.queries is None else args.queries)
    args.style = args.style or ("heat" if args.plot == ALL_TERMS else "overlay")
    pairs = pair(args.type, args.weights)
    style = Style(args.style, args.norm, args.cmap, args.interpolation, args.heads)
    page = PageFormat.of(args.preset, args.width, args.dpi)
    wanted = views.chosen(args)
    views.check(args, wanted, len(pairs))
    several, batch = _is_several(args), _is_batch(args, wanted)
    if not args.list_queries:
        _check_outputs(args, several or batch)
        if style.cmap:
            from detr_viz.figures.page.paint import colors  # matplotlib

            colors(style)
    images = _inputs(args)
    if args.classes is not None:
        labels.load_class_names(args.classes)  # a mistake in it, before weights are read
    if batch and not args.list_queries:
        return run_many(args, pairs, images, style, page)
    loaded = load_models(args, pairs)
    recipe = recipe_of(args, loaded, style, page)
    views.check_layers(wanted, recipe, loaded)
    failed = 0
    for image in images:
        try:
            if len(images) > 1:
                tell(args, f"{image.path}:")
            for view in wanted if not args.list_queries else ():
                views.target_for(view, args, image, recipe).check()  # of all, before the first
            for view in wanted:
                about = args, loaded, image, recipe
                of_one = render_one(*about) if view == views.CROSS else views.render(view, *about)
                for line in of_one:
                    tell(args, line)
        except Exception as error:
            if len(images) == 1 or isinstance(error, OutputError):
                raise
            if isinstance(error, NoQueryError):
                tell(args, f"note: {image.path}: {error}")
                continue
            if isinstance(error, UserError) and image.path not in str(error):
                error = UserError(f"{image.path}: {error}")
            report(error, args.traceback)
            failed += 1
    if failed:
        print(f"error: {failed} of {len(images)} images failed", file=sys.stderr)
    return EXIT_FAILURES if failed else 0


def _is_several(args: argparse.Namespace) -> bool:
    return args.image is not None and not collect.is_single(args.image)


def _is_batch(args: argparse.Namespace, wanted: Sequence[str]) -> bool:
    """Whether the run is a batch, by what stands in --image or by flags that only batches have.

    UserError for such a flag where images are drawn one by one.
    """
    asked = [f"--{name.replace('_', '-')}" for name in _FOR_MANY if getattr(args, name)]
    asked += ["--engine ray"] * (args.engine == "ray")
    if wanted == [views.CROSS] and not args.ablate:
        return bool(asked) or _is_several(args)
    if asked:
        said = "--ablate" if args.ablate else views.said(wanted)
        raise UserError(
            f"{asked[0]} is not for {said}, which takes one image at a time: leave it out"
        )
    return False


def _inputs(args: argparse.Namespace) -> list[Input]:
    words = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    skip = None if args.list_queries else folder_of(args.out)
    found = collect.expand(words, args.image_root, skip)
    return collect.shard(found, *args.shard) if args.shard else found


def _check_outputs(args: argparse.Namespace, several: bool) -> None:
    """UserError where outputs cannot be as asked for, before any time is spent."""
    check_out(args.out, several)
    given = args.format or (".png",)
    if args.format and args.out and not is_folder(args.out):
        raise UserError(
            f"--out {args.out} says its format itself: give --format a folder, or leave it out"
        )
    if args.caption and set(given) <= {".npz"}:
        raise UserError("--caption is for figures: add png, pdf or svg to --format")
    if args.show and several:
        raise UserError("--show is for one image: leave it out, the figures are in --out")
    if args.show and set(given) <= {".npz"}:
        raise UserError("--show is for figures: add png, pdf or svg to --format")
    if args.contact_sheet and ".png" not in given:
        raise UserError("--contact-sheet is made of the PNG files: add png to --format")
    if args.ray_address is not None and args.engine != "ray":
        raise UserError("--ray-address is for --engine ray")
    if args.ablate and args.plot != "combine":
        raise UserError("--ablate shows the attention as it is used: leave --plot and --terms out")
    if args.ablate and (args.save_maps or ".npz" in given):
        raise UserError("--ablate saves no maps: leave --save-maps and npz out")
    if args.out and not is_folder(args.out):
        target_of(args.out, "", suffixes(args), args.caption).check()


def _check_combinations(args: argparse.Namespace) -> None:
    """UserError for flags that say nothing together."""
    heads = args.heads if isinstance(args.heads, str) else ""
    ledger, maps = args.plot == ALL_TERMS, args.save_maps or ".npz" in (args.format or ())
    wrong = [
        (
            args.ablate_in is not None and not (args.ablate or args.faithfulness),
            "--ablate-in is for --ablate and --faithfulness: give one of them too",
        ),
        (args.ablate and args.list_queries, "--ablate draws: leave --list-queries out"),
        (
            args.ablate and (args.layer != "last" or args.biography is not None),
            "--ablate shows the last layer: leave --layer and --biography out",
        ),
        (
            ledger and args.style == "contour",
            "terms have no contours: take another --style",
        ),
        (ledger and heads, "terms are those of single heads: name --heads by number (0,3)"),
        (ledger and maps, "--plot terms saves no maps: leave --save-maps and npz out"),
        (
            args.caption and (ledger or args.ablate or args.biography is not None),
            "--caption has no words for terms, --ablate and --biography: leave it out",
        ),
        (args.caption and heads == "max", "--caption has no words for --heads max: leave it out"),
    ]
    for is_so, said in wrong:
        if is_so:
            raise UserError(said)


# ---- one image ----------------------------------------------------------------------------------


def render_one(
    args: argparse.Namespace, loaded: Sequence[LoadedModel], image: Input, recipe: Recipe
) -> Iterator[str]:
    """Explain and draw one image; yields the lines to print."""
    from detr_viz.images.read import load_image
    from detr_viz.render import write

    target = views.target_for(views.CROSS, args, image, recipe)
    picture = load_image(image.path)
    for note in picture.notes:
        yield f"note: {image.path}: {note}"
    exact, used = precise(args, list(loaded))
    found = _explain(used, picture, recipe)
    yield from (f"note: {words}" for words in dict.fromkeys(_cut(args, used, found)))
    if args.list_queries and args.queries in (None, "all"):
        for e in found:
            yield from _table(e, e.by_score(), headed=len(found) > 1)
        return
    objects = choose(found, recipe.queries)
    tables: list[str] = []
    for k, e in enumerate(found):
        early = e.layers[-1] < e.num_layers - 1 and not args.list_queries
        layer = e.layers[-1] if early else None  # what is drawn; the last is what chooses
        tables += _table(e, queries_of(objects, k), len(found) > 1, layer)
    if args.list_queries:
        yield from tables
        return
    if exact is not None:
        apart = write.deviation(_explain(exact, picture, recipe), found, objects, recipe)
        yield write.moved(recipe.precision, apart)
    if recipe.plot == ALL_TERMS:
        apart = write.ledger_residual(found, objects)
        yield f"the terms add up to the network's logits within {apart:.1e}"
        for k, e in enumerate(found):
            tables += _shares(e, queries_of(objects, k), headed=len(found) > 1)
    ablations = []
    for k, (e, model) in enumerate(zip(found, used, strict=True)):
        with named(Path(model.path).name, len(used)):
            ablations.append([e.ablate(part, recipe.removed_in) for part in recipe.removed])
        if recipe.removed:
            ids = queries_of(objects, k)
            heading = [f"{e.model_title} ({e.meta['weights']})"] * (len(found) > 1)
            tables += [*heading, ablation_table(e, ids, ablations[k])] if ids else []
    written = write.write(found, objects, recipe, target, ablations)
    yield from (f"note: {note}" for note in written.notes)
    yield from tables
    for path in written.files:
        yield f"wrote {path}"
    if args.show:
        from detr_viz import figures

        figures.show(written.figure)


def _explain(loaded: Sequence[LoadedModel], picture, recipe: Recipe) -> list[Explanation]:
    from detr_viz.explanation.explain_image import explain

    found = []
    for model in loaded:
        with named(Path(model.path).name, len(loaded)):
            found.append(
                explain(
                    model,
                    picture,
                    layers=recipe.layer,
                    size=recipe.size,
                    max_size=recipe.max_size,
                )
            )
    return found


def _cut(
    args: argparse.Namespace, loaded: Sequence[LoadedModel], found: Sequence[Explanation]
) -> Iterator[str]:
    """That a --size asked for was too much for the longer side."""
    for model, e in zip(loaded, found, strict=True):
        if args.size and min(e.input_hw) < args.size:
            bound = args.max_size or model.max_size
            yield f"--size {args.size} came down to {min(e.input_hw)}, for --max-size is {bound}"


def _table(
    e: Explanation, ids: Sequence[int], headed: bool, layer: int | None = None
) -> Iterator[str]:
    if headed:
        yield f"{e.model_title} ({e.meta['weights']})"
    yield table(e, ids, layer)


def _shares(e: Explanation, ids: Sequence[int], headed: bool) -> Iterator[str]:
    for layer in e.layers if ids else ():
        if headed or len(e.layers) > 1:
            yield f"{e.model_title} ({e.meta['weights']}), layer {layer}"
        yield shares_table(e, ids, layer)


def list_models() -> str:
    """The types of --type and the names that --weights knows, as lines."""
    from detr_viz.checkpoints.downloads import KNOWN

    wide = max(len(name) for name in KNOWN)
    lines = ["types (--type):"]
    lines += [f"  {name:<{wide}}  {title}" for name, (_, title) in models.REGISTRY.items()]
    lines += ["", "weights that are downloaded once (--weights):"]
    lines += [f"  {name:<{wide}}  {known.title}" for name, known in KNOWN.items()]
    lines += ["", "also: a checkpoint file, a Hugging Face folder, hf:owner/name"]
    return "\n".join(lines)
