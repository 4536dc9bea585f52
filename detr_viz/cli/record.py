"""The record command: saves maps of images as baselines for the check command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.attention.terms import MODES, modes_of_plot
from detr_viz.checkpoints.sources import check_sources, load, named, precise
from detr_viz.checkpoints.type_names import other_weights
from detr_viz.cli import flags, run_flags
from detr_viz.cli.settings import images_of, say_notes, sources_of
from detr_viz.common import assets
from detr_viz.common.console import say
from detr_viz.common.errors import UserError
from detr_viz.common.file_names import fitting
from detr_viz.common.files import check_file, printable
from detr_viz.detections.queries import check_for, check_syntax, select
from detr_viz.heatmaps.stores import STORES
from detr_viz.images.first_look import check_image
from detr_viz.regression.baselines import (
    DEMO,
    FILE,
    FOLDER,
    KEY,
    NAME,
    ROOT,
    BaselineSpec,
    read,
    relative,
)
from detr_viz.regression.reach import why_outside
from detr_viz.render.recipe import plot_label

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.collect import Input

DESCRIPTION = (
    "Save the maps of images as baselines. A baseline has all settings to compute it again; the "
    "check command does so and compares."
)
EPILOG = """\
examples
  %(prog)s --out baselines --type cd_detr --plot all --image a.png b.png
  %(prog)s --out baselines --weights model.pth --image val/ --queries score:0.7 --store float16
