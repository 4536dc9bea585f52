"""The walls of the package: imports run one way, and the README keeps its word."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz import assets, cli, downloads, models

PACKAGE = ROOT / "detr_viz"
# Rooms from the ground up; a room may import those of earlier lines and of its own.
FLOORS = [
    {"errors", "terms", "assets", "styles", "removals", "points"},
    {"arguments", "cells", "files", "boxes", "labels", "attention", "distances"},
    {"images", "inputs", "tables", "progress"},
    {"journal"},
    {"findings", "precision"},
    {"models"},
    {"downloads", "hub", "weightfiles", "huggingface", "foreign", "unwrap", "checkpoints"},
    {"loading", "capture", "archives"},
    {"ledger", "outputs"},
    {"ablation"},
    {"explanation"},
    {"rollout", "faithfulness"},
    {"queries", "matching", "heatmaps", "compose", "lettering", "recipe"},
    {"contours", "page", "rivals", "sheets"},
    {"annotations", "layout", "drawing", "facts", "captions", "output", "contact", "matrix_layout"},
    {"panels"},
    {"figures", "encoder_figures", "decoder_figures", "matrix_figures"},
    {"rollout_figures", "faithfulness_figures"},
    {"flags", "targets", "comparison"},
    {"rendering"},
    {"desk"},
    {"helpers"},
    {"pipeline"},
    {"engine"},
    {"batch", "cluster"},
    {"preparing", "many", "regression"},
    {"views", "atlas"},
    {"render"},
    {"cli", "pytest_plugin"},
    {"__main__", "demo"},
]
FLOOR_OF = {room: i for i, floor in enumerate(FLOORS) for room in floor}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports, at its top or inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []  # names for annotations only
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "detr_viz" and len(parts) > 1 and parts[1] in FLOOR_OF:
                rooms.add(parts[1])
    return rooms


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = room_of(path)
    assert own in FLOOR_OF, f"{own} has no floor: add it to FLOORS"
    backwards = {r for r in imported_rooms(path) if FLOOR_OF[r] > FLOOR_OF[own]}
    assert not backwards, f"{own} imports from above: {backwards}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_and_stays_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text))


def flags(*commands: str) -> list[str]:
    """Of these commands, or of all."""
    modules = [import_module(cli.SUBCOMMANDS[name]) for name in commands or cli.SUBCOMMANDS]
    actions = [action for module in modules for action in cli.build_parser(module)._actions]
    return list(dict.fromkeys(o for a in actions for o in a.option_strings if o[:2] == "--"))


README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""


@pytest.mark.parametrize("flag", flags())
def test_the_readme_names_every_flag(flag):
    assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", README)


def test_the_readme_names_no_flag_that_is_not_there():
    used = re.findall(r"(?:attention_scripts\.py|detr-viz)([^\n`|#]*)", README)
    assert used
    for line in used:
        word = line.split()[0] if line.split() else ""
        command = word if word in cli.SUBCOMMANDS else cli.DEFAULT_COMMAND
        assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= set(flags(command)), line


@pytest.mark.parametrize("command", sorted(set(cli.SUBCOMMANDS) - {cli.DEFAULT_COMMAND}))
def test_the_readme_shows_every_command(command):
    assert f"python attention_scripts.py {command} " in README


def test_the_readme_names_every_model_and_weight():
    for name in (*models.names(), *downloads.KNOWN):
        assert name in README


def test_files_that_the_readme_shows_are_there():
    linked = re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", README)
    paths = {a or b for a, b in linked}
    assert any(path.startswith("image/") for path in paths)
    for path in paths:
        assert (ROOT / path).exists(), path


def test_what_ships_is_there_and_small():
    for name in models.names():
        demo = assets.find(f"weights/{name}_demo.pth")
        assert demo.stat().st_size < 4_000_000
    assert assets.find(assets.DEFAULT_IMAGE).exists()
