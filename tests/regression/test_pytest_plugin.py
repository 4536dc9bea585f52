"""The pytest fixture, in test runs of its own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

HEAD = """
import numpy as np
import pytest

def maps(seed=0, shift=0):
    made = np.random.default_rng(seed).random((2, 3, 5, 8)) ** 5
    made /= made.sum((-2, -1), keepdims=True)
    made[1, 2] = np.roll(made[1, 2], shift, -1)
    return {"combine": made}
"""
ONCE = HEAD + "\ndef test_one(heatmap_regression):\n    heatmap_regression.check(maps(shift=S))\n"


@pytest.fixture
def here(tmp_path):
    return tmp_path


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "detr_viz.regression.pytest_plugin"]
# what would set the hooks of the process that the tests themselves run in
OPTIONS_HERE = [f"-pno:{name}" for name in ("faulthandler", "threadexception")]
OPTIONS_APART = ["-pno:hypothesispytest", "-pno:anyio"]  # each process would import them
OPTIONS_HERE += [
    "-pno:hypothesispytest",
    "-pno:unraisableexception",
    "--capture=sys",
    "--import-mode=importlib",
]


def outcomes(printed: str) -> dict[str, int]:
    last = printed.splitlines()[-1]
    return {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?)", last)}


def ran(here: Path, source: str, *argv: str) -> tuple[dict[str, int], str]:
    """Outcomes of a test run in this process, by kind, and what it printed."""
    (here / "test_mine.py").write_text(source)
    out, err, bytecode = io.StringIO(), io.StringIO(), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # of one size, within a second: the next source is another
    try:
        with chdir(here), redirect_stdout(out), redirect_stderr(err):
            pytest.main([*OPTIONS, *OPTIONS_HERE, "--rootdir", str(here), *argv])
    finally:
        sys.dont_write_bytecode = bytecode
        sys.modules.pop("test_mine", None)
    assert err.getvalue() == ""
    return outcomes(out.getvalue()), out.getvalue()


def ran_apart(here: Path, source: str, *argv: str) -> tuple[dict[str, int], str]:
    """The same in a process of its own, as a user starts it."""
    (here / "test_mine.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *OPTIONS_APART, "--rootdir", str(here), *argv],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "", done.stderr
    return outcomes(done.stdout), done.stdout


def test_the_first_run_writes_and_fails_then_it_passes(here):
    found, out = ran_apart(here, ONCE.replace("S)", "0)"))
    assert found == {"failed": 1}
    assert "no saved maps yet: wrote" in out and (here / "test_mine/test_one.npz").exists()
    assert "wrote" in out.partition("heatmaps")[2]
    assert ran_apart(here, ONCE.replace("S)", "0)"))[0] == {"passed": 1}


def test_a_change_fails_and_names_the_worst_head(here):
    ran(here, ONCE.replace("S)", "0)"))
    before = (here / "test_mine/test_one.npz").read_bytes()
    found, out = ran(here, ONCE.replace("S)", "2)"))
    assert found == {"failed": 1} and "different numbers" in out and "same inputs" not in out
    rows = re.findall(r"^E\s+(combine .*)$", out, re.MULTILINE)
    assert [row.split()[:4] for row in rows] == [["combine", "1", "0", "2"]]  # query, layer, head
    assert (here / "test_mine/test_one.npz").read_bytes() == before
    found, out = ran(here, ONCE.replace("S)", "2)"), "--heatmap-regen")
    assert found == {"passed": 1} and "test_one.npz" in out
    assert ran(here, ONCE.replace("S)", "2)"))[0] == {"passed": 1}


def test_limits_names_and_parameters(here):
    source = (
        HEAD
        + """
@pytest.mark.parametrize("word", ["a/b", "c"])
def test_two(heatmap_regression, word):
    heatmap_regression.check(maps(), f"first {word}", store="float16")
    heatmap_regression.check(maps(shift=SHIFT), f"second {word}", atol=1, max_tv=1, max_shift=9)

def test_twice(heatmap_regression):
    heatmap_regression.check(maps())
    with pytest.raises(ValueError, match="give each check a name"):
        heatmap_regression.check(maps())

