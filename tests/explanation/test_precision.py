"""Precisions: what is narrowed, what they cost, and that torch is left as it was."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import ROOT, demo_model

from detr_viz import explain, load_model
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.load_model import in_precision
from detr_viz.common.errors import UserError
from detr_viz.explanation.precision import check_precision, fp32_rule, in_tf32
from detr_viz.images.read import load_image
from detr_viz.images.resize import resized

SCENE = str(ROOT / "image/scene_1.jpg")


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_bfloat16_narrows_backbone_and_encoder_alone(name):
    exact = demo_model(name)
    quick = in_precision(exact, "bfloat16")
    for network, narrow in ((exact.network, torch.float32), (quick.network, torch.bfloat16)):
        for part, parameter in network.named_parameters():
            early = part.startswith(("backbone", "input_proj", "transformer.encoder"))
            assert parameter.dtype == (narrow if early else torch.float32), part
        assert network.input_dtype == narrow


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_bfloat16_is_near_float32_and_its_maps_are_its_own(name):
    exact, quick = demo_model(name), in_precision(demo_model(name), "bfloat16")
    a, b = (explain(model, SCENE) for model in (exact, quick))
    best = a.by_score()[:3]
    assert a.labels[best].tolist() == b.labels[best].tolist()
    np.testing.assert_allclose(a.boxes_xyxy_px[best], b.boxes_xyxy_px[best], atol=2)
    apart = np.abs(a.maps("combine", best) - b.maps("combine", best)).max()
    assert 1e-5 < apart < 0.05  # not the same, and not another network
    assert max(b.residuals.values()) < 1e-4  # the decoder is float32, so is its self-check
    assert (a.meta["precision"], b.meta["precision"]) == ("float32", "bfloat16")


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_float64_is_float64_throughout(name):
    """Against the network as it was trained, whose batch norm is not folded, all in float64."""
    model = in_precision(demo_model(name), "float64")
    assert {p.dtype for p in model.network.parameters()} == {torch.float64}
    checkpoint = load_checkpoint(type=name)
    plain = checkpoint.spec.build(checkpoint.config).double().eval()
    plain.load_state_dict(checkpoint.state_dict)
    e = explain(model, SCENE, layers="all", sites=["encoder", "decoder"])
    with torch.inference_mode():
        raw = plain(model.prepare(pixels_of(model)))
        expected = model.spec.class_probabilities(raw["pred_logits"])[0]
        forwarded = model.forward(model.prepare(pixels_of(model)), [e.num_layers - 1])
    scores = forwarded.class_scores[e.num_layers - 1][0]
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-11)  # float32 is off by 1e-6
    np.testing.assert_allclose(e.class_scores, expected, atol=1e-7)
    tested = [value for value in e.meta["residuals"].values() if value is not None]
    assert max(tested) < 1e-12
    assert (e.meta["precision"], e.meta["dtype"]) == ("float64", "float64")
    exact = explain(demo_model(name), SCENE, layers="all")
    apart = np.abs(e.maps("combine") - exact.maps("combine")).max()
    assert 0 < apart < 1e-4


def pixels_of(model) -> np.ndarray:
    return resized(load_image(SCENE), model.size, model.max_size)[None]


@pytest.mark.parametrize("mode", ["autocast", "inference", "default dtype"])
def test_the_callers_arithmetic_does_not_reach_in(mode):
    model, expected = demo_model("cd_detr"), explain(demo_model("cd_detr"), SCENE)
    contexts = {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "inference": torch.inference_mode,
        "default dtype": default_float64,
    }
    with contexts[mode]():
        found = explain(model, SCENE)
        np.testing.assert_array_equal(found.maps("position"), expected.maps("position"))
        ablated = found.ablate("head:3")
    np.testing.assert_array_equal(found.class_scores, expected.class_scores)
    after = expected.ablate("head:3").after
    np.testing.assert_array_equal(ablated.after.class_scores, after.class_scores)


@contextmanager
def default_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_a_model_may_be_loaded_in_another_precision():
    model = load_model(type="detr", precision="bfloat16", device="cpu")
    assert model.precision == "bfloat16" and model.network.input_dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("precision", "says"),
    [("tf32", "NVIDIA GPUs, the network runs on cpu"), ("float16", "'float16' is not one of")],
)
def test_what_a_device_cannot(precision, says):
    with pytest.raises(UserError, match=says):
        load_model(type="detr", precision=precision, device="cpu")
    check_precision("tf32", torch.device("cuda"))
    check_precision("float64", torch.device("cuda"))
    with pytest.raises(UserError, match="float64 is not for mps"):
        check_precision("float64", torch.device("mps"))


def test_torch_multiplies_as_asked_and_afterwards_as_before():
    before = in_tf32()
    for outer in ("tf32", "float32"):
        with fp32_rule(outer):
            assert in_tf32() is (outer == "tf32")
            with pytest.raises(ZeroDivisionError), fp32_rule("tf32"):
                assert in_tf32()
                raise ZeroDivisionError
            assert in_tf32() is (outer == "tf32")
    assert in_tf32() is before


@pytest.mark.skipif(
    not hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"),
    reason="one setting for all devices",
)
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_cpu_multiplies_exactly_whatever_the_caller_wants(precision):
    parts = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        before = [part.fp32_precision for part in parts]
        assert "bf16" in before
        with fp32_rule(precision):
            assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
        assert [part.fp32_precision for part in parts] == before
    finally:
        torch.set_float32_matmul_precision(asked)


def test_the_decoder_runs_by_the_models_rule_again():
    """Whatever the program around it has chosen: --ablate and --faithfulness."""
    from conftest import demo_explanation

    from detr_viz.explanation.faithfulness import faithfulness

    e, seen = demo_explanation("detr"), []
    decoder = e.model.network.transformer.decoder
    handle = decoder.register_forward_hook(lambda *_: seen.append(in_tf32()))
    try:
        with fp32_rule("tf32"):
            e.ablate("content")
            faithfulness(e, [0], orders=1)
            assert in_tf32()
    finally:
        handle.remove()
    assert len(seen) >= 2 and not any(seen)
