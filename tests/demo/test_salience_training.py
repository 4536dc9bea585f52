"""A training of Salience DETR: targets worked out by hand, and one step of all its losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detr_viz.demo.losses import set_loss
from detr_viz.demo.salience_training import (
    initialise_salience,
    salience_loss,
    salience_targets,
)
from detr_viz.models import get
from detr_viz.models.config import BackboneConfig
from detr_viz.models.salience_config import SalienceConfig


def test_targets_are_largest_in_the_middle_and_on_the_level_of_the_boxs_size():
    """One box of 40 x 24 px, its corner at (8, 8), in 64 x 64; cells of 8 and 16 px."""
    labels = torch.tensor([[2, -1]])
    boxes = torch.tensor([[[28 / 64, 20 / 64, 40 / 64, 24 / 64], [0.5, 0.5, 1, 1]]])
    fine, coarse = salience_targets(labels, boxes, [(8, 8), (4, 4)], (64, 64), [(-1, 24), (24, 99)])
    # cell (row 2, column 3) of the fine level is at (28, 20): the middle; its farthest side 20 px
    assert fine[0, 2, 3] == 1
    # (row 1, column 3): y 12, 4 px from the top and 20 from the bottom: off by 16 / 24
    assert fine[0, 1, 3] == pytest.approx(1 - (16 / 24) / 2)
    # (row 2, column 1): x 12, 36 px from the right: not of this level
    assert fine[0, 2, 1] == 0 and fine[0, 0, 0] == 0
    # coarse (row 1, column 0): (8, 24) lies on the border, which is not inside
    assert coarse[0, 1, 0] == 0
    # coarse (row 1, column 2): (40, 24): 32 px from the left, off by 24 / 40 and 8 / 24
    assert coarse[0, 1, 2] == pytest.approx(1 - math.hypot(24 / 40, 8 / 24) / 2)
    assert coarse[0, 3].sum() == 0


def test_loss_by_hand():
    score = [torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[-1.0]]])]
    target = [torch.tensor([[[0.0, 0.8]]]), torch.tensor([[[0.0]]])]
    total = 0.75 * 0.25 * math.log(2)
    p = 1 / (1 + math.exp(-2))
    cross = -0.8 * math.log(p) - 0.2 * math.log(1 - p)
    total += (0.75 * p**2 * 0.2 + 0.25 * (1 - p) ** 2 * 0.8) * cross
    p = 1 / (1 + math.exp(1))
    total += 0.75 * p**2 * -math.log(1 - p)
    assert float(salience_loss(score, target)) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("levels", [3, 4])
def test_one_step_reaches_every_parameter(levels):
    """With ordinary batch norm, at the size of a demo."""
    torch.manual_seed(0)
    config = SalienceConfig(
        num_queries=20,
        num_logits=4,
        d_model=128,
        nheads=8,
        enc_layers=1,
        dec_layers=2,
        dim_feedforward=256,
        backbone=BackboneConfig("basic", 32, (32, 64, 96, 128), (1, 2, 1, 1)),
        stages=3,
        levels=levels,
        level_ratios=(0.4, 0.8, 1.0, 1.0)[:levels],
        layer_ratios=(1.0,),
        background_cells=50,
        pre_attended=30,
    )
    model = get("salience_detr").build(config, norm_layer=nn.BatchNorm2d)
    initialise_salience(model)
    for head in (model.transformer.encoder_bbox_head, *model.transformer.decoder.bbox_head):
        nn.init.normal_(head.layers[-1].weight, std=0.01)  # at 0 nothing behind it learns
    images = torch.randn(2, 3, 96, 128)
    labels = torch.tensor([[1, 3], [0, -1]])
    boxes = torch.tensor([[[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.4, 0.5]], [[0.5, 0.5, 0.3, 0.3]] * 2])
    out = model(images, None, aux=True)
    assert len(out["aux_outputs"]) == 1 and len(out["salience"]) == levels
    loss = torch.zeros(())
    for one in (*out["aux_outputs"], out, out["enc_outputs"]):
        logits, predicted = (one[name][None, :, None] for name in ("pred_logits", "pred_boxes"))
        assert logits.shape == (1, 2, 1, 20, 4) and predicted.shape == (1, 2, 1, 20, 4)
        loss = loss + sum(set_loss(logits, predicted, labels, boxes, True).values())
    shapes = [tuple(scores.shape[1:]) for scores in out["salience"]]
    ranges = [(-1, 16), (16, 32), (32, 64), (64, math.inf)][4 - levels :]
    targets = salience_targets(labels, boxes, shapes, (96, 128), ranges)
    (loss + 2 * salience_loss(out["salience"], targets)).backward()
    silent = [
        name
        for name, p in model.named_parameters()
        # a softmax over the cells cancels conv_mask's bias: its gradient is rounding, or 0
        if not name.endswith("conv_mask.bias")
        and (p.grad is None or not p.grad.isfinite().all() or not p.grad.any())
    ]
    assert silent == []
