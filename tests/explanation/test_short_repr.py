"""At a prompt every result prints in three lines at most, with its type and sizes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, demo_model

import detr_viz
from detr_viz import Annotated, compare_maps, explain, heatmaps, judged, misses, models
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
    best = e.by_score()[0]
    boxes = np.stack([e.boxes_xyxy_px[best], [5, 5, 40, 60]]).astype(np.float64)
    names = e.label_name(best), "ring"
    annotated = Annotated(boxes, names, np.zeros(2, bool), (1, 2), "instances.json")
    found = dataclasses.replace(e, image=dataclasses.replace(e.image, annotated=annotated))
    return {
        "Annotated": annotated,
        "Judged": judged(found),
        "Miss": misses(found)[0],
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
    "Annotated": ("instances.json", "float64 (2, 4)"),
    "Judged": ("float32 (100,)",),
    "Miss": ("ring",),
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


# ---- all that a user can hold --------------------------------------------------------------------

MODELS = [name for name in models.names() if name in models.demos()]


def inside(thing: Any, seen: dict[str, Any]) -> Iterator[Any]:
    """Every object of the package in it: fields of results, items of mappings and sequences."""
    own = type(thing).__module__.startswith("detr_viz.")
    if own:
        if type(thing).__qualname__ in seen:
            return
        seen[type(thing).__qualname__] = thing
        yield thing
    if dataclasses.is_dataclass(thing) and own:
        parts = [getattr(thing, f.name) for f in dataclasses.fields(thing)]
    elif isinstance(thing, Mapping):
        parts = [*thing.values()][:3]
    elif isinstance(thing, list | tuple):
        parts = [*thing][:3]
    else:
        return
    for part in parts:
        yield from inside(part, seen)


@cache
def held(name: str) -> list[Any]:
    """What the functions of the library return for a model."""
    model = demo_model(name)
    info = model.info
    sites = [kind for kind, n in (("encoder", info.num_encoder_layers), ("decoder", 1)) if n]
    if name in ("sparse_rcnn", "dynamic_detr"):
        sites = ["decoder"]
    e = explain(model, str(ROOT / "image/scene_1.jpg"), layers="all", sites=sites)
    few = store(e, [3, 11], ["combine"])
    maps = heatmaps.of(e, [3, 11], ["combine"])
    things = [
        model,
        e,
        few,
        e.output(),
        e.proposals,
        e.salience,
        e.scales,
        e.grids(),
        e.image.facts,
    ]
    things += [*map(e.attention_at, e.sites), maps, compare_maps(maps, maps), e.truth]
    things += [detr_viz.shared_objects([e.boxes_xyxy_px] * 2, [[1, 2]] * 2)]
    if name == "cd_detr":
        things += [e.logit_terms([3]), e.ablate("head:1"), faithfulness(e, [3], orders=1)]
        things += [
            rollout.of_queries(e, [3]),
            detr_viz.Style("contour"),
            detr_viz.Mode("c", "p", "f"),
        ]
        things += [detr_viz.PageFormat.of("column"), detr_viz.AdapterEntry("a.b", "Title")]
    return things


@pytest.mark.parametrize("name", MODELS)
def test_every_result_of_every_model_prints_in_three_lines(name):
    seen: dict[str, Any] = {}
    found = [thing for thing in held(name) for thing in inside(thing, seen)]
    assert len(found) > 10
    for thing in found:
        if hasattr(thing, "state_dict"):  # torch prints networks
            continue
        text = repr(thing)
        rows = sum(max(1, -(-len(line) // 100)) for line in text.splitlines())
        assert rows <= 3 and len(text) > 5, (type(thing), text[:500])
        assert "tensor(" not in text and "array(" not in text, type(thing)
        assert type(thing).__name__ in text


def test_each_public_class_of_results_was_printed():
    seen: dict[str, Any] = {}
    for name in ("cd_detr", "efficient_detr", "salience_detr", "dynamic_detr"):
        for thing in held(name):
            list(inside(thing, seen))
    public = {name for name in detr_viz.__all__ if inspect.isclass(getattr(detr_viz, name, None))}
    not_results = {"Detector", "UserError", "SelfCheckError"}  # a protocol, errors
    elsewhere = {"Explorer", "Annotated", "Judged", "Miss"}  # html/test_explorer_cell.py; above
    assert public - not_results <= {*seen, *elsewhere}


def test_names_of_files_and_classes_stay_on_their_line():
    e = held("cd_detr")[1]
    image = dataclasses.replace(e.image, path="a\nb\x1b[31m" + "long/" * 40, notes=("n\n" * 9,) * 5)
    hostile = dataclasses.replace(e, image=image, class_names=("cat\n\ndog" * 30,) * 6)
    for thing in (image, image.facts, hostile):
        text = repr(thing)
        assert text.count("\n") <= 2 and "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 100


def test_values_by_their_size():
    assert brief(np.zeros((2, 3), np.float32)) == "float32 (2, 3)"
    assert brief(MappingProxyType({"a": np.zeros(2)})) == "{a} of float64 (2,)"
    assert brief(tuple(range(9))) == "(0, 1, 2, 3, ... 9 in all)"
    assert brief("x" * 99) == f"'{'x' * 20}'..." and brief("a/" * 99) == f"'...{'a/' * 10}'"
    assert brief(1 / 3) == "0.333" and brief(None) == "None"
    assert len(folded("a word " * 500).splitlines()) == 3
