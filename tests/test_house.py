"""The walls of the package: imports run one way, and files stay readable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz import models
from detr_viz.common import assets

PACKAGE = ROOT / "detr_viz"
# A package imports only packages of lower levels, and its own files.
LEVELS = {
    "common": 1,
    "attention": 1,
    "images": 2,
    "detections": 2,
    "explanation": 3,
    "models": 4,
    "adapters": 4,
    "heatmaps": 4,
    "checkpoints": 5,
    "figures": 5,
    "html": 6,
    "regression": 6,
    "render": 7,
    "batch": 8,
    "atlas": 9,
    "errors": 9,
    "cli": 10,
    "__main__": 11,
    "demo": 11,
}
LONGEST = 300  # lines of a file


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def at_runtime(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, which are names for annotations only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield other
                yield from at_runtime(other)
            continue
        yield node
        yield from at_runtime(node)


def imported(path: Path) -> set[str]:
    """Packages (of LEVELS) that a file imports, at its top, inside functions or by a string."""
    found = set()
    for node in at_runtime(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if re.fullmatch(r"detr_viz(\.\w+)+", node.value) else []
        else:
            continue
        found.update(
            parts[1]
            for name in names
            if len(parts := name.split(".")) > 1 and parts[0] == "detr_viz" and parts[1] in LEVELS
        )
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = package_of(path)
    assert own in LEVELS, f"{own} has no level: add it to LEVELS"
    upwards = {name for name in imported(path) - {own} if LEVELS[name] >= LEVELS[own]}
    assert not upwards, f"{own} imports from its level or above: {upwards}"


def test_type_only_imports_do_not_count(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from detr_viz.cli.main import main\n"
        "else:\n    from detr_viz.figures.head_maps import save\n"
        "def f():\n    from detr_viz.models import detr\n    return 'detr_viz.batch.run.run'\n"
    )
    assert imported(file) == {"figures", "models", "batch"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_and_stays_readable(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert ast.get_docstring(ast.parse(text))


def test_what_ships_is_there_and_small():
    for name in models.demos():
        demo = assets.find(f"weights/{name}_demo.pth")
        assert demo.stat().st_size < 4_000_000
    assert assets.find(assets.DEFAULT_IMAGE).exists()
