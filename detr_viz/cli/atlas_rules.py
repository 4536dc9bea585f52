"""Rules of the flags of the atlas command; checked before the work starts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from detr_viz.common.errors import UserError
from detr_viz.figures.styles import SUFFIXES
from detr_viz.render.paths import PAGE, check_out

ATLAS_RULES: tuple[tuple[Callable[[argparse.Namespace], object], str], ...] = (
    (lambda args: not args.out, "--out is empty: give a folder"),
    (lambda args: Path(args.out).is_file(), "--out {out} is a file: give a folder"),
    (
        lambda args: Path(args.out).suffix.lower() in SUFFIXES and not Path(args.out).is_dir(),
        "--out {out} looks like a file: give a folder",
    ),
    (lambda args: ".npz" in args.format, "--format is of the figures: leave npz out"),
    (lambda args: ".csv" in args.format, "--format is of the figures: leave csv out"),
    (lambda args: PAGE in args.format, "--format is of the figures: leave html out"),
)


def check_atlas(args: argparse.Namespace) -> None:
    """UserError for the first rule of the atlas command that is broken, or for a bad --out."""
    for is_wrong, words in ATLAS_RULES:
        if is_wrong(args):
            raise UserError(words.format(out=args.out))
    check_out(args.out, several=True)
