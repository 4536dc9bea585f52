"""The render command: images -> figures (and saved maps), one after another."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz import assets, labels, models
from detr_viz.arguments import colormap, dpi, layers, positive, width_in
from detr_viz.comparison import choose, load, named, pair, queries_of
from detr_viz.errors import report
from detr_viz.files import say
from detr_viz.queries import DEFAULT, SYNTAX, check_syntax, table
from detr_viz.styles import INTERPOLATIONS, NORMS, PRESETS, STYLES, Format, Look, page_format
from detr_viz.targets import check_out, check_target, is_folder, output_paths
from detr_viz.terms import MODES, SCALES

if TYPE_CHECKING:
    from detr_viz.explanation import Explanation
    from detr_viz.loading import LoadedModel

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
"""
DEMO_LINE = (
    "demo checkpoint, trained by this project on procedural scenes; "
    "for real ones: --weights detr_resnet50 (see --list-models) or a file of yours"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    add = parser.add_argument_group("what to draw").add_argument
    add(
        "--type",
        nargs="+",
        action="extend",
        choices=models.names(),
        metavar="TYPE",
        help=f"model family member: {', '.join(models.names())}; told by the weights where they "
        "tell (default: detr); several are compared in one figure",
    )
    add(
        "--plot",
        choices=(*MODES, "all"),
        default="combine",
        help="parts of query and key that attend; all stacks the three (default: %(default)s)",
    )
    add(
        "--image",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="one or more images (default: a demo scene)",
    )
    add(
        "--weights",
        nargs="+",
        action="extend",
        metavar="W",
        help="checkpoint file, Hugging Face folder, name of --list-models or hf:owner/name "
        "(default: this project's small demo checkpoint); several are compared in one figure, "
        "paired with the types by position",
    )
    add(
        "--queries",
        metavar="Q",
        help=f"{SYNTAX} (default: {DEFAULT}; top:1 for several layers)",
    )
    add(
        "--layer",
        type=layers,
        default="last",
        metavar="N",
        help="decoder layer, counted from 0, last, or several, a row each: all or 0,2,5 "
        "(default: %(default)s)",
    )
    add(
        "--scale",
        choices=SCALES,
        default="mode",
        help="mode: q and k of the mode attend on their own; layer: at the layer's own scale, "
        "their exact share of combine (default: %(default)s)",
    )

    add = parser.add_argument_group("how it looks").add_argument
    said = "; ".join(f"{name}: {words}" for name, words in STYLES.items())
    add("--style", choices=tuple(STYLES), default="overlay", help=_help(said))
    said = "; ".join(f"{name}: {words}" for name, words in NORMS.items())
    add("--norm", choices=tuple(NORMS), help=f"{_help(said, 'head')}; contours have none")
    said = "any colour map of matplotlib (default: inferno)"
    add("--cmap", type=colormap, metavar="NAME", help=said)
    add(
        "--interpolation",
        choices=INTERPOLATIONS,
        help="between the cells of a map (default: cubic; nearest for heat)",
    )
    widths = ", ".join(f"{name} {made.width_in:g} in" for name, made in PRESETS.items())
    add("--preset", choices=tuple(PRESETS), help=f"width, resolution and size of type: {widths}")
    add("--width", type=width_in, metavar="IN", help="another width: inches, or with cm, mm, pt")
    add("--dpi", type=dpi, metavar="N", help="another resolution: pixels an inch")

    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="PATH",
        help="a .png, .pdf or .svg file; a folder for several images "
        "(default: outputs/<image>_<type>_<plot>.png)",
    )
    add("--save-maps", action="store_true", help="also write the maps as <figure stem>.npz")
    add("--caption", action="store_true", help="also write a LaTeX figure as <figure stem>.tex")
    add("--show", action="store_true", help="open the figures in a window")
    add("--list-queries", action="store_true", help="print the table of queries, draw nothing")

    add = parser.add_argument_group("how to run").add_argument
    add("--size", type=positive, metavar="PX", help="shorter side (default: the model's, else 800)")
    add(
        "--max-size",
        type=positive,
        metavar="PX",
        help="bound on the longer side (default: the model's, else 1333)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network runs (default: %(default)s)",
    )
    add("--classes", metavar="FILE", help="class names, line n names class n (from 0)")
    add("--nheads", type=positive, metavar="N", help="attention heads, where the file is silent")
    add(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="DC5: dilated last stage, where the file is silent",
    )
    add("--cache", metavar="DIR", help="where downloads go (default: weights/)")
    add("--list-models", action="store_true", help="print types and known weights, then stop")


def _help(said: str, default: str = "%(default)s") -> str:
    """Help text of words that may hold a per cent sign."""
    return f"{said.replace('%', '%%')} (default: {default})"


def run(args: argparse.Namespace) -> int:
    """Render every image of the arguments; the exit code is 0, or that of an image that failed."""
    if args.list_models:
        say(list_models())
        return 0
    if not args.show:  # the variable may name a window system that is not here; files need none
        os.environ["MPLBACKEND"] = "agg"
    check_syntax(DEFAULT if args.queries is None else args.queries)
    pairs = pair(args.type, args.weights)
    look = Look(args.style, args.norm, args.cmap, args.interpolation)
    page = page_format(args.preset, args.width, args.dpi)
    paths = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    if not args.list_queries:
        check_out(args.out, several=len(paths) > 1)
        if args.out and not is_folder(args.out):
            check_target(Path(args.out), args.caption, args.save_maps)
        if look.cmap:
            from detr_viz.drawing import colors  # matplotlib

            colors(look)

    if args.classes is not None:
        labels.load_class_names(args.classes)  # a mistake in it, before weights are read
    loaded = load(args, pairs)
    tell = (lambda line: None) if args.quiet else say
    if args.weights is None:
        tell(DEMO_LINE)
    for model in loaded:
        whose = f"{Path(model.path).name}: " * (len(loaded) > 1)
        for note in model.notes:
            tell(f"note: {whose}{note}")
    targets = output_paths(paths, _figure_name(args, loaded), args.out)
    code = 0
    for path, target in zip(paths, targets, strict=True):
        try:
            if len(paths) > 1:
                tell(f"{path}:")
            for line in render_one(args, loaded, path, target, look, page):
                tell(line)
        except Exception as error:
            if len(paths) == 1:
                raise
            code = max(code, report(error, args.traceback))
    return code