def test_wrong(heatmap_regression):
    for wrong in ({"rtol": 1}, {"atol": -1}, {"max_tv": float("nan")}, {"max_shift": "x"}):
        with pytest.raises(ValueError, match="limit"):
            heatmap_regression.check(maps(), "x", **wrong)
    good = maps()["combine"]
    for wrong in ({}, {"a": np.zeros((2, 3))}, {"a": -good}, {"a": 3 * good}):
        with pytest.raises(ValueError):
            heatmap_regression.check(wrong, f"w{id(wrong)}")
    with pytest.raises(ValueError, match="for an explanation"):
        heatmap_regression.check(maps(), "y", layer=1)
"""
    )
    ran(here, source.replace("SHIFT", "0"), "--heatmap-regen")
    assert sorted(path.name for path in (here / "test_mine").iterdir()) == [
        *("first_a_b.npz", "first_c.npz", "second_a_b.npz", "second_c.npz", "test_twice.npz")
    ]
    assert ran(here, source.replace("SHIFT", "3"))[0] == {"passed": 4}
    assert ran(here, source.replace("SHIFT", "3").replace("max_tv=1", "max_tv=0"))[0]["failed"] == 2


def test_explanations(here):
    source = """
from detr_viz import explain, load_model
from detr_viz.common import assets

def test_demo(heatmap_regression):
    e = explain(load_model(type="cd_detr", device="cpu"), assets.find("image/scene_2.jpg"))
    heatmap_regression.check(e)
    heatmap_regression.check(e, "one", queries=[3], modes=["position"])
"""
    ran(here, source, "--heatmap-regen")
    assert ran(here, source)[0] == {"passed": 1}
    from detr_viz import heatmaps

    saved = heatmaps.load(here / "test_mine/test_demo.npz")
    assert len(saved.query_ids) == 5 and set(saved.maps) == {"combine", "position", "content"}
    assert heatmaps.load(here / "test_mine/one.npz").query_ids.tolist() == [3]


SIX = HEAD + "".join(
    f"\ndef test_{i}(heatmap_regression):\n    heatmap_regression.check(maps({i}, S * {i % 2}))\n"
    for i in range(6)
)


def has_three_of_six(page: str) -> None:
    assert "3 of 6 baselines failed" in page and page.count("<figure>") == 3
    assert all(f"test_mine.py::test_{i} test_{i}" in page for i in range(6))


def test_a_report(here):
    ran(here, SIX.replace("S *", "0 *"), "--heatmap-regen")
    found, _ = ran(here, SIX.replace("S *", "2 *"), "--heatmap-report", "out/page.html")
    assert found == {"failed": 3, "passed": 3}
    (here / "taken").write_text("a file")
    found, out = ran(here, SIX.replace("S *", "0 *"), "--heatmap-report", "taken/x.html")
    assert found == {"passed": 6} and "error: cannot write taken/x.html" in out
    has_three_of_six((here / "out/page.html").read_text())


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
def test_a_report_of_all_workers(here):
    ran(here, SIX.replace("S *", "0 *"), "--heatmap-regen")
    page = ["--heatmap-report", "out/page.html", "-n", "2"]
    found, _ = ran_apart(here, SIX.replace("S *", "2 *"), *page)
    assert found == {"failed": 3, "passed": 3}
    (here / "taken").write_text("a file")
    page = ["--heatmap-regen", "--heatmap-report", "taken/x.html", "-n", "1"]
    found, out = ran_apart(here, SIX.replace("S *", "2 *"), *page)
    assert found == {"passed": 6} and "error: cannot write taken/x.html" in out
    assert out.count("wrote ") == 3
    assert ran(here, SIX.replace("S *", "2 *"))[0] == {"passed": 6}  # what the workers wrote
    has_three_of_six((here / "out/page.html").read_text())


def test_the_plugin_costs_no_import(tmp_path):
    heavy = "{'torch', 'numpy', 'matplotlib'}"
    code = f"import detr_viz.regression.pytest_plugin, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_tests_of_one_name_in_two_classes_have_files_of_their_own(here):
    source = (
        HEAD
        + """
class TestA:
    def test_x(self, heatmap_regression):
        heatmap_regression.check(maps(seed=1))

class TestB:
    def test_x(self, heatmap_regression):
        heatmap_regression.check(maps(seed=2))
