"""Dynamic DETR: the identities of its parts in float64, and what its files say and leave open."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from network_tools import tiny
from torch import nn

from detr_viz import load_model, models
from detr_viz.common.errors import UserError
from detr_viz.models.config import DetrConfig
from detr_viz.models.deformable_config import DeformableConfig
from detr_viz.models.dynamic_config import DynamicConfig
from detr_viz.models.roi_config import RoIConfig

HW = (70, 90)  # no multiple of any stride
SIZES = {
    "dynamic_detr": DynamicConfig(),
    "detr": DetrConfig(),
    "deformable_detr": DeformableConfig(),
    "sparse_rcnn": RoIConfig(),
}


@pytest.fixture(scope="module")
def network():
    """In float64, of random weights whose boxes differ."""
    network = tiny("dynamic_detr").network.double()
    torch.manual_seed(5)
    for key, value in network.named_parameters():
        if key.endswith(("offset.weight", "DyConv.1.conv.weight", "DyConv.0.conv.weight")):
            value.normal_(std=0.2)
    network.init_proposal_boxes.weight.uniform_(0.2, 0.8)
    return network


@pytest.fixture(scope="module")
def run(network):
    """A batch, what a pass gave, and what its sites were called with."""
    torch.manual_seed(6)
    images = torch.randn(2, 3, *HW, dtype=torch.float64)
    calls = {}
    hooks = [
        site.register_forward_hook(
            lambda module, args, out, where=where: calls.update({where: (module, args[0], out)})
        )
        for where, site in network.attention_sites().items()
    ]
    with torch.inference_mode():
        out = network(images, aux=True)
    for hook in hooks:
        hook.remove()
    return out, calls


def stages(run):
    return [calls for where, calls in run[1].items() if where[0] == "cross"]


def test_shares_of_cells_and_bias_are_1_in_all_at_every_stage(run):
    assert len(stages(run)) == 2
    for module, inputs, out in stages(run):
        for image in range(2):
            attention = module.read(inputs).of_image(image)
            share, bias_share = attention.shares()
            whole = share.sum(-1) + bias_share
            torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-13, rtol=0)
            y = attention.parts().sum(1) + attention.bias
            torch.testing.assert_close(y, out[image], atol=1e-13, rtol=0)
            assert attention.residual(out[image], lambda x: x) < 1e-12


def test_the_spread_is_the_adjoint_of_what_the_stage_pooled(run):
    """<A^T s, map> = <s, A map>, with the pooling that the network itself used."""
    from detr_viz.attention.roi_align import adjoint, levels_of, pooled

    memory = run[0]["encoded"].memory
    for _, inputs, _ in stages(run):
        rule, boxes = inputs.rule, inputs.boxes[0]
        levels = levels_of(boxes, inputs.pyramid.strides, rule)
        assert levels.equal(inputs.levels[0])
        share = torch.randn(len(boxes), rule.side, rule.side, dtype=torch.float64)
        spread = adjoint(share, boxes, levels, inputs.pyramid, rule)
        read = pooled(memory[:1], boxes[None], levels[None], inputs.pyramid, rule)[0]
        left = spread @ memory[0]
        right = torch.einsum("qn,qnc->qc", share.flatten(1), read)
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def test_boxes_of_a_stage_enter_the_next_one(run):
    out, _ = run
    first = out["encoded"].reference.expand(2, -1, -1)
    torch.testing.assert_close(out["references"][0], first, atol=1e-14, rtol=0)
    assert out["references"][1].equal(out["aux_outputs"][0]["pred_boxes"])
    assert (out["pred_boxes"] - out["references"][1]).abs().max() > 1e-3


def test_a_stage_is_what_the_specification_says(network, run):
    """Queries of the first stage, by torch's own layers and torchvision's RoIAlign."""
    from torchvision.ops import roi_align

    out, _ = run
    state, config = network.state_dict(), network.config
    stage = "head.head_series.0."
    own = {key[len(stage) :]: value for key, value in state.items() if key.startswith(stage)}
    width = config.d_model

    attention = nn.MultiheadAttention(width, config.nheads, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": own["self_attn.in_proj_weight"],
            "in_proj_bias": own["self_attn.in_proj_bias"],
            "out_proj.weight": own["self_attn.out_proj.weight"],
            "out_proj.bias": own["self_attn.out_proj.bias"],
        }
    )

    def norm(x, name):
        weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
        return nn.functional.layer_norm(x, x.shape[-1:], weight, bias)

    def linear(x, name):
        return x @ own[f"{name}.weight"].T + own.get(f"{name}.bias", 0)

    q = state["init_proposal_features.weight"]
    q = norm(q + attention(q[None], q[None], q[None])[0][0], "norm1")
    cx, cy, w, h = (state["init_proposal_boxes.weight"] * torch.tensor([90, 70] * 2)).unbind(-1)
    boxes = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
    boxes = boxes.float().double()  # as the stage reads them
    rows = []
    for query, box in zip(q, boxes, strict=True):
        side = ((box[2] - box[0]) * (box[3] - box[1])).sqrt()
        level = int(torch.floor(4 + torch.log2(side / config.canonical_px)))
        level = min(max(level - 3, 0), 2)  # strides 8, 16, 32
        start = sum(a * b for a, b in out["encoded"].shapes[:level])
        hw = out["encoded"].shapes[level]
        cells = out["encoded"].memory[0, start : start + hw[0] * hw[1]]
        grid = cells.T.reshape(1, width, *hw)
        roi = roi_align(grid, [box[None]], 7, 1 / 2 ** (level + 3), config.samples, aligned=True)
        roi = roi[0].flatten(1).T  # (49, C)
        filters = linear(query, "inst_interact.dynamic_layer").view(width, config.dynamic_width)
        x = norm(roi @ filters, "inst_interact.norm1").clamp(0)
        y = linear(x.flatten(), "inst_interact.out_layer")
        z = norm(y, "inst_interact.norm3").clamp(0)
        one = norm(query + z, "norm2")
        one = norm(one + linear(linear(one, "linear1").clamp(0), "linear2"), "norm3")
        rows.append(one)
    q = torch.stack(rows)

    def tower(name):
        return norm(linear(q, f"{name}.0"), f"{name}.1").clamp(0)

    first = out["aux_outputs"][0]
    logits = linear(tower("cls_module"), "class_logits")
    torch.testing.assert_close(first["pred_logits"][0], logits, atol=1e-10, rtol=0)
    d = linear(tower("reg_module"), "bboxes_delta")
    moved = torch.stack(
        [
            (cx + d[:, 0] / 2 * w) / 90,
            (cy + d[:, 1] / 2 * h) / 70,
            w * d[:, 2].exp() / 90,
            h * d[:, 3].exp() / 70,
        ],
        -1,
    )
    torch.testing.assert_close(first["pred_boxes"][0], moved, atol=1e-10, rtol=0)


def test_a_padded_image_is_as_without_padding(network):
    torch.manual_seed(8)
    image = torch.randn(1, 3, *HW, dtype=torch.float64)
    padded = nn.functional.pad(image, (0, 38, 0, 26))
    mask = torch.ones(1, *padded.shape[-2:], dtype=torch.bool)
    mask[:, : HW[0], : HW[1]] = False
    with torch.inference_mode():
        plain, other = network(image), network(padded, mask)
    assert plain["pred_boxes"].equal(other["pred_boxes"])
    assert plain["levels"] == other["levels"]
    assert plain["levels"] == (((9, 12), 8), ((5, 6), 16), ((3, 3), 32))


def test_images_of_several_sizes_are_refused(network):
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[1, 48:] = True
    with pytest.raises(ValueError, match="several sizes"):
        network(torch.zeros(2, 3, 64, 64, dtype=torch.float64), mask)


def test_a_batch_is_its_images(network):
    torch.manual_seed(9)
    images = torch.randn(2, 3, *HW, dtype=torch.float64)
    with torch.inference_mode():
        both = network(images)
        for i in range(2):
            alone = network(images[i : i + 1])
            for name in ("pred_logits", "pred_boxes"):
                torch.testing.assert_close(both[name][i], alone[name][0], atol=1e-12, rtol=0)
            encoded = both["encoded"].of_image(i)
            again = network.decode(encoded)
            torch.testing.assert_close(again["pred_boxes"], alone["pred_boxes"], atol=1e-12, rtol=0)


def test_the_network_of_the_paper_has_about_its_number_of_parameters():
    """58 M are reported; ours are 62.4 M: the dynamic filter's width is a decision."""
    with torch.device("meta"):
        network = models.get("dynamic_detr").build(DynamicConfig())
    count = sum(value.numel() for value in network.state_dict().values())
    assert 0.9 < count / 58e6 < 1.1
    assert network.config.strides == (4, 8, 16, 32, 64)
    assert network.config.num_queries == 300 and network.config.nheads == 4
    assert len(network.encoder.layers) == len(network.head.head_series) == 6


