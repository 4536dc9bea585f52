"""Anchor DETR against arrays made by the authors' own code (tests/golden/family/README.md)."""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import pytest
import torch
from golden_family import LAST, GoldenRun, cases, official
from network_tools import as_detector, family_inputs, filled

from detr_viz import models
from detr_viz.attention.terms import MODES
from detr_viz.detections.boxes import cxcywh_to_xyxy, to_pixels
from detr_viz.explanation.capture import record

TERMS = {"cc": "cq.ck", "cp": "cq.pk", "pc": "pq.ck", "pp": "pq.pk"}


@lru_cache(maxsize=1)
def network(dtype: torch.dtype) -> torch.nn.Module:
    return official("anchor_detr", filled("anchor", "anchor"), dtype, dilation=True)


class Run(GoldenRun):
    """One forward pass of a case, its calls, the golden arrays and the tolerances of a dtype."""

    def __init__(self, case: str, dtype: torch.dtype) -> None:
        super().__init__("anchor", case, dtype)
        net = network(dtype)
        self.tensor, self.mask = family_inputs(case)
        sites = as_detector(net, "anchor_detr").attention_sites()
        with torch.inference_mode(), record(sites, sites) as self.calls:
            self.out = net(self.tensor.to(dtype), self.mask, aux=True)
        self.rows = self.gold["queries"].tolist()
        self.compared |= {"torch"}  # a version: nothing to compare


@lru_cache(maxsize=1)
def run(case: str, dtype: torch.dtype) -> Run:
    return Run(case, dtype)


