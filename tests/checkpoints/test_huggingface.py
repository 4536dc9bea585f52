"""transformers' own models, saved and loaded by folder: same logits, boxes and cross-attentions."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from checkpoint_factory import sha256
from conftest import filled_state_dict
from hf_factory import (
    NAMINGS,
    TYPES,
    build,
    fill_officially,
    hub_names,
    new_names,
    save,
    small,
)
from network_tools import as_detector, of_batch
from safetensors.torch import load_file, save_file

from detr_viz.attention import dense
from detr_viz.checkpoints import transformers_keys
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.fit import skeleton
from detr_viz.common.errors import UserError
from detr_viz.explanation.capture import record

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def network_of(checkpoint):
    network = skeleton(checkpoint.spec, checkpoint.config)
    network.load_state_dict(checkpoint.state_dict, strict=True, assign=True)
    return network.eval()


@torch.no_grad()
def assert_equal_outputs(model, checkpoint, hw=(96, 130)):
    """Two images of different size in one padded batch, through both."""
    h, w = hw
    pixels = torch.randn((2, 3, h, w), generator=torch.Generator().manual_seed(1))
    padding = torch.zeros((2, h, w), dtype=torch.bool)
    padding[1, h - 33 :], padding[1, :, w - 40 :] = True, True
    theirs = model(pixels, pixel_mask=(~padding).long(), output_attentions=True)
    network = network_of(checkpoint)
    known = {
        "cross": theirs.cross_attentions,
        "encoder": theirs.encoder_attentions,
        "decoder": theirs.decoder_attentions,
    }
    sites = {(kind, i): maps for kind, found in known.items() for i, maps in enumerate(found)}
    assert sites.keys() == network.attention_sites().keys()
    with record(as_detector(network, checkpoint.spec.name).attention_sites(), sites) as calls:
        ours = network(pixels, padding)
    assert theirs.logits.std(1).mean() > 0.01  # a real test: every query has its own
    assert theirs.pred_boxes.std(1).mean() > 0.005
    torch.testing.assert_close(ours["pred_logits"], theirs.logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(ours["pred_boxes"], theirs.pred_boxes, rtol=0, atol=1e-3)
    for site, expected in sites.items():
        weights = dense.weights(of_batch(calls[site]))
        assert weights.shape == expected.shape
        if site[0] == "cross":
            assert expected.std() * expected.shape[-1] > 0.2  # far from uniform
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "backbone"),
    [
        ("detr", "timm"),
        ("detr", "timm, DC5"),
        ("detr", "own"),
        ("detr", "own, basic"),
        ("conditional_detr", "timm"),
        pytest.param("conditional_detr", "timm, DC5", marks=pytest.mark.slow),
        ("conditional_detr", "own"),
        ("conditional_detr", "own, basic"),
        ("table-transformer", "timm"),
        ("table-transformer", "own, basic"),
    ],
)
def test_round_trip(tmp_path, model_type, backbone):
    model = small(model_type, backbone)
    checkpoint = load_checkpoint(save(model, tmp_path / "model"))
    assert checkpoint.spec.name == transformers_keys.TYPES[model_type]
    assert checkpoint.config.pre_norm is (model_type == "table-transformer")
    assert checkpoint.class_names == ("N/A", "cat", "remote")
    assert checkpoint.config.nheads == 4
    assert checkpoint.config.backbone.dilation is backbone.endswith("DC5")
    assert checkpoint.sha256 == sha256(tmp_path / "model" / "model.safetensors")
    assert checkpoint.notes == ()
    assert_equal_outputs(model, checkpoint)


@pytest.mark.parametrize("model_type", TYPES)
def test_learned_positions(tmp_path, model_type):
    model = small(model_type, position_embedding_type="learned")
    checkpoint = load_checkpoint(save(model, tmp_path / "model"))
    assert checkpoint.config.learned_positions == 50
    assert_equal_outputs(model, checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("dilation", [False, True])
@pytest.mark.parametrize("model_type", ["detr", "conditional_detr"])
def test_round_trip_of_the_released_size(tmp_path, model_type, dilation):
    labels = {i: f"c{i}" for i in range(91)}
    official = filled_state_dict("detr_r50" if model_type == "detr" else "cond_r50")
    model = fill_officially(build(model_type, dilation=dilation, id2label=labels), official)
    checkpoint = load_checkpoint(save(model, tmp_path / "model"))
    same_weights(checkpoint, official)
    assert checkpoint.config.num_queries == (100 if model_type == "detr" else 300)
    assert checkpoint.config.num_logits == (92 if model_type == "detr" else 91)
    assert checkpoint.config.backbone.stride == (16 if dilation else 32)
    assert_equal_outputs(model, checkpoint, hw=(224, 300))


@pytest.mark.parametrize(
    ("model_type", "backbone"),
    [("detr", "own, basic"), ("conditional_detr", "timm"), ("table-transformer", "own")],
)
def test_without_a_config_the_shapes_tell(tmp_path, model_type, backbone):
    """A Lightning module that holds a transformers model: no config.json anywhere."""
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    model = small(model_type, backbone, **heads)
    inner = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {"state_dict": inner, "hyper_parameters": {"lr": 1e-4}, "epoch": 3}
    torch.save(content, tmp_path / "last.ckpt")
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.spec.name == transformers_keys.TYPES[model_type]
    assert any("assumed 8 heads" in note for note in checkpoint.notes)
    assert any("no config.json" in note for note in checkpoint.notes)
    assert_equal_outputs(model, checkpoint)
    content["hyper_parameters"]["id2label"] = {0: "cat", 2: "dog"}
    torch.save(content, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt").class_names == ("cat", "class 1", "dog")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(type, backbone) -> folder and the state dict that every naming must give back."""
    cases = {}
    for model_type in TYPES:
        for backbone in ("timm", "own"):
            folder = tmp_path_factory.mktemp("model") / "saved"
            save(small(model_type, backbone), folder)
            cases[model_type, backbone] = folder, load_checkpoint(folder).state_dict
    return cases


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("backbone", ["timm", "own"])
@pytest.mark.parametrize("model_type", TYPES)
def test_every_naming(tmp_path, saved, model_type, backbone, naming):
    source, expected = saved[model_type, backbone]
    shutil.copy(source / "config.json", tmp_path)
    state_dict = NAMINGS[naming](load_file(source / "model.safetensors"))
    save_file(state_dict, tmp_path / "model.safetensors")
    same_weights(load_checkpoint(tmp_path), expected)


