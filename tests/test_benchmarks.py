"""The benchmarks and the page that shows them: none is left out, no row is invented."""

from __future__ import annotations

import ast
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / "tests/benchmarks"
sys.path.insert(0, str(FOLDER))
import all as benchmarks  # noqa: E402  (tests/benchmarks/all.py)
import ratios  # noqa: E402

# what they share, tables of other pages, and what all.py treats on its own
OTHERS = {"all", "ratios", "plain", "plain_conditional", "mutations", "noise", "shares"}
PAGE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")


def test_every_script_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*benchmarks.SCRIPTS} | OTHERS


@pytest.mark.parametrize("script", benchmarks.SCRIPTS)
def test_a_script_measures_what_it_names(script):
    """Each name of RATIOS is one that a call of keep() can build."""
    known = benchmarks.ratios_of(script)
    assert known
    for target in known.values():
        assert target == "" or (target[:3] in ("<= ", ">= ") and float(target[3:]) > 0)
    tree = ast.parse((FOLDER / f"{script}.py").read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _name(n.func) == "keep"]
    assert calls


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def test_names_are_of_one_script_each():
    names = [name for script in benchmarks.SCRIPTS for name in benchmarks.ratios_of(script)]
    assert len(names) == len({*names})


def test_the_page_has_every_ratio_with_its_target():
    rows = benchmarks.rows_in(PAGE)
    for script in benchmarks.SCRIPTS:
        for name, target in benchmarks.ratios_of(script).items():
            _, _, value, shown, met, _, place, _ = (part.strip() for part in rows[name].split("|"))
            assert shown == target and place == f"`{script}.py`"
            verdict = "yes" if ratios.is_met(float(value), target) else "**no**"
            assert met == (verdict if target else "")
    assert benchmarks.with_rows(PAGE, rows) == PAGE


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [(0.45, "<= 0.45", True), (0.46, "<= 0.45", False), (0.9, ">= 0.93", False), (9, "", True)],
)
def test_targets(value, target, met):
    assert ratios.is_met(value, target) is met


def test_a_new_row_takes_the_place_of_the_old_one():
    name = next(iter(benchmarks.ratios_of("forward")))
    row = benchmarks.row(name, 0.5, "<= 0.45", "a machine", "forward")
    page = benchmarks.with_rows(f"a\n{benchmarks.BEGIN}\n{benchmarks.END}\nb\n", {name: row})
    assert benchmarks.rows_in(page) == {name: row} and "**no**" in page
    again = benchmarks.row(name, 0.4, "<= 0.45", "a machine", "forward")
    later = benchmarks.with_rows(page, benchmarks.rows_in(page) | {name: again})
    assert later.count(name) == 1 and "0.400" in later and later.endswith("b\n")


def test_pairs():
    pairs = ratios.Pairs((1.0, 3.0, 2.0), (2.0, 2.0, 2.0))
    assert pairs.ratios == [0.5, 1.5, 1.0] and pairs.median == 1.0
    runs = []
    ratios.in_pairs(lambda: runs.append("a"), lambda: runs.append("b"), 2)
    assert "".join(runs) == "ab" + "ab" + "ba"


def test_a_ratio_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(ratios.KEPT, str(tmp_path / "kept"))
    ratios.keep({"x": "<= 1"}, "x", 0.25, "9 pairs")
    assert capsys.readouterr().out == "x: 0.250  target <= 1  (9 pairs)\n"
    assert (tmp_path / "kept").read_text() == '["x", 0.25, "<= 1"]\n'
