"""The render command: images -> figures (and saved maps), one after another."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz import assets, models
from detr_viz.arguments import layer, positive
from detr_viz.errors import UserError, report
from detr_viz.files import reason, say
from detr_viz.queries import DEFAULT, SYNTAX, check_syntax, select, table
from detr_viz.terms import MODES, SCALES

if TYPE_CHECKING:
    from detr_viz.loading import LoadedModel

DESCRIPTION = (
    "Draw each object query's attention heads over the image: what they look at, "
    "and how much of it comes from content and how much from position."
)
EPILOG = """\
examples
  %(prog)s --type detr --plot combine
  %(prog)s --type cd_detr --plot position --queries top:3
  %(prog)s --weights detr_resnet50 --image photo.jpg --plot all --out photo.pdf
"""
SUFFIXES = (".png", ".pdf", ".svg")
DEMO_LINE = (
    "demo checkpoint, trained by this project on procedural scenes; "
    "for real ones: --weights detr_resnet50 (see --list-models) or a file of yours"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    add = parser.add_argument_group("what to draw").add_argument
    add(
        "--type",
        choices=models.names(),
        help="model family member; told by the weights where they tell (default: detr)",
    )
    add(
        "--plot",
        choices=(*MODES, "all"),
        default="combine",
        help="parts of query and key that attend; all stacks the three (default: %(default)s)",
    )
    add("--image", nargs="+", metavar="FILE", help="one or more images (default: a demo scene)")
    add(
        "--weights",
        metavar="W",
        help="checkpoint file, Hugging Face folder, name of --list-models or hf:owner/name "
        "(default: this project's small demo checkpoint)",
    )
    add("--queries", default=DEFAULT, metavar="Q", help=f"{SYNTAX} (default: %(default)s)")
    add(
        "--layer",
        type=layer,
        default="last",
        metavar="N",
        help="decoder layer, counted from 0, or last (default: %(default)s)",
    )
    add(
        "--scale",
        choices=SCALES,
        default="mode",
        help="mode: q and k of the mode attend on their own; layer: at the layer's own scale, "
        "their exact share of combine (default: %(default)s)",
    )

    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="PATH",
        help="a .png, .pdf or .svg file; a folder for several images "
        "(default: outputs/<image>_<type>_<plot>.png)",
    )
    add("--save-maps", action="store_true", help="also write the maps as <figure stem>.npz")
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


def run(args: argparse.Namespace) -> int:
    """Render every image of the arguments; the exit code is 0, or that of an image that failed."""
    if args.list_models:
        say(list_models())
        return 0
    if not args.show:  # the variable may name a window system that is not here; files need none
        os.environ["MPLBACKEND"] = "agg"
    check_syntax(args.queries)
    paths = args.image or [str(assets.find(assets.DEFAULT_IMAGE))]
    if not args.list_queries:
        check_out(args.out, several=len(paths) > 1)

    from detr_viz.loading import load_model  # torch, only once the arguments are known to be sound

    model = load_model(
        args.weights,
        args.type,
        classes=args.classes,
        nheads=args.nheads,
        dilation=args.dilation,
        cache=args.cache,
        device=args.device,
        progress=not args.quiet,
    )
    tell = (lambda line: None) if args.quiet else say
    if args.weights is None:
        tell(DEMO_LINE)
    for note in model.notes:
        tell(f"note: {note}")
    targets = output_paths(paths, f"{model.spec.name}_{args.plot}", args.out)
    code = 0
    for path, target in zip(paths, targets, strict=True):
        try:
            if len(paths) > 1:
                tell(f"{path}:")
            for line in render_one(args, model, path, target):
                tell(line)
        except Exception as error:
            if len(paths) == 1:
                raise
            code = max(code, report(error, args.traceback))
    return code


def render_one(
    args: argparse.Namespace, model: LoadedModel, path: str, target: Path
) -> Iterator[str]:
    """Explain and draw one image; yields the lines to print."""
    from detr_viz.explanation import explain

    explanation = explain(model, path, layers=args.layer, size=args.size, max_size=args.max_size)
    for note in explanation.image.notes:
        yield f"note: {path}: {note}"
    if args.size and min(explanation.input_hw) < args.size:
        bound = args.max_size or model.max_size
        shorter = min(explanation.input_hw)
        yield f"note: --size {args.size} came down to {shorter}, for --max-size is {bound}"
    if args.list_queries:
        chosen = "all" if args.queries == DEFAULT else args.queries
        ids = explanation.by_score() if chosen == "all" else select(explanation, chosen)
        yield table(explanation, ids)
        return
    ids = select(explanation, args.queries)
    modes = list(explanation.modes) if args.plot == "all" else [args.plot]

    from detr_viz import figures, heatmaps

    with warnings.catch_warnings(record=True) as caught:  # a warning is a note, not a stack line
        warnings.simplefilter("always", UserWarning)
        figure = figures.head_grid(explanation, ids, modes, scale=args.scale)
        figures.save(figure, target)
    yield from dict.fromkeys(f"note: {warning.message}" for warning in caught)
    yield table(explanation, ids)
    yield f"wrote {target}"
    if args.save_maps:
        beside = target.with_suffix(".npz")
        heatmaps.save(beside, explanation, ids, modes, scale=args.scale)
        yield f"wrote {beside}"
    if args.show:
        figures.show(figure)


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


def is_folder(out: str) -> bool:
    """Whether --out names a folder: an existing one, a trailing slash, or no suffix."""
    return Path(out).is_dir() or out.endswith(("/", os.sep)) or not Path(out).suffix


def check_out(out: str | None, several: bool) -> None:
    """UserError where --out cannot work, before any time is spent."""
    if out in ("", "-"):
        raise UserError(f"--out {out!r} is no place: give a file or a folder")
    try:
        _check_place(out, several)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {reason(error)}; choose another") from None


def _check_place(out: str | None, several: bool) -> None:
    if out is not None and not is_folder(out):
        if Path(out).suffix.lower() not in SUFFIXES:
            raise UserError(f"--out {out}: the suffix must be one of {', '.join(SUFFIXES)}")
        if several:
            raise UserError(f"--out {out} is one file, but there are several images: give a folder")
    folder = Path(out or "outputs")
    folder = folder if out is None or is_folder(out) else folder.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"cannot write to --out {out}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied; choose another --out")


def output_paths(images: Sequence[str], label: str, out: str | None) -> list[Path]:
    """A figure path for each image: --out itself, or <folder>/<image>_<type>_<plot>.png."""
    if out is not None and not is_folder(out):
        return [Path(out)]
    folder = Path(out or "outputs")
    taken: set[Path] = set()
    targets = []
    for image in images:
        stem, n = Path(image).stem, 1
        target = folder / f"{stem}_{label}.png"
        while target in taken:  # a/cat.jpg and b/cat.jpg in one run
            n += 1
            target = folder / f"{stem}-{n}_{label}.png"
        taken.add(target)
        targets.append(target)
    return targets
