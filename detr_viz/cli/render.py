"""The render command: images become figures and numbers; many images run through batch/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import detr_viz
from detr_viz import adapters, models
from detr_viz.checkpoints.sources import ModelSource, check_sources, precise
from detr_viz.cli import rules
from detr_viz.cli.render_flags import add_arguments
from detr_viz.cli.settings import (
    check_look,
    check_parts,
    check_truth,
    expand_biography,
    images_of,
    load_models,
    options_of,
    page_format_of,
    recipe_of,
    sources_of,
    style_of,
)
from detr_viz.common import assets
from detr_viz.common.console import say
from detr_viz.common.errors import EXIT_INTERRUPTED, UserError, report
from detr_viz.common.files import OutputError, check_file
from detr_viz.common.many_passes import for_many_passes
from detr_viz.detections import labels
from detr_viz.detections.queries import DEFAULT, NoQueryError, check_for, check_syntax, needs_truth
from detr_viz.images import collect
from detr_viz.images.first_look import check_image
from detr_viz.render.options import RunOptions
from detr_viz.render.paths import folder_of

if TYPE_CHECKING:
    from detr_viz.images.collect import Input
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


def run(args: argparse.Namespace) -> int:
    """Render the images of the arguments.

    The exit code is 0; for several images 1 where some failed, 130 after Ctrl-C.
    """
    if args.list_models:
        say(list_models())
        return 0
    if not args.show:  # MPLBACKEND may name a missing window system; files need none
        os.environ["MPLBACKEND"] = "agg"
    expand_biography(args)
    flags = rules.Flags(args)
    check_syntax(DEFAULT if args.queries is None else args.queries)
    sources = sources_of(args)
    style = style_of(args)
    page_format = page_format_of(args)
    rules.check(flags)
    options = options_of(args)
    if not options.list_queries:
        if options.out and options.paths.stem:
            options.paths.check()
        check_look(style, page_format)
    boxes = args.gt or needs_truth(args.queries or DEFAULT) or flags.writes_page
    images = _inputs(args, boxes)
    if args.gt:
        check_truth(images, "--gt", args.quiet)
    elif needs_truth(args.queries or DEFAULT):
        check_truth(images, f"--queries {args.queries}", args.quiet)
    if args.classes is not None:  # errors in it, before weights are read
        names = labels.load_class_names(args.classes)
        check_for(DEFAULT if args.queries is None else args.queries, names)
    check_sources(sources)
    if len(images) == 1:
        check_image(images[0].path)
    recipe = recipe_of(args, style, page_format, flags.views, flags.writes_page)
    if flags.is_batch:
        return run_many(sources, recipe, images, options)
    return run_here(sources, recipe, images, options, all_queries=args.queries in (None, "all"))


def _inputs(args: argparse.Namespace, boxes: bool) -> list[Input]:
    """The images of this run. boxes: whether annotated ones decide what it shows."""
    words = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    skip = None if args.list_queries else folder_of(args.out)
    figures = args.format or (".png",)
    given = words, args.image_root, skip, args.quiet, figures, args.annotations
    inputs = images_of(*given, boxes)
    return collect.shard(inputs, *args.shard) if args.shard else inputs


# ---- in this process ----------------------------------------------------------------------------


def run_here(
    sources: Sequence[ModelSource],
    recipe: Recipe,
    images: Sequence[Input],
    options: RunOptions,
    all_queries: bool = False,
) -> int:
    """Draw one image, or print the tables of several, in this process."""
    loaded = load_models(sources, options.quiet, recipe.size, recipe.max_size)
    check_parts(recipe.style, loaded, recipe.views)
    from detr_viz.render.listing import list_image
    from detr_viz.render.recipe import of_models
    from detr_viz.render.run import check_needs, render_image

    recipe = of_models(loaded, recipe)
    check_needs(recipe, loaded)
    exact, detectors = precise(loaded, recipe.precision)
    failed = 0
    for image in images:
        try:
            if len(images) > 1:
                say(f"{image.path}:", options.quiet)
            if options.list_queries:
                lines = list_image(detectors, image, recipe, all_queries)
            else:
                lines = render_image(
                    detectors,
                    image,
                    recipe,
                    options.paths,
                    exact=None if options.quiet else exact,
                    watch=partial(_with_progress, quiet=options.quiet),
                    show=_show if options.show else None,
                )
            for line in lines:
                say(line, options.quiet)
        except Exception as error:
            if len(images) == 1 or isinstance(error, OutputError):
                raise
            if isinstance(error, NoQueryError):
                say(f"note: {image.path}: {error}", options.quiet)
                continue
            if isinstance(error, UserError) and image.path not in str(error):
                error = UserError(f"{image.path}: {error}")
            report(error, options.traceback)
            failed += 1
    if failed:
        print(f"error: {failed} of {len(images)} images failed", file=sys.stderr)
    return EXIT_FAILURES if failed else 0


def _with_progress(queries: Sequence[Any], quiet: bool) -> Iterator[Any]:
    """Yields the queries, and shows the progress."""
    from detr_viz.common.progress import Progress

    with Progress(len(queries), quiet=quiet, what=("a query", "queries")) as progress:
        for query in queries:
            yield query
            progress.advance()


def _show(figure: Any) -> None:
    from detr_viz import figures

    figures.show(figure)


# ---- many images --------------------------------------------------------------------------------


def run_many(
    sources: Sequence[ModelSource],
    recipe: Recipe,
    images: Sequence[Input],
    options: RunOptions,
) -> int:
    """Draw all images; returns the exit code: 0, 1 where some failed, 130 after Ctrl-C."""
    for_many_passes()
    from detr_viz.batch import worker_process
    from detr_viz.batch.run import figures_of, run_batch

    tag = f"-{options.paths.tag}" if options.paths.tag else ""
    sheet = options.paths.folder / f"contact-sheet{tag}.pdf"
    if options.contact_sheet:
        check_file(sheet, "choose another --out")
    local, here = options.engine == "local", sources
    if not local:
        from detr_viz.batch.ray.engine import check

        check(options.ray_address)
        # notes about the models are printed here; the network runs on the cluster
        here = [replace(source, device="cpu") for source in sources]
    workers = []
    if local:
        device = sources[0].device
        workers = worker_process.start(options.jobs or worker_process.default_count(device))
    try:
        loaded = load_models(here, options.quiet, recipe.size, recipe.max_size)
        check_parts(recipe.style, loaded, recipe.views)
        from detr_viz.detections import queries
        from detr_viz.render.recipe import of_models
        from detr_viz.render.run import check_needs

        recipe = of_models(loaded, recipe)
        first = loaded[0].info
        queries.check_for(recipe.queries, first.class_names, first.num_queries, first.anchors)
        check_needs(recipe, loaded)
        paths = options.paths
        if local:
            from detr_viz.batch.local_engine import LocalEngine

            device = loaded[0].device.type
            if not options.jobs:  # where --device auto has found a GPU, cores are free
                workers += worker_process.start(worker_process.default_count(device) - len(workers))
            exact, detectors = precise(loaded, recipe.precision)
            size = options.batch_size or (8 if device == "cuda" else 1)
            engine = LocalEngine(
                detectors, recipe, paths, workers, size, None if options.quiet else exact
            )
            del exact
        else:
            from detr_viz.batch.ray.engine import RayEngine

            engine = RayEngine(sources, recipe, paths, options)
        del loaded  # in float32, perhaps needed for one image only
        summary = run_batch(
            engine, recipe, images, paths, resume=options.resume, quiet=options.quiet
        )
    finally:
        worker_process.stop(workers)
    for line in summary.lines():
        say(line, options.quiet)
    if summary.stopped:
        return EXIT_INTERRUPTED
    if options.contact_sheet:
        from detr_viz.figures.contact_sheet import contact_sheet

        pngs = list(figures_of(paths))
        if pngs:
            facts = {"Software": f"detr_viz {detr_viz.__version__}"}
            contact_sheet(sheet, pngs, options.contact_sheet, recipe.title, facts)
            say(f"wrote {sheet}", options.quiet)
        else:
            say(f"no {sheet.name}: there is no figure", options.quiet)
    if summary.last_line:
        say(summary.last_line, options.quiet)
    if summary.counts.failed:
        failed = f"error: {summary.counts.failed} of {len(images)} images failed"
        print(f"{failed}: {summary.failures} says why", file=sys.stderr)
        return EXIT_FAILURES
    return 0


def list_models() -> str:
    """The types of --type and the names for --weights, as lines."""
    from detr_viz.adapters.transformers_types import INSTALL, TYPES, installed
    from detr_viz.checkpoints.downloads import KNOWN

    adapters.discover()
    wide = max(len(name) for name in KNOWN)
    own = {n: e for n, e in adapters.REGISTRY.items() if not e.of_transformers}
    lines = ["types (--type):"]
    lines += [f"  {name:<{wide}}  {e.title}" for name, e in {**models.REGISTRY, **own}.items()]
    lines += ["", "weights that are downloaded once (--weights):"]
    lines += [f"  {name:<{wide}}  {known.title}" for name, known in KNOWN.items()]
    hub = [f"hf:{name}" for entry in models.REGISTRY.values() for name in entry.hub]
    lines += ["", "weights on the Hugging Face hub (--weights):", *(f"  {name}" for name in hub)]
    have = "" if installed() else f"; run {INSTALL}"
    lines += ["", f"networks of transformers, from its folders or the hub (--weights){have}:"]
    for name, kind in TYPES.items():
        way = f"hf:{kind.hub}" if kind.hub else "a folder"
        more = ", with --prompt" if kind.prompted else ""
        more += ", with --network transformers" if kind.ours else ""
        lines.append(f"  {name:<{wide}}  {kind.title}: {way}{more}")
    lines += ["", "also: a checkpoint file, a Hugging Face folder, hf:owner/name"]
    lines += ["any other network: --model FILE.py:FUNCTION (see docs/your_model.md)"]
    return "\n".join(lines)
