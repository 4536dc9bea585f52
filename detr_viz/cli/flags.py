"""The flags of the command, in groups."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detr_viz import adapters, models
from detr_viz.attention.terms import ALL_TERMS, MODES, PRECISIONS, SCALES, TERMS
from detr_viz.cli.arguments import (
    colormap,
    dpi,
    formats,
    heads,
    layers,
    per_page,
    points,
    positive,
    query_id,
    removal,
    shard,
    term_sum,
    width_in,
)
from detr_viz.detections.points import SYNTAX as POINTS
from detr_viz.detections.queries import DEFAULT, SYNTAX
from detr_viz.explanation import removals
from detr_viz.figures.styles import HEADS, INTERPOLATIONS, NORMS, PRESETS, STYLES
from detr_viz.render.views import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of the command that draws."""
    add_subject(parser, "what to draw")
    _add_matter(parser)
    _add_look(parser)
    _add_outputs(parser)
    add_running(parser)
    _add_many(parser)


def add_subject(
    parser: argparse.ArgumentParser,
    title: str,
    drawn: bool = True,
    each: tuple[str, str, str] | None = None,
    plot: str = "combine",
) -> None:
    """Whose maps of what. drawn: in figures, or else saved.

    each: what becomes of several models, what of several layers, and the queries by default. plot:
    the default.
    """
    if each is None:
        each = (
            "are compared in one figure" if drawn else "have their files beside each other",
            "a row each" if drawn else "a file each",
            DEFAULT + "; top:1 for several layers" * drawn,
        )
    several, row, queries = each
    types = (*models.names(), *adapters.names())
    group = parser.add_argument_group(title)
    add, one_of = group.add_argument, group.add_mutually_exclusive_group().add_argument
    add(
        "--type",
        nargs="+",
        action="extend",
        choices=types,
        metavar="TYPE",
        help=f"model family member: {', '.join(types)}; told by the weights where they "
        f"tell (default: detr); several {several}",
    )
    one_of(
        "--plot",
        choices=(*MODES, "all", *[ALL_TERMS] * drawn),
        default=plot,
        help="parts of query and key that attend; all: the three"
        + "; terms: what each product of parts adds to the logits" * drawn
        + " (default: %(default)s)",
    )
    one_of(
        "--terms",
        dest="plot",
        type=term_sum,
        default=argparse.SUPPRESS,
        metavar="SUM",
        help=f"in place of --plot: attention by a sum of terms, such as cq.pk+pq.pk, of "
        f"{', '.join(TERMS)}",
    )
    add(
        "--image",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="images: files, folders (with what is below), patterns ('val/*.jpg'), @list.txt (a "
        "path a line) or a COCO .json file (default: a demo scene)",
    )
    if drawn:
        add(
            "--attention",
            nargs="+",
            action="extend",
            choices=tuple(names_of()),
            metavar="SITE",
            help="cross: where queries look; encoder: where points of the image look, by its "
            "self-attention; decoder: at which queries queries look, and in a second figure who "
            "looks at whom; several: figures of each (default: cross)",
        )
        add(
            "--points",
            type=points,
            nargs="+",
            action="extend",
            metavar="P",
            help=f"for --attention encoder: {POINTS} (default: the middles of the queries' boxes)",
        )
    if drawn:
        add(
            "--biography",
            type=query_id,
            metavar="Q",
            help="one query through all decoder layers: --queries Q --layer all, its reference "
            "point and next best classes, and where it changed its mind",
        )
    add("--image-root", metavar="DIR", help="where the paths of an @list or COCO file start")
    add(
        "--weights",
        nargs="+",
        action="extend",
        metavar="W",
        help="checkpoint file, Hugging Face folder, name of --list-models or hf:owner/name "
        f"(default: this project's small demo checkpoint); several {several}, "
        "paired with the types by position",
    )
    add(
        "--queries",
        metavar="Q",
        help=f"{SYNTAX} (default: {queries})",
    )
    add(
        "--layer",
        type=layers,
        default="last",
        metavar="N",
        help=f"decoder layer{', or encoder layer,' * drawn} counted from 0, last, or several, "
        f"{row}: all or 0,2,5 (default: %(default)s)",
    )
    add(
        "--scale",
        choices=SCALES,
        default="mode",
        help="mode: q and k of the mode attend on their own; layer: at the layer's own scale, "
        "their exact share of combine (default: %(default)s)",
    )


