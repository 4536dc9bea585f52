"""What is kept of a live model from explanation to explanation, and the trial picture."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import tiny_models as tiny
import torch

from detr_viz import explain

pytest.importorskip("transformers")
RGB = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)


def counted(model):
    """(list of the sizes of pictures that a model was called with, its hook)."""
    sizes = []

    def note(module, args, kwargs):
        sizes.append(tuple(kwargs["pixel_values"].shape[-2:]))

    return sizes, model.register_forward_pre_hook(note, with_kwargs=True)


def test_a_model_is_tried_once_and_again_when_its_weights_change():
    model = tiny.build("detr")
    sizes, _ = counted(model)
    processor = tiny.Processor()
    explain(model, RGB, processor=processor)
    assert len(sizes) == 2
    sizes.clear()
    before = explain(model, RGB, processor=processor)
    assert len(sizes) == 1
    with torch.no_grad():
        embeddings = next(p for n, p in model.named_parameters() if "query_position_emb" in n)
        kept = embeddings.clone()
        embeddings.data.zero_()  # queries without a position: there is no position to show
    assert before.modes == ("combine", "position", "content")
    without = explain(model, RGB, processor=processor)
    assert without.modes == ("combine",) and len(sizes) == 3
    assert without.model.info.sha256 != before.model.info.sha256
    with torch.no_grad():
        embeddings.copy_(kept)
    again = explain(model, RGB, processor=processor)
    assert again.modes == before.modes and again.model.info.sha256 == before.model.info.sha256
    np.testing.assert_array_equal(again.maps(), before.maps())


def test_a_hook_of_the_caller_s_counts_each_time():
    model = tiny.build("detr")
    processor = tiny.Processor()
    plain = explain(model, RGB, processor=processor)
    layer = model.model.decoder.layers[0]
    handle = layer.register_forward_hook(
        lambda m, a, out: (out[0] * 2, *out[1:]) if isinstance(out, tuple) else out * 2
    )
    hooked = explain(model, RGB, processor=processor)
    handle.remove()
    assert np.abs(hooked.maps() - plain.maps()).max() > 1e-3
    np.testing.assert_array_equal(explain(model, RGB, processor=processor).maps(), plain.maps())


def test_what_is_kept_does_not_keep_the_model():
    model = tiny.build("detr")
    explain(model, RGB, processor=tiny.Processor())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_trial_is_small_where_the_model_takes_it():
    model = tiny.build("rt_detr")
    sizes, _ = counted(model)
    e = explain(model, RGB, processor=tiny.Processor((512, 640)))
    assert sizes == [(256, 320), (512, 640)]
    assert [grid.hw for grid in e.grids()] == [(64, 80), (32, 40), (16, 20)]

    def one_size(module, args, kwargs):
        if kwargs["pixel_values"].shape[-1] != 640:
            raise ValueError("640 alone")

    model.register_forward_pre_hook(one_size, with_kwargs=True)
    sizes.clear()
    with torch.no_grad():
        next(model.parameters()).add_(0.01)  # a new trial
    explain(model, RGB, processor=tiny.Processor((512, 640)))
    assert sizes[-2:] == [(512, 640)] * 2
