"""The recipes of docs/your_model.md, run as they are printed; those of absent packages are skipped.

Weights are random: the line that names a checkpoint is the only one that is changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import fifty_lines
import numpy as np
import pytest
import tiny_models as tiny
import torch

import detr_viz
from detr_viz.adapters.run import run

PAGE = Path(__file__).parents[2] / "docs" / "your_model.md"
RGB = np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)


def attached(heading, changed=(), **names):
    """What the code under a heading of the page makes of these names: its detector d."""
    section = PAGE.read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for old, new in changed:
        assert old in code
        code = code.replace(old, new)
    names |= {"detr_viz": detr_viz, "np": np, "torch": torch}
    exec(code, names)
    return names["d"]


def check(d, encoder):
    """Every site is proved, maps are whole, and the network's output stays as it is."""
    kinds = ["encoder", "decoder"] if encoder else ["decoder"]
    e = detr_viz.explain(d, RGB, layers="all", sites=kinds)
    residuals = tiny.residuals(e)
    print(d.info.title, e.modes, {site: f"{value:.0e}" for site, value in residuals.items()})
    crossed = {str(n) for n in range(d.info.num_layers)}  # random queries attend evenly to others
    assert crossed <= residuals.keys() and max(residuals.values()) <= 1e-4
    prepared = d.prepare(RGB[None])[0]
    with torch.no_grad():
        plain = d._answers.of(d.network.eval()(prepared.inputs), 1)
    hooked = d._answers.of(run(d.network, prepared, d.trial.found).out, 1)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], hooked[0], strict=True))
    return e


def test_the_fifty_lines_of_the_paper():
    d = attached("The 50 lines of the DETR paper", model=fifty_lines.built())
    e = check(d, encoder=True)
    assert e.modes == ("combine",) and e.grid_hw == (25, 34)


@pytest.mark.filterwarnings("ignore")
def test_ultralytics():
    pytest.importorskip("ultralytics")
    d = attached("RT-DETR of ultralytics", [("rtdetr-l.pt", "rtdetr-l.yaml"), ("640", "320")])
    e = check(d, encoder=True)
    assert e.modes == ("combine", "position", "content")
    assert [grid.hw for grid in e.grids()] == [(40, 40), (20, 20), (10, 10)]
    assert (d.info.num_queries, d.info.num_layers, len(d.info.class_names)) == (300, 6, 80)


@pytest.mark.filterwarnings("ignore")
def test_rfdetr():
    pytest.importorskip("rfdetr")
    random = "RFDETRNano(pretrain_weights=None, device='cpu')"
    d = attached("RF-DETR of the rfdetr package", [("RFDETRNano()", random)])
    e = check(d, encoder=False)
    assert e.modes == ("combine", "position", "content") and e.grid_hw == (24, 24)
    assert (d.info.num_queries, d.info.num_layers) == (300, 2)
