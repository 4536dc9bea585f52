"""Hooks record what was asked for, and are gone afterwards whatever happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import demo_model
from network_tools import DENSE, hooks, of_batch, tiny

from detr_viz import explain, models
from detr_viz.attention import dense
from detr_viz.explanation.capture import record


@pytest.mark.parametrize("name", DENSE)
def test_records_the_named_sites_only(name):
    model = tiny(name)
    image = torch.rand(1, 3, 40, 56)
    plain = model.network(image)
    with record(model.attention_sites(), [("cross", 1), ("encoder", 0)]) as calls:
        hooked = model.network(image)
    assert set(calls) == {("cross", 1), ("encoder", 0)}
    assert torch.equal(plain["pred_logits"], hooked["pred_logits"])
    weights = dense.weights(of_batch(calls["cross", 1]))
    assert weights.shape == (1, 2, 4, 5 * 7)
    assert calls["cross", 1].residual < 1e-4
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception():
    model = tiny("detr")
    with pytest.raises(RuntimeError), record(model.attention_sites(), model.attention_sites()):
        assert hooks(model) == 5
        model.network(torch.rand(1, 5, 40, 56))  # five channels
    assert hooks(model) == 0


def test_an_unknown_site_names_those_there_are_and_leaves_no_hook():
    model = tiny("detr")
    with (
        pytest.raises(KeyError, match="cross"),
        record(model.attention_sites(), [("cross", 0), ("cross", 9)]),
    ):
        pass
    assert hooks(model) == 0


@pytest.mark.parametrize("name", DENSE)
def test_padding_changes_nothing_that_is_not_padded(name):
    """A mask that marks nothing is no mask, and padded cells get weight exactly 0."""
    model = tiny(name)
    image = torch.rand(1, 3, 40, 56)
    empty = torch.zeros(1, 40, 56, dtype=torch.bool)
    assert torch.equal(
        model.network(image)["pred_boxes"], model.network(image, empty)["pred_boxes"]
    )
    padding = empty.clone()
    padding[:, :, 40:] = True
    with record(model.attention_sites(), [("cross", 1)]) as calls:
        model.network(image, padding)
    maps = dense.weights(of_batch(calls["cross", 1])).unflatten(-1, (5, 7))
    assert (maps[..., 5:] == 0).all() and (maps[..., :5] > 0).all()


@pytest.mark.parametrize("name", models.names())
def test_auxiliary_outputs_are_those_of_the_earlier_layers(name):
    """Cutting the decoder after layer 0 gives aux_outputs[0]."""
    model = tiny(name)
    image = torch.rand(1, 3, 40, 56)
    full = model.network(image, aux=True)
    assert len(full["aux_outputs"]) == 1
    inner = getattr(model.network, "transformer", None) or model.network.head
    if hasattr(inner, "head_series"):  # stages
        inner.head_series = inner.head_series[:1]
    elif hasattr(inner, "decoder_layers"):  # as Anchor DETR's authors name them
        inner.decoder_layers = inner.decoder_layers[:1]
    else:
        inner.decoder.layers = inner.decoder.layers[:1]
    cut = model.network(image)
    torch.testing.assert_close(full["aux_outputs"][0]["pred_boxes"], cut["pred_boxes"])
    torch.testing.assert_close(full["aux_outputs"][0]["pred_logits"], cut["pred_logits"])


def test_the_last_call_is_kept():
    model = tiny("detr")
    with record(model.attention_sites(), [("cross", 1)]) as calls:
        model.network(torch.rand(1, 3, 40, 56))
        model.network(torch.rand(1, 3, 24, 32))
    assert of_batch(calls["cross", 1]).c_k.shape[2] == 3 * 4


def test_a_self_check_keeps_no_attention_and_reads_none_that_is_there():
    model, reads = tiny("detr"), []
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    sites = model.attention_sites()
    site = sites["cross", 0]

    def counted(*args):
        reads.append(args)
        return site.read(*args)

    with record({("cross", 0): replace(site, read=counted)}, [("cross", 0)]) as calls:
        explain(model, image)
    call = calls["cross", 0]
    assert call.residual < 1e-4 and call.residual < 1e-4 and len(reads) == 1
    assert "attention" not in vars(call)
    assert call.attention is call.attention and len(reads) == 2
    other = replace(call)
    assert other.attention is not None and other.residual == call.residual and len(reads) == 3


def test_threads_keep_their_own_calls():
    """Each of four threads explains images of its own with one network, ablations between them."""
    from concurrent.futures import ThreadPoolExecutor

    model = demo_model("detr")
    images = [np.random.default_rng(k).integers(0, 255, (64, 80, 3), np.uint8) for k in range(4)]
    alone = [explain(model, image, sites=["encoder"]) for image in images]
    expected = [(e.maps(), e.attention(("encoder", 1), rows=[5])) for e in alone]

    def run(k: int) -> None:
        for _ in range(6):
            e = explain(model, images[k], sites=["encoder"])
            np.testing.assert_array_equal(e.maps(), expected[k][0])
            np.testing.assert_array_equal(e.attention(("encoder", 1), rows=[5]), expected[k][1])
            e.ablate("head:1")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
