"""transformers' Deformable DETR, saved and loaded by folder: the same numbers."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from hf_factory import hub_names, new_names, save
from network_tools import as_detector
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from detr_viz import explain, load_model
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.fit import skeleton
from detr_viz.common.errors import UserError
from detr_viz.explanation.capture import record

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

FORMS = {
    "plain": {},
    "refine": {"with_box_refine": True},
    "two-stage": {"with_box_refine": True, "two_stage": True},
    "single scale": {"num_feature_levels": 1},
}


def small(**options):
    """Random weights far from their initial values, so that every query has its own samples."""
    stages = {"embedding_size": 8, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 2]}
    last = ["stage4"] if options.get("num_feature_levels") == 1 else ["stage2", "stage3", "stage4"]
    config = transformers.DeformableDetrConfig(
        backbone_config=transformers.ResNetConfig(**stages, out_features=last),
        d_model=64,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_n_points=2,
        decoder_n_points=3,
        num_queries=7,
        two_stage_num_proposals=9,
        id2label={0: "N/A", 1: "cat", 2: "remote"},
        label2id={"N/A": 0, "cat": 1, "remote": 2},
        attn_implementation="eager",
        **{"use_timm_backbone": False, **options},
    )
    torch.manual_seed(2)
    model = transformers.DeformableDetrForObjectDetection(config).eval()
    done = set()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked") or value.data_ptr() in done:
            continue
        done.add(value.data_ptr())
        noise = torch.randn(value.shape)
        if name.endswith("running_var"):
            noise = 1 + 0.5 * noise.tanh()
        elif value.dim() > 1 and "embed" not in name.split(".")[-2]:
            noise *= 1.5 * value[0].numel() ** -0.5
        elif "sampling_offsets" in name:
            noise *= 2
        elif "norm" in name or ".1.weight" in name:
            noise = 0.2 * noise + name.endswith("weight")
        else:
            noise *= 0.3
        value.copy_(noise)
    return model


def network_of(checkpoint):
    network = skeleton(checkpoint.spec, checkpoint.config)
    network.load_state_dict(checkpoint.state_dict, strict=True, assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """form -> (transformers' model, its folder)."""
    home = tmp_path_factory.mktemp("hf")
    made = {form: small(**options) for form, options in FORMS.items()}
    return {form: (model, save(model, home / form)) for form, model in made.items()}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_same_detections_weights_and_places(models, form):
    """A padded batch through both; transformers' places are those its sampling is called with."""
    model, folder = models[form]
    checkpoint = load_checkpoint(folder)
    assert checkpoint.class_names == ("N/A", "cat", "remote") and not checkpoint.notes
    h, w = 96, 130
    pixels = torch.randn((2, 3, h, w), generator=torch.Generator().manual_seed(1))
    padding = torch.zeros((2, h, w), dtype=torch.bool)
    padding[1, h - 33 :], padding[1, :, w - 40 :] = True, True
    seen = {}
    for stack, site in (("encoder", "self_attn"), ("decoder", "encoder_attn")):
        for i, layer in enumerate(getattr(model.model, stack).layers):
            key = ("encoder" if stack == "encoder" else "cross", i)
            getattr(layer, site).attn.register_forward_hook(
                lambda _, args, out, key=key: seen.update({key: (args[4], args[5])})
            )
    theirs = model(pixels, pixel_mask=(~padding).long(), output_attentions=True)
    network = network_of(checkpoint)
    sites = as_detector(network, "deformable_detr").attention_sites()
    with record(sites, sites) as calls:
        ours = network(pixels, padding, aux=True)
    torch.testing.assert_close(ours["pred_logits"], theirs.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours["pred_boxes"], theirs.pred_boxes, atol=1e-4, rtol=0)
    assert set(seen) == {key for key in calls if key[0] != "decoder"}
    for key, (places, weights) in seen.items():
        for i in range(2):
            xy, weight = calls[key].of_image(i, ()).attention.samples()
            rows = slice(None)
            if key[0] == "encoder" and i == 1:  # padded cells see nothing that is defined
                rows = ~calls[key].args[0].padding[1]
            torch.testing.assert_close(xy[rows], places[i][rows], atol=1e-4, rtol=0)
            torch.testing.assert_close(weight[rows], weights[i][rows], atol=1e-4, rtol=0)
    for i, maps in enumerate(theirs.decoder_attentions):
        dense = calls["decoder", i].of_image(0, ()).attention.weights()
        torch.testing.assert_close(dense, maps[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("naming", [hub_names, new_names])
@pytest.mark.parametrize("form", ["plain", "two-stage"])
def test_other_names_of_the_same(models, tmp_path, form, naming):
    """As the hub has them, every shared head written out, and as transformers 5 names them."""
    model, folder = models[form]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    state_dict = {key: value.clone() for key, value in naming(model.state_dict()).items()}
    save_file(state_dict, tmp_path / "model.safetensors")
    expected, got = load_checkpoint(folder), load_checkpoint(tmp_path)
    assert got.config == expected.config
    for key, value in expected.state_dict.items():
        assert torch.equal(got.state_dict[key], value), key


def test_a_file_alone_needs_its_config(models, tmp_path):
    state_dict = load_file(models["two-stage"][1] / "model.safetensors")
    save_file(state_dict, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"no config\.json beside it"):
        load_checkpoint(tmp_path / "w.safetensors")


def test_proposals_and_points_are_those_of_the_config(models):
    config = load_checkpoint(models["two-stage"][1]).config
    assert (config.num_queries, config.two_stage, config.refine) == (9, True, True)
    assert (config.levels, config.stages, config.enc_points, config.dec_points) == (4, 3, 2, 3)
    assert config.strides == (8, 16, 32, 64)
    single = load_checkpoint(models["single scale"][1]).config
    assert (single.levels, single.stages, single.strides) == (1, 1, (32,))
    assert json.loads((models["plain"][1] / "config.json").read_text())["num_queries"] == 7


def test_a_folder_is_explained(models):
    model = load_model(models["refine"][1], "deformable_detr", device="cpu")
    e = explain(model, Image.fromarray(data.chelsea()), size=64, layers="all")
    assert e.kind() == "sampled" and len(e.grids()) == 4 and max(e.residuals.values()) < 1e-4
