"""Training of Dynamic DETR: boxes that begin near objects, groups that are on their own."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_viz.demo import trainee
from detr_viz.demo.dynamic_recipe import noisy_boxes
from detr_viz.demo.losses import corners, giou
from detr_viz.demo.recipe import TrainingConfig

SMALL = TrainingConfig(
    enc_layers=1,
    dec_layers=2,
    blocks=(1, 1, 1, 1),
    widths=(16, 16, 16, 16),
    d_model=32,
    dim_feedforward=32,
    queries=7,
    levels=3,
    groups=2,
    batch=2,
)
LABELS = torch.tensor([[1, 4, -1], [-1, -1, -1]])
BOXES = torch.zeros(2, 3, 4)
BOXES[0, :2] = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.3, 0.2]])


def test_noisy_boxes_are_near_their_objects_and_differ_from_draw_to_draw():
    torch.manual_seed(0)
    draws = torch.stack([noisy_boxes(LABELS, BOXES, 7) for _ in range(200)])
    assert draws.shape == (200, 2, 7, 4)
    assert (draws[..., 2:] > 0).all() and draws.std(0).min() > 0.005
    for slot in range(2):
        near = giou(corners(draws[:, 0, slot]), corners(BOXES[0, slot]))
        assert near.min() > 0 and near.max() > 0.95  # of the object itself, from far to near
        middle = draws[:, 0, slot].mean(0)
        torch.testing.assert_close(middle, BOXES[0, slot], atol=0.03, rtol=0.1)
    anywhere = torch.cat([draws[:, 0, 2:].flatten(0, 1), draws[:, 1].flatten(0, 1)])
    assert anywhere[:, :2].min() < 0.05 and anywhere[:, :2].max() > 0.95
    assert anywhere[:, 2:].min() > 0.14 and anywhere[:, 2:].max() < 0.66


def test_a_group_of_noisy_boxes_is_trained_too_and_changes_nothing_in_the_others():
    torch.manual_seed(1)
    net = trainee.Trainee("dynamic_detr", SMALL).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outs = [net.recipe.outputs(net.model, images, LABELS, BOXES, 2) for _ in range(2)]
    for out in outs:
        assert out["pred_logits"].shape[1] == 3 * 7
    one, other = (out["pred_logits"] for out in outs)
    # boxes of one level are read together, and their number changes the last bits
    torch.testing.assert_close(one[:, :14], other[:, :14], atol=1e-5, rtol=0)
    assert not torch.allclose(one[:, 14:], other[:, 14:])
    plain = replace(SMALL, groups=1)
    with torch.no_grad():  # what ships: the first group, alone
        alone = net.recipe.network(plain, net.focal)
        shipped = trainee.get("dynamic_detr").build(alone).eval()
        shipped.load_state_dict(net.shipped())
        again = shipped(images)["pred_logits"]
    torch.testing.assert_close(again, one[:, :7], atol=1e-4, rtol=1e-4)


def test_losses_reach_every_parameter_of_the_network():
    torch.manual_seed(2)
    net = trainee.Trainee("dynamic_detr", SMALL).train()
    labels, boxes = LABELS[:1].expand(2, -1), BOXES[:1].expand(2, -1, -1)
    for stage in net.model.head.head_series:  # at first 0: nothing flows through them
        torch.nn.init.normal_(stage.bboxes_delta.weight, std=0.1)
    losses = net(torch.randn(2, 3, 96, 96), labels, boxes)
    assert set(losses) == {"class", "l1", "giou", "cells"}
    torch.stack(list(losses.values())).sum().backward()
    dead = [name for name, p in net.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == [], dead
