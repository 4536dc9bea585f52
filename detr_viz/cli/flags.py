"""Groups of flags that several commands have: subject, page, running, speed."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detr_viz.adapters.transformers_types import NETWORKS
from detr_viz.attention.terms import (
    ALL_TERMS,
    MODES,
    PRECISIONS,
    PROPOSALS,
    SALIENCE,
    SCALE_PLOT,
    SCALES,
    TERMS,
)
from detr_viz.checkpoints.type_names import type_names
from detr_viz.cli.arguments import (
    Unasked,
    colormap,
    dpi,
    layers,
    positive,
    query_id,
    width_in,
)
from detr_viz.cli.lists import (
    Listed,
    as_text,
    choices,
    images,
    plot_words,
    points,
    terms,
    types,
    weights,
)
from detr_viz.detections.points import SYNTAX as POINTS
from detr_viz.detections.queries import DEFAULT, SYNTAX, joined
from detr_viz.figures.styles import PRESETS, RAMPS
from detr_viz.render.views import names_of


def add_subject(
    parser: argparse.ArgumentParser,
    title: str,
    drawn: bool = True,
    each: tuple[str, str, str] | None = None,
    plot: str = "combine",
    annotated: bool = True,
) -> None:
    """Models, images, queries and layers.

    drawn: whether the command draws figures (else it saves maps). each: help texts for several
    models, for several layers, and for the default of --queries. plot: the default. annotated:
    whether annotated boxes of the images are of use.
    """
    if each is None:
        each = "are compared in one figure", "a row each", f"{DEFAULT}; top:1 for several layers"
    several, row, queries = each
    alone, plot_help = ["all"], "parts of query and key that attend; all: the three"
    layer_help, stages = "decoder layer", ""
    if drawn:
        stages = "; of models with stages: all, side by side"
        alone += [ALL_TERMS, PROPOSALS, SALIENCE, SCALE_PLOT]
        plot_help += "; terms: what each product of parts adds to the logits; proposals: which "
        plot_help += "tokens of the image became queries, with their scores (two-stage models); "
        plot_help += "salience: which tokens the encoder refines, with their scores (Salience "
        plot_help += "DETR); scales: how much of each level the encoder takes (Dynamic DETR)"
        layer_help += ", or encoder layer,"
    plots = ", ".join([*MODES, *alone])
    names = ", ".join(type_names())
    group = parser.add_argument_group(title)
    add, one_of = group.add_argument, group.add_mutually_exclusive_group().add_argument
    add(
        "--type",
        action=Listed,
        read=types,
        extend=True,
        metavar="TYPE",
        help=f"model family member: {names}; the weights decide where "
        f"they can (default: detr); several {several}",
    )
    one_of(
        "--plot",
        action=Listed,
        read=plot_words([*MODES], alone),
        default=plot,
        metavar="MODE",
        help=f"{plots}, or several modes: {plot_help} (default: %(default)s)",
    )
    one_of(
        "--terms",
        dest="plot",
        action=Listed,
        read=terms,
        default=argparse.SUPPRESS,
        metavar="SUM",
        help=f"in place of --plot: attention by a sum of terms, such as cq.pk+pq.pk, of "
        f"{', '.join(TERMS)}",
    )
    add(
        "--image",
        action=Listed,
        read=images,
        extend=True,
        metavar="FILE",
        help="images: files, folders (with what is below), patterns ('val/*.jpg'), @list.txt (a "
        "path a line), a COCO or LabelMe .json, a YOLO data.yaml (default: a demo scene)",
    )
    if drawn:
        add(
            "--attention",
            action=Listed,
            read=choices(names_of()),
            extend=True,
            metavar="SITE",
            help="cross: where queries look; encoder: where points of the image look, by its "
            "self-attention; decoder: which queries a query looks at, with a second figure of all "
            "queries against all; several: figures of each (default: cross)",
        )
        add(
            "--points",
            action=Listed,
            read=points,
            extend=True,
            metavar="P",
            help=f"for --attention encoder: {POINTS} (default: the middles of the queries' boxes)",
        )
    if drawn:
        add(
            "--biography",
            type=query_id,
            metavar="Q",
            help="one query through all decoder layers (--queries Q --layer all), with its "
            "reference point, its next best classes, and where it changes its class",
        )
    add("--image-root", metavar="DIR", help="where the paths of an @list or COCO file start")
    if annotated:
        add(
            "--annotations",
            metavar="FILE",
            help="annotated boxes of the images: a COCO .json, or a folder of YOLO .txt, Pascal "
            "VOC .xml or LabelMe .json files (default: those of --image)",
        )
    add(
        "--weights",
        action=Listed,
        read=weights,
        extend=True,
        metavar="W",
        help="checkpoint file, Hugging Face folder, name of --list-models or hf:owner/name "
        f"(default: this project's small demo checkpoint); several {several}, "
        "paired with the types by position",
    )
    add(
        "--model",
        action=Listed,
        read=list,
        extend=True,
        metavar="FILE.py:FUNCTION",
        help="in place of --weights: a function of a file of yours that gives a detector (see "
        "docs/your_model.md); the file's code is run",
    )
    add(
        "--prompt",
        metavar="TEXT",
        help="what to find, a phrase or several with a full stop after each, for models that are "
        "asked (Grounding DINO, OmDet-Turbo)",
    )
    add(
        "--queries",
        action=Listed,
        read=joined,
        metavar="Q",
        help=f"{SYNTAX} (default: {queries})",
    )
    add(
        "--layer",
        action=Listed,
        read=as_text(layers),
        default=Unasked("last"),
        metavar="N",
        help=f"{layer_help} counted from 0, last, or several, "
        f"{row}: all or 0,2,5 (default: %(default)s{stages})",
    )
    add(
        "--scale",
        choices=SCALES,
        default="mode",
        help="mode: q and k of the mode attend on their own; layer: at the layer's own scale, "
        "as exact parts of combine's logits (default: %(default)s)",
    )


def add_page(group: argparse._ArgumentGroup) -> None:
    """Colours, width and resolution of a figure."""
    add = group.add_argument
    text = f"{', '.join(RAMPS)}, or any colour map of matplotlib (default: {next(iter(RAMPS))})"
    add("--cmap", type=colormap, metavar="NAME", help=text)
    widths = ", ".join(f"{name} {preset.width_in:g} in" for name, preset in PRESETS.items())
    add("--preset", choices=tuple(PRESETS), help=f"width, resolution and size of type: {widths}")
    add("--width", type=width_in, metavar="IN", help="another width: inches, or with cm, mm, pt")
    add("--dpi", type=dpi, metavar="N", help="another resolution: pixels an inch")
    add("--font", default="sans", metavar="F", help="sans, serif, or an installed font's name")
    add(
        "--notes",
        action="store_true",
        help="print under the figure all that a reader must know; it always stands in the file's "
        "metadata",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """How the network runs, and settings that a checkpoint may lack."""
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
    add(
        "--classes",
        metavar="FILE",
        help="class names: a line each (from 0), COCO, id2label, YOLO .yaml",
    )
    add(
        "--network",
        choices=NETWORKS,
        default="own",
        help="for a Hugging Face folder of DETR, Conditional or Deformable DETR: the network of "
        "this project, or that of transformers (default: %(default)s)",
    )
    add(
        "--nheads",
        type=positive,
        metavar="N",
        help="attention heads, where the file does not say it",
    )
    add(
        "--dilation",
        action=argparse.BooleanOptionalAction,
        help="DC5: dilated last stage, where the file does not say it",
    )
    add("--cache", metavar="DIR", help="where downloads go (default: weights/)")


def add_speed(add: Callable[..., object]) -> None:
    """How many images run at a time."""
    add(
        "--jobs",
        type=positive,
        metavar="N",
        help="processes that read and draw beside the network (default: as the machine has cores)",
    )
    add(
        "--timeout",
        type=positive,
        metavar="S",
        help="seconds until a process that does not answer is replaced (default: 600)",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images of one size that share a forward pass, never padded (default: 1; 8 on a GPU)",
    )