"""
RECORDED = "top:5"  # without --queries: weak ones too, which change first
SHORT = {  # of --help
    "--queries": f"{RECORDED} (default), objects, class:cat, 3,17, 0-3, all",
    "--plot": f"{', '.join(MODES)}, several or all",
    "--out": "the folder of baselines; needed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    each = "have their files beside each other", "a file each", RECORDED
    flags.add_subject(parser, "what to save", drawn=False, each=each, annotated=False)
    add = parser.add_argument_group("where to").add_argument
    add("--out", metavar="DIR", required=True, help="the folder of baselines")
    add(
        "--root",
        metavar="DIR",
        help="what paths of images and weights are relative to (default: each baseline's folder)",
    )
    add(
        "--store",
        choices=STORES,
        default="float32",
        help="float16: half the size, maps within 2.5e-4 (default: %(default)s)",
    )
    run_flags.add_running(parser)


def run(args: argparse.Namespace) -> int:
    """Write the baselines; an error ends the run, and files written before stay."""
    queries = args.queries or RECORDED
    check_syntax(queries)
    _check_remade(args)
    sources = sources_of(args)
    out = Path(args.out)
    if not args.out:
        raise UserError("--out is empty: give a folder")
    if os.path.isfile(out):
        raise UserError(f"--out {out} is a file: give a folder")
    check_file(out / "a.npz", "choose another --out")
    if args.root is not None and not os.path.isdir(args.root):
        raise UserError(f"--root {args.root} is no folder: check the path")
    words = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    images = images_of(words, args.image_root, out, args.quiet, boxes=False)
    missing = [image.path for image in images if not os.path.exists(image.path)]
    if missing:
        raise UserError(f"no image at {printable(missing[0])}: check the path")
    if len(images) == 1:
        check_image(images[0].path)
    check_sources(sources)
    _, loaded = precise(load(sources, not args.quiet), args.precision)
    say_notes(loaded, args.quiet, args.size, args.max_size)
    labels = _labels(loaded)
    written: dict[Path, str] = {}
    beyond: list[str] = []
    for model, source, label in zip(loaded, sources, labels, strict=True):
        info = model.info
        check_for(queries, info.class_names, info.num_queries, info.anchors)
        for image in images:
            for path in _record(args, queries, model, source.weights, image, out, label, written):
                say(f"wrote {path}", args.quiet)
            if info.type not in beyond and _is_beyond(model, image):
                beyond.append(info.type)
    if (note := _reach_note(written, args.root)) is not None:
        say(f"note: {note}", args.quiet)
    if beyond:
        from detr_viz.images.drawn_scenes import ONLY_SHAPES

        say(f"note: {ONLY_SHAPES}: {other_weights(beyond)}", args.quiet)
    return 0


def _reach_note(written: Iterable[Path], root: str | None) -> str | None:
    """What the check will need to read what the baselines name; None: nothing."""
    for path in written:
        baseline = read(path, path.name, root)
        if why := why_outside(baseline, root):
            return (
                f"{path} {why}: check will need --anywhere; or record with --root, and give check "
                "the same --root"
            )
    return None


def _check_remade(args: argparse.Namespace) -> None:
    """UserError for a model that a baseline cannot name, because it could not be made again."""
    others = {"--model": args.model, "--prompt": args.prompt}
    others["--network transformers"] = args.network != "own"
    if given := [flag for flag, value in others.items() if value]:
        raise UserError(
            f"a baseline does not keep {given[0]}, so it could not be made again: record with "
            "--weights alone; the fixture heatmap_regression guards any model in pytest, and "
            "compare two files of --save-maps"
        )


def _is_beyond(model: Detector, image: Input) -> bool:
    from detr_viz.images.drawn_scenes import CLASSES, is_beyond
    from detr_viz.images.read import load_image

    names = model.info.class_names
    return tuple(names) == CLASSES and is_beyond(names, load_image(image.path).rgb)


def _labels(loaded: Sequence[Detector]) -> list[str]:
    """A label of each model for its files: its type, or type and weights."""
    types = [model.info.type for model in loaded]
    if len(set(types)) == len(types):
        return types
    stems = [f"{model.info.type}_{Path(model.info.path).stem}" for model in loaded]
    same = len(set(stems)) < len(stems)
    return [f"{stem}_{i}" if same else stem for i, stem in enumerate(stems, 1)]


def _record(
    args: argparse.Namespace,
    queries: str,
    model: Detector,
    weights: str | None,
    image: Input,
    out: Path,
    label: str,
    written: dict[Path, str],
) -> Iterator[Path]:
    """Write the baselines of an image. written: files of this run, with their images."""
    from detr_viz.explanation.explain_image import explain
    from detr_viz.heatmaps.npz import of, write

    e = explain(model, image.path, layers=args.layer, size=args.size, max_size=args.max_size)
    with named(image.path, 1):
        ids = select(e, queries)
    modes = modes_of_plot(args.plot, e.modes)
    for layer in e.layers:
        end = f"_{e.layer_noun}{layer}" if layer < e.num_layers - 1 else ""
        path = out / f"{image.name}_{label}_{plot_label(args.plot)}{end}.npz"
        path = path.with_name(fitting(path.stem, path.suffix))
        start = args.root if args.root is not None else path.parent
        kind, location = _weights(weights, start)
        spec = BaselineSpec(
            type=model.info.type,
            weights=location,
            weights_is=kind,
            image="" if args.image is None else relative(image.path, start),
            relative_to=FOLDER if args.root is None else ROOT,
            queries=queries,
            modes=tuple(modes),
            layer=layer,
            scale=args.scale,
            size=args.size,
            max_size=args.max_size,
            precision=args.precision,
            classes=None if args.classes is None else relative(args.classes, start),
            nheads=args.nheads,
            dilation=args.dilation,
        )
        _check_free(path, spec, written)
        written[path] = image.path
        heatmaps = of(e, ids, modes, layer=layer, scale=args.scale, **{KEY: spec.as_meta()})
        yield write(path, heatmaps, args.store)


def _check_free(path: Path, spec: BaselineSpec, written: Mapping[Path, str]) -> None:
    """UserError where a baseline with other settings would be overwritten."""
    if path in written:
        raise UserError(
            f"{path} exists already, for {printable(written[path])}: rename an image, or record "
            "them into folders of their own"
        )
    if not path.exists():
        return
    from detr_viz.heatmaps.npz import load_meta

    try:
        stored = load_meta(path).get(KEY)
    except UserError:  # damaged, or of another program
        stored = None
    if stored != spec.as_meta():
        raise UserError(
            f"{path} exists already with other settings: choose another --out, or remove it"
        )


def _weights(weights: str | None, start: str | Path) -> tuple[str, str | None]:
    """(kind of weights, their name or path): files by a relative path, known names unchanged."""
    if weights is None:
        return DEMO, None
    return (FILE, relative(weights, start)) if os.path.exists(weights) else (NAME, weights)
