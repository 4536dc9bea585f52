"""Rules of the flags that say how maps look: the part of the table in rules.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from detr_viz.attention.terms import PROPOSALS, SALIENCE, SCALE_PLOT
from detr_viz.figures.styles import ALL_IN_ONE

if TYPE_CHECKING:
    from detr_viz.cli.rules import Flags

Rule = tuple[Callable[["Flags"], object], str | Callable[["Flags"], str]]

# The encoder draws points; the others have rules of their own on styles, or refuse them all.
_POINT_VIEWS = {"encoder", "decoder", PROPOSALS, SALIENCE, SCALE_PLOT}

LOOK_RULES: tuple[Rule, ...] = (
    (
        lambda f: f.args.gt and f.args.list_queries,
        "--gt draws: leave --list-queries out",
    ),
    # ---- contours --------------------------------------------------------------------------------
    (
        lambda f: f.args.contours is not None and f.args.style != "contour",
        "--contours are the lines of --style contour: give both",
    ),
    # ---- terms -----------------------------------------------------------------------------------
    (
        lambda f: f.draws_terms and f.args.style == "contour",
        "terms have no contours: take another --style",
    ),
    (
        lambda f: f.draws_terms and f.merged_heads,
        "terms are those of single heads: name --heads by number (0,3)",
    ),
    # ---- levels, points --------------------------------------------------------------------------
    (
        lambda f: f.args.level != "sum" and f.draws_terms,
        "terms are those of one level: leave --level out",
    ),
    (
        lambda f: f.args.level != "sum" and f.args.ablate,
        "--ablate shows the sum of all levels (level:2 takes one out): leave --level out",
    ),
    (
        lambda f: f.args.level != "sum" and f.other_view,
        lambda f: f"--level is not for {f.other_view}: leave one of them out",
    ),
    (
        lambda f: f.args.heads == ALL_IN_ONE and (f.other_view or f.args.ablate),
        lambda f: (
            f"--heads {ALL_IN_ONE} is not for {f.other_view or '--ablate'}: leave one of them out"
        ),
    ),
    (
        lambda f: f.args.style == "cells" and (f.other_view or f.args.ablate),
        lambda f: f"--style cells is not for {f.other_view or '--ablate'}: leave one of them out",
    ),
    (
        lambda f: f.args.style == "points" and f.args.ablate,
        "--ablate shows maps, not sampling points: leave --style points out",
    ),
    (
        lambda f: f.args.style == "points" and f.other_view and not _POINT_VIEWS & {*f.views},
        lambda f: f"--style points is not for {f.other_view}: leave one of them out",
    ),
)
