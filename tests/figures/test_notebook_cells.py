"""Cells in a real kernel, for what a notebook displays is IPython's choice; scripts show nothing.

And the figures of words: those that the command line draws.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, demo_model
from PIL import Image
from test_notebook import SCENE, pixels

from detr_viz import explain
from detr_viz.figures.page.save import save

CELLS = [
    "from detr_viz import explain, load_model, head_grid\n"
    f"e = explain(load_model(type='cd_detr', device='cpu'), {SCENE!r})",
    "e",
    "e.plot('position', 'top:1', dpi=80)",
    "fig = e.plot('position', 'top:1', dpi=80)",
    "e.image",
    "import matplotlib.pyplot as plt\nhead_grid(e, 'top:1', page_format='column')",
    "fig, ax = plt.subplots()\nfrom detr_viz import draw_map\ndraw_map(ax, e, 3);",
    "e.output()",
]


def test_plot_draws_what_the_command_line_draws(tmp_path):
    """The same bytes but for the text that says where the file comes from."""
    from detr_viz import cli

    for type_, image in (("cd_detr", "scene_1"), ("deformable_detr", "scene_2")):
        path = str(ROOT / f"image/{image}.jpg")
        file = tmp_path / f"{type_}.png"
        words = ["--type", type_, "--image", path, "--queries", "top:2", "--device", "cpu"]
        assert cli.main([*words, "--out", str(file), "--quiet"]) == 0
        e = explain(demo_model(type_), path)
        save(e.plot("combine", "top:2"), tmp_path / "library.png")
        drawn, wanted = (
            np.asarray(Image.open(p).convert("RGB")) for p in (tmp_path / "library.png", file)
        )
        assert np.array_equal(drawn, wanted)


def test_plots_of_other_kinds():
    staged = explain(demo_model("sparse_rcnn"), SCENE, layers="all")
    assert staged.plot(queries="top:1", dpi=60).shown.subjects[0].layers == staged.layers
    assert staged.plot(queries="top:1", dpi=60).shown.style.name == "cells"
    sampled = explain(demo_model("deformable_detr"), SCENE)
    assert sampled.plot(queries="top:1", dpi=60).shown.style.name == "points"
    assert sampled.plot(queries="top:1", heads="mean", dpi=60).shown.style.name == "overlay"
    assert sampled.plot(queries="top:1", level=0, style="overlay", dpi=60).shown.style.levels == (
        0,
    )
    salient = explain(demo_model("salience_detr"), SCENE)
    for plot in ("proposals", "salience"):
        assert pixels(salient.plot(plot, "top:1", dpi=60)).size > 1000
    assert pixels(explain(demo_model("dynamic_detr"), SCENE).plot("scales", dpi=150)).size > 1000


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # zmq, on Windows
def test_a_cell_shows_one_picture(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a command in this process sets it
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    kinds = [[sorted(out.data) for out in cell.outputs if "data" in out] for cell in notebook.cells]
    plain, png, page = "text/plain", "image/png", "text/html"
    picture = [[png, plain]]
    # of an explanation a front end takes the richest of the three
    assert kinds == [
        *([], [[png, page, plain]], picture, []),
        *([["image/jpeg", plain]], picture, picture, [[plain]]),
    ]
    for cell in notebook.cells:
        assert not [out for out in cell.outputs if out.get("name") == "stderr"], cell.source


def test_nothing_is_shown_in_a_script():
    code = (
        "import sys, detr_viz as d\n"
        f"e = d.explain(d.load_model(type='cd_detr', device='cpu'), {SCENE!r})\n"
        "fig = e.plot('position', 'top:1', dpi=60)\n"
        "print('matplotlib.pyplot' in sys.modules, 'IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False False" and done.stderr == "", done.stderr
