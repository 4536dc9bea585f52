"""The flags of the render command, in groups."""

from __future__ import annotations

import argparse

from detr_viz.cli.arguments import (
    contour_shares,
    formats,
    heads,
    layers,
    levels,
    per_page,
    shard,
    zoom,
)
from detr_viz.cli.flags import add_page, add_subject
from detr_viz.cli.lists import Listed, as_text, removals
from detr_viz.cli.run_flags import add_running, add_speed
from detr_viz.explanation.removals import SYNTAX as REMOVALS
from detr_viz.figures.styles import HEADS, INTERPOLATIONS, LEVELS, NORMS, STYLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of the command that draws."""
    add_subject(parser, "what to draw")
    _add_effects(parser)
    _add_style(parser)
    _add_outputs(parser)
    add_running(parser)
    _add_many(parser)


def _add_effects(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("effects of the attention").add_argument
    add(
        "--ablate",
        action=Listed,
        read=removals,
        extend=True,
        metavar="PART",
        help="run the decoder again without a part of its cross-attention, a row each, with the "
        f"score that is left and the new box: {REMOVALS}",
    )
    add(
        "--ablate-in",
        action=Listed,
        read=as_text(layers),
        metavar="N",
        help="decoder layers for --ablate, or for hiding cells with --faithfulness: all, "
        "last, or numbers from 0 (default: all)",
    )
    add(
        "--faithfulness",
        action="store_true",
        help="deletion and insertion: how a query's score falls as the top cells of its map are "
        "hidden, and rises as only they are seen, compared with cells in random order",
    )
    add(
        "--rollout",
        action="store_true",
        help="the share of each cell in queries through all layers, by attention rollout, an "
        "approximation; with --attention encoder: in points of the image",
    )


def _add_style(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it looks")
    add = group.add_argument
    text = "; ".join(f"{name}: {words}" for name, words in STYLES.items())
    usual = "overlay; points for cross-attention that samples, cells for stages, where no flag is "
    usual += "one of colours"
    add("--style", choices=tuple(STYLES), help=_help(text, usual))
    text = "; ".join(f"{name}: {words}" for name, words in NORMS.items())
    add("--norm", choices=tuple(NORMS), help=f"{_help(text, 'even')}; contours have none")
    text = "; ".join(f"{name}: {words}" for name, words in HEADS.items())
    add(
        "--heads",
        action=Listed,
        read=as_text(heads),
        metavar="H",
        help=f"numbers from 0 (0,3), or {text} (default: all; saved maps have all)",
    )
    text = "; ".join(f"{name}: {words}" for name, words in LEVELS.items())
    add(
        "--level",
        action=Listed,
        read=as_text(levels),
        default="sum",
        metavar="L",
        help="levels of maps of several (sampled attention): numbers from 0 (0,2), a row for each, "
        f"with --style points together; or {text} (default: sum; saved maps have all)",
    )
    add(
        "--interpolation",
        choices=INTERPOLATIONS,
        help="between the cells of a map (default: nearest for heat and where cells are large; "
        "else smooth with --norm even, cubic with the other norms)",
    )
    add(
        "--zoom",
        type=zoom,
        default="auto",
        metavar="Z",
        help="auto: small objects are shown in a view around their box; none: the whole photo; or "
        "a factor, around the box (default: auto)",
    )
    add(
        "--contours",
        action=Listed,
        read=as_text(contour_shares),
        metavar="P",
        help="for --style contour: per cent of a map that its lines hold, such as 50,80,95; the "
        "first is the full line (default: 50)",
    )
    add(
        "--gt",
        action="store_true",
        help="draw the annotated boxes of the image dashed beside the predicted one, the nearest "
        "one thick, with its class and IoU; crowds dotted",
    )
    add("--letters", action="store_true", help="(a), (b) and so on before the queries")
    add_page(group)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to write").add_argument
    add(
        "--out",
        metavar="PATH",
        help="a .png, .pdf, .svg, .jpg, .tif, .eps or .html file; a folder for several images "
        "(default: outputs/<image>_<type>_<plot>.png)",
    )
    add(
        "--format",
        action=Listed,
        read=as_text(formats),
        metavar="F",
        help="what goes into a folder, any of png, pdf, svg, jpg, tif, eps, npz, csv, html "
        "(default: png); npz or csv: the numbers of --save-maps; html: a page to explore in a "
        "browser",
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


def _add_many(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("many images").add_argument
    add(
        "--resume",
        action="store_true",
        help="skip images that an earlier run with the same flags drew",
    )
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


def _help(text: str, default: str = "%(default)s") -> str:
    """Help text with its default; per cent signs are escaped."""
    return f"{text.replace('%', '%%')} (default: {default})"
