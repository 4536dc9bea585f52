"""Anchor DETR's own parts: sizes read off keys, anchors, hidden cells, padding, training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from network_tools import filled, tiny
from torch import nn

from detr_viz import models
from detr_viz.attention.base import HasAxes, HasTerms, Removable
from detr_viz.attention.factored import FactoredAttention
from detr_viz.attention.terms import MODES, TERMS
from detr_viz.explanation.removals import NOTHING, parse
from detr_viz.models.anchor_config import AnchorConfig, read_config, with_hints
from detr_viz.models.config import BackboneConfig, ConfigError
from detr_viz.models.layers.row_column import FactoredInputs, RowColumnAttention


def site(d_model: int = 16, nheads: int = 2) -> RowColumnAttention:
    torch.manual_seed(1)
    module = RowColumnAttention(d_model, nheads)
    nn.init.normal_(module.in_proj_weight, std=0.4)
    nn.init.normal_(module.in_proj_bias, std=0.4)
    return module.double().requires_grad_(False)


def inputs(padded: bool = False, hw: tuple[int, int] = (3, 5), batch: int = 2) -> FactoredInputs:
    torch.manual_seed(2)
    h, w = hw

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, 16, dtype=torch.float64)

    padding = None
    if padded:
        padding = torch.zeros(batch, h, w, dtype=torch.bool)
        padding[1, 2:] = True
        padding[1, :, 4:] = True
        padding = padding.flatten(1)
    return FactoredInputs(
        some(batch, 7), some(1, 7), some(1, 7), some(batch, h * w), some(1, w), some(1, h), padding
    )


def by_hand(module: RowColumnAttention, x: FactoredInputs, i: int) -> torch.Tensor:
    """The output for image i: loops over heads, queries and cells, in numpy."""
    h, w = x.hw
    pick = [t[i if len(t) > 1 else 0].numpy() for t in x[:6]]
    content, p_row, p_column, memory, rows, columns = pick
    weights = np.split(module.in_proj_weight.numpy(), 5)
    biases = np.split(module.in_proj_bias.numpy(), 5)
    cells = memory.reshape(h, w, -1)
    k_row = np.stack([np.mean([cells[y, c] + rows[c] for y in range(h)], 0) for c in range(w)])
    k_column = np.stack(
        [np.mean([cells[r, c] + columns[r] for c in range(w)], 0) for r in range(h)]
    )
    sources = (content + p_row, content + p_column, k_row, k_column, memory)
    q1, q2, k1, k2, v = (s @ a.T + b for s, a, b in zip(sources, weights, biases, strict=True))
    padding = np.zeros(h * w, bool) if x.padding is None else x.padding[i].numpy()
    seen = ~padding.reshape(h, w)
    width = content.shape[1] // module.nheads
    out = np.zeros_like(content)
    for m in range(module.nheads):
        part = slice(m * width, (m + 1) * width)
        for q in range(len(content)):
            total, context = 0.0, np.zeros(width)
            for r in range(h):
                for c in range(w):
                    if seen[r, c]:
                        dots = q1[q, part] @ k1[c, part] + q2[q, part] @ k2[r, part]
                        weight = math.exp(dots / math.sqrt(width))
                        total += weight
                        context += weight * v[r * w + c, part]
            out[q, part] = context / total
    return out @ module.out_proj.weight.numpy().T + module.out_proj.bias.numpy()


@pytest.mark.parametrize("hw", [(3, 5), (5, 3)])
@pytest.mark.parametrize("padded", [False, True])
def test_the_module_by_hand(hw, padded):
    """Both orders of the two products, with and without padding."""
    if padded and hw == (5, 3):
        return  # the padding above is drawn for three rows
    module, x = site(), inputs(padded, hw)
    out = module(x)
    for i in range(2):
        np.testing.assert_allclose(out[i].numpy(), by_hand(module, x, i), atol=1e-12)
        attention = module.read(x).of_image(i)
        assert attention.residual(out[i], module.out_proj) < 4e-15


@pytest.mark.parametrize("padded", [False, True])
def test_maps_are_column_times_row(padded):
    attention = site().read(inputs(padded)).of_image(1)
    assert isinstance(attention, HasAxes) and isinstance(attention, HasTerms)
    assert isinstance(attention, Removable)
    assert (attention.kind, attention.num_heads, attention.num_rows) == ("factored", 2, 7)
    for mode in MODES:
        row, column = attention.axes(mode, [2, 5])
        assert row.shape == (2, 2, 5) and column.shape == (2, 2, 3)
        maps = attention.weights(mode, [2, 5]).unflatten(-1, (3, 5))
        torch.testing.assert_close(maps.sum(2), row)
        torch.testing.assert_close(maps.sum(3), column)
        for y in range(3):
            torch.testing.assert_close(maps[:, :, y], column[:, :, y, None] * row)
    if padded:
        assert not attention.weights()[..., attention.padding].any()


def test_terms_add_up_to_the_networks_logits():
    module, x = site(), inputs()
    row, column = module.axis_logits(x)
    attention = module.read(x).of_image(0)
    for k, expected in enumerate((row[0], column[0])):
        total = sum(attention.axis_logits(name)[k] for name in TERMS)
        torch.testing.assert_close(total, expected)
    total = sum(attention.term_logits(name) for name in TERMS)
    torch.testing.assert_close(total.softmax(-1), attention.weights())
    mixed = attention.term_logits("cq.ck") + attention.term_logits("pq.pk")
    torch.testing.assert_close(mixed.softmax(-1), attention.weights("cq.ck+pq.pk"))


class TestRemovals:
    def attention(self, padded: bool = False) -> FactoredAttention:
        return site().read(inputs(padded)).of_image(1)

    def test_nothing_is_the_networks_own(self):
        a = self.attention(padded=True)
        weights, context = a.without(NOTHING)
        torch.testing.assert_close(weights, a.weights())
        torch.testing.assert_close(context, a.weights() @ a.value)

    @pytest.mark.parametrize("axis", ["row", "column"])
    def test_an_axis_without_its_weights_is_even(self, axis):
        a = self.attention(padded=True)
        weights, _ = a.without(parse(axis))
        maps = weights.unflatten(-1, (3, 5))
        row, column = a.axes()
        kept = column if axis == "row" else row
        torch.testing.assert_close(maps.sum(3 if axis == "row" else 2), kept)
        line = maps.sum(2 if axis == "row" else 3)
        valid = 4 if axis == "row" else 2
        expected = torch.zeros_like(line)
        expected[..., :valid] = 1 / valid
        torch.testing.assert_close(line, expected)

    @pytest.mark.parametrize(("part", "mode"), [("position", "content")])
    def test_without_position_content_is_left(self, part, mode):
        a = self.attention()
        torch.testing.assert_close(a.without(parse(part))[0], a.weights(mode))

    def test_head_and_term(self):
        a = self.attention()
        weights, context = a.without(parse("head:1"))
        assert not weights[1].any() and not context[1].any()
        torch.testing.assert_close(weights[0], a.weights()[0])
        kept = "cq.ck+pq.ck+pq.pk"
        torch.testing.assert_close(a.without(parse("term:cq.pk"))[0], a.weights(kept))

    def test_hidden_cells_leave_their_share_to_the_others(self):
        a = self.attention(padded=True)
        hidden = torch.zeros(7, 15, dtype=torch.bool)
        hidden[2, [0, 6]] = True
        hidden[4] = True
        weights, context = a.without(NOTHING, hidden)
        expected = a.weights().masked_fill(hidden, 0)
        expected = expected / expected.sum(-1, keepdim=True)
        expected[:, 4] = 0  # nothing left to look at
        torch.testing.assert_close(weights, expected)
        out = site()(inputs(padded=True), hidden[None])[1]
        merged = context.transpose(0, 1).flatten(1)
        torch.testing.assert_close(out, site().out_proj(merged))


class TestSizes:
    def test_of_the_official_keys(self):
        config = read_config(filled("anchor", "anchor"), 8, True)
        assert config == AnchorConfig(backbone=BackboneConfig(dilation=True))
        assert (config.num_queries, config.patterns, config.anchors) == (900, 3, 300)
        assert config.backbone.stride == 16

    def test_keys_and_shapes_of_the_official_file(self):
        """Strict loading has the same keys, in float32."""
        state_dict = filled("anchor", "anchor")
        config = read_config(state_dict, 8, False)
        assert config.backbone.stride == 32
        own = models.get("anchor_detr").build(config).state_dict()
        assert {k: tuple(v.shape) for k, v in own.items()} == {
            k: tuple(v.shape) for k, v in state_dict.items()
        }

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"input_proj.1.0.weight": (32, 8, 3, 3)}, "2 feature levels"),
            ({"transformer.position.weight": (2, 4)}, "4 numbers an anchor"),
            (
                {"transformer.decoder_layers.0.cross_attn.in_proj_weight": (96, 32)},
                "nn.MultiheadAttention",
            ),
            ({"transformer.pattern.weight": (3, 24)}, "no multiple of 32"),
            ({"transformer.pattern.weight": (3, 31)}, "2 heads do not divide"),
        ],
    )
    def test_refused(self, change, words):
        state_dict = dict(tiny("anchor_detr").network.state_dict())
        for key, shape in change.items():
            state_dict[key] = torch.zeros(shape)
        with pytest.raises(ConfigError, match=words):
            read_config(state_dict, 2)

    def test_queries_of_whole_patterns(self):
        with pytest.raises(ConfigError, match="7 queries are no multiple of 3 patterns"):
            AnchorConfig(num_queries=7)
        with pytest.raises(ConfigError, match="5 anchors make no square grid"):
            AnchorConfig(num_queries=15, grid_anchors=True)

    @pytest.mark.parametrize(
        ("hints", "side", "noted"),
        [
            ({}, 17, True),
            ({"num_query_position": 10}, 3, False),
            ({"num_query_position": 10**9}, 17, True),
        ],
    )
    def test_anchors_on_a_grid_leave_no_trace(self, hints, side, noted):
        """As in the authors' code 300 make 17 x 17."""
        model = tiny("anchor_detr", grid_anchors=True, num_queries=12)
        config = read_config(model.network.state_dict(), 2)
        assert config.grid_anchors
        config, notes = with_hints(config, hints)
        assert config.anchors == side * side
        assert bool(notes) == noted


