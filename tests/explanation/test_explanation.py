"""The library entry: detections, maps, layers, the self-check."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, demo_explanation, demo_model

import detr_viz
from detr_viz import explain, figures
from detr_viz.attention import dense
from detr_viz.attention.terms import Mode
from detr_viz.common.errors import UserError
from detr_viz.demo.shapes import CLASSES, scene
from detr_viz.detections import boxes
from detr_viz.explanation.explain_image import SelfCheckError, explain_batch
from detr_viz.explanation.stored import store
from detr_viz.images.read import load_image
from detr_viz.images.resize import resized, to_tensor
from detr_viz.models.layers.resnet import FrozenBatchNorm2d

HELD_OUT = 2_000_000_100  # seeds that nothing was trained or measured on


def test_shapes_and_sums(explanation):
    e = explanation
    assert e.scores.shape == (20,) and e.boxes_xyxy_px.shape == (20, 4)
    assert e.class_names == tuple(CLASSES)
    assert e.grid_hw == (16, 16) and e.input_hw == (128, 128) and e.stride == 8
    for mode in e.modes:
        maps = e.maps(mode, queries=[3, 0])
        assert maps.shape == (2, 8, 16, 16) and maps.dtype == np.float32
        np.testing.assert_allclose(maps.sum((-1, -2)), 1, atol=1e-5)
    assert e.maps().shape == (20, 8, 16, 16)


def test_finds_what_is_there(explanation):
    """Every object of the default scene is found with its class, by box overlap."""
    drawn = scene(2_000_000_018, 512)
    sure = np.flatnonzero(explanation.scores >= 0.5)
    overlap = boxes.iou(drawn.boxes_xyxy_px, explanation.boxes_xyxy_px[sure])
    best = overlap.argmax(-1)
    assert (overlap.max(-1) > 0.7).all()
    np.testing.assert_array_equal(explanation.labels[sure][best], drawn.labels)


def test_scores_are_the_largest_over_real_classes(explanation):
    e = explanation
    np.testing.assert_array_equal(e.scores, e.class_scores.max(-1))
    order = e.by_score()
    assert sorted(order) == list(range(20))
    assert (np.diff(e.scores[order]) <= 0).all()


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_probabilities_follow_the_papers(name):
    """DETR: softmax with no-object last; Conditional DETR: sigmoid, top (query, class) pairs."""
    model = demo_model(name)
    picture = scene(HELD_OUT, 256).rgb
    e = explain(model, picture)
    tensor = to_tensor(load_image(picture), 128, 213)
    logits = model.network(tensor)["pred_logits"][0].double()
    if name == "detr":
        expected = (logits.exp() / logits.exp().sum(-1, keepdim=True))[:, :-1]
        assert len(e.detections()) == 20
    else:
        expected = 1 / (1 + (-logits).exp())
        found = e.detections(limit=30)
        flat = np.sort(expected.numpy().ravel())[::-1][:30]
        np.testing.assert_allclose([score for *_, score in found], flat, rtol=1e-5)
        assert len({q for q, *_ in found}) < 30  # a query stands there with several classes
    np.testing.assert_allclose(e.class_scores, expected, atol=1e-6)


def test_layers(explanation):
    e = explanation
    assert e.layers == (0, 1, 2)
    np.testing.assert_array_equal(e.maps(queries=[1]), e.maps(queries=[1], layer=2))
    assert not np.allclose(e.maps(queries=[1], layer=1), e.maps(queries=[1], layer=2))
    # in layer 0 every query has the same content
    content = e.maps("content", layer=0)
    np.testing.assert_allclose(content, np.broadcast_to(content[:1], content.shape), atol=1e-6)
    with pytest.raises(ValueError, match="decoder layer 7 was not captured; there is 0, 1, 2"):
        e.maps(layer=7)


OUTPUT_FIELDS = {"scores": "f4", "labels": "i8", "boxes_xyxy_px": "f4", "class_scores": "f4"}


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_outputs_are_those_of_each_layer(name):
    """Against the logits and boxes of every layer, run apart and worked out by hand."""
    model = demo_model(name)
    e = explain(model, scene(HELD_OUT, 256).rgb[:, :200], layers="all")
    tensor = to_tensor(e.image, model.size, model.max_size)
    raw = model.network(tensor, aux=True)
    height, width = e.image.hw
    assert tuple(e.outputs) == (0, 1, 2)
    for layer, expected in enumerate([*raw["aux_outputs"], raw]):
        output = e.output(layer)
        logits = expected["pred_logits"][0].double()
        classes = logits.softmax(-1)[:, :-1] if name == "detr" else logits.sigmoid()
        np.testing.assert_allclose(output.class_scores, classes, atol=1e-6)
        np.testing.assert_allclose(output.scores, classes.amax(-1), atol=1e-6)
        np.testing.assert_array_equal(output.labels, classes.argmax(-1))
        x, y, w, h = expected["pred_boxes"][0].double().unbind(-1)
        corners = (
            (x - w / 2) * width,
            (y - h / 2) * height,
            (x + w / 2) * width,
            (y + h / 2) * height,
        )
        np.testing.assert_allclose(output.boxes_xyxy_px, torch.stack(corners, -1), atol=1e-3)
        for field, dtype in OUTPUT_FIELDS.items():
            assert getattr(output, field).dtype == getattr(e, field).dtype == dtype
    assert np.abs(e.outputs[0].boxes_xyxy_px - e.outputs[1].boxes_xyxy_px).max() > 1
    assert not np.allclose(e.outputs[1].scores, e.outputs[2].scores, atol=0.01)


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_a_decoder_cut_short_puts_out_what_its_last_layer_says(name):
    model = demo_model(name)
    picture = scene(HELD_OUT, 256).rgb
    whole = explain(model, picture, layers="all")
    for kept in (1, 2):
        network = copy.deepcopy(model.network)
        network.transformer.decoder.layers = network.transformer.decoder.layers[:kept]
        config = replace(model.config, dec_layers=kept)
        short = explain(replace(model, network=network, config=config), picture)
        for field in OUTPUT_FIELDS:
            expected = getattr(short, field)
            np.testing.assert_allclose(
                getattr(whole.output(kept - 1), field), expected, atol=1e-4, err_msg=field
            )


def test_the_last_output_is_the_explanations_own(explanation):
    for output in (explanation.outputs[2], explanation.output()):
        for name in OUTPUT_FIELDS:
            assert getattr(output, name) is getattr(explanation, name)


@pytest.mark.parametrize(("asked", "captured"), [("last", (2,)), (0, (0,)), ([1, 2], (1, 2))])
@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_what_is_captured_changes_no_detection(name, asked, captured):
    """Scores and boxes stay the last layer's; outputs are those of the captured layers alone."""
    picture = scene(HELD_OUT, 128).rgb
    e = explain(demo_model(name), picture, layers=asked)
    whole = explain(demo_model(name), picture, layers="all")
    assert tuple(e.outputs) == e.layers == captured
    for field in OUTPUT_FIELDS:
        np.testing.assert_allclose(getattr(e, field), getattr(whole, field), atol=1e-4)
        for layer in captured:
            ours, theirs = (getattr(x.output(layer), field) for x in (e, whole))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert e.output() is e.outputs[captured[-1]]


