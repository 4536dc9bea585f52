"""The errors command: what detectors missed and got wrong in annotated images, and why."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.checkpoints.sources import check_sources, precise
from detr_viz.cli import flags, run_flags
from detr_viz.cli.arguments import count, formats
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
from detr_viz.common.console import say
from detr_viz.common.errors import EXIT_INTERRUPTED, UserError
from detr_viz.common.files import path_text
from detr_viz.common.many_passes import for_many_passes
from detr_viz.figures.styles import Style
from detr_viz.images.first_look import check_image

if TYPE_CHECKING:
    from detr_viz.errors.run import ErrorRow, ErrorsOptions
    from detr_viz.errors.summary import Summary
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input
    from detr_viz.render.recipe import Recipe

DESCRIPTION = (
    "What a detector missed and got wrong in annotated images, and why: a row for each error, with "
    "the queries nearest to a missed object and what they say instead; a table of the reasons; "
    "figures of the worst."
)
EPILOG = """\
examples
  %(prog)s --weights detr_resnet50 --image instances.json
  %(prog)s --type cd_detr --image val/data.yaml --worst 50
"""
SHORT = {  # of --help
    "--image": "a COCO or LabelMe .json, a YOLO data.yaml, a folder with label files ...",
    "--out": "the folder (default: outputs/errors)",
    "--format": "png (default), pdf, svg ...",
}
EXIT_FAILURES = 1  # some images failed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    each = ("have a table each", "", "")
    flags.add_subject(parser, "what to look at", drawn=False, each=each, plot="")
    add = parser.add_argument_group("what counts").add_argument
    flags.add_score(add)
    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="DIR",
        default="outputs/errors",
        help="the folder: errors.csv has a row for each error, summary.csv the counts by class and "
        "by size, verdicts.csv also the objects that were found (default: %(default)s)",
    )
    add(
        "--worst",
        type=count,
        default=20,
        metavar="N",
        help="draw the N worst errors of each model, with annotated boxes, into worst/: the "
        "largest missed objects and the surest wrong detections by turns; 0: none (default: "
        "%(default)s)",
    )
    add(
        "--format",
        action=Listed,
        read=as_text(formats),
        default=(".png",),
        metavar="F",
        help="of these figures, any of png, pdf, svg, jpg, tif, eps (default: png)",
    )
    flags.add_page(parser.add_argument_group("how figures look"))
    run_flags.add_running(parser)
    add = parser.add_argument_group("many images").add_argument
    add(
        "--resume",
        action="store_true",
        help="skip images that an earlier run with the same flags judged",
    )
    run_flags.add_speed(add)


def run(args: argparse.Namespace) -> int:
    """Judge all images; the exit code is 0, 1 where some failed, 130 after Ctrl-C."""
    sources = sources_of(args)
    style, page_format = Style(cmap=args.cmap, truth=True), page_format_of(args)
    check_atlas(args)
    os.environ["MPLBACKEND"] = "agg"
    for_many_passes()
    if args.worst:
        check_look(style, page_format)
    images = _images(args)
    check_sources(sources)
    if len(images) == 1:
        check_image(images[0].path)
    from detr_viz.batch import worker_process
    from detr_viz.errors import run as errors
    from detr_viz.render.recipe import Recipe, of_models

    recipe = Recipe(
        models=(),
        queries=errors.QUERIES,
        style=style,
        page_format=page_format,
        size=args.size,
        max_size=args.max_size,
        precision=args.precision,
        score=args.score,
        free_style=True,
    )
    workers = worker_process.start(args.jobs or worker_process.default_count(args.device))
    try:
        loaded = load_models(sources, args.quiet, args.size, args.max_size)
        _, models = precise(loaded, args.precision)
        del loaded
        device = models[0].device.type
        if not args.jobs:
            workers += worker_process.start(worker_process.default_count(device) - len(workers))
        size = args.batch_size or (8 if device == "cuda" else 1)
        options = errors.ErrorsOptions(Path(args.out), args.worst, size, args.resume, args.quiet)
        errors.check_outputs(options)
        for note in errors.check_classes(images, models):
            say(f"note: {note}", args.quiet)
        recipe = of_models(models, recipe)
        done = errors.judge_images(models, recipe, images, options, workers)
    finally:
        worker_process.stop(workers)
    if done.stopped:
        for line in done.lines():
            say(line, args.quiet)
        return EXIT_INTERRUPTED
    failed = done.counts.failed + _write(models, recipe, images, options, args.format)
    if done.counts.failed:
        why = f"{done.counts.failed} of {len(images)} images failed: {done.failures} says why"
        print(f"error: {why}", file=sys.stderr)
    return EXIT_FAILURES if failed else 0


def _images(args: argparse.Namespace) -> list[Input]:
    """The images with annotated objects. UserError where there are none."""
    if not args.image:
        raise UserError(
            "errors needs annotated images: give --image instances.json, or --image and "
            "--annotations"
        )
    out = Path(args.out)
    given = args.image, args.image_root, out, args.quiet
    images = images_of(*given, annotations=args.annotations)
    check_truth(images, "errors", args.quiet)
    return [image for image in images if image.annotated is not None]


def _write(
    models: Sequence[Detector],
    recipe: Recipe,
    images: Sequence[Input],
    options: ErrorsOptions,
    suffixes: tuple[str, ...],
) -> int:
    """Write the tables, print the summaries, draw the worst; returns how many cannot be drawn."""
    from detr_viz.errors import run as errors

    names = errors.names_of(models)
    summaries, rows = errors.summed_up(options.folder, names)
    failed = 0
    if options.worst:
        rows, failed = _draw(models, recipe, images, options, suffixes, rows)
    wrote = list(errors.write_tables(options.folder, summaries, rows))
    for summary in summaries.values():
        _say_summary(summary, options)
    for path in (*wrote, options.folder / errors.VERDICTS):
        say(f"wrote {path}", options.quiet)
    return failed


def _say_summary(summary: Summary, options: ErrorsOptions) -> None:
    for line in summary.lines():
        say(line, options.quiet)
    say("", options.quiet)


def _draw(
    models: Sequence[Detector],
    recipe: Recipe,
    images: Sequence[Input],
    options: ErrorsOptions,
    suffixes: tuple[str, ...],
    rows: list[ErrorRow],
) -> tuple[list[ErrorRow], int]:
    """The errors, with the figures of the worst; and how many images could not be drawn."""
    from detr_viz.atlas.collect import stems
    from detr_viz.common.progress import Progress
    from detr_viz.errors.run import names_of
    from detr_viz.errors.worst import FOLDER, draw_worst, worst_of
    from detr_viz.render.paths import OutputPaths

    figures: dict[int, str] = {}
    failed, folders = 0, stems(models)
    for k, (model, name) in enumerate(zip(models, names_of(models), strict=True)):
        worst = worst_of([row for row in rows if row.verdict.model == name], options.worst)
        folder = options.folder / FOLDER
        if len(models) > 1:
            folder /= folders[k]
        one = replace(recipe, models=recipe.models[k : k + 1])
        paths = OutputPaths(folder, suffixes=suffixes)
        total = len({row.image for row in worst})
        with Progress(total, quiet=options.quiet, what=("a figure", "figures")) as progress:
            for image, mine, files in draw_worst(model, one, images, worst, paths):
                if isinstance(files, UserError):
                    failed += 1
                    print(f"error: {path_text(image.path)}: {files}", file=sys.stderr)
                else:
                    file = files[0].relative_to(options.folder).as_posix()
                    figures |= {id(row): file for row in mine}
                progress.advance(failed=isinstance(files, UserError))
    return [replace(row, figure=figures.get(id(row), "")) for row in rows], failed