def test_the_namings_are_those_of_the_hub_and_of_transformers_5(saved):
    """A sample of keys as they stand in facebook/detr-resnet-50 and microsoft/conditional-..."""
    for model_type, old, new in (
        ("detr", "encoder_attn.out_proj.weight", "encoder_attn.o_proj.weight"),
        ("detr", "fc1.bias", "mlp.fc1.bias"),
        ("detr", "encoder_attn.q_proj.weight", "encoder_attn.q_proj.weight"),
        ("conditional_detr", "ca_qpos_sine_proj.bias", "encoder_attn.q_pos_sine_proj.bias"),
        ("conditional_detr", "sa_v_proj.weight", "self_attn.v_proj.weight"),
        ("conditional_detr", "ca_kcontent_proj.weight", "encoder_attn.k_content_proj.weight"),
    ):
        state_dict = load_file(saved[model_type, "timm"][0] / "model.safetensors")
        assert f"model.decoder.layers.1.{old}" in hub_names(state_dict)
        assert f"model.decoder.layers.1.{new}" in new_names(state_dict)
        assert "model.backbone.conv_encoder.model.layer1.0.conv1.weight" in hub_names(state_dict)
        assert "model.backbone.model.layer1.0.conv1.weight" in new_names(state_dict)


def same_weights(checkpoint, expected):
    assert checkpoint.state_dict.keys() == expected.keys()
    assert all(torch.equal(checkpoint.state_dict[key], expected[key]) for key in expected)


def test_pytorch_bin_shards_and_single_files(tmp_path, saved):
    source, expected = saved["detr", "own"]
    tensors = load_file(source / "model.safetensors")
    for name in ("bin", "shards", "bin_shards"):
        (tmp_path / name).mkdir()
        shutil.copy(source / "config.json", tmp_path / name)
    torch.save(tensors, tmp_path / "bin" / "pytorch_model.bin")
    parts = dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])
    for suffix, folder, write in (
        ("safetensors", "shards", save_file),
        ("bin", "bin_shards", torch.save),
    ):
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        weight_map = {}
        for number, part in enumerate(parts, start=1):
            file = f"{stem}-0000{number}-of-00002.{suffix}"
            write(part, tmp_path / folder / file)
            weight_map |= dict.fromkeys(part, file)
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (tmp_path / folder / f"{stem}.{suffix}.index.json").write_text(index)
        checkpoint = load_checkpoint(tmp_path / folder)
        same_weights(checkpoint, expected)
        assert len(checkpoint.sha256) == 64
    same_weights(load_checkpoint(tmp_path / "bin"), expected)
    same_weights(load_checkpoint(tmp_path / "bin" / "pytorch_model.bin"), expected)
    same_weights(load_checkpoint(source / "model.safetensors"), expected)  # config.json beside


def test_flags_and_types_hold_for_folders_too(saved):
    folder, _ = saved["detr", "timm"]
    checkpoint = load_checkpoint(folder, nheads=8)
    assert checkpoint.config.nheads == 8
    assert checkpoint.notes == ("--nheads 8 overrules the file, which says 4",)
    with pytest.raises(UserError, match=r"--type detr.*--type cd_detr"):
        load_checkpoint(folder, "cd_detr")


