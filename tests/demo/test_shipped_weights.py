"""The checkpoints in weights/ find the shapes of scenes that they never saw, by COCO's measure."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from detr_viz import models
from detr_viz.demo.evaluate import evaluate_checkpoint, held_out_scenes

SCENES = held_out_scenes(40, 128)


@pytest.mark.parametrize("name", models.demos())
def test_a_demo_finds_the_shapes_of_unseen_scenes(name):
    """weights/README.md has the numbers of 500 scenes; of 40 they spread by a few hundredths."""
    found = evaluate_checkpoint(str(ROOT / f"weights/{name}_demo.pth"), SCENES)
    assert found.ap50 >= 0.95 and found.ap75 >= 0.9


@pytest.mark.parametrize("name", models.demos())
def test_a_demo_has_its_column_in_the_readme_of_weights(name):
    text = (ROOT / "weights/README.md").read_text()
    assert f"`{name}_demo.pth`" in text
    assert re.search(rf"--type {name} .*--out weights/{name}_demo\.pth", text)
