"""The rules of flags that do not go with --plot proposals; a part of the table in rules.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detr_viz.cli.rules import Flags

PROPOSAL_RULES: tuple[tuple[Callable[[Flags], object], str], ...] = (
    (
        lambda f: f.draws_proposals and f.args.faithfulness,
        "--faithfulness ranks cells by maps of attention: leave --plot proposals out",
    ),
    (
        lambda f: f.draws_proposals and f.sites,
        "--plot proposals shows scores of tokens, no attention: leave --attention out",
    ),
    (
        lambda f: f.draws_proposals and f.args.layer != "last",
        "--plot proposals shows what enters the decoder: leave --layer out",
    ),
    (
        lambda f: f.draws_proposals and f.args.heads is not None,
        "--plot proposals: scores of tokens have no heads, leave --heads out",
    ),
    (
        lambda f: f.draws_proposals and f.args.scale != "mode",
        "--plot proposals: scores of tokens have no scale of a mode, leave --scale out",
    ),
    (
        lambda f: f.draws_proposals and f.args.norm is not None,
        "--plot proposals has one scale, from the lowest score to the highest: leave --norm out",
    ),
    (
        lambda f: f.draws_proposals and f.args.style not in (None, "overlay", "heat"),
        "--plot proposals: scores of tokens are drawn by --style overlay or heat",
    ),
    (
        lambda f: f.draws_proposals and f.args.zoom not in ("auto", "none"),
        "--plot proposals shows the tokens of the whole photo: leave --zoom out",
    ),
)