def edited(source, target, **changes):
    """The folder with entries of its config.json changed (or, given None, left out)."""
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (target / "config.json").write_text(json.dumps(config))
    return target


TIMM = {"model_type": "timm_backbone", "backbone": "resnet50"}
OWN = {"model_type": "resnet", "out_features": ["stage2"]}
REFUSED = {
    "activation": ("own", {"activation_function": "gelu"}, "activation_function 'gelu'"),
    "post-norm": ("own", {"model_type": "table-transformer"}, "not of a pre-norm model"),
    "positions": ("own", {"position_embedding_type": "learned"}, "'learned' position"),
    "heads": ("own", {"decoder_attention_heads": 2}, "4 encoder and 2 decoder heads"),
    "ffn": ("own", {"decoder_ffn_dim": 96}, "48 (encoder) and 96 (decoder)"),
    "no heads": ("own", {"encoder_attention_heads": "4", "decoder_attention_heads": "4"}, "'4'"),
    "type": ("own", {"model_type": "dab-detr"}, "'dab-detr'"),
    "no type": ("own", {"model_type": None}, "model_type None"),
    "odd type": ("own", {"model_type": ["detr"]}, "['detr']"),
    "swin": ("own", {"backbone_config": {"model_type": "swin"}}, "backbone 'swin'"),
    "v1": ("own", {"backbone_config": OWN | {"downsample_in_bottleneck": True}}, "downsample_in"),
    "gelu": ("own", {"backbone_config": OWN | {"hidden_act": "gelu"}}, "'gelu'"),
    "resnet50d": ("timm", {"backbone_config": None, "backbone": "resnet50d"}, "'resnet50d'"),
    "resnext": (
        "timm",
        {"backbone_config": TIMM | {"backbone": "seresnext50_32x4d"}},
        "'seresnext50_32x4d'",
    ),
    "stride 8": ("timm", {"backbone_config": TIMM | {"output_stride": 8}}, "output_stride 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_are_not_the_authors_are_refused(tmp_path, saved, name):
    backbone, changes, fragment = REFUSED[name]
    folder = edited(saved["detr", backbone][0], tmp_path / "edited", **changes)
    with pytest.raises(UserError) as raised:
        load_checkpoint(folder)
    message = str(raised.value)
    assert fragment in message and str(folder) in message and "\n" not in message


def test_configs_of_transformers_4(tmp_path, saved):
    """There the backbone is a word, and use_timm_backbone says whose."""
    source, expected = saved["detr", "timm"]
    old = {"backbone_config": None, "backbone": "resnet18", "use_timm_backbone": True}
    same_weights(load_checkpoint(edited(source, tmp_path / "a", **old)), expected)
    bare = edited(source, tmp_path / "b", backbone_config=None)  # resnet50 is the default there
    same_weights(load_checkpoint(bare), expected)


@pytest.mark.parametrize(
    ("changes", "dilation"),
    [
        ({}, False),
        ({"dilation": True}, True),  # transformers 4
        ({"dilation": False, "backbone_kwargs": {"output_stride": 16}}, True),
        ({"dilation": True, "backbone_config": TIMM | {"output_stride": 16}}, True),
        ({"dilation": True, "backbone_config": TIMM | {"output_stride": None}}, False),
        ({"dilation": True, "backbone_config": TIMM | {"output_stride": 32}}, False),
        ({"dilation": True, "use_timm_backbone": False}, False),  # its own ResNet has none
    ],
)
def test_dilation_is_told_by_the_config(changes, dilation):
    _, _, hints = transformers_keys.convert({}, {"model_type": "detr", **changes})
    assert hints["dilation"] is dilation


def test_segmentation_models_show_their_detector(tmp_path):
    model = small("detr", num_queries=5)
    folder = save(model, tmp_path / "model")
    inner = {f"detr.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(inner | {"mask_head.lay1.weight": torch.ones(2)}, folder / "model.safetensors")
    checkpoint = load_checkpoint(folder)
    assert any("mask head is left aside" in note for note in checkpoint.notes)
    assert_equal_outputs(model, checkpoint)


def test_auxiliary_loss_is_noted(tmp_path, saved):
    folder = edited(saved["detr", "own"][0], tmp_path / "aux", auxiliary_loss=True)
    (note,) = load_checkpoint(folder).notes
    assert "auxiliary_loss" in note


def test_class_names_with_holes_and_without(tmp_path, saved):
    source, _ = saved["conditional_detr", "own"]
    for number, (labels, names) in enumerate(
        [
            ({"0": "a", "2": "c"}, ("a", "class 1", "c")),
            ({"2": "c", "0": "a", "1": "N/A"}, ("a", "N/A", "c")),  # not sorted; a hole by name
            (None, None),
            ({"x": "a"}, None),
            ({"0": "a"}, None),  # one name, three classes
        ]
    ):
        folder = edited(source, tmp_path / str(number), id2label=labels, label2id=None)
        assert load_checkpoint(folder).class_names == names
