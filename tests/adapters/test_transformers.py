"""Detectors of transformers, of random weights: maps, splits and detections are the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models as tiny
import torch
from PIL import Image

from detr_viz import attach, explain
from detr_viz.adapters.positions import AGREEMENT_LIMIT, difference, distance, queries_of
from detr_viz.adapters.read import checked
from detr_viz.adapters.run import run
from detr_viz.adapters.transformers_models import detector_of
from detr_viz.common.errors import UserError

transformers = pytest.importorskip("transformers")
# YOLOS, one sequence of detection tokens and patches, is in test_joint.py
TYPES = [t for t in tiny.installed_types() if t not in (*tiny.PROMPTED, "yolos")]
PROMPTED = [t for t in tiny.installed_types() if t in tiny.PROMPTED]
DENSE = ["detr", "conditional_detr", "table-transformer", "dab-detr"]
SAMPLED = [t for t in TYPES if t not in DENSE]
RGB = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)


processor_of = tiny.processor_of


@pytest.fixture(scope="module", params=TYPES)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def detector(model_type):
    return detector_of(tiny.model(model_type), processor_of(model_type))


@pytest.fixture(scope="module")
def explained(detector):
    kinds = dict.fromkeys(kind for kind, _ in detector.attention_sites())
    return explain(detector, RGB, layers="all", sites=[kind for kind in kinds if kind != "cross"])


def raw(detector):
    """A run of the network with hooks on all sites."""
    return run(detector.network, detector.prepare(RGB[None])[0], detector._found)


def test_sites_and_residuals(model_type, detector, explained):
    info = detector.info
    assert (info.num_queries, info.num_layers, info.num_heads) == (7, 2, 4)
    assert info.num_encoder_layers == (0 if model_type in ("lw_detr", "rf_detr") else 1)
    assert info.modes == ("combine", "position", "content") and not info.why_undivided
    assert {("cross", 0), ("cross", 1), ("decoder", 1)} <= set(explained.sites)
    assert all(value <= 1e-4 for value in tiny.residuals(explained).values())
    assert {"0", "1"} <= tiny.residuals(explained).keys()  # none of these is beyond testing
    for mode in info.modes:
        maps = explained.maps(mode)
        assert maps.shape[:2] == (7, 4) and np.isfinite(maps).all() and maps.min() >= 0
        if model_type in DENSE:
            np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-5)
        else:
            whole = maps.sum((2, 3)) + explained.outside(mode)
            np.testing.assert_allclose(whole, 1, atol=1e-5)
    assert np.abs(explained.maps("position") - explained.maps("content")).max() > 1e-3


def test_two_ways_to_tell_the_position_agree(model_type, detector):
    """The difference rule has no names in it, an argument has no arithmetic."""
    errors = []
    for call in raw(detector).calls:
        if call.site.kind == "apart" or "backbone" in call.site.name:
            continue
        _, _, positions = checked(call, 0)
        errors += [p.error for p in positions if p is not None and p.error is not None]
    assert errors or model_type in ("conditional_detr",)
    assert max(errors, default=0) < 1e-5 < AGREEMENT_LIMIT


@pytest.mark.parametrize("model_type", DENSE)
def test_dense_weights_are_the_eager_attentions(model_type):
    if model_type not in TYPES:
        pytest.skip("not in this transformers")
    model = tiny.build(model_type, attn_implementation="eager")
    detector = detector_of(model, processor_of(model_type))
    e = explain(detector, RGB, layers="all", sites=["encoder", "decoder"])
    inputs = detector.prepare(RGB[None])[0].inputs
    with torch.no_grad():
        out = model(**inputs, output_attentions=True)
    for layer in range(2):
        cross, own = e.attention(("cross", layer)), e.attention(("decoder", layer))
        theirs = out.cross_attentions[layer][0].transpose(0, 1).numpy()
        np.testing.assert_allclose(cross, theirs, atol=1e-5)
        theirs = out.decoder_attentions[layer][0].transpose(0, 1).numpy()
        np.testing.assert_allclose(own, theirs, atol=1e-5)
    theirs = out.encoder_attentions[0][0].transpose(0, 1).numpy()
    np.testing.assert_allclose(e.attention(("encoder", 0)), theirs, atol=1e-5)


def test_weights_and_places_of_samples_are_what_the_module_sampled(
    model_type, detector, explained, monkeypatch
):
    """grid_sample is called for each level: grid (B * M, Q, P, 2) in [-1, 1] is what it read."""
    if model_type in DENSE:
        pytest.skip("attends densely")
    seen = []
    sample = torch.nn.functional.grid_sample

    def spy(value, grid, **options):
        assert options["align_corners"] is False and options["mode"] == "bilinear"
        seen.append((grid[..., :2] + 1) / 2)
        return sample(value, grid, **options)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", spy)
    raw(detector)
    levels = len(explained.grids())
    per_layer = [seen[-2 * levels : -levels], seen[-levels:]]
    for layer, grids in enumerate(per_layer):
        xy, _ = explained.samples("combine", range(7), layer)  # (Q, M, L, P, 2)
        for level, grid in enumerate(grids):
            theirs = grid.reshape(4, 7, -1, 2).transpose(0, 1).numpy()
            ours = xy[:, :, level, : theirs.shape[2]]
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_weights_of_samples_are_output_attentions(model_type, detector, explained):
    if model_type in DENSE:
        pytest.skip("attends densely")
    inputs = detector.prepare(RGB[None])[0].inputs
    with torch.no_grad():
        out = detector.network(**inputs, output_attentions=True)
    theirs = getattr(out, "cross_attentions", None)
    if not theirs:
        pytest.skip("gives no cross_attentions")
    for layer in range(2):
        _, weight = explained.samples("combine", range(7), layer)  # (Q, M, L, P)
        flat = theirs[layer][0].flatten(2).numpy()  # (Q, M, sum of P)
        rows = weight.reshape(7, 4, -1)
        ours = rows[rows > 0].reshape(7, 4, -1) if rows.shape != flat.shape else rows
        np.testing.assert_allclose(ours, flat, atol=1e-5)


def test_the_output_with_hooks_is_the_same_to_the_last_bit(detector):
    prepared = detector.prepare(RGB[None])[0]
    before = _hooks(detector.network)  # transformers may have some of its own
    with torch.no_grad():
        plain = detector.network(**prepared.inputs)
    hooked = run(detector.network, prepared, detector._found).out
    assert torch.equal(plain.logits, hooked.logits)
    assert torch.equal(plain.pred_boxes, hooked.pred_boxes)
    assert _hooks(detector.network) == before


def _hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_detections_are_those_of_post_processing(model_type, detector, explained):
    """transformers ranks the same scores and boxes, without the numbers of queries."""
    names = {
        "detr": "DetrImageProcessor",
        "table-transformer": "DetrImageProcessor",
        "conditional_detr": "ConditionalDetrImageProcessor",
        "dab-detr": "ConditionalDetrImageProcessor",
        "deformable_detr": "DeformableDetrImageProcessor",
    }
    if model_type.startswith("pp_doclayout"):
        pytest.skip("post-processing drops what overlaps")
    processor = getattr(transformers, names.get(model_type, "RTDetrImageProcessor"))()
    with torch.no_grad():
        out = detector.network(**detector.prepare(RGB[None])[0].inputs)
    theirs = processor.post_process_object_detection(out, threshold=0.0, target_sizes=[(60, 80)])[0]
    ours = explained.detections(limit=7)
    assert len(ours) == 7
    scores = np.sort([score for _, _, score in ours])[::-1]
    np.testing.assert_allclose(np.sort(theirs["scores"].numpy())[::-1][:7], scores, atol=1e-6)
    best = int(theirs["scores"].argmax())
    query, label, _ = ours[0]
    assert label == theirs["labels"][best]
    box = theirs["boxes"][best].numpy()
    np.testing.assert_allclose(explained.boxes_xyxy_px[query], box, atol=1e-2)


def test_ablation_and_faithfulness(detector, explained):
    """A removed head is as its output put to 0 inside the network, worked out by another hook."""
    before = explained.ablate("head:1").before
    np.testing.assert_allclose(before.class_scores, explained.class_scores, atol=1e-5)
    after = explained.ablate("head:1", layers="all").after
    network, handles = detector.network, []
    for role in (detector._roles["cross", n] for n in range(2)):
        site = role.site

        def remove(module, args):
            context = args[0].clone()
            width = context.shape[-1] // 4
            context[..., width : 2 * width] = 0
            return (context, *args[1:])

        def remove_after(module, args, out):
            return (remove(module, (out[0],))[0], *out[1:])

        if site.out is None:
            handles.append(site.module.register_forward_hook(remove_after))
        else:
            handles.append(site.out.register_forward_pre_hook(remove))
    done = run(network, detector.prepare(RGB[None])[0], [])
    for handle in handles:
        handle.remove()
    scores = detector._answers.of(done.out, 2)[-1][1].numpy()
    np.testing.assert_allclose(after.class_scores, scores, atol=1e-5)
    assert np.abs(after.class_scores - before.class_scores).max() > 1e-5


def test_hooks_are_gone_after_an_exception(detector, monkeypatch):
    site = detector._roles["cross", 1].site

    def broken(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr(site.module, "forward", broken)
    before = _hooks(detector.network)
    with pytest.raises(RuntimeError, match="out of order"):
        explain(detector, RGB)
    assert _hooks(detector.network) == before


def test_a_caller_s_training_mode_and_gradients_stay(model_type):
    model = tiny.model(model_type)
    model.train()
    try:
        e = explain(model, RGB, processor=processor_of(model_type))
        assert model.training and all(m.training for m in model.modules())
        assert all(value <= 1e-4 for value in tiny.residuals(e).values())
    finally:
        model.eval()


def test_a_training_goes_on_after_an_explanation():
    """What a network keeps for later (RT-DETR: its anchors) is of use with gradients."""
    model = tiny.build("rt_detr")
    explain(model, RGB, processor=processor_of("rt_detr"))
    pixels = torch.rand(1, 3, 96, 128)
    model(pixel_values=pixels).pred_boxes.sum().backward()
    assert any(p.grad is not None for p in model.parameters())


def test_what_is_missing_is_one_line():
    model = tiny.model("detr")
    with pytest.raises(UserError, match="DETR needs its image processor"):
        explain(model, RGB)
    with pytest.raises(UserError, match="classes of its own"):
        explain(model, RGB, processor=processor_of("detr"), prompt="a cat")
    with pytest.raises(UserError, match="image processor decides the size"):
        explain(model, RGB, processor=processor_of("detr"), size=480)
    with pytest.raises(UserError, match=r"Linear is not known here: .*detr_viz\.attach"):
        explain(torch.nn.Linear(2, 2), RGB)


def test_difference_needs_no_names(detector, model_type):
    """The arguments' names are looked at in one rule alone: the other tells the same."""
    if model_type != "rt_detr":
        pytest.skip("once is enough")
    calls = [c for c in raw(detector).calls if c.site.kind == "sampled"]
    x = queries_of(calls[0])
    value, _ = difference(calls[0], x, "q")
    assert distance(value, calls[0].bound["position_embeddings"]) < 1e-5