def saved(tmp_path, network, **meta):
    path = tmp_path / "dynamic.pth"
    state = {key: value.float() for key, value in network.state_dict().items()}
    torch.save({"model": state, "meta": meta} if meta else state, path)
    return path


@pytest.mark.parametrize("masked", [True, False])
def test_a_file_is_recognised_and_its_sizes_read(tmp_path, masked):
    network = tiny("dynamic_detr", masked=masked).network
    told = {"nheads": 2, "levels": 3, "canonical_px": 32.0, "samples": 1}
    loaded = load_model(saved(tmp_path, network, **told), device="cpu")
    assert loaded.spec.name == "dynamic_detr"
    assert loaded.config == replace(network.config)
    torch.manual_seed(1)
    image = torch.randn(1, 3, *HW)
    with torch.inference_mode():
        one, other = loaded.network(image), network.float()(image)
    torch.testing.assert_close(one["pred_boxes"], other["pred_boxes"], atol=1e-5, rtol=0)


def test_no_other_model_takes_its_keys():
    for name in ("dynamic_detr", "detr", "deformable_detr", "sparse_rcnn"):
        with torch.device("meta"):
            keys = set(models.get(name).build(SIZES[name]).state_dict())
        assert [n for n in models.names() if models.get(n).matches(keys)] == [name]


