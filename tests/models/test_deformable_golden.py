"""Deformable DETR against arrays made by the authors' own code (tests/golden/family/README.md)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from golden_family import LAST, GoldenRun, cases, official
from network_tools import DEFORMABLE, as_detector, family_inputs, filled_deformable

from detr_viz import models
from detr_viz.attention.terms import MODES
from detr_viz.detections.boxes import cxcywh_to_xyxy, to_pixels
from detr_viz.explanation.capture import record


@lru_cache(maxsize=1)
def network(name: str, dtype: torch.dtype) -> torch.nn.Module:
    return official("deformable_detr", filled_deformable(name), dtype)


class Run(GoldenRun):
    """One forward pass of a case, its calls, the golden arrays and the tolerances of a dtype."""

    def __init__(self, name: str, case: str, dtype: torch.dtype) -> None:
        super().__init__(name, case, dtype)
        net = network(name, dtype)
        tensor, mask = family_inputs(case)
        sites = as_detector(net, "deformable_detr").attention_sites()
        with torch.inference_mode(), record(sites, sites) as self.calls:
            self.out = net(tensor.to(dtype), mask, aux=True)
        self.queries = torch.from_numpy(self.gold["queries"]).long()
        self.rows = [self.queries] * len(tensor)
        self.all_rows = [torch.arange(300)] * len(tensor)
        if "topk.index" in self.gold:  # float32 may swap queries of nearly equal scores
            own, gold = self.out["encoded"].proposals, torch.from_numpy(self.gold["topk.index"])
            place = [{int(t): i for i, t in enumerate(tokens)} for tokens in own]
            self.all_rows = [torch.tensor([place[b][int(t)] for t in gold[b]]) for b in self.images]
            self.rows = [rows[self.queries] for rows in self.all_rows]

    def of_queries(self, x: torch.Tensor, count: int | None = None) -> np.ndarray:
        """Rows of the golden queries of (B, Q, ...)."""
        return np.stack([x[i][self.rows[i][:count]].numpy() for i in self.images])


@lru_cache(maxsize=1)
def run(name: str, case: str, dtype: torch.dtype) -> Run:
    return Run(name, case, dtype)


# scope: all tests of a case in turn, so that it runs once
@pytest.mark.parametrize(("name", "case", "dtype"), cases(256, DEFORMABLE), scope="module")
class TestAgainstTheAuthors:
    def test_detections(self, name, case, dtype):
        r = run(name, case, dtype)
        for array in ("pred_logits", "pred_boxes"):
            got = np.stack([r.out[array][i][r.all_rows[i]].numpy() for i in r.images])
            r.close(got, array, r.tolerance(array))
        shapes, ratios = r.out["encoded"].shapes, r.out["encoded"].ratios
        assert np.array(shapes).tolist() == r.gold["spatial_shapes"].tolist()
        r.close(ratios.expand(len(r.images), -1, -1), "valid_ratios", 1e-7)

    def test_hidden_states(self, name, case, dtype):
        r = run(name, case, dtype)
        tolerance = r.tolerance("pred_logits")
        across = r.calls["cross", LAST].args[0]
        r.close(r.of_queries(across.content), "dbg.tgt_norm2", tolerance)
        position = across.position.expand(len(r.images), -1, -1)
        r.close(r.of_queries(position), "dbg.qpos", tolerance)
        tokens = r.gold["enc.tokens"]
        valid = r.valid(tokens)
        r.close(across.memory[:, tokens], "dbg.memory", tolerance, valid)

    def test_reference_points(self, name, case, dtype):
        r = run(name, case, dtype)
        tolerance = r.tolerance("pred_boxes")
        for array, layer in (("reference.init", 0), ("reference.last_layer", LAST)):
            got = (r.out["references"] or [r.out["encoded"].reference] * 6)[layer]
            got = got.expand(len(r.images), -1, -1)
            got = np.stack([got[i][r.all_rows[i]].numpy() for i in r.images])
            r.close(got, array, tolerance)
        entering = r.calls["cross", LAST].args[0].reference.expand(len(r.images), -1, -1, -1)
        r.close(r.of_queries(entering), "reference_input", tolerance)

    @pytest.mark.parametrize("mode", MODES)
    def test_samples_of_the_last_layer(self, name, case, dtype, mode):
        """Places, weights, logits and offsets, and what was sampled with them."""
        r = run(name, case, dtype)
        found = {"loc": [], "attn": [], "logit": [], "offset": [], "sampled": []}
        for i in r.images:
            a, rows = r.attention("cross", LAST, i), r.rows[i].tolist()
            xy, weight = a.samples(mode, rows)
            found["loc"].append(xy)
            found["attn"].append(weight)
            parts = [name for name in a.term_names if mode == "combine" or name in (mode, "bias")]
            logits = sum(a.term_logits(name, rows) for name in parts)
            found["logit"].append(logits.transpose(0, 1))
            offsets = a.b_offsets + sum(getattr(a, f"{p[0]}_offsets") for p in parts[:-1])
            found["offset"].append(offsets[:, rows].transpose(0, 1))
            context = a.weights(mode, rows) @ a.value
            found["sampled"].append(context.transpose(0, 1).flatten(1))
        for array, got in found.items():
            own = f"{array}.{mode}" if array in ("loc", "attn") else "pred_logits"
            r.close(torch.stack(got), f"{array}.{mode}", r.tolerance(own))

    @pytest.mark.parametrize("mode", MODES)
    def test_splats_and_what_is_lost(self, name, case, dtype, mode):
        r = run(name, case, dtype)
        # a place that is off by e moves e * cells of a weight at most 1 from cell to cell
        tolerance = r.tolerance(f"attn.{mode}") + r.tolerance(f"loc.{mode}", 2 * 48)
        splats, outside, padded = [], [], []
        shapes = r.out["encoded"].shapes
        for i in r.images:
            a, rows = r.attention("cross", LAST, i), r.rows[i].tolist()
            flat = a.weights(mode, rows[:2]).transpose(0, 1)
            splats.append(flat.split([h * w for h, w in shapes], -1))
            outside.append(a.outside(mode, rows).transpose(0, 1))
            padded.append(a.padded(mode, rows).T)
        for level, hw in enumerate(shapes):
            got = torch.stack([parts[level].unflatten(-1, hw) for parts in splats])
            r.close(got, f"splat.{mode}.l{level}", tolerance)
        r.close(torch.stack(outside), f"outside.{mode}", tolerance)
        r.close(torch.stack(padded), f"padded.{mode}", tolerance)

    def test_all_layers(self, name, case, dtype):
        r = run(name, case, dtype)
        for layer in range(LAST + 1):
            both = [
                r.attention("cross", layer, i).samples("combine", r.rows[i][:2].tolist())
                for i in r.images
            ]
            for array, own, k in (("layers.loc", "loc", 0), ("layers.attn", "attn", 1)):
                got = np.stack([pair[k].numpy() for pair in both])
                gold = r.gold[array][layer]
                assert np.abs(got - gold).max() <= r.tolerance(f"{own}.combine")

    def test_encoder_and_self_attention(self, name, case, dtype):
        r = run(name, case, dtype)
        tokens = r.gold["enc.tokens"]
        valid = r.valid(tokens)
        for array, layer in (("enc.first", 0), ("enc.last", LAST)):
            both = [
                r.attention("encoder", layer, i).samples("combine", tokens.tolist())
                for i in r.images
            ]
            for k, own in enumerate(("loc", "attn")):
                got = torch.stack([pair[k] for pair in both])
                r.close(got, f"{array}.{own}", r.tolerance(f"{own}.combine"), valid)
        got = []
        for i in r.images:
            weights = r.attention("decoder", LAST, i).weights("combine", r.rows[i][:2].tolist())
            got.append(weights[..., r.all_rows[i]])
        r.close(torch.stack(got), "selfattn.last", r.tolerance("attn.combine"))

    def test_proposals(self, name, case, dtype):
        r = run(name, case, dtype)
        encoded = r.out["encoded"]
        if name != "deformable_twostage":
            assert encoded.proposals is None and encoded.scores is None
            return
        tolerance = 2e-5 if r.exact else 3 * float(r.gold["enc_class0_err32"])
        for i in r.images:
            chosen = encoded.proposals[i][r.all_rows[i]]
            assert chosen.tolist() == r.gold["topk.index"][i].tolist()
            if r.exact:
                assert encoded.proposals[i].tolist() == r.gold["topk.index"][i].tolist()
            scores = encoded.scores[i]
            assert np.abs(scores[chosen].numpy() - r.gold["topk.score"][i]).max() <= tolerance
            assert np.abs(scores.numpy() - r.gold["topk.all_scores"][i]).max() <= tolerance

    def test_proposals_of_an_explanation(self, name, case, dtype):
        """The same as plain values of each image."""
        r = run(name, case, dtype)
        forwarded = as_detector(network(name, dtype), "deformable_detr")._forwarded(r.out)
        if name != "deformable_twostage":
            assert forwarded.proposed is None
            return
        tolerance = 2e-5 if r.exact else 3 * float(r.gold["enc_class0_err32"]) / 4
        for i in r.images:
            found = forwarded.proposed.of_image(i).values("", forwarded.grids, (100, 100))
            assert found.tokens[r.all_rows[i]].tolist() == r.gold["topk.index"][i].tolist()
            scores = np.concatenate([level.ravel() for level in found.scores])
            gold = 1 / (1 + np.exp(-r.gold["topk.all_scores"][i].astype(np.float64)))
            assert np.abs(scores - gold).max() <= tolerance  # sigmoid's slope is at most 1/4
            invalid = np.concatenate([level.ravel() for level in found.invalid])
            np.testing.assert_array_equal(invalid, r.gold["topk.invalid_tokens"][i])
            ends = np.cumsum([0, *(int(h) * int(w) for h, w in r.gold["spatial_shapes"])])
            assert found.counts() == np.histogram(r.gold["topk.index"][i], ends)[0].tolist()

    def test_official_post_processing(self, name, case, dtype):
        r = run(name, case, dtype)
        if case != "A256":
            return
        spec = models.get("deformable_detr")
        scores = spec.class_probabilities(r.out["pred_logits"])[0].flatten()
        top = scores.topk(100).indices
        tolerance = (
            2e-5 if r.exact else 3 * float(r.gold["err32.pred_logits"]) / 4
        )  # sigmoid's slope
        assert np.abs(scores[top].numpy() - r.gold["post.scores"]).max() <= tolerance
        boxes = to_pixels(cxcywh_to_xyxy(r.out["pred_boxes"][0].float().numpy()), (480, 640))
        known = {}
        for score, label, box in zip(
            *(r.gold[f"post.{x}"] for x in ("scores", "labels", "boxes")), strict=True
        ):
            known.setdefault(int(label), []).append((score, box))
        for flat in top[:50].tolist():  # nearly equal scores may change places
            query, label = divmod(flat, 91)
            error = min(np.abs(boxes[query] - box).max() for _, box in known[label])
            assert error <= 640 * r.tolerance("pred_boxes") + 1e-3

    def test_self_check(self, name, case, dtype):
        """Every site gives back what it put out; a constant self-attention cannot be tested."""
        r = run(name, case, dtype)
        for site, call in r.calls.items():
            for i in r.images:
                assert call.of_image(i, ()).residual < (1e-10 if r.exact else 1e-5), site