def _add_matter(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("does it matter").add_argument
    add(
        "--ablate",
        type=removal,
        nargs="+",
        action="extend",
        metavar="PART",
        help="run the decoder again without a part of its cross-attention, a row each, with the "
        f"score that is left and the new box: {removals.SYNTAX}",
    )
    add(
        "--ablate-in",
        type=layers,
        metavar="N",
        help="the decoder layers to take it out of, or to hide cells in with --faithfulness: all, "
        "last, or numbers from 0 (default: all)",
    )
    add(
        "--faithfulness",
        action="store_true",
        help="deletion and insertion: how a query's score falls as its map's top cells are hidden "
        "from it, and rises as they alone are seen, against cells in random order",
    )
    add(
        "--rollout",
        action="store_true",
        help="what queries have of each cell through all layers, by attention rollout, an "
        "approximation; with --attention encoder: what points of the image have",
    )


def _add_look(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it looks")
    add = group.add_argument
    said = "; ".join(f"{name}: {words}" for name, words in STYLES.items())
    add("--style", choices=tuple(STYLES), help=_help(said, "overlay; heat for --plot terms"))
    said = "; ".join(f"{name}: {words}" for name, words in NORMS.items())
    add("--norm", choices=tuple(NORMS), help=f"{_help(said, 'head')}; contours have none")
    said = "; ".join(f"{name}: {words}" for name, words in HEADS.items())
    add(
        "--heads",
        type=heads,
        metavar="H",
        help=f"numbers from 0 (0,3), or {said} (default: all; saved maps have all)",
    )
    add(
        "--interpolation",
        choices=INTERPOLATIONS,
        help="between the cells of a map (default: cubic; nearest for heat)",
    )
    add_page(group)


def add_page(group: argparse._ArgumentGroup) -> None:
    """Colours, width and resolution of a figure."""
    add = group.add_argument
    said = "any colour map of matplotlib (default: inferno)"
    add("--cmap", type=colormap, metavar="NAME", help=said)
    widths = ", ".join(f"{name} {made.width_in:g} in" for name, made in PRESETS.items())
    add("--preset", choices=tuple(PRESETS), help=f"width, resolution and size of type: {widths}")
    add("--width", type=width_in, metavar="IN", help="another width: inches, or with cm, mm, pt")
    add("--dpi", type=dpi, metavar="N", help="another resolution: pixels an inch")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="PATH",
        help="a .png, .pdf or .svg file; a folder for several images "
        "(default: outputs/<image>_<type>_<plot>.png)",
    )
    add(
        "--format",
        type=formats,
        metavar="F",
        help="what goes into a folder, any of png,pdf,svg,npz,csv (default: png); npz or csv: the "
        "numbers, as --save-maps has them",
    )
    add(
        "--save-maps",
        action="store_true",
        help="also write the numbers: maps and weights as <figure stem>.npz, curves and the table "
        "of --ablate as .csv",
    )
    add("--caption", action="store_true", help="also write a LaTeX figure as <figure stem>.tex")
    add("--show", action="store_true", help="open the figures in a window")
    add("--list-queries", action="store_true", help="print the table of queries, draw nothing")
    add("--list-models", action="store_true", help="print types and known weights, then stop")


def add_running(parser: argparse.ArgumentParser) -> None:
    """How the network runs, and what its file does not say."""
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
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the network's arithmetic: tf32 and bfloat16 are quicker and less exact, float64 "
        "is slow and more exact; a run that draws says how far weights move (default: %(default)s)",
    )
    add("--classes", metavar="FILE", help="class names, line n names class n (from 0)")
    add("--nheads", type=positive, metavar="N", help="attention heads, where the file is silent")
    add(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="DC5: dilated last stage, where the file is silent",
    )
    add("--cache", metavar="DIR", help="where downloads go (default: weights/)")


def _add_many(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("many images").add_argument
    add("--resume", action="store_true", help="skip what an earlier run with the same flags made")
    add("--shard", type=shard, metavar="I/N", help="only part I (from 0) of N of the images")
    add(
        "--contact-sheet",
        type=per_page,
        nargs="?",
        const=8,
        metavar="N",
        help="also make a PDF of all figures, at most N a page (default: 8)",
    )
    add_speed(add)
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the same run on a Ray cluster (default: %(default)s)",
    )
    add("--ray-address", metavar="A", help="the cluster; auto finds it (default: a local one)")


def add_speed(add: Callable[..., object]) -> None:
    """How many images at a time."""
    add(
        "--jobs",
        type=positive,
        metavar="N",
        help="processes that read and draw beside the network (default: what the machine has)",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images of one size that share a forward pass, never padded (default: 1; 8 on a GPU)",
    )


def _help(said: str, default: str = "%(default)s") -> str:
    """Help text of words that may hold a per cent sign."""
    return f"{said.replace('%', '%%')} (default: {default})"