def test_no_output_of_a_layer_that_was_not_captured():
    e = explain(demo_model("detr"), scene(HELD_OUT, 128).rgb, layers=[0, 2])
    with pytest.raises(ValueError, match="decoder layer 1 was not captured; there is 0, 2"):
        e.output(1)


@pytest.mark.parametrize(("asked", "runs"), [("last", 1), (2, 1), (0, 3), ("all", 3)])
@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_heads_run_on_earlier_layers_only_where_these_were_captured(name, asked, runs):
    model = demo_model(name)
    seen, heads = [], []
    handles = [
        model.network.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs.get("aux", False)), with_kwargs=True
        ),
        model.network.class_embed.register_forward_hook(lambda *_: heads.append("class")),
        model.network.bbox_embed.register_forward_hook(lambda *_: heads.append("box")),
    ]
    try:
        explain(model, scene(HELD_OUT, 128).rgb, layers=asked)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [runs > 1]
    assert heads.count("class") == heads.count("box") == runs


@pytest.mark.parametrize(
    ("asked", "captured"), [("last", (2,)), (0, (0,)), ([2, 0], (0, 2)), ("all", (0, 1, 2))]
)
def test_layer_choice(asked, captured):
    e = explain(demo_model("detr"), scene(HELD_OUT, 128).rgb, layers=asked)
    assert e.layers == captured
    assert set(e.residuals) == set(captured)
    assert all(value < 1e-4 for value in e.residuals.values())


def test_no_layers_at_all():
    with pytest.raises(UserError, match="empty"):
        explain(demo_model("detr"), scene(HELD_OUT, 128).rgb, layers=[])