def test_anchors_of_a_grid():
    """The middles of its squares, x first, as in the authors' code; each pattern has them all."""
    model = tiny("anchor_detr", grid_anchors=True, num_queries=12)
    assert model.network.anchors().tolist() == [
        [0.25, 0.25],
        [0.25, 0.75],
        [0.75, 0.25],
        [0.75, 0.75],
    ]
    out = model.network(torch.rand(1, 3, 40, 56))
    assert torch.equal(out["reference_points"], model.network.anchors().repeat(3, 1))


def test_dc5_halves_the_stride():
    plain = BackboneConfig("bottleneck", 8, (8, 8), (1, 1))
    sizes = []
    for backbone in (plain, replace(plain, dilation=True)):
        net = tiny("anchor_detr", backbone=backbone).network
        sizes.append(net(torch.rand(1, 3, 64, 96))["memory_hw"])
    assert sizes == [(8, 12), (16, 24)]


def test_scores_with_hidden_cells_are_those_of_ablations():
    model = tiny("anchor_detr")
    with torch.inference_mode():
        memory = model.network.encode(torch.rand(1, 3, 40, 56))
        cells = memory.memory.shape[1]
        hidden = torch.zeros(2, 6, cells, dtype=torch.bool)
        hidden[1, 2, : cells // 2] = True
        scores = model.scores_with_hidden(memory, hidden, [0, 1])
        plain = model.decode(memory, [1]).class_scores[1]
    torch.testing.assert_close(scores[:1], plain, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(scores[0, 2], scores[1, 2])


def test_a_step_of_training():
    """The sizes of a demo: every parameter gets a gradient, and the loss falls."""
    config = AnchorConfig(
        num_queries=60,
        num_logits=12,
        d_model=128,
        nheads=8,
        enc_layers=1,
        dec_layers=2,
        dim_feedforward=256,
        backbone=BackboneConfig("basic", 32, (32, 64), (2, 2)),
    )
    torch.manual_seed(0)
    net = models.get("anchor_detr").build(config, norm_layer=nn.BatchNorm2d).train()
    images = torch.rand(2, 3, 64, 80)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    losses = []
    for _ in range(2):
        out = net(images, None, aux=True)
        layers = [*out["aux_outputs"], out]
        assert len(layers) == 2
        assert layers[0]["pred_logits"].shape == (2, 60, 12)
        loss = sum(o["pred_logits"].square().mean() + o["pred_boxes"].mean() for o in layers)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert [n for n, p in net.named_parameters() if p.grad is None] == []
        optimizer.step()
    assert losses[1] < losses[0]
    assert "num_batches_tracked" in " ".join(net.state_dict())
