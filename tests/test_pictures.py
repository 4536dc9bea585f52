"""The pictures of the pages are what their script draws: compared by the facts in the files."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image


def _script():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
# these take long; the first six stand for all modes and both models
QUICK = [name for name in SCRIPT.PICTURES if name not in ("faithfulness", "photo_layout")]


def facts(path) -> dict[str, str]:
    """Title and Description; the numbers of the self-check differ from machine to machine."""
    with Image.open(path) as image:
        kept = {name: image.info[name] for name in ("Title", "Description")}
    return {name: re.sub(r"residual \S+?e-\d+", "residual", text) for name, text in kept.items()}


@pytest.mark.parametrize("name", QUICK)
def test_a_picture_is_drawn_again_from_its_command(name, tmp_path):
    drawn = SCRIPT.draw(name, tmp_path, ("--dpi", "40"))
    assert facts(drawn) == facts(ROOT / f"docs/images/{name}.png")


def pages() -> dict[str, str]:
    """Name -> text of the README and of the pages under docs."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.name: path.read_text() for path in paths}


def test_every_picture_is_drawn_and_shown():
    shown = {
        name
        for text in pages().values()
        for name in re.findall(r"!\[[^]]*\]\((?:docs/)?images/(\w+)\.png\)", text)
    }
    atlas = {"atlas_detr", "atlas_conditional_detr"}  # of 500 scenes, by the command beside them
    page = {"explorer"}  # of a browser's window
    assert shown - atlas - page == {*SCRIPT.PICTURES, *SCRIPT.OWN}
    assert {path.stem for path in (ROOT / "docs/images").iterdir()} == shown


@pytest.mark.parametrize("page", ["README.md", "index.md"])
def test_the_six_commands_draw_the_six_figures(page):
    rows = re.findall(
        r"\| `python attention_scripts\.py (--type \w+ --plot \w+)` \|", pages()[page]
    )
    assert rows == list(SCRIPT.PICTURES.values())[:6]


def test_a_figure_of_ones_own_is_what_its_script_draws(tmp_path):
    """Fifteen lines at most, run as they stand in the page; pixels, but for rounding."""
    assert len(SCRIPT.script("two_panels").splitlines()) <= 15
    with Image.open(SCRIPT.draw("two_panels", tmp_path)) as drawn:
        now = np.asarray(drawn.convert("RGB"), float)
    with Image.open(ROOT / "docs/images/two_panels.png") as kept:
        then = np.asarray(kept.convert("RGB"), float)
    assert now.shape == then.shape and np.abs(now - then).mean() < 1
    assert then.std() > 20


def test_image_holds_samples_only():
    names = {path.name for path in (ROOT / "image").iterdir()}
    assert names == {*(f"scene_{i}.jpg" for i in range(1, 5)), "photo_cat.jpg", "photo_coffee.jpg"}


def test_a_name_that_is_not_one_of_them(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pictures.py", "nothing"])
    with pytest.raises(SystemExit) as stop:
        SCRIPT.main()
    assert stop.value.code == 2 and "no picture 'nothing'" in capsys.readouterr().err
