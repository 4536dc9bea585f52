"""Salience DETR against arrays made by the authors' own code (tests/golden/family/README.md).

In float64 the network makes every choice itself. In float32 the tokens for the encoder and the
proposals are those of the authors' float64 run, as their own float32 run was measured.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from golden.fillrule import image, preprocess
from network_tools import as_detector, filled_salience

from detr_viz import models
from detr_viz.explanation.capture import record
from detr_viz.models.salience_detr import Choices

SOURCES = {"A": (480, 640, 1), "P": (640, 427, 3)}
LAST = 5
COUNTERS = ".num_batches_tracked"


@lru_cache(maxsize=1)
def network(dtype: torch.dtype) -> torch.nn.Module:
    spec = models.get("salience_detr")
    official = {k: v for k, v in filled_salience().items() if not k.endswith(COUNTERS)}
    assert spec.matches(official)
    state_dict, notes = spec.own_tensors(official)
    assert len(notes) == 2
    net = spec.build(spec.read_config(state_dict, 8, False))
    net.load_state_dict(state_dict, strict=True)
    net = net.to(dtype).eval().requires_grad_(False)
    net.fold_batch_norm()
    return net


def inputs(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A352, or A and P padded together; to multiples of 32."""
    tensors = [preprocess(image(*SOURCES[c]), 352) for c in ("A" if case == "A352" else "AP")]
    height, width = (-(-max(t.shape[i] for t in tensors) // 32) * 32 for i in (1, 2))
    batch = np.zeros((len(tensors), 3, height, width), np.float32)
    mask = np.ones((len(tensors), height, width), bool)
    for i, t in enumerate(tensors):
        batch[i, :, : t.shape[1], : t.shape[2]] = t
        mask[i, : t.shape[1], : t.shape[2]] = False
    return torch.from_numpy(batch), torch.from_numpy(mask)


class Run:
    """One forward pass of a case, its calls, the golden arrays and the tolerances of a dtype."""

    def __init__(self, case: str, dtype: torch.dtype) -> None:
        net = network(dtype)
        self.net = net
        tensor, mask = inputs(case)
        with np.load(GOLDEN / "family" / f"salience_{case}.npz") as archive:
            self.gold = dict(archive)
        self.exact = dtype == torch.float64
        chosen = [
            torch.from_numpy(self.gold[k].astype(np.int64)) for k in ("selected_inds", "topk_index")
        ]
        sites = as_detector(net, "salience_detr").attention_sites()
        with torch.inference_mode(), record(sites, sites) as self.calls:
            self.out = net(
                tensor.to(dtype),
                mask,
                aux=True,
                choices=Choices() if self.exact else Choices(*chosen),
            )
        self.encoded = self.out["encoded"]
        self.queries = torch.from_numpy(self.gold["queries"]).long()
        self.images = range(len(tensor))
        self.shapes = self.encoded.shapes
        self.input = tensor, mask

    def tolerance(self, array: str, factor: float = 1.0) -> float:
        """float64 2e-5; float32 three times the authors' own error, times how it is magnified."""
        return 2e-5 if self.exact else 3 * float(self.gold[f"err32.{array}"]) * factor

    def valid(self, tokens) -> np.ndarray:
        """(B, tokens): those of the image; padded ones can only be compared in float64."""
        padding = self.encoded.padding
        if padding is None or self.exact:
            return np.ones((len(self.images), len(tokens)), bool)
        return ~padding[:, tokens].numpy()

    def attention(self, kind: str, layer: int, i: int):
        return self.calls[kind, layer].of_image(i, ()).attention

    def close(self, actual, expected: str, tolerance: float, valid=None) -> None:
        actual, gold = np.asarray(actual, np.float64), self.gold[expected]
        assert actual.shape == gold.shape, expected
        difference = np.abs(actual - gold)
        if valid is not None:
            difference = difference[valid]
        assert difference.size and difference.max() <= tolerance, (expected, difference.max())


@lru_cache(maxsize=1)
def run(case: str, dtype: torch.dtype) -> Run:
    return Run(case, dtype)


def cases() -> list:
    out = []
    for case in ("A352", "batch352"):
        for dtype in (torch.float32, torch.float64):
            quick = case == "A352" and dtype == torch.float32
            label = f"{case}-{str(dtype).removeprefix('torch.')}"
            marks = () if quick else (pytest.mark.slow,)
            out.append(pytest.param(case, dtype, id=label, marks=marks))
    return out


def test_weights_are_those_of_the_authors_run():
    """crc32 of every filled tensor; the constants, which are not filled, are checked by value."""
    state_dict = filled_salience()
    lines = (GOLDEN / "family" / "keys_salience.txt").read_text().splitlines()
    assert len(lines) == len(state_dict) == 1025
    for key, _, crc in map(str.split, lines):
        if crc != "kept":
            assert f"{zlib.crc32(state_dict[key].numpy().tobytes()):08x}" == crc, key


# scope: all tests of a case in turn, so that it runs once
@pytest.mark.parametrize(("case", "dtype"), cases(), scope="module")
class TestAgainstTheAuthors:
    def test_input(self, case, dtype):
        r = run(case, dtype)
        assert r.gold["spatial_shapes"].tolist() == np.array(r.shapes).tolist()
        ratios = r.encoded.ratios.expand(len(r.images), -1, -1)
        r.close(ratios, "valid_ratios", 1e-7)
        valid = (ratios.flip(-1) * torch.tensor(r.shapes)).round().int()
        assert valid.tolist() == r.gold["valid_hw"].tolist()
        assert [[*t.shape[1:]] for t in map(torch.tensor, unpadded(r.input))] == r.gold[
            "input_hw"
        ].tolist()

    def test_detections(self, case, dtype):
        r = run(case, dtype)
        logits = r.out["pred_logits"]
        tolerance = r.tolerance("pred_logits")
        r.close(logits[:, ::6], "pred_logits_every6", tolerance)
        r.close(r.out["pred_boxes"], "pred_boxes", r.tolerance("pred_boxes"))
        r.close(logits.amax(-1), "pred_max", tolerance)
        labels = torch.from_numpy(r.gold["pred_label"]).long()[..., None]
        own = logits.gather(-1, labels)[..., 0]  # the label, or one as good
        r.close(own, "pred_max", tolerance)
