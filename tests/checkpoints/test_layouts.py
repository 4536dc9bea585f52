"""Other layouts of the same networks, told by their keys; each against something independent."""

from __future__ import annotations

import argparse

import pytest
import torch
from checkpoint_factory import prefixed, small_config, small_state_dict
from hf_factory import renamed
from safetensors.torch import save_file

from detr_viz import load_model
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.common.errors import UserError
from detr_viz.detections.known_classes import COCO_80_NAMES
from detr_viz.models.config import BackboneConfig

BASIC = BackboneConfig("basic", stem=8, widths=(8, 16), blocks=(1, 1))


# The authors' names -> OpenMMLab's, as mmdetection's own modules name them.
LAYERS = (
    (r"linear1\.", "FFN.layers.0.0."),
    (r"linear2\.", "FFN.layers.1."),
    (r"(layers\.\d+\.)norm1\.", r"\1norms.0."),
    (r"(layers\.\d+\.)norm2\.", r"\1norms.1."),
    (r"(layers\.\d+\.)norm3\.", r"\1norms.2."),
    (r"coder\.norm\.", "coder.post_norm."),
    (r"class_embed\.", "bbox_head.fc_cls."),
    (r"bbox_embed\.layers\.0\.", "bbox_head.reg_ffn.layers.0.0."),
    (r"bbox_embed\.layers\.1\.", "bbox_head.reg_ffn.layers.1."),
    (r"bbox_embed\.layers\.2\.", "bbox_head.fc_reg."),
    (r"backbone\.0\.body\.", "backbone."),
)
CONDITIONAL = (
    (r"sa_(\w+)_proj\.", r"self_attn.\1_proj."),
    (r"ca_(\w+)_proj\.", r"cross_attn.\1_proj."),
    (r"(encoder\.layers\.\d+\.self_attn)\.", r"\1.attn."),
)
PACKED = ((r"self_attn\.", "self_attn.attn."), (r"multihead_attn\.", "cross_attn.attn."))
NAMES_3 = (
    (r"^transformer\.", ""),
    (r"FFN", "ffn"),
    (r"^query_embed\.", "query_embedding."),
    (r"^input_proj\.", "neck.convs.0.conv."),
)
NAMES_2 = (
    (r"self_attn\.", "attentions.0.attn."),
    (r"multihead_attn\.", "attentions.1.attn."),
    (r"^transformer\.", "bbox_head.transformer."),
    (r"FFN", "ffns.0"),
    (r"^(query_embed)\.", r"bbox_head.\1ding."),
    (r"^input_proj\.", "bbox_head.input_proj."),
)
NAMES_2_FIRST = (  # before 2.12
    (r"(self|multihead)_attn\.", r"\1_attn.attn."),
    (r"^transformer\.", "bbox_head.transformer."),
    (r"FFN", "ffn"),
    (r"decoder\.post_norm\.", "decoder.norm."),
    *NAMES_2[-2:],
)
MMDET = {
    "2.x, the first": ("detr", (*LAYERS, *NAMES_2_FIRST)),
    "3.x": ("detr", (*LAYERS, *PACKED, *NAMES_3)),
    "2.x": ("detr", (*LAYERS, *NAMES_2)),
    "3.x, conditional": ("cd_detr", (*LAYERS, *CONDITIONAL, *NAMES_3)),
}
SAMPLES = {  # keys as they stand in published files
    "3.x": ("decoder.layers.1.cross_attn.attn.in_proj_weight", "decoder.layers.0.norms.2.bias",
            "encoder.layers.0.ffn.layers.0.0.weight", "decoder.post_norm.weight",
            "bbox_head.reg_ffn.layers.0.0.bias", "query_embedding.weight",
            "neck.convs.0.conv.bias", "backbone.layer1.0.conv1.weight"),
    "2.x": ("bbox_head.transformer.decoder.layers.1.attentions.1.attn.in_proj_bias",
            "bbox_head.transformer.encoder.layers.0.ffns.0.layers.1.weight",
            "bbox_head.query_embedding.weight", "bbox_head.input_proj.weight"),
    "2.x, the first": ("bbox_head.transformer.decoder.layers.0.multihead_attn.attn.in_proj_weight",
                       "bbox_head.transformer.decoder.layers.0.ffn.layers.0.0.weight",
                       "bbox_head.transformer.decoder.norm.weight"),
    "3.x, conditional": ("decoder.layers.0.cross_attn.qpos_sine_proj.weight",
                         "decoder.layers.1.self_attn.kcontent_proj.bias",
                         "decoder.layers.0.cross_attn.out_proj.weight",
                         "decoder.ref_point_head.layers.1.weight",
                         "encoder.layers.0.self_attn.attn.out_proj.weight"),
}  # fmt: skip


@pytest.mark.parametrize("version", MMDET)
def test_openmmlab_names_give_the_authors_tensors(tmp_path, version):
    kind, rules = MMDET[version]
    official = small_state_dict(kind)
    theirs = renamed(official, rules)
    assert theirs.keys() >= set(SAMPLES[version])
    names = ["a", "b", "c", "d"] + ["e"] * (kind == "cd_detr")
    for meta in ({"dataset_meta": {"CLASSES": names}}, {"CLASSES": names}):
        torch.save({"meta": meta, "state_dict": theirs}, tmp_path / "w.pth")
        checkpoint = load_checkpoint(tmp_path / "w.pth")
        assert checkpoint.spec.name == kind and checkpoint.class_names == tuple(names)
        assert checkpoint.state_dict.keys() == official.keys()
        assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in official.items())
        assert any("OpenMMLab" in note for note in checkpoint.notes)