def test_what_leaves_no_trace_is_assumed_aloud(tmp_path):
    loaded = load_model(saved(tmp_path, tiny("dynamic_detr").network), device="cpu")
    assert loaded.config.nheads == 4  # as in the paper; other models have 8
    assert any("assumed 4 heads" in note for note in loaded.notes)
    assert loaded.config.levels == 4  # one more than the backbone's three
    assert loaded.config.canonical_px == 224 and loaded.config.samples == 2
    text = "assumed 4 levels, boxes of 224 pixels at stride 16, 2 samples a bin: the file does not"
    assert any(note.startswith(text) for note in loaded.notes)
    assert any("reconstruction" in note for note in loaded.notes)


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


def swapped(key, shape):
    return lambda state: {**state, key: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "meta", "words"),
    [
        (without("encoder.layers.0.relu.fc.2.bias"), {}, "lacks 1 of"),
        (swapped("encoder.layers.0.offset.weight", (20, 32, 3, 3)), {}, "makes 20 numbers a cell"),
        (swapped("init_proposal_boxes.weight", (6, 4)), {}, "init_proposal_boxes.weight has shape"),
        (swapped("extra.weight", (2, 2)), {}, "has 1 tensors beyond those of Dynamic DETR"),
        (without("pyramid.fpn_lateral4.weight"), {}, "they must follow each other"),
        (without("pyramid.fpn_lateral5.weight"), {}, "pyramid ends at stride 16"),
        (dict, {"levels": 1}, "levels 1 in its meta cannot be"),
        (dict, {"samples": 0}, "samples 0 in its meta cannot be"),
        (dict, {"canonical_px": float("nan")}, "canonical_px nan in its meta cannot be"),
        (dict, {"nheads": 5}, "5 heads do not divide the model width 32"),
        (dict, {"nheads": 2, "dilation": True}, "has no dilation"),
        (dict, {"type": "detr", "nheads": 2}, "says that its type is 'detr'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, change, meta, words):
    state = change(tiny("dynamic_detr").network.state_dict())
    path = tmp_path / "bad.pth"
    torch.save({"model": state, "meta": {"nheads": 2, **meta}}, path)
    with pytest.raises(UserError) as error:
        load_model(path, device="cpu")
    assert words in str(error.value)
    assert "\n" not in str(error.value) and "bad.pth" in str(error.value)
