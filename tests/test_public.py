"""The public surface: detr_viz.__all__ says what there is, lazily, with types and shapes."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT

import detr_viz

NAMES = [name for name in detr_viz.__all__ if name != "__version__"]
TREE = ast.parse((ROOT / "detr_viz/__init__.py").read_text())
# A shape stands in a comment behind the annotation: boxes: NDArray,  # (Q, 4), above it, or
# ends the name.
ARRAY = re.compile(r"\b(NDArray|ndarray|Tensor)\b")
SHAPE = re.compile(r"#.*\(.*\)")


def test_what_is_imported_for_types_is_what_is_there():
    block, _ = [node for node in TREE.body if isinstance(node, ast.If)]
    typed = {}
    for node in block.body:
        for alias in node.names:
            typed[alias.asname] = f"{node.module}:{alias.name}"
    homes = {}
    for name, home in detr_viz._HOMES.items():
        module, _, own = home.partition(":")
        homes[name] = f"detr_viz.{module}:{own or name}"
    assert typed == homes
    assert sorted(homes) == sorted(NAMES) == NAMES
    assert len(set(detr_viz.__all__)) == len(detr_viz.__all__)
    assert set(detr_viz.__all__) <= set(dir(detr_viz))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_says_what_it_is(name):
    thing = getattr(detr_viz, name)
    assert callable(thing)
    text = inspect.getdoc(thing)
    assert text and len(text.splitlines()[0]) <= 100 and text.splitlines()[0].endswith((".", ":"))
    assert not text.startswith(f"{name}(")  # no docstring that dataclass wrote


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'head_gird'"):
        detr_viz.head_gird  # noqa: B018


def test_importing_it_loads_nothing_heavy():
    heavy = {"torch", "numpy", "matplotlib", "PIL", "scipy"}
    code = f"import sys, detr_viz; dir(detr_viz); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def annotated(thing: object) -> Iterator[tuple[str, str]]:
    """(name, line of source) of each annotation of an array that a user sees."""
    lines = inspect.getsource(thing).splitlines()
    tree = ast.parse(
        inspect.cleandoc("\n".join(lines)) if lines[0][:1] == " " else "\n".join(lines)
    )
    (top,) = tree.body

    def of_function(node: ast.FunctionDef) -> Iterator[tuple[str, str]]:
        if node.name.startswith("_"):
            return
        args = node.args
        for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs):
            if arg.annotation is not None:
                has_suffix = re.search(r"_[A-Z0-9]+$", arg.arg)  # rgb_BHW3
                yield arg.arg, "" if has_suffix else line_of(arg.annotation)
        if node.returns is not None:
            yield f"{node.name} returns", line_of(node.returns)

    def line_of(node: ast.AST) -> str:
        found = lines[node.end_lineno - 1]
        above = lines[node.lineno - 2].strip()
        if above.startswith("#"):  # where there is no room behind it
            found += above
        return found if ARRAY.search(ast.unparse(node)) else ""

    if isinstance(top, ast.FunctionDef):
        yield from of_function(top)
        return
    for node in top.body:
        if isinstance(node, ast.FunctionDef):
            yield from of_function(node)
        elif isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
            yield node.target.id, line_of(node.annotation)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_their_shapes(name):
    thing = getattr(detr_viz, name)
    parts = [thing]
    if inspect.isclass(thing):
        parts = [c for c in thing.__mro__ if c.__module__.startswith("detr_viz.")]
    for part in parts:
        for what, line in annotated(part):
            assert not line or SHAPE.search(line), f"{part.__name__}: {what}: {line.strip()}"
