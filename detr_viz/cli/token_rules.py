"""Rules of flags that do not go with --plot proposals, salience or scales; a part of rules.py.

The first two draw scores of tokens, the last one numbers of levels, and none of them a map of
attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from detr_viz.attention.terms import PROPOSALS, SALIENCE, SCALE_PLOT

if TYPE_CHECKING:
    from detr_viz.cli.rules import Flags

Rules = tuple[tuple[Callable[["Flags"], object], str], ...]


def _rules(plot: str, layers: str) -> Rules:
    """layers: which ones the plot shows, whatever --layer says."""
    name = f"--plot {plot}"
    wrong: tuple[tuple[Callable[[Flags], object], str], ...] = (
        (
            lambda f: f.args.faithfulness,
            f"--faithfulness ranks cells by maps of attention: leave {name} out",
        ),
        (lambda f: f.sites, f"{name} shows scores of tokens, no attention: leave --attention out"),
        (lambda f: f.args.layer != "last", f"{name} shows {layers}: leave --layer out"),
        (
            lambda f: f.args.heads is not None,
            f"{name}: scores of tokens have no heads, leave --heads out",
        ),
        (
            lambda f: f.args.scale != "mode",
            f"{name}: scores of tokens have no scale of a mode, leave --scale out",
        ),
        (
            lambda f: f.args.norm is not None,
            f"{name} has one scale, from the lowest score to the highest: leave --norm out",
        ),
        (
            lambda f: f.args.style not in (None, "overlay", "heat"),
            f"{name}: scores of tokens are drawn by --style overlay or heat",
        ),
        (
            lambda f: f.args.zoom not in ("auto", "none"),
            f"{name} shows the tokens of the whole photo: leave --zoom out",
        ),
    )
    return tuple((_with(plot, is_wrong), words) for is_wrong, words in wrong)


def _scale_rules() -> Rules:
    """Of numbers, which are no map: what only maps have."""
    name = f"--plot {SCALE_PLOT}"
    wrong: tuple[tuple[Callable[[Flags], object], str], ...] = (
        (
            lambda f: f.args.faithfulness,
            f"--faithfulness ranks cells by maps of attention: leave {name} out",
        ),
        (lambda f: f.sites, f"{name} shows numbers of levels, no map: leave --attention out"),
        (lambda f: f.args.layer != "last", f"{name} shows all encoder layers: leave --layer out"),
        (lambda f: f.args.heads is not None, f"{name}: levels have no heads, leave --heads out"),
        (
            lambda f: f.args.scale != "mode",
            f"{name}: numbers of levels have no scale of a mode, leave --scale out",
        ),
        (lambda f: f.args.norm is not None, f"{name} draws numbers, no map: leave --norm out"),
        (lambda f: f.args.style is not None, f"{name} draws numbers, no map: leave --style out"),
        (
            lambda f: f.args.zoom not in ("auto", "none"),
            f"{name} shows the levels of the whole photo: leave --zoom out",
        ),
    )
    return tuple((_with(SCALE_PLOT, is_wrong), words) for is_wrong, words in wrong)


def _with(plot: str, is_wrong: Callable[[Flags], object]) -> Callable[[Flags], object]:
    return lambda f: f.args.plot == plot and is_wrong(f)


TOKEN_RULES: Rules = (
    *_rules(PROPOSALS, "what enters the decoder"),
    *_rules(SALIENCE, "all encoder layers"),
    *_scale_rules(),
)
