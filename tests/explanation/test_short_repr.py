"""At a prompt every result prints in three lines at most, with its type and sizes."""

from __future__ import annotations

import re
from types import MappingProxyType

import numpy as np
import pytest
from conftest import ROOT, demo_model

from detr_viz import compare_maps, explain, heatmaps
from detr_viz.atlas.table import AtlasTable
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.common.short_repr import brief, folded
from detr_viz.explanation import rollout
from detr_viz.explanation.faithfulness import faithfulness
from detr_viz.explanation.stored import store


@pytest.fixture(scope="module")
def results():
    model = demo_model("cd_detr")
    sites = ["encoder", "decoder"]
    e = explain(model, str(ROOT / "image/scene_1.jpg"), layers="all", sites=sites)
    table = AtlasTable("cd_detr_demo", e.modes, e.layers, e.num_heads, "mode")
    table.add(e, [3, 11])
    return {
        "LoadedModel": model,
        "DetectorInfo": model.info,
        "Explanation": e,
        "StoredExplanation": store(e, [3, 11], ["combine"]),
        "Detections": e.output(1),
        "LogitTerms": e.logit_terms([3, 11]),
        "Ablation": e.ablate("content"),
        "Faithfulness": faithfulness(e, [3, 11], orders=1),
        "Rollout": rollout.of_queries(e, [3, 11]),
        "Heatmaps": heatmaps.of(e, [3, 11], ["combine"]),
        "Comparison": compare_maps(*[heatmaps.of(e, [3, 11], ["combine"])] * 2),
        "AtlasTable": table,
        "DenseAttention": e.attention_at(("cross", 2)),
        "AttentionCall": e.calls["cross", 2],
        "Encoded": e.memory,
        "Checkpoint": load_checkpoint(type="cd_detr"),
    }


SIZES = {  # what else the text must have
    "LoadedModel": ("Conditional DETR", "cd_detr_demo.pth", "20 queries", "8 heads", "float32"),
    "DetectorInfo": ("cd_detr_demo.pth", "num_queries 20"),
    "Explanation": ("scene_1.jpg (512 x 512 px)", "20 queries", "16 x 16 cells", "triangle 0.97"),
    "StoredExplanation": ("scene_1.jpg", "20 queries"),
    "Detections": ("float32 (20, 6)",),
    "LogitTerms": ("cq.ck, cq.pk, pq.ck, pq.pk", "float32 (2, 8, 16, 16)"),
    "Ablation": ("content", "float64 (20,)"),
    "Faithfulness": ("queries (3, 11)", "(2, 1, "),
    "Rollout": ("float32 (2, 256)",),
    "Heatmaps": ("float32 (2, 8, 16, 16)",),
    "Comparison": ("heads", "limits"),
    "AtlasTable": ("cd_detr_demo", "2 objects of 1 images"),
    "DenseAttention": ("8 heads, 20 rows, 256 keys",),
    "AttentionCall": (),
    "Encoded": ("memory float32 (1, 256, 128)",),
    "Checkpoint": ("cd_detr",),
}


@pytest.mark.parametrize("name", SIZES)
def test_three_lines_with_type_and_sizes(results, name):
    text = repr(results[name])
    assert type(results[name]).__name__ == name and text.startswith(name)
    lines = text.splitlines()
    assert len(lines) <= 3 and max(map(len, lines)) <= 110
    flat = " ".join(text.split())
    for part in SIZES[name]:
        assert part in flat, (part, flat)
    assert not re.search(r"array\(|tensor\(|\d\.\d{5}", text)


def test_values_by_their_size():
    assert brief(np.zeros((2, 3), np.float32)) == "float32 (2, 3)"
    assert brief(MappingProxyType({"a": np.zeros(2)})) == "{a} of float64 (2,)"
    assert brief(tuple(range(9))) == "(0, 1, 2, 3, ... 9 in all)"
    assert brief("x" * 99) == f"'{'x' * 20}'..." and brief("a/" * 99) == f"'...{'a/' * 10}'"
    assert brief(1 / 3) == "0.333" and brief(None) == "None"
    assert len(folded("a word " * 500).splitlines()) == 3
