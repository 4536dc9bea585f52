"""The checkpoints in weights/ find the shapes of scenes that they never saw, by COCO's measure."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from detr_viz import models
from detr_viz.demo.evaluate import evaluate_checkpoint, held_out_scenes

SCENES = held_out_scenes(40, 128)
FLOORS = {"dynamic_detr": (0.9, 0.85)}  # AP50, AP75; it has .939 and .920 on 500 scenes


@pytest.mark.parametrize("name", models.demos())
def test_a_demo_finds_the_shapes_of_unseen_scenes(name):
    """weights/README.md has the numbers of 500 scenes; of 40 they spread by a few hundredths."""
    found = evaluate_checkpoint(str(ROOT / f"weights/{name}_demo.pth"), SCENES)
    ap50, ap75 = FLOORS.get(name, (0.95, 0.9))
    assert found.ap50 >= ap50 and found.ap75 >= ap75


@pytest.mark.parametrize("name", models.demos())
def test_a_demo_has_its_column_in_the_readme_of_weights(name):
    text = (ROOT / "weights/README.md").read_text()
    assert f"`{name}_demo.pth`" in text
    assert re.search(rf"--type {name} .*--out weights/{name}_demo\.pth", text)
