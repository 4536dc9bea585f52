"""Shares of RoI cells against loops and the network's own layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from detr_viz.attention.base import HasCells, Removable
from detr_viz.attention.roi import RoIAttention
from detr_viz.attention.roi_align import Pyramid, pooled, pooled_by_matrices
from detr_viz.attention.self_check import residual_of
from detr_viz.explanation.removals import Removal
from detr_viz.models.layers.dynamic_head import DynamicHead, RoIInputs
from detr_viz.models.roi_config import RoIConfig

PYRAMID = Pyramid(((12, 16), (6, 8)), (8, 16))
INPUT_HW = (96, 128)
SIZES = {"num_queries": 5, "num_logits": 3, "d_model": 16, "nheads": 2, "dec_layers": 2}


def head_of(layers: int) -> DynamicHead:
    torch.manual_seed(layers)
    config = RoIConfig(
        **SIZES, dim_feedforward=24, dynamic_width=6, dynamic_layers=layers, canonical_px=40.0
    )
    head = DynamicHead(config).double()
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return head.requires_grad_(False)


def inputs_of(images: int = 2) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(7)
    tgt = torch.randn(images, 5, 16, dtype=torch.float64)
    centre = torch.rand(images, 5, 2, dtype=torch.float64) * torch.tensor([128.0, 96.0])
    half = torch.rand(images, 5, 2, dtype=torch.float64) * 40 + 3
    return (
        tgt,
        torch.cat([centre - half, centre + half], -1),
        torch.randn(images, PYRAMID.cells, 16, dtype=torch.float64),
    )


def call_of(layers: int = 2, images: int = 2) -> tuple[RoIAttention, torch.Tensor, RoIInputs]:
    """The first stage's site as an attention of image 0, its own output, and what it was called
    with."""
    head, (tgt, boxes, memory), kept = head_of(layers), inputs_of(images), []
    site = head.attention_sites()["cross", 0]
    site.register_forward_hook(lambda _, args, out: kept.append((args[0], out)))
    list(head(tgt, boxes, memory, PYRAMID, INPUT_HW))
    inputs, out = kept[0]
    return site.read(inputs.of_image(0)).of_image(0), out[0], inputs


@pytest.mark.parametrize("layers", [1, 2])
def test_stage_against_its_formula(layers):
    """The dynamic convolution, cell by cell and query by query."""
    head, (tgt, boxes, memory) = head_of(layers), inputs_of()
    stage = head.head_series[0]
    conv, kept = stage.inst_interact, []
    conv.register_forward_hook(lambda _, args, out: kept.append((*args, out)))
    list(head(tgt, boxes, memory, PYRAMID, INPUT_HW))
    query, roi, _, out = kept[0]
    for b in range(2):
        for q in range(5):
            numbers = conv.dynamic_layer(query[b, q])
            first = numbers[: 16 * 6].view(16, 6)
            rows = []
            for cell in roi[b, q]:
                x = conv.norm1(cell @ first).relu()
                if layers == 2:
                    x = conv.norm2(x @ numbers[16 * 6 :].view(6, 16)).relu()
                rows.append(x)
            y = conv.out_layer.weight @ torch.cat(rows) + conv.out_layer.bias
            assert torch.allclose(conv.norm3(y).relu(), out[b, q], atol=1e-12)


def test_one_dynamic_layer_has_no_second_norm():
    keys = head_of(1).state_dict()
    assert "head_series.0.inst_interact.norm2.weight" not in keys
    assert keys["head_series.0.inst_interact.out_layer.weight"].shape == (16, 49 * 6)
    keys = head_of(2).state_dict()
    assert keys["head_series.0.inst_interact.out_layer.weight"].shape == (16, 49 * 16)


@pytest.mark.parametrize("layers", [1, 2])
def test_shares_are_those_of_the_definition(layers):
    attention, out, inputs = call_of(layers)
    site_weight = attention.weight
    share, boxes, bias_share = attention.cells()
    assert share.shape == (5, 7, 7) and boxes.shape == (5, 4) and bias_share.shape == (5,)
    centred = out - out.mean(-1, keepdim=True)
    for q in range(5):
        for c in range(49):
            part = site_weight[c] @ inputs.features[0, q, c]
            part = part - part.mean()
            expected = part @ centred[q] / (centred[q] @ centred[q])
            assert abs(share[q, c // 7, c % 7] - expected) < 1e-6
    assert np.abs(share.sum((1, 2)) + bias_share - 1).max() < 1e-5
    assert np.allclose(boxes[:, 0] * 128, inputs.boxes[0, :, 0], atol=1e-4)
    assert np.allclose(boxes[:, 3] * 96, inputs.boxes[0, :, 3], atol=1e-4)
    wide, bias = attention.shares()
    assert (wide.sum(-1) + bias - 1).abs().max() < 1e-13


@pytest.mark.parametrize("layers", [1, 2])
def test_self_check(layers):
    attention, out, _ = call_of(layers)
    assert attention.residual(out, lambda x: x) < 1e-13
    shuffled = replace(attention, weight=attention.weight.flip(0))
    assert shuffled.residual(out, lambda x: x) > 0.17
    assert replace(attention, bias=attention.bias * 0).residual(out, lambda x: x) > 1e-3
    assert attention.residual(out * float("nan"), lambda x: x) == float("inf")


def test_map_is_the_positive_part_on_the_boxs_level():
    attention, _, _ = call_of()
    share = attention.shares()[0].clamp(min=0)
    weights = attention.weights()
    assert weights.shape == (1, 5, PYRAMID.cells) and (weights >= 0).all()
    fine = PYRAMID.starts[1]
    for q in range(5):
        off = slice(fine, None) if attention.levels[q] == 0 else slice(0, fine)
        assert weights[0, q, off].sum() == 0
    assert set(attention.levels.tolist()) == {0, 1}
    # what the map reads is the mean of what the cells read, by their shares
    memory = inputs_of()[2][0]
    roi = pooled(memory[None], attention.boxes[None], attention.levels[None], *attention_rule())[0]
    by_cells = (share[..., None] * roi).sum(1) / share.sum(1, keepdim=True)
    assert (weights[0] @ memory - by_cells).abs().max() < 1e-12
    assert (weights.sum(-1) <= 1 + 1e-12).all()
    assert (attention.weights(rows=[3, 1]) - weights[:, [3, 1]]).abs().max() < 1e-14


def attention_rule():
    attention, _, _ = call_of()
    return attention.pyramid, attention.rule


def test_only_combine():
    attention, _, _ = call_of()
    assert list(attention.modes) == ["combine"] and attention.term_names == ()
    for mode in ("position", "content"):
        with pytest.raises(ValueError, match="a box says where its query reads"):
            attention.weights(mode)
    with pytest.raises(ValueError, match="scale"):
        attention.weights(scale="other")


def test_cells_can_be_left_out():
    """The same by the attention, by the site itself and by zeros in the features."""
    attention, out, inputs = call_of()
    assert isinstance(attention, HasCells) and isinstance(attention, Removable)
    site = head_of(2).attention_sites()["cross", 0]
    hidden = torch.rand(5, 49, generator=torch.Generator().manual_seed(3)) < 0.5
    _, y = attention.without(Removal("cells"), hidden)
    own = site(inputs.of_image(0), hidden=hidden[None])
    assert (y - own).abs().max() < 1e-12
    parts = attention.parts() * ~hidden[..., None]
    assert (y[0] - parts.sum(1) - attention.bias).abs().max() < 1e-12
    weights, y = attention.without(Removal("nothing"))
    assert (y[0] - out).abs().max() < 1e-12
    assert torch.equal(weights, attention.weights())
    weights, y = attention.without(Removal("head:0", head=0))
    assert weights.sum() == 0 and (y[0] - attention.bias).abs().max() == 0
    with pytest.raises(ValueError, match="cannot be removed"):
        attention.without(Removal("term:cq.ck", terms=("cq.ck",)))


def test_cells_in_boxes():
    attention, _, _ = call_of()
    boxes = attention.boxes / attention.boxes.new_tensor([128, 96, 128, 96])
    assert attention.samples_in(boxes).all()
    half = boxes.clone()
    half[:, 2] = (boxes[:, 0] + boxes[:, 2]) / 2 + 1e-9
    inside = attention.samples_in(half).unflatten(-1, (7, 7))
    assert inside[:, :, :4].all() and not inside[:, :, 4:].any()  # the middle column too


def test_boxes_move_as_in_the_paper():
    stage = head_of(2).head_series[0]
    tgt, boxes, _ = inputs_of()
    x = tgt
    for module in stage.reg_module:
        x = module(x)
    step = stage.bboxes_delta(x)
    moved = stage.moved(tgt, boxes)
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    assert torch.allclose((moved[..., :2] + moved[..., 2:]) / 2, centre + step[..., :2] / 2 * size)
    assert torch.allclose(moved[..., 2:] - moved[..., :2], size * step[..., 2:].exp())


def test_both_forms_of_pooling_give_the_same():
    head, (tgt, boxes, memory) = head_of(2), inputs_of()
    one = list(head(tgt, boxes, memory, PYRAMID, INPUT_HW, aux=True))
    head.pool = pooled_by_matrices
    for a, b in zip(one, head(tgt, boxes, memory, PYRAMID, INPUT_HW, aux=True), strict=True):
        assert all((x - y).abs().max() < 1e-10 for x, y in zip(a, b, strict=True))


def test_self_attention_of_proposals_is_dense():
    head, (tgt, boxes, memory), kept = head_of(2), inputs_of(), []
    site = head.attention_sites()["decoder", 1]
    site.register_forward_hook(lambda _, args, out: kept.append((args[0], out)))
    list(head(tgt, boxes, memory, PYRAMID, INPUT_HW))
    ((inputs, out),) = kept
    attention = site.read(inputs.of_image(1)).of_image(0)
    assert attention.weights().shape == (2, 5, 5)
    context = attention.weights() @ attention.value
    even = attention.even() @ attention.value
    assert residual_of(context, even, out[1], site.out_proj) < 1e-12
    with pytest.raises(ValueError, match="no position beside"):
        attention.weights("position")
