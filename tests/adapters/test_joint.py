"""Detection tokens and cells in one sequence: YOLOS, and networks that lay it out otherwise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_models as tiny
import torch
from torch import nn

from detr_viz import attach, cli, explain, heatmaps
from detr_viz.adapters.run import run
from detr_viz.adapters.transformers_models import detector_of
from detr_viz.common.errors import UserError
from detr_viz.explanation import rollout
from detr_viz.explanation.explain_image import SelfCheckError
from detr_viz.explanation.faithfulness import faithfulness

transformers = pytest.importorskip("transformers")
RGB = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)
WHERE = {"cross": (slice(-7, None), slice(1, -7)), "decoder": (slice(-7, None), slice(-7, None))}
WHERE["encoder"] = (slice(1, -7), slice(1, -7))


@pytest.fixture(scope="module")
def detector():
    model = tiny.build("yolos", attn_implementation="eager")
    return detector_of(model, tiny.Processor())


@pytest.fixture(scope="module")
def explained(detector):
    return explain(detector, RGB, layers="all", sites=["encoder", "decoder"])


def theirs(detector):
    """Attentions of all 1 + 48 + 7 tokens as transformers gives them, layer by layer (M, N, N)."""
    with torch.no_grad():
        out = detector.network(**detector.prepare(RGB[None])[0].inputs, output_attentions=True)
    return [each[0] for each in out.attentions]


def test_maps_are_rows_of_detection_tokens_over_patches(detector, explained):
    info = detector.info
    assert (info.num_queries, info.num_layers, info.num_encoder_layers) == (7, 2, 2)
    assert explained.grid_hw == (6, 8) and explained.stride == 16
    assert all(value <= 1e-4 for value in tiny.residuals(explained).values())
    for layer, whole in enumerate(theirs(detector)):
        for kind, (rows, columns) in WHERE.items():
            ours = explained.attention((kind, layer))
            wanted = whole[:, rows, columns].transpose(0, 1).numpy()
            np.testing.assert_allclose(ours, wanted, atol=1e-5)
        on_others = 1 - whole[:, -7:, 1:-7].sum(-1).T.numpy()
        outside = explained.outside(layer=layer)
        np.testing.assert_allclose(outside, on_others, atol=1e-5)
        assert outside.max() > 0.01


def test_another_size_of_the_image_has_another_count_of_cells(detector):
    model = detector.network
    e = explain(model, RGB, processor=tiny.Processor((64, 160)), layers="all")
    assert e.grid_hw == (4, 10) and all(v <= 1e-4 for v in tiny.residuals(e).values())


def test_detections_are_those_of_post_processing(detector, explained):
    processor = transformers.YolosImageProcessor()
    with torch.no_grad():
        out = detector.network(**detector.prepare(RGB[None])[0].inputs)
    theirs = processor.post_process_object_detection(out, threshold=0.0, target_sizes=[(60, 80)])[0]
    assert explained.scores.shape == (7,) and explained.class_scores.shape == (7, 5)
    np.testing.assert_allclose(explained.scores, theirs["scores"].numpy(), atol=1e-6)
    np.testing.assert_allclose(explained.boxes_xyxy_px, theirs["boxes"].numpy(), atol=1e-2)


def test_what_has_no_meaning_is_one_line(detector, explained):
    assert detector.info.modes == ("combine",)
    with pytest.raises(UserError, match=r"YOLOS .*only combine, no 'position': .*adds no position"):
        explained.maps("position")
    with pytest.raises(UserError, match="no rollout of YOLOS: its queries and cells attend in one"):
        rollout.of_queries(explained, [0])
    with pytest.raises(UserError, match="no rollout of YOLOS"):
        rollout.of_cells(explained, [0])
    with pytest.raises(UserError, match="only combine"):
        explained.ablate("content")


def test_output_is_the_same_to_the_last_bit(detector):
    prepared = detector.prepare(RGB[None])[0]
    with torch.no_grad():
        plain = detector.network(**prepared.inputs)
    hooked = run(detector.network, prepared, detector.trial.found).out
    assert torch.equal(plain.logits, hooked.logits)
    assert torch.equal(plain.pred_boxes, hooked.pred_boxes)


def test_a_head_and_cells_are_removed_as_in_the_network_itself(detector, explained):
    """The same by a hook on transformers' eager attention: weights of these rows alone change."""
    layer = detector._roles["cross", 1].site.module

    def changed(edit):
        def hook(module, args, out):
            names = ("query", "key", "value") if hasattr(module, "query") else ("q", "k", "v")
            q, k, value = (
                getattr(module, n if len(n) > 1 else f"{n}_proj")(args[0])
                .unflatten(-1, (4, -1))
                .transpose(1, 2)
                for n in names
            )
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            edit(weights)
            return (weights @ value).transpose(1, 2).flatten(2), *out[1:]

        handle = layer.register_forward_hook(hook)
        with torch.no_grad():
            out = detector.network(**detector.prepare(RGB[None])[0].inputs)
        handle.remove()
        return out.logits.softmax(-1)[0, :, :-1].numpy()

    def without_head(weights):
        weights[:, 1, -7:] = 0

    after = explained.ablate("head:1", layers=[1]).after.class_scores
    np.testing.assert_allclose(after, changed(without_head), atol=1e-5)
    assert np.abs(after - explained.class_scores).max() > 1e-4

    def without_cells(weights):
        weights[:, :, -5, 1:20] = 0
        weights /= weights.sum(-1, keepdim=True)

    hidden = torch.zeros(1, 7, 48, dtype=torch.bool)
    hidden[0, 2, :19] = True
    ours = detector.scores_with_hidden(explained.memory, hidden, [1])[0].numpy()
    np.testing.assert_allclose(ours, changed(without_cells), atol=1e-5)
    curves = faithfulness(explained, [2], orders=1)
    assert np.isfinite(curves.deletion["combine"]).all()


