"""The table of rules: each is broken by some flags, and lets the usual ones through."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz import cli
from detr_viz.cli import render, rules
from detr_viz.common.errors import UserError

BROKEN = [  # in the order of the table
    ["--ablate-in", "0"],
    ["--ablate", "content", "--list-queries"],
    ["--ablate", "content", "--layer", "0"],
    ["--gt", "--list-queries"],
    ["--contours", "50,80", "--style", "heat"],
    ["--plot", "terms", "--style", "contour"],
    ["--plot", "terms", "--heads", "mean"],
    ["--plot", "terms", "--level", "0"],
    ["--ablate", "content", "--level", "all"],
    ["--attention", "cross", "encoder", "--level", "0,2"],
    ["--rollout", "--heads", "all-in-one"],
    ["--style", "cells", "--plot", "proposals"],
    ["--ablate", "content", "--style", "points"],
    ["--faithfulness", "--style", "points"],
    ["--model", "own.py:build", "--classes", "names.txt"],
    ["--rollout", "--faithfulness"],
    ["--points", "3,4"],
    ["--attention", "cross", "encoder", "--out", "a.png"],
    ["--rollout", "--type", "detr", "cd_detr"],
    ["--attention", "decoder", "--plot", "terms"],
    ["--faithfulness", "--biography", "3"],
    ["--attention", "encoder", "--ablate", "content"],
    ["--rollout", "--list-queries"],
    ["--attention", "encoder", "--points", "3,4", "--queries", "top:1"],
    ["--attention", "decoder", "--style", "heat"],
    ["--attention", "decoder", "--interpolation", "linear"],
    ["--attention", "decoder", "--zoom", "2"],
    ["--rollout", "--attention", "cross", "encoder"],
    ["--rollout", "--attention", "decoder"],
    ["--rollout", "--plot", "position"],
    ["--rollout", "--heads", "0"],
    ["--rollout", "--layer", "0"],
    ["--rollout", "--scale", "layer"],
    ["--faithfulness", "--attention", "encoder"],
    ["--faithfulness", "--heads", "0"],
    ["--faithfulness", "--layer", "0"],
    ["--faithfulness", "--zoom", "2"],
    ["--plot", "proposals", "--faithfulness"],
    ["--plot", "proposals", "--attention", "encoder"],
    ["--plot", "proposals", "--layer", "0"],
    ["--plot", "proposals", "--heads", "0"],
    ["--plot", "proposals", "--scale", "layer"],
    ["--plot", "proposals", "--norm", "head"],
    ["--plot", "proposals", "--style", "contour"],
    ["--plot", "proposals", "--zoom", "2"],
    ["--plot", "salience", "--faithfulness"],
    ["--plot", "salience", "--attention", "encoder"],
    ["--plot", "salience", "--layer", "0"],
    ["--plot", "salience", "--heads", "0"],
    ["--plot", "salience", "--scale", "layer"],
    ["--plot", "salience", "--norm", "head"],
    ["--plot", "salience", "--style", "contour"],
    ["--plot", "salience", "--zoom", "2"],
    ["--plot", "scales", "--faithfulness"],
    ["--plot", "scales", "--attention", "encoder"],
    ["--plot", "scales", "--layer", "0"],
    ["--plot", "scales", "--heads", "0"],
    ["--plot", "scales", "--scale", "layer"],
    ["--plot", "scales", "--norm", "head"],
    ["--plot", "scales", "--style", "heat"],
    ["--plot", "scales", "--zoom", "2"],
    ["--format", "html", "--attention", "encoder"],
    ["--out", "a.html", "--ablate", "content"],
    ["--out", "a.html", "--save-maps"],
    ["--format", "svg", "--out", "a.png"],
    ["--caption", "--format", "npz,csv"],
    ["--caption", "--format", "tif,csv"],
    ["--show", "--jobs", "2"],
    ["--show", "--format", "csv"],
    ["--contact-sheet", "--format", "svg"],
    ["--ray-address", "auto"],
    ["--ablate", "content", "--plot", "position"],
]

SOUND = [
    ["--attention", "cross", "encoder", "decoder", "--ablate", "content", "--save-maps"],
    ["--attention", "encoder", "--resume", "--jobs", "2", "--shard", "0/2", "--caption"],
    ["--rollout", "--attention", "encoder", "--points", "3,4", "--contact-sheet"],
    ["--faithfulness", "--format", "csv", "--engine", "ray", "--batch-size", "2"],
    ["--plot", "terms", "--save-maps", "--caption"],
    ["--plot", "proposals", "--save-maps", "--caption", "--resume", "--letters", "--style", "heat"],
    ["--plot", "salience", "--save-maps", "--caption", "--resume", "--letters", "--style", "heat"],
    ["--ablate", "content", "--save-maps", "--caption", "--resume"],
    ["--heads", "max", "--caption"],
    ["--format", "html,png,npz", "--caption", "--resume", "--jobs", "2", "--contact-sheet"],
    ["--out", "a.html", "--plot", "terms"],
    ["--style", "contour", "--contours", "50,80", "--zoom", "none", "--letters", "--notes"],
    ["--faithfulness", "--font", "serif", "--letters", "--zoom", "none"],
    ["--level", "all", "--save-maps", "--caption", "--resume", "--layer", "all"],
    ["--level", "sum", "--attention", "cross", "encoder", "--ablate", "content"],
    ["--heads", "all-in-one", "--plot", "all", "--level", "0", "2", "--style", "points"],
    ["--biography", "3", "--level", "1", "--style", "points"],
]


def flags(argv: list[str]) -> rules.Flags:
    return rules.Flags(cli.build_parser(render).parse_args(argv))


def test_every_rule_is_broken_by_some_flags():
    assert len(BROKEN) == len(rules.RULES)
    for argv, (is_wrong, words) in zip(BROKEN, rules.RULES, strict=True):
        made = flags(argv)
        assert is_wrong(made), argv
        message = words if isinstance(words, str) else words(made)
        assert "\n" not in message and "--" in message
        with pytest.raises(UserError):
            rules.check(made)


@pytest.mark.parametrize("argv", SOUND, ids=" ".join)
def test_what_may_be_said_together(argv):
    rules.check(flags(argv))


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ([], ["cross"]),
        (["--attention", "encoder", "cross", "encoder"], ["encoder", "cross"]),
        (["--rollout"], ["rollout"]),
        (["--rollout", "--attention", "encoder"], ["rollout_encoder"]),
        (["--faithfulness", "--attention", "cross"], ["faithfulness"]),
        (["--plot", "proposals"], ["proposals"]),
    ],
)
def test_the_views_that_flags_ask_for(argv, names):
    assert flags(argv).views == names


@pytest.mark.parametrize(
    ("argv", "batch"),
    [
        (["--rollout"], False),
        (["--rollout", "--resume"], True),
        (["--attention", "encoder", "--image", "a.png", "b.png"], True),
        (["--image", "a.png", "b.png", "--list-queries"], False),
        (["--engine", "ray"], True),
    ],
)
def test_what_is_a_batch(argv, batch):
    assert flags(argv).is_batch is batch


def test_flags_end_in_the_cli():
    """Below it no module knows argparse, but where a checkpoint may hold its Namespace."""
    known = {"cli", "demo", "checkpoints"}
    package = ROOT / "detr_viz"
    for path in package.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(Path(path).read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "argparse" not in names or path.relative_to(package).parts[0] in known, path