def test_attached_once_for_many_images(detector, explained, model_type):
    again = attach(tiny.model(model_type), processor=processor_of(model_type))
    np.testing.assert_array_equal(explain(again, RGB).maps(), explained.maps())


def test_sizes_of_the_image_are_those_of_the_processor():
    processor = tiny.Processor((64, 160))
    e = explain(tiny.model("rt_detr"), Image.fromarray(RGB), processor=processor)
    assert [grid.hw for grid in e.grids()] == [(8, 20), (4, 10), (2, 5)]
    assert e.input_hw == (64, 160) and e.image.hw == (60, 80)


@pytest.mark.parametrize("model_type", PROMPTED)
def test_models_that_are_asked(model_type):
    model, processor = tiny.build(model_type), processor_of(model_type)
    e = explain(
        model, RGB, processor=processor, prompt=tiny.PROMPT, layers="all", sites=["encoder"]
    )
    assert e.class_names == ("a cat", "a remote control") and e.class_scores.shape == (7, 2)
    assert e.modes == ("combine", "position", "content") and e.layers == (0, 1)
    assert all(value <= 1e-4 for value in tiny.residuals(e).values())
    assert {"0", "1"} <= tiny.residuals(e).keys()
    unchecked = any("by one rule alone, unchecked" in note for note in e.meta["notes"])
    assert unchecked == (model_type == "omdet-turbo")
    if model_type != "omdet-turbo":  # tokens 1, 2 are of the first phrase, 4 to 6 of the second
        inputs = e.memory.inputs
        with torch.no_grad():
            scores = model(**inputs).logits[0].sigmoid()
        best = torch.stack([scores[:, 1:3].amax(1), scores[:, 4:7].amax(1)], 1)
        np.testing.assert_allclose(e.class_scores, best.numpy(), atol=1e-6)
    for prompt in (None, " . "):
        with pytest.raises(UserError, match="finds what a prompt names: give --prompt"):
            explain(model, RGB, processor=processor, prompt=prompt)
