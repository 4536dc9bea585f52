"""argparse flags become typed settings: models, recipe, options; other packages see only these."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.checkpoints.sources import ModelSource, load, pair
from detr_viz.checkpoints.type_names import real_weights
from detr_viz.cli.arguments import Unasked
from detr_viz.cli.command_words import model_words, run_words
from detr_viz.common.console import say
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.detections.queries import DEFAULT, needs_truth
from detr_viz.figures.styles import (
    ALL_IN_ONE,
    CONTOUR_SHARES,
    FONTS,
    RAMPS,
    PageFormat,
    Style,
    check_levels,
    check_samples,
)
from detr_viz.images import collect
from detr_viz.render.options import RunOptions

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector, DetectorInfo
    from detr_viz.images.collect import Input
    from detr_viz.render.recipe import Recipe

DEMO_LINE = "demo checkpoint, trained by this project on procedural scenes; for real ones: "


def expand_biography(args: argparse.Namespace) -> None:
    """Replace --biography by the flags that it stands for. UserError where these are given too."""
    if args.biography is None:
        return
    if args.queries is not None or args.layer != "last":
        raise UserError(
            "--biography names the query and takes all layers: leave --queries and --layer out"
        )
    args.queries, args.layer = str(args.biography), "all"


def sources_of(args: argparse.Namespace) -> list[ModelSource]:
    """The sources of the models. UserError where types and weights do not pair."""
    scripts = [
        ModelSource(script=text, device=args.device, precision=args.precision)
        for text in args.model or ()
    ]
    if scripts and not (args.type or args.weights):
        return scripts
    return [
        ModelSource(
            weights=weights,
            type=kind,
            classes=args.classes,
            nheads=args.nheads,
            dilation=args.dilation,
            cache=args.cache,
            device=args.device,
            precision=args.precision,
            network=args.network,
            prompt=args.prompt,
        )
        for kind, weights in pair(args.type, args.weights)
    ] + scripts


def load_models(
    sources: Sequence[ModelSource],
    quiet: bool,
    size: int | None = None,
    max_size: int | None = None,
) -> list[Detector]:
    """The models, in float32; prints notes about them. size, max_size: of the flags."""
    for source in sources:
        if source.script is not None:
            say(f"note: the code of {source.script.rpartition(':')[0]} is run", quiet)
    loaded = load(sources, not quiet)
    if all(source.weights is None and source.script is None for source in sources):
        say(DEMO_LINE + real_weights(sources[0].type), quiet)
    say_notes(loaded, quiet, size, max_size)
    return loaded


def images_of(
    words: Sequence[str],
    image_root: str | None,
    skip: str | Path | None,
    quiet: bool,
    figures: Sequence[str] = (".png",),
    annotations: str | None = None,
    boxes: bool = True,
) -> list[Input]:
    """The images that the words name; prints what was left out. figures: suffixes in `skip`.

    boxes: whether annotated boxes decide anything; else files beside images are not read for them.
    """
    notes: list[str] = []
    images = collect.expand(words, image_root, skip, notes, figures, annotations, boxes)
    for note in notes:
        say(f"note: {note}", quiet)
    return images


def check_truth(images: Sequence[Input], flag: str, quiet: bool) -> None:
    """UserError where no image has annotated objects; a note where some have none.

    flag: what needs them, with its value.
    """
    lacking = [image for image in images if image.annotated is None]
    if len(lacking) == len(images):
        from detr_viz.images.marked import INSTALL, has_globox

        extra = "" if has_globox() else f" (the last three after {INSTALL})"
        raise UserError(
            f"{flag} needs annotated boxes, and no image has any: give --annotations, or as "
            f"--image a COCO .json or a folder with YOLO, Pascal VOC or LabelMe files{extra}"
        )
    if lacking:
        has = "images has" if len(lacking) == 1 else "images have"
        first = path_text(lacking[0].path)
        say(
            f"note: {len(lacking)} of {len(images)} {has} no annotated boxes ({first}): {flag} "
            "shows none there",
            quiet,
        )


def say_notes(
    loaded: Sequence[Detector], quiet: bool, size: int | None = None, max_size: int | None = None
) -> None:
    """Print what was assumed about the models. size, max_size: of the flags."""
    for info in (model.info for model in loaded):
        prefix = f"{info.weights}: " if len(loaded) > 1 else ""
        for note in info.notes_at(size, max_size):
            say(f"note: {prefix}{note}", quiet)


def check_parts(style: Style, loaded: Sequence[Detector], views: Sequence[str] = ()) -> None:
    """UserError for heads, levels or sampling points that one of the models lacks.

    views: to be drawn. Those of self-attention alone may have more heads; the encoder of a model
    with scale attention takes samples, whatever its decoder does.
    """
    of_tokens = bool(views) and {*views} <= {"encoder", "decoder"}
    if not of_tokens:
        _check_stages(style, [model.info for model in loaded])
    for info in (model.info for model in loaded):
        if info.num_levels is not None:
            check_levels(style, info.title, info.num_levels)
        if info.samples is not None:
            samples = info.samples or (info.scales and tuple(views) == ("encoder",))
            check_samples(style, info.title, samples, info.stages)
        heads = (info.self_heads if of_tokens else None) or info.num_heads
        if isinstance(style.heads, tuple) and max(style.heads) >= heads:
            raise UserError(f"no head {max(style.heads)}: {info.title} has 0..{heads - 1}")


def _check_stages(style: Style, infos: Sequence[DetectorInfo]) -> None:
    """UserError for heads of models with stages, which have none, and for cells of others."""
    from detr_viz.figures.stage_parts import mixed, no_cells, no_heads

    staged = [info for info in infos if info.stages]
    others = [info for info in infos if not info.stages]
    if style.name == "cells" and others:
        raise no_cells(others[0].title)
    if not staged or style.heads is None:
        return
    if not others:
        raise UserError(no_heads(staged[0].title, staged[0].num_layers))
    if style.heads not in ("mean", "max"):
        raise UserError(mixed(staged[0].title))


def style_of(args: argparse.Namespace) -> Style:
    return Style(
        args.style or ("points" if args.heads == ALL_IN_ONE else "overlay"),
        args.norm,
        args.cmap,
        args.interpolation,
        args.heads,
        args.zoom,
        args.contours or CONTOUR_SHARES,
        args.level,
        args.gt or needs_truth(args.queries or DEFAULT),
    )


def page_format_of(args: argparse.Namespace) -> PageFormat:
    page_format = PageFormat.of(args.preset, args.width, args.dpi)
    letters = getattr(args, "letters", False)  # atlas has none
    return replace(page_format, font=args.font, letters=letters, notes=args.notes)


def check_look(style: Style, page_format: PageFormat) -> None:
    """FigureError for a colour map or a font that is not there, before anything is read."""
    if style.cmap and style.cmap not in RAMPS:
        from detr_viz.figures.page.scale import colors  # matplotlib

        colors(style)
    if page_format.font not in FONTS:
        from detr_viz.figures.page.fonts import font_file

        font_file(frozenset(), "", page_format.font)


def options_of(args: argparse.Namespace) -> RunOptions:
    """The options of a run of the render command."""
    return RunOptions(
        out=args.out,
        formats=args.format or (".png",),
        save_maps=args.save_maps,
        caption=args.caption,
        show=args.show,
        list_queries=args.list_queries,
        contact_sheet=args.contact_sheet,
        resume=args.resume,
        shard=args.shard,
        jobs=args.jobs,
        batch_size=args.batch_size,
        engine=args.engine,
        ray_address=args.ray_address,
        quiet=args.quiet,
        traceback=args.traceback,
    )


def recipe_of(
    args: argparse.Namespace,
    style: Style,
    page_format: PageFormat,
    views: Sequence[str],
    pages: bool = False,
) -> Recipe:
    """The recipe of the render command, still without the facts of the models."""
    from detr_viz.render.recipe import Recipe

    free_layer = isinstance(args.layer, Unasked)
    layer, removed_in = (
        tuple(value) if isinstance(value, list) else value for value in (args.layer, args.ablate_in)
    )
    several = layer == "all" or isinstance(layer, tuple)
    return Recipe(
        models=(),
        plot=args.plot,
        biography=args.biography is not None,
        queries=args.queries or ("top:1" if several else DEFAULT),
        layer=str(layer) if free_layer else layer,
        scale=args.scale,
        style=style,
        page_format=page_format,
        size=args.size,
        max_size=args.max_size,
        precision=args.precision,
        removed=tuple(dict.fromkeys(args.ablate or ())),
        removed_in="all" if removed_in is None else removed_in,
        views=tuple(views),
        points=tuple(args.points or ()),
        free_style=args.style is None,
        free_layer=free_layer,
        score=args.score,
        words=model_words(sources_of(args)) if pages else None,
        run_words=run_words(args),
    )