@pytest.mark.parametrize("asked", [3, -1, "first", [0, 9]])
def test_layers_that_are_not_there(asked):
    with pytest.raises(UserError, match=r"this model has 0\.\.2"):
        explain(demo_model("detr"), scene(HELD_OUT, 128).rgb, layers=asked)


def test_bad_arguments_of_maps(explanation):
    with pytest.raises(ValueError, match="no mode 'spatial'; it has combine, position, content"):
        explanation.maps("spatial")
    with pytest.raises(ValueError, match=r"query 20 is not one of 0\.\.19"):
        explanation.maps(queries=[20])
    with pytest.raises(ValueError, match="mode, layer"):
        explanation.maps(scale="none")


def test_boxes_are_pixels_of_the_original_image():
    """The same scene drawn twice as large has boxes twice as large."""
    small, large = (explain(demo_model("detr"), scene(HELD_OUT, px).rgb) for px in (256, 512))
    best = small.by_score()[0]
    np.testing.assert_allclose(
        2 * small.boxes_xyxy_px[best], large.boxes_xyxy_px[best], atol=0.02 * 512
    )


def test_size_is_the_callers():
    e = explain(demo_model("detr"), scene(HELD_OUT, 256).rgb[:, :200], size=96, max_size=110)
    assert e.input_hw == (110, 86)  # 256 / 200 * 96 > 110, so short = round(110 * 200 / 256)
    assert e.grid_hw == (14, 11)
    assert e.meta["preprocessing"]["size_px"] == 96


def test_self_check_refuses_maps_that_are_not_the_networks_own(monkeypatch):
    model = demo_model("detr")
    site = model.network.attention_sites()["cross", 2]
    right = site.read
    monkeypatch.setattr(site, "read", lambda parts: right(parts._replace(c_q=-parts.c_q)))
    with pytest.raises(SelfCheckError, match="self-check failed in decoder layer 2"):
        explain(model, scene(HELD_OUT, 128).rgb)


def test_self_check_sees_a_percent(monkeypatch):
    model = demo_model("cd_detr")
    site = model.network.attention_sites()["cross", 2]
    right = site.read
    monkeypatch.setattr(site, "read", lambda parts: right(parts._replace(c_q=1.01 * parts.c_q)))
    with pytest.raises(SelfCheckError, match=r"above 0\.0001"):
        explain(model, scene(HELD_OUT, 128).rgb)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_half_precision(name, dtype):
    """The maps are the network's own in half precision too, in every layer, and still sum to 1."""
    model = demo_model(name)
    half = replace(model, network=copy.deepcopy(model.network).to(dtype))
    e = explain(half, scene(HELD_OUT, 128).rgb, layers="all")
    assert all(1e-7 < value < 0.02 for value in e.residuals.values())
    np.testing.assert_allclose(e.maps("position").sum((-1, -2)), 1, atol=1e-5)
    assert e.meta["dtype"] == str(dtype).removeprefix("torch.")


def test_batch_norm_is_folded():
    modules = list(demo_model("detr").network.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in modules)


def test_an_untestable_residual_is_null_in_the_metadata():
    """One cell: every map is 1, and nothing can be said of the weights."""
    e = explain(demo_model("detr"), np.zeros((4, 4, 3), np.uint8), size=8)
    assert e.grid_hw == (1, 1) and np.isnan(e.residuals[2])
    assert e.meta["residuals"] == {"2": None}
    json.dumps(e.meta, allow_nan=False)


def test_as_many_detections_as_the_authors_keep(explanation):
    """Conditional DETR: 100 of its 20 x 6 pairs; DETR: each of its 20 queries."""
    assert len(explanation.detections()) == {"detr": 20, "cd_detr": 100}[explanation.model_type]


def test_equal_scores_keep_the_order_of_ids(explanation):
    scores = np.repeat(np.float32([0.2, 0.7]), 10)
    e = replace(explanation, scores=scores)
    assert e.by_score() == [*range(10, 20), *range(10)]


def test_numbers_of_numpy_are_numbers(explanation):
    one = explanation.maps(queries=np.int64(3))
    np.testing.assert_array_equal(one, explanation.maps(queries=np.array([3])))
    e = explain(demo_model("detr"), scene(HELD_OUT, 128).rgb, layers=np.int64(1))
    assert e.layers == (1,)
    with pytest.raises(TypeError):
        explanation.maps(queries=[1.7])


