"""The two networks against arrays made by the authors' own code (tests/golden/README.md)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import filled_state_dict, golden_arrays
from golden.fillrule import image, preprocess
from network_tools import as_detector, of_batch

from detr_viz import models
from detr_viz.attention import dense
from detr_viz.attention.terms import Mode
from detr_viz.explanation.capture import record
from detr_viz.images.read import load_image
from detr_viz.images.resize import to_tensor

TYPES = {"detr_r50": "detr", "detr_r50_dc5": "detr", "cond_r50": "cd_detr"}
CASES = {
    "detr_r50": ("A256", "B256", "P256", "batch256", "A800"),
    "detr_r50_dc5": ("A256", "batch256", "A800"),
    "cond_r50": ("A256", "B256", "P256", "batch256", "A800"),
}
SMALLEST = ("detr_r50_dc5", "A800")  # stores combine of one query only
SOURCES = {"A": (480, 640, 1), "B": (427, 640, 2), "P": (640, 427, 3)}
VARIANTS = {  # array -> mode, scale
    "combine": ("combine", "mode"),
    "position": ("position", "mode"),
    "content": ("content", "mode"),
    "position_s64": ("position", "layer"),
    "content_s64": ("content", "layer"),
    "fullq_pos": (Mode("cpb", "p", ""), "layer"),
    "fullq_content": (Mode("cpb", "c", ""), "layer"),
}
LOGITS, MAPS = 0, 1
TOLERANCES = {  # (logits, maps), as measured between the authors' float32 and float64 runs
    ("detr", torch.float64): (2e-5, 2e-5),
    ("cd_detr", torch.float64): (2e-5, 2e-5),
    ("detr", torch.float32): (1e-3, 1e-4),
    ("cd_detr", torch.float32): (2e-3, 3e-4),
}


def cases(always: set[tuple[str, str]]) -> list:
    """Every (model, case, dtype); those not in `always` are marked slow."""
    out = []
    for name, listed in CASES.items():
        for case in listed:
            for dtype in (torch.float64, torch.float32):
                marks = () if (name, case) in always else (pytest.mark.slow,)
                label = f"{name}-{case}-{str(dtype).removeprefix('torch.')}"
                out.append(pytest.param(name, case, dtype, id=label, marks=marks))
    return out


@lru_cache(maxsize=1)
def network(name: str, dtype: torch.dtype) -> torch.nn.Module:
    spec = models.get(TYPES[name])
    state_dict = filled_state_dict(name)
    config = spec.read_config(state_dict, 8, name.endswith("dc5"))
    net = spec.build(config)
    net.load_state_dict(state_dict, strict=True)
    net = net.to(dtype).eval().requires_grad_(False)
    net.fold_batch_norm()
    return net


def inputs(case: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    if case == "batch256":
        tensors = [preprocess(image(*SOURCES[c]), 256) for c in "AP"]
        height, width = (max(t.shape[i] for t in tensors) for i in (1, 2))
        batch = np.zeros((2, 3, height, width), np.float32)
        mask = np.ones((2, height, width), bool)
        for i, t in enumerate(tensors):
            batch[i, :, : t.shape[1], : t.shape[2]] = t
            mask[i, : t.shape[1], : t.shape[2]] = False
        return torch.from_numpy(batch), torch.from_numpy(mask)
    tensor = to_tensor(load_image(image(*SOURCES[case[0]])), int(case[1:]), 1333)
    return tensor, None


@lru_cache(maxsize=1)
def run(name: str, case: str, dtype: torch.dtype):
    net = network(name, dtype)
    tensor, mask = inputs(case)
    with (
        torch.inference_mode(),
        record(as_detector(net, TYPES[name]).attention_sites(), net.attention_sites()) as calls,
    ):
        outputs = net(tensor.to(dtype), mask)
    prefix = f"{case}."
    arrays = {
        key.removeprefix(prefix): value
        for key, value in golden_arrays(name).items()
        if key.startswith(prefix)
    }
    return outputs, calls, arrays, TOLERANCES[TYPES[name], dtype]


def close(actual, expected, tolerance: float) -> None:
    actual = np.asarray(actual, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance


ALWAYS = {("detr_r50", "A256"), ("cond_r50", "A256"), ("cond_r50", "batch256")}


# scope: all tests of a case in turn, so that it runs once
@pytest.mark.parametrize(("name", "case", "dtype"), cases(ALWAYS), scope="module")
class TestAgainstTheAuthors:
    def test_detections(self, name, case, dtype):
        outputs, _, gold, tolerance = run(name, case, dtype)
        assert outputs["memory_hw"] == (gold["h"], gold["w"])
        logits = outputs["pred_logits"].numpy()
        if "pred_logits" in gold:
            close(logits, gold["pred_logits"], tolerance[LOGITS])
        else:
            close(logits[:, gold["queries"]], gold["pred_logits_q"], tolerance[LOGITS])
        close(outputs["pred_boxes"], gold["pred_boxes"], tolerance[LOGITS])

    def test_maps_of_the_last_layer(self, name, case, dtype):
        outputs, calls, gold, tolerance = run(name, case, dtype)
        terms = of_batch(calls["cross", 5])
        seen = 0
        for array, (mode, scale) in VARIANTS.items():
            expected = gold.get(f"map.{array}")
            if expected is None:
                continue
            queries = gold["queries"][: expected.shape[2]]
            maps = dense.weights(terms, mode, scale=scale, queries=queries)
            maps = maps.unflatten(-1, outputs["memory_hw"]).numpy()
            close(maps, expected, tolerance[MAPS])
            valid = maps.sum((-1, -2))
            np.testing.assert_allclose(valid, 1, atol=1e-5)
            seen += 1
        assert seen >= (1 if (name, case) == SMALLEST else 3)

    def test_maps_of_all_queries(self, name, case, dtype):
        """Statistics over all queries: deviation, maximum and its place, entropy."""
        _, calls, gold, tolerance = run(name, case, dtype)
        for array, (mode, scale) in VARIANTS.items():
            if f"sum.{array}.max" not in gold:
                continue
            terms = of_batch(calls["cross", 5])
            maps = dense.weights(terms, mode, scale=scale).double().numpy()
            close(maps.std((-1, -2)), gold[f"sum.{array}.std"], tolerance[MAPS])
            close(maps.max((-1, -2)), gold[f"sum.{array}.max"], tolerance[MAPS])
            place = gold[f"sum.{array}.argmax"].astype(int)[..., None]
            there = np.take_along_axis(maps, place, -1)[..., 0]
            close(there, maps.max(-1), tolerance[MAPS])
            entropy = -np.where(maps > 0, maps * np.log(np.maximum(maps, 1e-300)), 0).sum(-1)
            close(entropy.mean(-1), gold[f"sum.{array}.entropy"], 100 * tolerance[MAPS])
        for kind, stored in (("cross", "dcross"), ("decoder", "dself"), ("encoder", "enc")):
            for layer in range(6):
                if f"sum.{stored}.max" not in gold:
                    continue
                maps = dense.weights(of_batch(calls[kind, layer])).double().numpy()
                close(maps.std((-1, -2)), gold[f"sum.{stored}.std"][layer], tolerance[MAPS])
                close(maps.max((-1, -2)), gold[f"sum.{stored}.max"][layer], tolerance[MAPS])

    def test_terms_add_up(self, name, case, dtype):
        _, calls, gold, tolerance = run(name, case, dtype)
        if (name, case) == SMALLEST:
            return
        terms = of_batch(calls["cross", 5])
        query = gold["queries"][:1]
        close(dense.logits(terms, queries=query), gold["logit.combine"], tolerance[LOGITS])
        letters = {"content": "c", "position": "p", "bias": "b"}
        four = dense.four_terms(terms, query)
        close(sum(four.values()), gold["logit.combine"], tolerance[LOGITS])
        if "term4.cc" in gold:
            for (q, k), part in four.items():
                close(part, gold[f"term4.{letters[q]}{letters[k]}"], tolerance[LOGITS])
        if "term2.content" in gold:  # Conditional DETR: the cross terms are exactly zero
            close(four["content", "content"], gold["term2.content"], tolerance[LOGITS])
            close(four["position", "position"], gold["term2.position"], tolerance[LOGITS])
            assert not four["content", "position"].any() and not four["position", "content"].any()
        if "term9.cc" in gold:
            for (q, k), part in dense.nine_terms(terms, query).items():
                expected = gold[f"term9.{letters[q]}{letters[k]}"]
                close(part[:, :, 0], expected, tolerance[LOGITS])

    def test_attention_of_all_layers(self, name, case, dtype):
        _, calls, gold, tolerance = run(name, case, dtype)
        if (name, case) == SMALLEST:
            return
        queries = gold["queries"][: gold["dcross"].shape[3]]
        for layer in range(6):
            maps = dense.weights(of_batch(calls["cross", layer]), queries=queries)
            close(maps, gold["dcross"][layer], tolerance[MAPS])
        cells = gold["positions"]
        cells = cells if gold["enc"].shape[3] == len(cells) else cells[1:2]
        for i, layer in enumerate(gold["self_layers"]):
            rows = dense.weights(of_batch(calls["decoder", layer]), queries=gold["queries"][:1])
            close(rows, gold["dself"][i], tolerance[MAPS])
            rows = dense.weights(of_batch(calls["encoder", layer]), queries=cells)
            close(rows, gold["enc"][i], tolerance[MAPS])

    def test_self_check(self, name, case, dtype):
        """Every site gives back what it put out; the constant self-attention cannot be tested."""
        _, calls, _, _ = run(name, case, dtype)
        for site, call in calls.items():
            for i in range(len(call.out)):
                residual = call.of_image(i, ()).residual
                assert np.isnan(residual) if site == ("decoder", 0) else residual < 1e-5, site


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "queries", "stride"),
    [("detr_r101", 100, 32), ("detr_r50_q300", 300, 32), ("cond_r50_dc5", 300, 16)],
)
def test_other_full_size_models_load_strictly_and_run(name, queries, stride):
    spec = models.get("cd_detr" if name.startswith("cond") else "detr")
    state_dict = filled_state_dict(name)
    assert spec.matches(state_dict.keys())
    net = spec.build(spec.read_config(state_dict, 8, name.endswith("dc5"))).eval()
    net.load_state_dict(state_dict, strict=True)
    tensor, _ = inputs("A256")
    with torch.inference_mode():
        outputs = net(tensor)
    height, width = tensor.shape[-2:]
    assert outputs["memory_hw"] == (-(-height // stride), -(-width // stride))
    assert outputs["pred_boxes"].shape == (1, queries, 4)
    assert outputs["pred_logits"].isfinite().all()
