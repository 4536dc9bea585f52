"""The rules of flags that do not go with --plot salience; a part of the table in rules.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detr_viz.cli.rules import Flags

SALIENCE_RULES: tuple[tuple[Callable[[Flags], object], str], ...] = (
    (
        lambda f: f.draws_salience and f.args.faithfulness,
        "--faithfulness ranks cells by maps of attention: leave --plot salience out",
    ),
    (
        lambda f: f.draws_salience and f.sites,
        "--plot salience shows scores of tokens, no attention: leave --attention out",
    ),
    (
        lambda f: f.draws_salience and f.args.layer != "last",
        "--plot salience shows all encoder layers: leave --layer out",
    ),
    (
        lambda f: f.draws_salience and f.args.heads is not None,
        "--plot salience: scores of tokens have no heads, leave --heads out",
    ),
    (
        lambda f: f.draws_salience and f.args.scale != "mode",
        "--plot salience: scores of tokens have no scale of a mode, leave --scale out",
    ),
    (
        lambda f: f.draws_salience and f.args.norm is not None,
        "--plot salience has one scale, from the lowest score to the highest: leave --norm out",
    ),
    (
        lambda f: f.draws_salience and f.args.style not in (None, "overlay", "heat"),
        "--plot salience: scores of tokens are drawn by --style overlay or heat",
    ),
    (
        lambda f: f.draws_salience and f.args.zoom not in ("auto", "none"),
        "--plot salience shows the tokens of the whole photo: leave --zoom out",
    ),
)