# scope: all tests of a case in turn, so that it runs once
@pytest.mark.parametrize(("case", "dtype"), cases(256), scope="module")
class TestAgainstTheAuthors:
    def test_inputs(self, case, dtype):
        r = run(case, dtype)
        sizes = [((~m).any(1).sum().item(), (~m).any(0).sum().item()) for m in r.mask]
        for i, (h, w) in enumerate(sizes):
            own = np.ascontiguousarray(r.tensor[i, :, :h, :w].numpy())
            assert zlib.crc32(own) == r.gold["input_crc32"][i]
        assert np.array_equal(sizes, r.gold["input_hw"])
        encoded = r.out["encoded"]
        assert list(encoded.hw) == r.gold["hw"].tolist()
        padding = encoded.padding
        if padding is None:
            valid = [encoded.hw]
        else:
            cells = ~padding.unflatten(-1, encoded.hw)
            valid = [(int(x.any(1).sum()), int(x.any(0).sum())) for x in cells]
        assert np.array_equal(valid, r.gold["valid_hw"])
        r.compared |= {"input_crc32", "input_hw", "hw", "valid_hw", "queries", "enc.tokens"}

    def test_detections(self, case, dtype):
        r = run(case, dtype)
        logits = r.out["pred_logits"]
        tolerance = r.tolerance("pred_logits")
        r.close(logits[:, ::3], "pred_logits_every3", tolerance)
        r.close(r.out["pred_boxes"], "pred_boxes", r.tolerance("pred_boxes"))
        r.close(logits.max(-1).values, "pred_max", tolerance)
        # the best class of the authors may be only nearly the best one here
        labels = torch.from_numpy(r.gold["pred_label"].astype(np.int64))
        assert (logits.max(-1).values - logits.gather(-1, labels[..., None])[..., 0]).max() <= (
            2 * tolerance
        )
        assert (logits.argmax(-1) == labels).float().mean() > 0.999
        anchors = r.out["reference_points"]
        r.close(anchors[:300], "reference", 1e-7)
        assert torch.equal(anchors, anchors[:300].repeat(3, 1))
        r.compared.add("pred_label")

    def test_hidden_states(self, case, dtype):
        r = run(case, dtype)
        tolerance = r.tolerance("pred_logits")
        across, encoded = r.calls["cross", LAST].args[0], r.out["encoded"]
        src = r.calls["encoder", 0].args[0].content
        r.close([src.mean(), src.std(correction=0)], "dbg.src_mean_std", 1e-4)
        grid = src.transpose(1, 2).unflatten(-1, encoded.hw)
        r.close(grid[:, ::64], "dbg.src_every64", tolerance)
        for places, array in (
            (encoded.row_places, "dbg.posemb_row"),
            (encoded.column_places, "dbg.posemb_col"),
        ):
            r.close(places[:, :3].expand(len(r.images), -1, -1), array, tolerance)
        tokens = r.gold["enc.tokens"]
        r.close(encoded.memory[:, tokens], "dbg.memory", tolerance, r.valid(tokens))
        r.close(across.content[:, r.rows], "dbg.tgt_norm2", tolerance)
        net = network(dtype)
        attended = [r.attention("cross", LAST, i) for i in r.images]
        contexts = [(a.weights("combine", r.rows) @ a.value).transpose(0, 1) for a in attended]
        r.close(torch.stack(contexts).flatten(2), "dbg.heads_out", tolerance)
        layer = net.transformer.decoder_layers[LAST]
        with torch.inference_mode():
            tgt = layer.norm1(across.content + layer.cross_attn(across))
            r.close(layer.ffn(tgt)[:, r.rows], "dbg.hs", tolerance)

    @pytest.mark.parametrize("mode", MODES)
    def test_axes_of_the_last_layer(self, case, dtype, mode):
        r = run(case, dtype)
        kept = {
            "combine": list(TERMS.values()),
            "position": ["pq.pk"],
            "content": ["cq.ck"],
        }[mode]
        logits, entropies = ([], []), ([], [])
        weights, outer = ([], []), []
        for i in r.images:
            a = r.attention("cross", LAST, i)
            for k, w in enumerate(a.axes(mode, r.rows)):
                weights[k].append(w.transpose(0, 1))
            for k, w in enumerate(a.axes(mode)):
                entropies[k].append(torch.special.entr(w).sum(-1).mean())
            parts = [a.axis_logits(name, r.rows) for name in kept]
            for k in (0, 1):
                logits[k].append(sum(part[k] for part in parts).transpose(0, 1))
            full = a.weights(mode, r.rows[:3])
            outer.append(full.transpose(0, 1).unflatten(-1, a.hw))
        for k, axis in enumerate(("row", "col")):
            array = f"{axis}.{mode}"
            r.close(torch.stack(weights[k]), array, r.tolerance(array))
            if mode != "position":  # whose logits are those of the parts and of the bias
                got = torch.stack(logits[k])
                r.close(got, f"logit_{array}", r.tolerance("pred_logits"))
        r.close(torch.stack(outer), f"outer.{mode}", r.tolerance(f"row.{mode}"))
        mean = [sum(e) / len(e) for e in entropies]
        r.close(mean, f"entropy.{mode}", 2e-5)

    def test_position_logits_have_the_bias(self, case, dtype):
        """The mode feeds position alone through the projection, which adds its bias."""
        r = run(case, dtype)
        for axis, name in (("row", "row"), ("col", "column")):
            got = []
            for i in r.images:
                a = getattr(r.attention("cross", LAST, i), name)
                q = (a.p_q[:, r.rows] + a.b_q) * a.scale
                got.append((q @ (a.p_k + a.b_k).transpose(-1, -2)).transpose(0, 1))
            r.close(torch.stack(got), f"logit_{axis}.position", r.tolerance("pred_logits"))

    def test_four_terms_of_each_axis(self, case, dtype):
        r = run(case, dtype)
        for short, name in TERMS.items():
            both = [r.attention("cross", LAST, i).axis_logits(name, r.rows[:2]) for i in r.images]
            for k, axis in enumerate(("row", "col")):
                got = torch.stack([pair[k].transpose(0, 1) for pair in both])
                r.close(got, f"term_{axis}.{short}", r.tolerance("pred_logits"))

    def test_all_layers(self, case, dtype):
        r = run(case, dtype)
        for k, axis in enumerate(("row", "col")):
            got = [
                torch.stack(
                    [
                        r.attention("cross", layer, i).axes("combine", r.rows[:2])[k]
                        for i in r.images
                    ]
                )
                for layer in range(LAST + 1)
            ]
            r.close(torch.stack(got), f"layers.{axis}", r.tolerance(f"{axis}.combine"))

    def test_encoder_and_self_attention(self, case, dtype):
        r = run(case, dtype)
        tokens = r.gold["enc.tokens"]
        valid = r.valid(tokens)
        for layer in (0, LAST):
            both = [
                r.attention("encoder", layer, i).axes("combine", tokens.tolist()) for i in r.images
            ]
            for k, axis in enumerate(("row", "col")):
                got = torch.stack([pair[k] for pair in both])
                gold = r.gold[f"enc{layer}.{axis}"]
                assert got.shape == gold.shape
                difference = np.abs(got.numpy() - gold).transpose(0, 2, 1, 3)[valid]
                assert difference.max() <= r.tolerance(f"{axis}.combine")
                r.compared.add(f"enc{layer}.{axis}")
        got = [r.attention("decoder", LAST, i).weights("combine", r.rows[:2]) for i in r.images]
        r.close(torch.stack(got), "selfattn.last", r.tolerance("row.combine"))

    def test_official_post_processing(self, case, dtype):
        r = run(case, dtype)
        if case != "A256":
            return
        spec = models.get("anchor_detr")
        scores = spec.class_probabilities(r.out["pred_logits"])[0].flatten()
        top = scores.topk(100).indices
        tolerance = r.tolerance("pred_logits") / 4 if not r.exact else 2e-5  # sigmoid's slope
        r.close(scores[top], "post.scores", tolerance)
        boxes = to_pixels(cxcywh_to_xyxy(r.out["pred_boxes"][0].float().numpy()), (480, 640))
        known = {}
        for label, box in zip(r.gold["post.labels"], r.gold["post.boxes"], strict=True):
            known.setdefault(int(label), []).append(box)
        for flat in top[:50].tolist():  # nearly equal scores may change places
            query, label = divmod(flat, 91)
            error = min(np.abs(boxes[query] - box).max() for box in known[label])
            assert error <= 640 * r.tolerance("pred_boxes") + 1e-3
        r.compared |= {"post.labels", "post.boxes"}

    def test_self_check(self, case, dtype):
        """Every site gives back what it put out: 4e-15 of outer @ value in float64."""
        r = run(case, dtype)
        for site, call in r.calls.items():
            for i in r.images:
                assert call.of_image(i, ()).residual < (2e-14 if r.exact else 1e-5), site
        residuals = [r.calls["cross", LAST].of_image(i, ()).residual for i in r.images]
        assert max(residuals) < (5e-15 if r.exact else 1e-5)

    def test_every_array_was_compared(self, case, dtype, request):
        """The last test of a case: what is left are the authors' own errors."""
        chosen = {i.originalname for i in request.session.items if i.cls is type(self)}
        if chosen != {name for name in dir(self) if name.startswith("test_")}:
            pytest.skip("only some of the tests run")
        r = run(case, dtype)
        left = {k for k in r.gold if not k.startswith(("err32.", "residual."))} - r.compared
        assert not left
