"""Files of Deformable DETR: what is read off shapes, what is assumed, what is refused."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
import torch
from network_tools import TINY_DEFORMABLE

from detr_viz import load_model, models
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.fit import skeleton
from detr_viz.common.errors import UserError
from detr_viz.models.config import BackboneConfig

SPEC = models.get("deformable_detr")
REFINE = replace(TINY_DEFORMABLE, refine=True)
TWO_STAGE = replace(TINY_DEFORMABLE, refine=True, two_stage=True, num_queries=300)
BOTTLENECK = BackboneConfig("bottleneck", stem=8, widths=(8, 16), blocks=(1, 1))
SINGLE = replace(TINY_DEFORMABLE, stages=1, levels=1, backbone=BOTTLENECK)
CONFIGS = {"plain": TINY_DEFORMABLE, "refine": REFINE, "two-stage": TWO_STAGE, "single": SINGLE}


def state_dict_of(config) -> dict[str, torch.Tensor]:
    """As the authors' code saves it: heads that layers share stand under every name, alike."""
    generator = torch.Generator().manual_seed(1)
    shared: dict[int, torch.Tensor] = {}
    whole = {}
    for key, value in skeleton(SPEC, config).state_dict(keep_vars=True).items():
        if id(value) not in shared:
            noise = torch.randn(value.shape, generator=generator) * 0.1
            shared[id(value)] = noise.abs() + 0.5 if key.endswith("running_var") else noise
        whole[key] = shared[id(value)].clone()
    return whole


STATE_DICTS = {name: state_dict_of(config) for name, config in CONFIGS.items()}


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("wrapped", ["release", "training", "bare", "prefixed"])
def test_every_form_and_every_wrapping(tmp_path, name, wrapped):
    state_dict = STATE_DICTS[name]
    args = argparse.Namespace(nheads=2, dilation=False, num_queries=300, with_box_refine=True)
    content = {
        "release": {"model": state_dict},
        "training": {"model": state_dict, "args": args, "epoch": 3},
        "bare": state_dict,
        "prefixed": {"model": {f"module.{key}": value for key, value in state_dict.items()}},
    }[wrapped]
    file = saved(tmp_path / "w.pth", content)
    checkpoint = load_checkpoint(file, nheads=None if wrapped == "training" else 2)
    assert checkpoint.spec is SPEC and checkpoint.config == CONFIGS[name]
    assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in state_dict.items())
    said = any("300 proposals" in note for note in checkpoint.notes)
    assert said == (name == "two-stage" and wrapped != "training")


def test_the_number_of_proposals_is_that_of_the_args(tmp_path):
    args = argparse.Namespace(nheads=2, num_queries=40)
    file = saved(tmp_path / "w.pth", {"model": STATE_DICTS["two-stage"], "args": args})
    checkpoint = load_checkpoint(file)
    assert checkpoint.config.num_queries == 40
    assert not any("proposals" in note for note in checkpoint.notes)


def test_dilation_halves_the_stride(tmp_path):
    file = saved(tmp_path / "w.pth", {"model": STATE_DICTS["single"]})
    plain, dc5 = (load_checkpoint(file, nheads=2, dilation=d).config for d in (False, True))
    assert plain.strides == (8,) and dc5.strides == (4,)
    assert load_checkpoint(saved(tmp_path / "r50_dc5.pth", STATE_DICTS["single"]), nheads=2).config


def test_heads_and_points_share_the_samples(tmp_path):
    """2 heads x 3 levels x 2 points = 12 samples of a decoder layer: also 4 heads x 1 point."""
    file = saved(tmp_path / "w.pth", {"model": STATE_DICTS["plain"]})
    assert load_checkpoint(file, nheads=2).config.dec_points == 2
    with pytest.raises(UserError, match=r"18 samples a query, which 4 heads .* set --nheads"):
        load_checkpoint(file, nheads=4)
    with pytest.raises(UserError, match=r"12 samples a query, which 8 heads on 3 levels"):
        load_checkpoint(file)


def without(name, *parts):
    return {k: v for k, v in STATE_DICTS[name].items() if not any(part in k for part in parts)}


def changed(name, key, value):
    return STATE_DICTS[name] | {key: value}


DECODER = "transformer.decoder.layers.0.cross_attn."
BAD = {
    "no queries": (without("plain", "query_embed"), "no query_embed"),
    "narrow queries": (changed("plain", "query_embed.weight", torch.ones(4, 32)), "32 wide"),
    "no refinement": (without("two-stage", "decoder.bbox_embed"), "without refinement"),
    "level lost": (without("plain", "input_proj.2"), "level_embed has 3 levels"),
    "kernels": (
        changed("plain", "input_proj.0.0.weight", torch.ones(32, 8, 3, 3)),
        "kernels [3, 1, 3]",
    ),
    "odd width": (changed("plain", "transformer.level_embed", torch.ones(3, 36)), "multiple of 32"),
    "missing head": (without("refine", "class_embed.1"), "lacks 2"),
    "surplus": (changed("plain", "transformer.enc_mask.weight", torch.ones(2)), "beyond those of"),
    "no weights": (without("plain", "attention_weights"), "has no transformer.decoder"),
    "nan": (
        changed("plain", f"{DECODER}output_proj.bias", torch.full((32,), torch.nan)),
        "NaN or infinite",
    ),
    "shape": (
        changed("plain", f"{DECODER}sampling_offsets.bias", torch.ones(3)),
        "sampling_offsets.bias has shape (3,)",
    ),
    "descendant": (changed("plain", "label_enc.weight", torch.ones(3, 3)), "DN-DETR or DINO"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_deformable_detr_is_one_line(tmp_path, name):
    state_dict, fragment = BAD[name]
    file = saved(tmp_path / "w.pth", {"model": state_dict})
    with pytest.raises(UserError) as raised:
        load_checkpoint(file, nheads=2)
    message = str(raised.value)
    assert fragment in message and str(file) in message and "\n" not in message


def test_another_type_than_the_file_has(tmp_path):
    file = saved(tmp_path / "w.pth", {"model": STATE_DICTS["plain"]})
    with pytest.raises(UserError, match="is Deformable DETR"):
        load_checkpoint(file, "detr", nheads=2)


def test_without_weights_the_demo_is_taken():
    model = load_model(type="deformable_detr", device="cpu")
    assert model.info.weights == "deformable_detr_demo.pth" and model.info.num_queries == 20


def test_a_type_without_a_demo():
    with pytest.raises(UserError, match="Notebook DETR has no demo checkpoint: give --weights a f"):
        load_model(type="notebook_detr")


def test_precisions(tmp_path):
    """bfloat16 is the backbone's; float64 is read anew."""
    args = argparse.Namespace(nheads=2)
    file = saved(tmp_path / "w.pth", {"model": STATE_DICTS["refine"], "args": args})
    narrow = load_model(file, classes=list("abcdefg"), device="cpu", precision="bfloat16")
    encoder = narrow.network.transformer.encoder.layers[0].linear1.weight
    assert (narrow.dtype, encoder.dtype) == (torch.bfloat16, torch.float32)
    wide = load_model(file, classes=list("abcdefg"), device="cpu", precision="float64")
    assert wide.dtype == torch.float64
    pixels = torch.rand(1, 3, 64, 80)
    with torch.inference_mode():
        a, b = (m.forward(pixels.to(m.network.input_dtype), [1]) for m in (narrow, wide))
    torch.testing.assert_close(a.boxes[1].double(), b.boxes[1], atol=2e-2, rtol=0)
