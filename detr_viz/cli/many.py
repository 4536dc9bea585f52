"""Many images, as the flags say: the engine, the run, its contact sheet, its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import detr_viz
from detr_viz.cli.settings import load_models, precise, recipe_of, suffixes, tell
from detr_viz.common.errors import EXIT_INTERRUPTED
from detr_viz.figures.styles import PageFormat, Style
from detr_viz.render.paths import folder_of

if TYPE_CHECKING:
    from detr_viz.batch.engine import Engine, Outputs
    from detr_viz.batch.worker_process import WorkerProcess
    from detr_viz.images.collect import Input
    from detr_viz.models.detector import LoadedModel
    from detr_viz.render.recipe import Recipe


def run_many(
    args: argparse.Namespace,
    pairs: Sequence[tuple[str | None, str | None]],
    images: Sequence[Input],
    style: Style,
    page_format: PageFormat,
) -> int:
    """Draw them all; the exit code: 0, 1 where some failed, 130 after Ctrl-C."""
    # Threads of torch that wait must not keep a core from the helpers that draw. Read once, when
    # torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from detr_viz.batch import engine, worker_process
    from detr_viz.batch.run import EXIT_FAILURES, figures_of, run_batch
    from detr_viz.detections import queries
    from detr_viz.explanation.sites import resolve_layers

    local = args.engine == "local"
    here = args
    if not local:
        from detr_viz.batch.ray import engine

        engine.check(args.ray_address)
        # what is known of the models is said here; the network runs elsewhere
        here = argparse.Namespace(**{**vars(args), "device": "cpu"})
    team = (
        worker_process.start(args.jobs or worker_process.default_count(args.device))
        if local
        else []
    )
    try:
        loaded = load_models(here, pairs)
        recipe = recipe_of(args, loaded, style, page_format)
        queries.check_for(recipe.queries, loaded[0].class_names, loaded[0].info.num_queries)

        for model in loaded:
            resolve_layers(recipe.layer, model.info.num_layers)
        outputs = engine.Outputs(
            folder_of(args.out),
            suffixes(args),
            args.caption,
            f"{args.shard[0]}-of-{args.shard[1]}" if args.shard else "",
        )
        if local and not args.jobs:  # where --device auto has found a GPU, cores are free
            team += worker_process.start(
                worker_process.default_count(loaded[0].device.type) - len(team)
            )
        runner = _engine(args, pairs, loaded, recipe, outputs, team)
        del loaded  # in float32, perhaps of use for one image only
        summary = run_batch(runner, recipe, images, outputs, resume=args.resume, quiet=args.quiet)
    finally:
        worker_process.stop(team)
    for line in summary.lines():
        tell(args, line)
    if summary.stopped:
        return EXIT_INTERRUPTED
    if args.contact_sheet:
        from detr_viz.figures.contact_sheet import contact_sheet

        path = outputs.folder / f"contact-sheet{f'-{outputs.tag}' * bool(outputs.tag)}.pdf"
        pngs = list(figures_of(outputs))
        if pngs:
            facts = {"Software": f"detr_viz {detr_viz.__version__}"}
            contact_sheet(path, pngs, args.contact_sheet, recipe.title, facts)
            tell(args, f"wrote {path}")
        else:
            tell(args, f"no {path.name}: there is no figure")
    if summary.counts.failed:
        failed = f"error: {summary.counts.failed} of {len(images)} images failed"
        print(f"{failed}: {summary.failures} says why", file=sys.stderr)
        return EXIT_FAILURES
    return 0


def _engine(
    args: argparse.Namespace,
    pairs: Sequence[tuple[str | None, str | None]],
    loaded: list[LoadedModel],
    recipe: Recipe,
    outputs: Outputs,
    team: Sequence[WorkerProcess],
) -> Engine:
    from detr_viz.batch.engine import LocalEngine

    if args.engine == "ray":
        from detr_viz.batch.ray.engine import RayEngine

        return RayEngine(args, pairs, recipe, outputs)
    exact, used = precise(args, loaded)
    size = args.batch_size or (8 if loaded[0].device.type == "cuda" else 1)
    return LocalEngine(used, recipe, outputs, team, size, None if args.quiet else exact)