def test_a_mode_of_your_own(explanation):
    """content as a Mode at the layer's scale is content at the layer's scale."""
    own = explanation.maps(Mode("cb", "cb", "c_q · c_k"), [0])
    np.testing.assert_array_equal(own, explanation.maps("content", [0], scale="layer"))
    fig = figures.head_grid(explanation, [0], Mode("cpb", "p", "(c_q + p_q) · p_k"))
    assert "; (c_q + p_q) · p_k; " in fig.facts["Description"]


WHOLE, HALVES = "(c_q + p_q) · (c_k + p_k)", "c_q · c_k + p_q · p_k"


@pytest.mark.parametrize(
    ("name", "combine"), [("detr", [WHOLE] * 3), ("cd_detr", [WHOLE, HALVES, HALVES])]
)
def test_formulas_of_modes(name, combine):
    """Conditional DETR lays content and position side by side, but adds them in layer 0."""
    e = demo_explanation(name)
    assert [e.formula("combine", layer) for layer in range(3)] == combine
    assert e.formula("combine") == combine[-1]
    for layer in (None, 0, 1, 2):
        assert e.formula("position", layer) == "p_q · p_k"
        assert e.formula("content", layer) == "c_q · c_k"
        assert e.formula(Mode("cpb", "p", "(c_q + p_q) · p_k"), layer) == "(c_q + p_q) · p_k"
    short = explain(demo_model(name), scene(HELD_OUT, 128).rgb, layers=[0])
    assert short.formula("combine") == WHOLE
    with pytest.raises(ValueError, match="decoder layer 2 was not captured"):
        short.formula("combine", 2)


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_formulas_are_true_of_the_logits(name):
    for call in demo_explanation(name).calls.values():
        four = dense.four_terms(call.attention)
        crossed = float(
            abs(four["content", "position"]).max() + abs(four["position", "content"]).max()
        )
        assert (crossed == 0) == dense.separate(call.attention)


def test_importing_the_package_is_light():
    code = (
        "import sys, detr_viz; from detr_viz import cli; from detr_viz.detections import queries\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="explane"):
        _ = detr_viz.explane


def test_no_gradient_is_kept(explanation):
    assert not any(p.requires_grad for p in demo_model("detr").network.parameters())
    assert not explanation.calls["cross", 2].attention.c_q.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_images_of_a_batch_are_explained_as_if_alone(name):
    model = demo_model(name)
    scenes = [load_image(str(ROOT / f"image/scene_{i}.jpg")) for i in (1, 2, 3)]
    pixels = np.stack([resized(picture, 160, 240) for picture in scenes])
    batch = explain_batch(model, scenes, pixels, "all", 160, 240)
    for picture, e in zip(scenes, batch, strict=True):
        alone = explain(model, picture, layers="all", size=160, max_size=240)
        np.testing.assert_allclose(e.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(e.boxes_xyxy_px, alone.boxes_xyxy_px, atol=0.05)
        for layer in alone.layers:
            assert e.residuals[layer] < 1e-4
            for mode in e.modes:
                made, expected = e.maps(mode, layer=layer), alone.maps(mode, layer=layer)
                np.testing.assert_allclose(made, expected, atol=1e-5)
        assert {**e.meta, "residuals": 0} == {**alone.meta, "residuals": 0}
    apart = np.abs(batch[0].maps("combine", [0]) - batch[1].maps("combine", [0])).max()
    assert apart > 1e-3  # it is not the first image's maps three times


def test_a_snapshot_is_the_explanation_of_some_queries_without_torch():
    e = explain(demo_model("cd_detr"), str(ROOT / "image/scene_1.jpg"), layers="all")
    kept = pickle.loads(pickle.dumps(store(e, [7, 2], ["combine", "position"])))
    made = e.maps("position", [7, 2], 1)
    np.testing.assert_array_equal(kept.maps("position", [2, 7], 1), made[::-1])
    np.testing.assert_allclose(kept.maps("combine", 7), e.maps("combine", 7), atol=1e-6)
    np.testing.assert_array_equal(kept.output(0).boxes_xyxy_px, e.output(0).boxes_xyxy_px)
    assert kept.formula("combine", 2) == e.formula("combine", 2)
    for asked in (("content", [7]), ("combine", [3]), ("combine", [7], 1, "layer")):
        with pytest.raises(ValueError, match="not kept"):
            kept.maps(*asked)
