"""Attention of modules that nobody knows: found by its functions, proved, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models as tiny
import torch
import torch.nn.functional as F
import unfamiliar as u

from detr_viz import attach, explain
from detr_viz.adapters.run import run
from detr_viz.common.errors import UserError
from detr_viz.explanation.explain_image import SelfCheckError

RGB = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
KINDS = (*u.KINDS, u.Inline)
DIVIDED = (
    "OtherNames",
    "Sums",
    "Torchs",
    "Inline",
    "Points",
    "Dots",
)  # keys and queries have positions of their own


def attached(kind, **options):
    return attach(u.built(kind, **options), **u.ATTACHED)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_maps_are_what_the_module_multiplied_its_values_with(kind, padded, monkeypatch):
    """torch's own products are spied on: the weights that each value is multiplied with."""
    d = attached(kind, padded=padded)
    e = explain(d, RGB, layers="all", sites=["decoder"])
    assert (d.info.num_queries, d.info.num_layers, d.info.num_heads) == (6, 2, 4)
    assert sorted(d.attention_sites()) == [(k, n) for k in ("cross", "decoder") for n in (0, 1)]
    assert all(value <= 1e-4 for value in tiny.residuals(e).values()) and e.grid_hw == (4, 6)
    seen = []
    soft, fused = torch.Tensor.softmax, F.scaled_dot_product_attention

    def spy(x, *args, **kwargs):
        out = soft(x, *args, **kwargs)
        seen.append(out.reshape(4, 6, -1))
        return out

    def spy_fused(q, k, v, *args, **options):  # of the identity it makes the weights
        one = torch.eye(k.shape[-2]).expand(*k.shape[:-2], -1, -1)
        seen.append(fused(q, k, one, *args, **options).reshape(4, 6, -1))
        return fused(q, k, v, *args, **options)

    monkeypatch.setattr(torch.Tensor, "softmax", spy)
    monkeypatch.setattr(torch, "softmax", spy)
    monkeypatch.setattr(F, "softmax", lambda x, dim=-1, *args, **more: spy(x, dim))
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy_fused)
    with torch.no_grad():
        d.network(u.ATTACHED["preprocess"](RGB))
    own = [w for w in seen if w.shape[-1] == 6]
    across = [w for w in seen if w.shape[-1] == 24]
    assert len(own) == len(across) == 2
    for layer, (between, read) in enumerate(zip(own, across, strict=True)):
        ours = e.attention(("cross", layer))
        np.testing.assert_allclose(ours, read.transpose(0, 1).numpy(), atol=1e-5)
        ours = e.attention(("decoder", layer))
        np.testing.assert_allclose(ours, between.transpose(0, 1).numpy(), atol=1e-5)
    hidden = e.maps()[..., -1:]  # the last quarter of 6 columns
    assert (hidden.max() == 0) if padded else (hidden.max() > 0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_modes_are_those_that_have_a_meaning(kind):
    d = attached(kind)
    e = explain(d, RGB)
    if kind.__name__ in DIVIDED:
        assert d.info.modes == ("combine", "position", "content")
    else:
        assert d.info.modes == ("combine",)
        words = "to queries or to keys alone|no plain projections of content"
        with pytest.raises(UserError, match=f"only combine, no 'position': .*({words})"):
            e.maps("position")


def test_position_is_the_projection_of_the_place():
    """softmax of (W_q place + b) . (W_k place + b), by hand."""
    d = attached(u.OtherNames)
    e = explain(d, RGB, layers="all")
    net = d.network
    h, w = e.grid_hw
    with torch.no_grad():
        lines = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
        where = net.mix(torch.stack(lines, -1).flatten(0, 1))
        for layer in (0, 1):
            module = net.layers[layer].across
            q, k = module.ask(net.place), module.offer(where)  # the bias is in both modes
            q, k = (x.unflatten(-1, (4, -1)).transpose(0, 1) for x in (q, k))
            wanted = (q @ k.mT / 8**0.5).softmax(-1).transpose(0, 1).reshape(6, 4, h, w)
            np.testing.assert_allclose(e.maps("position", layer=layer), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_output_is_the_same_to_the_last_bit_and_hooks_are_gone(kind):
    d = attached(kind)
    pixels = u.ATTACHED["preprocess"](RGB)
    with torch.no_grad():
        plain = d.network(pixels)
    hooked = run(d.network, d.prepare(RGB[None])[0], d.trial.found).out
    assert all(torch.equal(plain[name], hooked[name]) for name in plain)
    explain(d, RGB)
    assert not [m for m in d.network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert torch.overrides._get_current_function_mode_stack() == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_head_is_removed_and_cells_are_hidden(kind):
    """Hiding the cells of the padded network in the other one gives its scores: both by hand."""
    d, padded = attached(kind), attached(kind, padded=True)
    e = explain(d, RGB)
    ablation = e.ablate("head:1", layers="all")
    np.testing.assert_allclose(ablation.before.class_scores, e.class_scores, atol=1e-5)
    assert np.abs(ablation.after.class_scores - e.class_scores).max() > 1e-4
    hidden = torch.zeros(4, 6, dtype=torch.bool)
    hidden[:, -1] = True
    mask = hidden.flatten().expand(1, 6, 24)
    scores = d.scores_with_hidden(e.memory, mask, [0, 1])[0]
    np.testing.assert_allclose(scores, explain(padded, RGB).class_scores, atol=1e-5)
    assert np.abs(scores.numpy() - e.class_scores).max() > 1e-4


def test_what_cannot_be_seen_is_refused_by_name():
    with pytest.raises(
        UserError, match=r"layers\.0\.across \(Exponentials\).* may attend"
    ) as caught:
        attached(u.Exponentials)
    assert "\n" not in str(caught.value)


def test_a_mask_that_the_softmax_does_not_have_fails_the_self_check():
    """What is done to weights after the softmax is not attention as it is read here."""

    class Sharper(u.OtherNames):
        def forward(self, x, memory, where_x, where_memory, gone=None):
            q, k = self.ask(x + where_x), self.offer(memory + where_memory)
            weights = (u.heads_of(q) @ u.heads_of(k).mT).softmax(-1)
            weights = weights.masked_fill(weights < weights.mean(-1, keepdim=True), 0)
            return self.blend(u.merged(weights @ u.heads_of(self.carry(memory))))

    with pytest.raises(
        (SelfCheckError, UserError), match=r"self-check failed|can be seen"
    ) as caught:
        explain(attached(Sharper), RGB)
    assert "layers.1.across" in str(caught.value) or "layers.0.across" in str(caught.value)


def test_attention_of_a_plain_function_in_the_network_itself():
    """No module is the attention's: the whole network runs it."""

    class Whole(u.Strange):
        def forward(self, picture):
            grid = self.eye(picture)
            memory = grid.flatten(2).transpose(1, 2)
            x = self.start[None]
            for layer in self.layers:
                made = layer.across
                parts = zip((made.ask, made.offer, made.carry), (x, memory, memory), strict=True)
                q, k, v = (u.heads_of(line(y)) for line, y in parts)
                x = x + made.blend(u.merged((q @ k.mT).softmax(-1) @ v))
            return {"what": self.what(x).sigmoid(), "box": self.box(x).sigmoid()}

    torch.manual_seed(0)
    d = attach(Whole(u.OtherNames), **u.ATTACHED)
    e = explain(d, RGB, layers="all")
    assert d.info.num_layers == 2 and all(v <= 1e-4 for v in tiny.residuals(e).values())
    np.testing.assert_allclose(e.maps().sum((2, 3)), 1, atol=1e-5)
    assert d.info.modes == ("combine",)


def test_half_precision():
    d = attach(u.built(u.FusedPairs).bfloat16(), **u.ATTACHED)
    e = explain(d, RGB)
    assert e.residuals[1] < 3e-2 and np.isfinite(e.maps()).all()


@pytest.mark.filterwarnings("ignore")
def test_compiled_exported_and_traced_networks_are_shown_or_one_line():
    plain = explain(attached(u.FusedPairs), RGB).maps()
    compiled = attach(torch.compile(u.built(u.FusedPairs), backend="eager"), **u.ATTACHED)
    np.testing.assert_allclose(explain(compiled, RGB).maps(), plain, atol=1e-6)
    picture = u.ATTACHED["preprocess"](RGB)
    exported = torch.export.export(u.built(u.OtherNames), (picture,)).module()
    with pytest.raises(UserError, match="model is exported, so it has no attention modules"):
        attach(exported, **u.ATTACHED)

    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = u.built(u.OtherNames)

        def forward(self, x):
            return tuple(self.net(x).values())

    traced = torch.jit.trace(Pair(), torch.rand(1, 3, 96, 128))
    both = {"scores": lambda out: out[0], "boxes": lambda out: out[1]}
    with pytest.raises(UserError, match="no attention was called: the model is exported, scripted"):
        attach(traced, **{**u.ATTACHED, **both})


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network_has_combine_alone():
    """Its projections have no weights that can be read, and its rounding depends on all rows."""
    linear = {torch.nn.Linear}
    network = torch.ao.quantization.quantize_dynamic(u.built(u.OtherNames), linear, torch.qint8)
    e = explain(attach(network, **u.ATTACHED), RGB)
    assert e.modes == ("combine",) and e.residuals[1] <= 1e-4
    np.testing.assert_allclose(e.maps(), explain(attached(u.OtherNames), RGB).maps(), atol=0.05)
