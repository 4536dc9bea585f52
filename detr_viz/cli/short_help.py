"""--help on one screen: the flags that most runs need, a line each; --help-all prints the rest."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping

from detr_viz.attention.terms import MODES
from detr_viz.checkpoints.type_names import type_names

LINES, COLUMNS = 50, 80  # of a screen
_EXAMPLES = 3
_FLAG_COLUMNS = 24
_MODES = ", ".join(MODES)
SHORT = {  # flag -> its line; in the order of the screen
    "--type": f"{', '.join(type_names())}; several are compared",
    "--weights": "file, folder, name of --list-models, hf:owner/name",
    "--image": "files, folders, 'val/*.jpg', @list.txt, COCO .json",
    "--plot": f"{_MODES}, several, all, terms, proposals, salience, scales",
    "--queries": "objects (default), top:5, class:cat, 3,17, 0-3, all",
    "--layer": "last (default), all, or layers from 0: 0,2 or 0-3",
    "--attention": "cross (default), encoder or decoder: what looks where",
    "--ablate": "what is left without content, position, head:3 ...",
    "--faithfulness": "do the top cells of a map matter?",
    "--rollout": "what reaches a query through all layers",
    "--style": "overlay, heat, contour, points, cells",
    "--norm": "the scale of colours: even (default), head, query ...",
    "--heads": "0,3 or 0-3, or mean, max, sort or all-in-one",
    "--level": "of sampled maps: sum (default), all, or 0,2",
    "--preset": "column, page, slide or poster",
    "--out": "a file or a folder (default: below outputs/)",
    "--format": "png, pdf, svg, ...; npz, csv: numbers; html: a page",
    "--store": "float32 or float16",
    "--root": "what paths in baselines are relative to",
    "--save-maps": "also write the numbers",
    "--caption": "also write a LaTeX figure",
    "--list-queries": "print what the model sees, draw nothing",
    "--list-models": "print types and known weights",
    "--size": "shorter side of the input, pixels",
    "--device": "auto (default), cpu, cuda or mps",
    "--classes": "file with class names",
    "--resume": "skip what an earlier run has drawn",
    "--jobs": "processes that read and draw",
    "--quiet": "print nothing but errors",
}


def short_help(
    parser: argparse.ArgumentParser, description: str, epilog: str, own: Mapping[str, str]
) -> str:
    """The help of a parser on one screen.

    epilog: examples first, then other paragraphs. own: lines of SHORT that the command replaces.
    """
    actions = {flag: a for a in parser._actions for flag in a.option_strings}
    lines = {**SHORT, **own}
    rows = [_row(flag, actions[flag], line) for flag, line in lines.items() if flag in actions]
    rows.append(
        "  --help-all".ljust(_FLAG_COLUMNS) + f"all {len(parser._actions)} flags, explained"
    )
    about, *others = (epilog % {"prog": parser.prog}).split("\n\n")
    title, *examples = about.strip().splitlines()
    shown = [line for line in examples if len(line) <= COLUMNS] or examples
    return "\n".join(
        [
            f"usage: {(parser.usage or '%(prog)s [flags]') % {'prog': parser.prog}}",
            "",
            description,
            "",
            *rows,
            "",
            title,
            *shown[:_EXAMPLES],
            *(f"\n{part.strip()}" for part in others),
            "",
        ]
    )


def _row(flag: str, action: argparse.Action, line: str) -> str:
    several = " ..." if action.nargs == "+" else ""
    value = f" {action.metavar}{several}" if action.metavar else ""
    words = textwrap.wrap(line, COLUMNS - _FLAG_COLUMNS)
    return f"  {flag}{value}".ljust(_FLAG_COLUMNS) + f"\n{'':{_FLAG_COLUMNS}}".join(words)
