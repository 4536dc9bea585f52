"""Pre-norm DETR: a decoder layer against torch's attention, and the analyses on top of it.

The whole network stands against transformers' Table Transformer in checkpoints/test_huggingface.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_tools import tiny
from torch import nn

from detr_viz import explain
from detr_viz.explanation import faithfulness
from detr_viz.explanation.ablation import decoded
from detr_viz.explanation.capture import record
from detr_viz.explanation.removals import NOTHING

IMAGE = np.random.default_rng(5).integers(0, 255, (64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    model = tiny("detr", pre_norm=True)
    generator = torch.Generator().manual_seed(2)
    for name, value in model.network.transformer.named_parameters():
        if "norm" in name:  # far from their initial values, so that leaving one out shows
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + ("weight" in name))
        elif "in_proj_weight" in name:
            value.mul_(3)
    return model


@pytest.fixture(scope="module")
def e(model):
    return explain(model, IMAGE, size=64, layers="all", sites=["encoder", "decoder"])


def torch_attention(site, q, k, v):
    """nn.MultiheadAttention with a site's parameters: (output, weights of each head)."""
    module = nn.MultiheadAttention(q.shape[-1], site.nheads, batch_first=True)
    module.load_state_dict(site.state_dict())
    out, weights = module(q, k, v, average_attn_weights=False)
    return out, weights[0]


@torch.no_grad()
def test_a_decoder_layer_is_facebooks_forward_pre(model, e):
    """norm, attend, add; norm, attend, add; norm, FFN, add."""
    network = model.network
    memory, pos = e.memory.memory, e.memory.pos
    query_pos = network.query_embed.weight[None]
    tgt = torch.zeros_like(query_pos)
    for i, layer in enumerate(network.transformer.decoder.layers):
        x = layer.norm1(tgt)
        out, weights = torch_attention(layer.self_attn, x + query_pos, x + query_pos, x)
        np.testing.assert_allclose(e.attention(("decoder", i)).swapaxes(0, 1), weights, atol=1e-5)
        tgt = tgt + out
        x = layer.norm2(tgt)
        cross = layer.multihead_attn
        out, weights = torch_attention(cross, x + query_pos, memory + pos, memory)
        maps = e.maps("combine", layer=i).reshape(*weights.shape[1::-1], -1)
        np.testing.assert_allclose(maps.swapaxes(0, 1), weights, atol=1e-5)
        # content: norm2's output, position: the query embedding, each on its own
        for mode, q, k in (("content", x, memory), ("position", query_pos, pos)):
            _, weights = torch_attention(cross, q, k, memory)
            maps = e.maps(mode, layer=i).reshape(*weights.shape[1::-1], -1)
            np.testing.assert_allclose(maps.swapaxes(0, 1), weights, atol=1e-5)
        tgt = tgt + out
        tgt = tgt + layer.linear2(F.relu(layer.linear1(layer.norm3(tgt))))
    logits = network.class_embed(network.transformer.decoder.norm(tgt))
    np.testing.assert_allclose(e.class_scores, logits.softmax(-1)[0, :, :-1], atol=1e-5)


@torch.no_grad()
def test_the_encoder_norms_first_and_at_its_end(model, e):
    network = model.network
    features = network.input_proj(network.backbone[0](model.prepare(IMAGE[None])))
    src, pos = features.flatten(2).transpose(1, 2), e.memory.pos
    for i, layer in enumerate(network.transformer.encoder.layers):
        x = layer.norm1(src)
        out, weights = torch_attention(layer.self_attn, x + pos, x + pos, x)
        np.testing.assert_allclose(e.attention(("encoder", i)).swapaxes(0, 1), weights, atol=1e-5)
        src = src + out
        src = src + layer.linear2(F.relu(layer.linear1(layer.norm2(src))))
    expected = network.transformer.encoder.norm(src)
    torch.testing.assert_close(e.memory.memory, expected, atol=1e-5, rtol=1e-5)


def test_the_self_check_holds_at_every_site(model):
    sites = model.attention_sites()
    with record(sites, sites) as calls, torch.inference_mode():
        model.forward(model.prepare(IMAGE[None]), [0, 1])
    residuals = {site: call.residual for site, call in calls.items()}
    assert np.isnan(residuals.pop(("decoder", 0)))  # every query is norm1's bias there
    assert len(residuals) == 4 and max(residuals.values()) < 1e-4


def test_ablations_and_curves_start_from_the_network_itself(model, e):
    again, _ = decoded(model, e.memory, NOTHING, ())
    torch.testing.assert_close(again.class_scores[1][0], torch.from_numpy(e.class_scores))
    without = e.ablate("head:1", layers="all")
    columns = [
        layer.multihead_attn.out_proj.weight for layer in model.network.transformer.decoder.layers
    ]
    kept = [weight.clone() for weight in columns]
    for weight in columns:
        weight.unflatten(1, (2, -1))[:, 1] = 0
    cut, _ = decoded(model, e.memory, NOTHING, ())
    for weight, old in zip(columns, kept, strict=True):
        weight.copy_(old)
    np.testing.assert_allclose(without.after.class_scores, cut.class_scores[1][0], atol=1e-5)
    assert np.abs(without.before.class_scores - without.after.class_scores).max() > 1e-4
    left = e.ablate("position", layers=0).weights[0]
    np.testing.assert_allclose(left.reshape(4, 2, 8, 12), e.maps("cq.ck", layer=0), atol=2e-5)
    curves = faithfulness.faithfulness(e, [1], ["combine"])
    assert curves.deletion["combine"][0, 0] == pytest.approx(e.scores[1], abs=1e-5)