def _figure_name(args: argparse.Namespace, loaded: Sequence[LoadedModel]) -> str:
    """What follows the image's name in that of a figure."""
    parts = ["_vs_".join(model.spec.name for model in loaded), args.plot]
    parts += ["layers"] if _several_layers(args) else []
    parts += [args.style] if args.style != "overlay" else []
    return "_".join(parts)


def _several_layers(args: argparse.Namespace) -> bool:
    return args.layer == "all" or isinstance(args.layer, list)


def render_one(
    args: argparse.Namespace,
    loaded: Sequence[LoadedModel],
    path: str,
    target: Path,
    look: Look,
    page: Format,
) -> Iterator[str]:
    """Explain and draw one image; yields the lines to print."""
    from detr_viz import images
    from detr_viz.explanation import explain

    if not args.list_queries:
        check_target(target, args.caption, args.save_maps)
    picture = images.load(path)
    for note in picture.notes:
        yield f"note: {path}: {note}"
    found, cut = [], []
    for model in loaded:
        with named(Path(model.path).name, len(loaded)):
            e = explain(model, picture, layers=args.layer, size=args.size, max_size=args.max_size)
        if args.size and min(e.input_hw) < args.size:
            bound, size = args.max_size or model.max_size, args.size
            cut.append(f"--size {size} came down to {min(e.input_hw)}, for --max-size is {bound}")
        found.append(e)
    yield from (f"note: {words}" for words in dict.fromkeys(cut))
    chosen = args.queries or ("top:1" if _several_layers(args) else DEFAULT)
    if args.list_queries and args.queries in (None, "all"):
        for e in found:
            yield from _table(e, e.by_score(), headed=len(found) > 1)
        return
    objects = choose(found, chosen)
    tables: list[str] = []
    for k, e in enumerate(found):
        early = e.layers[-1] < e.num_layers - 1 and not args.list_queries
        layer = e.layers[-1] if early else None  # what is drawn; the last is what chooses
        tables += _table(e, queries_of(objects, k), len(found) > 1, layer)
    if args.list_queries:
        yield from tables
        return

    from detr_viz import captions, figures

    modes = list(found[0].modes) if args.plot == "all" else [args.plot]
    options = {
        "layer": "all" if _several_layers(args) else None,  # of those captured
        "scale": args.scale,
        "look": look,
        "page": page,
    }
    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        figure = figures.compare(found, objects, modes, **options)
        figures.save(figure, target)
    yield from dict.fromkeys(f"note: {warning.message}" for warning in caught)
    yield from tables
    yield f"wrote {target}"
    if args.caption:
        yield f"wrote {captions.save_caption(figure.shown, target)}"
    if args.save_maps:
        yield from _save_maps(args, figure.shown, objects, modes, target)
    if args.show:
        figures.show(figure)


def _table(
    e: Explanation, ids: Sequence[int], headed: bool, layer: int | None = None
) -> Iterator[str]:
    if headed:
        yield f"{e.model_title} ({e.meta['weights']})"
    yield table(e, ids, layer)


def _save_maps(args, shown, objects, modes, target: Path) -> Iterator[str]:
    """A file a model and layer; where there is only one, <figure stem>.npz."""
    from detr_viz import heatmaps

    slugs = _slugs([subject.name for subject in shown.subjects])
    layered = any(len(subject.layers) > 1 for subject in shown.subjects)
    for k, subject in enumerate(shown.subjects):
        ids = queries_of(objects, k)
        for layer in subject.layers if ids else ():
            tag = f"_{slugs[k]}" if len(shown.subjects) > 1 else ""
            tag += f"_layer{layer}" if layered else ""
            beside = target.with_name(f"{target.stem}{tag}.npz")
            e = subject.explanation
            heatmaps.save(beside, e, ids, modes, layer=layer, scale=args.scale)
            yield f"wrote {beside}"


def _slugs(names: Sequence[str]) -> list[str]:
    """Names as parts of file names, no two the same."""
    slugs = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model" for name in names]
    same = len(set(slugs)) < len(slugs)
    return [f"{slug}_{i}" if same else slug for i, slug in enumerate(slugs, 1)]


def list_models() -> str:
    """The types of --type and the names that --weights knows, as lines."""
    from detr_viz.downloads import KNOWN

    wide = max(len(name) for name in KNOWN)
    lines = ["types (--type):"]
    lines += [f"  {name:<{wide}}  {title}" for name, (_, title) in models.REGISTRY.items()]
    lines += ["", "weights that are downloaded once (--weights):"]
    lines += [f"  {name:<{wide}}  {known.title}" for name, known in KNOWN.items()]
    lines += ["", "also: a checkpoint file, a Hugging Face folder, hf:owner/name"]
    return "\n".join(lines)