def test_openmmlab_has_eighty_classes_in_order_and_no_sigmoid_detr(tmp_path):
    state_dict = renamed(small_state_dict("detr", small_config(num_logits=81)), MMDET["3.x"][1])
    save_file(state_dict, tmp_path / "w.safetensors")
    checkpoint = load_checkpoint(tmp_path / "w.safetensors")
    names = checkpoint.class_names
    assert (len(names), names[0], names[15], names[79]) == (80, "person", "cat", "toothbrush")
    assert names == COCO_80_NAMES and any("in order" in note for note in checkpoint.notes)
    meta = {"CLASSES": list(map(str, range(81)))}
    torch.save({"meta": meta, "state_dict": state_dict}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no output for no-object"):
        load_checkpoint(tmp_path / "w.pth")


def test_openmmlabs_dab_detr_is_named(tmp_path):
    theirs = renamed(small_state_dict("cd_detr"), MMDET["3.x, conditional"][1])
    theirs["decoder.ref_anchor_head.layers.0.weight"] = torch.ones(2, 2)
    torch.save({"state_dict": theirs}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="DAB-DETR"):
        load_checkpoint(tmp_path / "w.pth")


def test_openmmlabs_pre_norm_has_a_norm_after_the_encoder(tmp_path):
    official = small_state_dict("detr", small_config(pre_norm=True))
    torch.save({"state_dict": renamed(official, MMDET["3.x"][1])}, tmp_path / "w.pth")
    checkpoint = load_checkpoint(tmp_path / "w.pth")
    assert checkpoint.config.pre_norm
    assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in official.items())


def test_panoptic_detectors_have_their_names(tmp_path):
    inner = prefixed("detr.", small_state_dict("detr", small_config(num_logits=251)))
    heads = {"mask_head.lay1.weight": torch.ones(2), "bbox_attention.q_linear.bias": torch.ones(2)}
    torch.save({"model": {**inner, **heads}}, tmp_path / "w.pth")
    model = load_model(tmp_path / "w.pth", device="cpu")
    names = model.class_names
    assert len(names) == 250 and sum(name != "N/A" for name in names) == 80 + 53
    known = {17: "cat", 90: "toothbrush", 92: "banner", 149: "road", 187: "sky-other-merged"}
    assert {i: names[i] for i in known} == known and names[200] == "rug-merged"
    assert {names[i] for i in (0, 12, 91, 94, 183, 201, 249)} == {"N/A"}
    assert any("mask head is left aside" in note for note in model.notes)
    assert any("COCO panoptic" in note for note in model.notes)


TABLES = {
    "detection": (15, 3, ("table", "table rotated")),
    "structure": (125, 7, ("table", "table column", "table row", "table column header",
                           "table projected row header", "table spanning cell")),
}  # fmt: skip


@pytest.mark.parametrize("task", TABLES)
def test_microsofts_table_transformer_is_named_by_its_sizes(tmp_path, task):
    queries, rows, names = TABLES[task]
    sizes = {"num_queries": queries, "num_logits": rows}
    for pre_norm, expected in ((True, names), (False, None)):
        config = small_config(BASIC, **sizes, pre_norm=pre_norm)
        torch.save(small_state_dict("detr", config), tmp_path / "w.pth")
        checkpoint = load_checkpoint(tmp_path / "w.pth")
        assert checkpoint.config == config
        assert checkpoint.class_names == expected
    note = next(n for n in load_one(tmp_path, BASIC, **sizes).notes if "Table Transformer" in n)
    assert task in note and all(name in note for name in names) and "--size" in note


def load_one(tmp_path, backbone, args=None, **sizes):
    state_dict = small_state_dict("detr", small_config(backbone, pre_norm=True, **sizes))
    torch.save({"model": state_dict, **(args or {})}, tmp_path / "one.pth")
    return load_checkpoint(tmp_path / "one.pth")


def test_pre_norm_of_the_authors_with_its_args(tmp_path):
    args = argparse.Namespace(nheads=8, dilation=False, pre_norm=True)
    checkpoint = load_one(tmp_path, BASIC, {"args": args})
    assert checkpoint.config.pre_norm and checkpoint.notes == ()


BODIES = {
    "resnext": BackboneConfig(stem=8, widths=(16, 16), blocks=(1, 2), groups=8, inner=(8, 16)),
    "wide": BackboneConfig(stem=8, widths=(4, 8), blocks=(1, 1), inner=(8, 16)),
    "one group": BackboneConfig(stem=8, widths=(4, 8), blocks=(2, 1)),
}


@pytest.mark.parametrize("body", BODIES)
def test_groups_and_widths_are_read_off_the_shapes(tmp_path, body):
    checkpoint = load_one(tmp_path, BODIES[body])
    assert checkpoint.config.backbone == BODIES[body]


def test_learned_positions_reach_as_far_as_their_table(tmp_path):
    config = small_config(BASIC, learned_positions=5)
    torch.save(small_state_dict("detr", config), tmp_path / "w.pth")
    model = load_model(tmp_path / "w.pth", device="cpu")
    pixels = torch.zeros(1, 3, 40, 40)
    assert model.forward(pixels, [1]).grids[0].hw == (5, 5)
    with pytest.raises(UserError, match=r"5 x 6 cells.*--size"):
        model.forward(torch.zeros(1, 3, 40, 48), [1])