def test_values_of_another_image_fail_the_self_check(detector, monkeypatch):
    from detr_viz.adapters import probes, read

    def wrong(call, image, grids, position):
        attention = read.checked(call, image)[0]
        return replace(attention, value=attention.value.flip(-2), grids=grids)

    monkeypatch.setattr(probes, "read", wrong)
    with pytest.raises(SelfCheckError, match="self-check failed in decoder layer 1"):
        explain(detector, RGB)


def test_the_command_with_a_folder(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    tiny.build("yolos").save_pretrained("m")
    size = {"shortest_edge": 96, "longest_edge": 160}
    transformers.YolosImageProcessor(size=size).save_pretrained("m")
    Image.fromarray(RGB).save("a.png")
    argv = ["--weights", "m", "--image", "a.png", "--queries", "top:2", "--quiet"]
    assert cli.main([*argv, "--save-maps", "--out", "x/"]) == 0
    (path,) = tmp_path.glob("x/*.npz")
    maps = heatmaps.load(path)
    assert maps.kind == "joint"
    whole = maps.maps["combine"].sum((-2, -1)) + maps.outside["combine"]
    np.testing.assert_allclose(whole, 1, atol=1e-5)
    for flag in ("encoder", "decoder"):
        assert cli.main([*argv, "--attention", flag, "--out", f"{flag}/"]) == 0
    assert cli.main([*argv, "--ablate", "head:1", "--out", "h.png"]) == 0
    assert cli.main([*argv, "--rollout", "--out", "r.png"]) == 2
    record = ["record", "--weights", "m", "--image", "a.png", "--out", "base"]
    assert cli.main(record) == 0 and cli.main(["check", "base"]) == 0


# ---- other orders -------------------------------------------------------------------------------


class Sequence(nn.Module):
    """A class token or more, queries and patches in any order, with torch's own attention."""

    def __init__(self, order, others):
        super().__init__()
        self.order = order
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.tokens = nn.ParameterDict(
            {
                "queries": nn.Parameter(torch.randn(5, 32)),
                "others": nn.Parameter(torch.randn(others, 32)),
            }
        )
        self.layers = nn.ModuleList(nn.MultiheadAttention(32, 4, batch_first=True) for _ in "ab")
        self.box, self.what = nn.Linear(32, 4), nn.Linear(32, 3)

    def forward(self, picture):
        cells = self.patches(picture).flatten(2).mT[0]
        parts = {"cells": cells, **self.tokens}
        x = torch.cat([parts[name] for name in self.order])[None]
        for layer in self.layers:
            x = x + layer(x, x, x, need_weights=False)[0]
        start = sum(len(parts[n]) for n in self.order[: self.order.index("queries")])
        x = x[:, start : start + 5]
        return {"box": self.box(x).sigmoid(), "what": self.what(x).sigmoid()}


@pytest.mark.parametrize("others", [0, 1, 4])
@pytest.mark.parametrize("order", ["ocq", "qoc", "oqc", "cqo"])
def test_the_order_of_tokens_is_found(order, others):
    names = {"o": "others", "c": "cells", "q": "queries"}
    torch.manual_seed(3)
    network = Sequence([names[c] for c in order], others).eval()
    d = attach(
        network,
        boxes=lambda out: out["box"],
        scores=lambda out: out["what"],
        preprocess=lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255,
    )
    e = explain(d, np.resize(RGB, (64, 96, 3)), layers="all")
    assert e.grid_hw == (4, 6) and d.info.num_queries == 5
    picture = torch.from_numpy(np.resize(RGB, (64, 96, 3))).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        cells = network.patches(picture).flatten(2).mT[0]
        parts = {"cells": cells, **network.tokens}
        x = torch.cat([parts[name] for name in network.order])[None]
        own = network.layers[0]
        q, k = _projected(own, x[0])
        weights = (q @ k.mT / math.sqrt(8)).softmax(-1)
    where = torch.cat([torch.full((len(parts[n]),), "ocq".index(n[0])) for n in network.order])
    wanted = weights[:, where == 2][:, :, where == 1].transpose(0, 1).reshape(5, 4, 4, 6)
    np.testing.assert_allclose(e.maps(layer=0), wanted.numpy(), atol=1e-5)


def _projected(own, x):
    pairs = zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True)
    return [(x @ w.T + b).unflatten(-1, (4, 8)).transpose(0, 1) for w, b in pairs][:2]
