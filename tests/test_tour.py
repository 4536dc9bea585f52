"""examples/tour.ipynb runs in a new kernel, and says today what is stored in it."""

from __future__ import annotations

import base64
import copy
import importlib.util
import re
from importlib import import_module
from io import BytesIO

import pytest
from conftest import ROOT
from PIL import Image

import detr_viz
from detr_viz import cli

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

# on Windows zmq has a way around what it warns of
pytestmark = pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
PATH = ROOT / "examples/tour.ipynb"
spec = importlib.util.spec_from_file_location("tour_build", ROOT / "examples/build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


@pytest.fixture(scope="module")
def fresh(stored):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # a command in this process sets it
        patch.setenv("PYTHONPATH", str(ROOT))
        return build.run(stored)


def codes(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_and_says_what_is_stored(stored, fresh):
    assert build.differences(stored, fresh) == []


def test_no_cell_fails_or_warns(fresh):
    for cell in codes(fresh):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", (cell.source, output.text)


def test_pictures_are_as_large_as_those_that_are_stored(stored, fresh):
    count = 0
    for old, new in zip(codes(stored), codes(fresh), strict=True):
        for one, other in zip(old.outputs, new.outputs, strict=True):
            kinds = [kind for kind in one.get("data", {}) if kind.startswith("image/")]
            for kind in kinds:
                sizes = [
                    Image.open(BytesIO(base64.b64decode(o["data"][kind]))).size
                    for o in (one, other)
                ]
                assert abs(sizes[0][0] - sizes[1][0]) < 3 and abs(sizes[0][1] - sizes[1][1]) < 9
                count += 1
    assert count >= 8


def test_a_changed_text_is_seen(stored):
    other = copy.deepcopy(stored)
    printing = next(c for c in codes(other) if any("text" in o for o in c.outputs))
    printing.outputs[0]["text"] = "another"
    (line,) = build.differences(stored, other)
    assert "another" in line


def test_it_is_small_and_has_no_places_or_times_of_this_machine(stored):
    assert PATH.stat().st_size < 700_000
    text = PATH.read_text(encoding="utf-8")
    assert str(ROOT) not in text and "execution" not in stored.cells[2].metadata
    assert not re.search(r"/(home|root|Users|work|tmp)/", re.sub(r'"image/\w+": "[^"]*"', "", text))
    for cell in codes(stored):
        assert cell.execution_count and cell.outputs, cell.source
        for output in cell.outputs:
            html = output.get("data", {}).get("text/html", "")
            assert "<script" not in html and "<iframe" not in html


def test_it_shows_what_it_promises(stored):
    source = "\n".join(cell.source for cell in codes(stored))
    promised = ["e.plot(", "e.ablate(", "biography=True", "deformable_detr", "gt=True", "photo_"]
    for used in (*promised, "e.explore()", "attach(", "compare_maps(", "e.residuals", '"terms"'):
        assert used in source, used
    for names in re.findall(r"^from detr_viz import (.*)$", source, re.M):
        assert set(names.split(", ")) <= set(detr_viz.__all__)
    said = "\n".join(" ".join(words) for words in build.texts(stored))
    verdicts = ("found", "wrong-class", "bad-box")
    for word in (*verdicts, "did you mean position?", "self-check: {1: True}"):
        assert word in said, word


def test_its_text_names_flags_that_are_there(stored):
    parser = cli.build_parser(import_module(cli.SUBCOMMANDS[cli.DEFAULT_COMMAND]))
    known = {option for action in parser._actions for option in action.option_strings}
    words = "\n".join(c.source for c in stored.cells if c.cell_type == "markdown")
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words))
    assert flags and flags <= known
