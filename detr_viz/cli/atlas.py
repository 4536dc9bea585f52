"""The atlas command: each head over many images, as a table and a figure per model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.attention.terms import MODES
from detr_viz.checkpoints.sources import check_sources, precise
from detr_viz.cli import flags, run_flags
from detr_viz.cli.arguments import formats
from detr_viz.cli.atlas_rules import check_atlas
from detr_viz.cli.lists import Listed, as_text
from detr_viz.cli.settings import (
    check_look,
    check_truth,
    images_of,
    load_models,
    page_format_of,
    sources_of,
)
from detr_viz.common import assets
from detr_viz.common.console import say
from detr_viz.common.errors import UserError
from detr_viz.common.many_passes import for_many_passes
from detr_viz.detections.queries import check_syntax, needs_truth
from detr_viz.figures.styles import Style
from detr_viz.images.first_look import check_image

if TYPE_CHECKING:
    from detr_viz.atlas.collect import AtlasOptions, Collector
    from detr_viz.render.recipe import Recipe

DESCRIPTION = (
    "What each head does over many images: where it looks around the box of the object, in numbers "
    "(a .csv file a model) and as its mean map (a figure a model)."
)
EPILOG = """\
examples
  %(prog)s --type cd_detr --image folder/ --out atlas/
  %(prog)s --weights detr_resnet50 --image val2017/ --queries score:0.9 --layer all --out atlas/
"""
SHORT = {  # of --help
    "--plot": f"{', '.join(MODES)}, several or all (default)",
    "--queries": "score:0.5 (default), objects, class:cat, all",
    "--norm": "head, query (default) or figure",
    "--out": "the folder (default: outputs/atlas)",
    "--format": "png (default), pdf, svg ...",
}
EXIT_FAILURES = 1  # some images failed
_QUERIES = "score:0.5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    flags.add_subject(
        parser,
        "what to look at",
        drawn=False,
        each=("have a table and a figure each", "rows of their own", _QUERIES),
        plot="all",
    )
    add = parser.add_argument_group("what to write").add_argument
    add("--out", metavar="DIR", default="outputs/atlas", help="the folder (default: %(default)s)")
    add(
        "--format",
        action=Listed,
        read=as_text(formats),
        default=(".png",),
        metavar="F",
        help="of the figures, any of png, pdf, svg, jpg, tif, eps (default: png)",
    )
    add(
        "--norm",
        choices=("head", "query", "figure"),
        default="query",
        help="head: each panel on a scale of its own; query: each row; figure: all panels "
        "(default: %(default)s)",
    )
    flags.add_page(parser.add_argument_group("how it looks"))
    run_flags.add_running(parser)
    add = parser.add_argument_group("many images").add_argument
    run_flags.add_speed(add)


def run(args: argparse.Namespace) -> int:
    """Explain all images; returns the exit code: 0, or 1 where some failed."""
    queries = args.queries or _QUERIES
    check_syntax(queries)
    sources = sources_of(args)
    style = Style(norm=args.norm, cmap=args.cmap)
    page_format = page_format_of(args)
    check_atlas(args)
    os.environ["MPLBACKEND"] = "agg"
    for_many_passes()
    check_look(style, page_format)
    inputs_given = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    truth = needs_truth(queries)
    given = inputs_given, args.image_root, Path(args.out), args.quiet
    images = images_of(*given, annotations=args.annotations, boxes=truth)
    if truth:
        check_truth(images, f"--queries {queries}", args.quiet)
    check_sources(sources)
    if len(images) == 1:
        check_image(images[0].path)
    from detr_viz.atlas import collect
    from detr_viz.batch import worker_process
    from detr_viz.render.recipe import of_models

    options = collect.AtlasOptions(
        Path(args.out), args.format, style, page_format, args.jobs, args.batch_size, args.quiet
    )
    workers = worker_process.start(options.jobs or worker_process.default_count(args.device))
    try:
        loaded = load_models(sources, options.quiet, args.size, args.max_size)
        exact, models = precise(loaded, args.precision)
        recipe = of_models(models, _recipe(args, queries))
        stems = collect.stems(models)
        collector = collect.Collector(models, recipe, exact)
        collect.checked(recipe, models, options, collector.tables)
        del loaded, models, exact
        failures = collect.collect(collector, images, recipe, options, workers)
    finally:
        worker_process.stop(workers)
    _write(collector, stems, failures, len(images), queries, options)
    if failures:
        print(f"error: {len(failures)} of {len(images)} images failed", file=sys.stderr)
        return EXIT_FAILURES
    return 0


def _write(
    collector: Collector,
    stems: Sequence[str],
    failures: Sequence[str],
    images: int,
    queries: str,
    options: AtlasOptions,
) -> None:
    """Write all tables and figures; UserError where there is no object."""
    from detr_viz.atlas.collect import write

    if not any(table.objects for table in collector.tables):
        if len(failures) == 1 == images:
            raise UserError(failures[0])
        if failures:
            raise UserError(f"no object to sum up: {len(failures)} of {images} images failed")
        raise UserError(
            f"no query answers to {queries!r} in any image: nothing to sum up; choose others with "
            "--queries"
        )
    for table, stem in zip(collector.tables, stems, strict=True):
        for line in write(table, stem, options):
            say(line, options.quiet)


def _recipe(args: argparse.Namespace, queries: str) -> Recipe:
    from detr_viz.render.recipe import Recipe

    return Recipe(
        models=(),
        plot=args.plot,
        queries=queries,
        layer=tuple(args.layer) if isinstance(args.layer, list) else args.layer,
        scale=args.scale,
        size=args.size,
        max_size=args.max_size,
        precision=args.precision,
        score=args.score,
    )