"""
    )
    ran(here, source, "--heatmap-regen")
    assert ran(here, source)[0] == {"passed": 2}
    names = sorted(path.name for path in (here / "test_mine").iterdir())
    assert names == ["TestA.test_x.npz", "TestB.test_x.npz"]


def test_two_tests_cannot_share_a_file(here):
    source = (
        HEAD
        + """
@pytest.mark.parametrize("word", ["a b", "a_b"])
def test_p(heatmap_regression, word):
    heatmap_regression.check(maps(seed=len(word)))
"""
    )
    found, out = ran(here, source, "--heatmap-regen")
    assert found == {"passed": 1, "failed": 1} and "test_p[a b] has checked" in out


def test_long_ids_and_ids_of_one_file_elsewhere_have_files_of_their_own(here):
    source = (
        HEAD
        + """
@pytest.mark.parametrize("word", ["w" * 300 + "1", "w" * 300 + "2", "Cat", "cat", "dog"])
def test_p(heatmap_regression, word):
    heatmap_regression.check(maps(seed=sum(map(ord, word))))
"""
    )
    assert ran(here, source, "--heatmap-regen")[0] == {"passed": 5}
    written = {path.name.casefold() for path in (here / "test_mine").iterdir()}
    assert len(written) == 5 and max(map(len, written)) <= 255 and "test_p_dog.npz" in written
    assert ran(here, source)[0] == {"passed": 5}
    assert ran(here, source, "test_mine.py::test_p[cat]")[0] == {"passed": 1}  # without the others


def test_what_says_nothing_is_no_baseline(here):
    source = (
        HEAD
        + """
from detr_viz import explain, load_model
from detr_viz.common import assets

@pytest.mark.parametrize("wrong", [{"queries": []}, {"queries": [1, 1]}, {"modes": []}])
def test_e(heatmap_regression, wrong):
    e = explain(load_model(type="detr", device="cpu"), assets.find("image/scene_2.jpg"))
    with pytest.raises(ValueError, match="at least one of each"):
        heatmap_regression.check(e, **wrong)

def test_a(heatmap_regression):
    with pytest.raises(ValueError, match="at least one query"):
        heatmap_regression.check({"combine": maps()["combine"][:0]})
    with pytest.raises(ValueError, match="arrays by mode"):
        heatmap_regression.check(maps()["combine"], "other")
"""
    )
    assert ran(here, source)[0] == {"passed": 4}
    assert not (here / "test_mine").exists()


def test_a_damaged_file_is_said_and_can_be_replaced(here):
    source = ONCE.replace("S)", "0)")
    ran(here, source, "--heatmap-regen")
    path = here / "test_mine/test_one.npz"
    path.write_bytes(path.read_bytes()[:300])
    found, out = ran(here, source, "--heatmap-report", "page.html")
    assert found == {"failed": 1} and "or let --heatmap-regen replace it" in out
    assert "HeatmapError" not in out
    assert "1 of 1 baselines failed" in (here / "page.html").read_text()
    ran(here, source, "--heatmap-regen")
    assert ran(here, source)[0] == {"passed": 1}


def test_the_page_says_what_happened(here):
    """A first run has failed; a rewritten file has not; where nothing ran there is no page."""
    source = ONCE.replace("S)", "0)")
    ran(here, source, "--heatmap-report", "a.html")
    assert "1 of 1 baselines failed" in (here / "a.html").read_text()
    ran(here, ONCE.replace("S)", "3)"), "--heatmap-regen", "--heatmap-report", "b.html")
    ran(here, source, "--collect-only", "--heatmap-report", "c.html")
    assert not (here / "b.html").exists() and not (here / "c.html").exists()


def test_the_saved_queries_are_taken_again(here):
    """Scores that change places are no change of maps."""
    source = """
from dataclasses import replace
import numpy as np
from detr_viz import explain, load_model
from detr_viz.common import assets

def test_q(heatmap_regression):
    e = explain(load_model(type="detr", device="cpu"), assets.find("image/scene_2.jpg"))
    if ORDER:
        e.by_score = None
        object.__setattr__(e, "by_score", lambda: list(range(e.num_queries))[::-1])
    heatmap_regression.check(e)
"""
    ran(here, source.replace("ORDER", "False"), "--heatmap-regen")
    turned = source.replace("ORDER", "True").replace("        e.by_score = None\n", "")
    assert ran(here, turned)[0] == {"passed": 1}
