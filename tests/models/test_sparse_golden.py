"""Sparse R-CNN against arrays made by the authors' own code (tests/golden/family/README.md)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from golden.fillrule import image
from golden_family import LAST, GoldenRun, cases, official
from network_tools import as_detector, filled

from detr_viz.attention.roi_align import pooled
from detr_viz.explanation.capture import record
from detr_viz.images.loaded_image import LoadedImage
from detr_viz.models.sparse_rcnn import PREPROCESSING

SOURCES = {"A": (480, 640, 1), "P": (640, 427, 3)}


@contextmanager
def relu_inputs(tower: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """What comes into the ReLUs of a tower meanwhile."""
    seen: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        for module in tower.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@lru_cache(maxsize=1)
def network(dtype: torch.dtype) -> torch.nn.Module:
    return official("sparse_rcnn", filled("sparse", "sparse"), dtype)


def pixels_of(case: str) -> list[np.ndarray]:
    """The images at the authors' size, uint8."""
    how = PREPROCESSING.at(256, None)
    pictures = (image(*SOURCES[c]) for c in ("A" if case == "A256" else "AP"))
    return [how.resized(LoadedImage(rgb=rgb, path="", sha256="")) for rgb in pictures]


def inputs(case: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised in the type of the network, padded to a multiple of 32."""
    pictures = pixels_of(case)
    height, width = (max(-(-p.shape[i] // 32) * 32 for p in pictures) for i in (0, 1))
    batch = torch.zeros(len(pictures), 3, height, width, dtype=dtype)
    mask = torch.ones(len(pictures), height, width, dtype=torch.bool)
    mean, std = (torch.tensor(x, dtype=dtype) for x in (PREPROCESSING.mean, PREPROCESSING.std))
    for i, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        x = (torch.from_numpy(np.array(picture)).to(dtype) - mean) / std
        batch[i, :, :h, :w] = x.permute(2, 0, 1)
        mask[i, :h, :w] = False
    return batch, mask


def in_pixels(boxes: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """cx, cy, w, h in [0, 1] of each image -> xyxy, pixels of the input."""
    boxes = boxes * sides.repeat(1, 2)[:, None]
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


class Run(GoldenRun):
    """One forward pass of a case, its calls, the golden arrays and the tolerances of a dtype."""

    def __init__(self, case: str, dtype: torch.dtype) -> None:
        super().__init__("sparse", case, dtype)
        net = network(dtype)
        self.pictures = pixels_of(case)
        self.tensor, mask = inputs(case, dtype)
        sites = as_detector(net, "sparse_rcnn").attention_sites()
        kept = []
        conv = net.head.head_series[LAST].inst_interact
        handle = conv.register_forward_hook(lambda _, args, out: kept.append((*args, out)))
        with torch.inference_mode(), record(sites, sites) as self.calls:
            self.out = net(self.tensor, mask, aux=True)
        handle.remove()
        self.query, self.roi, _, self.dynamic = kept[0]
        self.sides = self.out["encoded"].sides
        self.rows = self.gold["queries"].tolist()
        self.compared |= {"torch", "stage_level_margin", "level_flips32"}  # nothing to compare

    @property
    def in_px(self) -> float:
        """Of boxes in pixels.

        The arrays store them as float32, up to 3e-5 off from 512 px on. Six stages multiply an
        error of float32 by 50, and the largest one is that of a single box: that of the batch, of
        which A is a part, says more than that of A alone (0.005 px; 0.010 to 0.024 here, by the
        order in which sums are taken).
        """
        if self.exact:
            return 5e-5
        with np.load(GOLDEN / "family" / "sparse_batch256.npz") as batch:
            return 3 * float(batch["err32.pred_boxes"])


@lru_cache(maxsize=1)
def run(case: str, dtype: torch.dtype) -> Run:
    return Run(case, dtype)


# scope: all tests of a case in turn, so that it runs once
@pytest.mark.parametrize(("case", "dtype"), cases(256), scope="module")
class TestAgainstTheAuthors:
    def test_inputs(self, case, dtype):
        r = run(case, dtype)
        for i, picture in enumerate(r.pictures):
            assert zlib.crc32(np.ascontiguousarray(picture)) == r.gold["input_crc32"][i]
        assert np.array_equal([p.shape[:2] for p in r.pictures], r.gold["input_hw"])
        assert r.sides.tolist() == [[p.shape[1], p.shape[0]] for p in r.pictures]
        assert np.array_equal([hw for hw, _ in r.out["levels"]], r.gold["feature_hw"])
        assert [stride for _, stride in r.out["levels"]] == [4, 8, 16, 32]
        r.compared |= {"input_crc32", "input_hw", "feature_hw", "queries"}

    def test_detections(self, case, dtype):
        r = run(case, dtype)
        logits, tolerance = r.out["pred_logits"], r.tolerance("pred_logits")
        r.close(logits, "pred_logits", tolerance)
        boxes = in_pixels(r.out["pred_boxes"], r.sides)
        r.close(boxes, "pred_boxes_xyxy", r.in_px)
        labels = torch.from_numpy(r.gold["label"].astype(np.int64))
        at_gold = logits.gather(-1, labels[..., None])[..., 0]
        assert (logits.max(-1).values - at_gold).max() <= 2 * tolerance
        r.compared.add("label")
        # the authors' inference: the best pairs of query and class, in no order
        scores = logits[0].sigmoid().flatten()
        top = scores.topk(100).indices
        best = scores[top].sort().values
        assert np.abs(best.numpy() - np.sort(r.gold["inst.scores"])).max() <= tolerance / 4 + 1e-6
        known = {}
        for label, box in zip(r.gold["inst.labels"], r.gold["inst.boxes"], strict=True):
            known.setdefault(int(label), []).append(box)
        for flat in top[:50].tolist():  # the last ones may change places with others
            query, label = divmod(flat, 80)
            error = min(np.abs(boxes[0, query].numpy() - box).max() for box in known[label])
            assert error <= r.in_px
        r.compared |= {"inst.scores", "inst.labels", "inst.boxes"}

    def test_stages(self, case, dtype):
        r = run(case, dtype)
        stages = [in_pixels(x, r.sides) for x in r.out["references"]]
        r.close(torch.stack(stages), "stage_boxes", r.in_px)
        levels = torch.stack([r.calls["cross", i].args[0].levels for i in range(LAST + 1)])
        assert np.array_equal(levels, r.gold["stage_levels"])
        r.compared.add("stage_levels")

    def test_pyramid(self, case, dtype):
        r = run(case, dtype)
        encoded = r.out["encoded"]
        sizes = [h * w for h, w in encoded.pyramid.shapes]
        levels = encoded.memory.split(sizes, 1)
        got = [[x.mean(), x.std(correction=0)] for x in levels]
        assert np.abs(np.array(got) - r.gold["dbg.fpn_mean_std"]).max() < 1e-4
        last = levels[-1].transpose(1, 2).unflatten(-1, encoded.pyramid.shapes[-1])
        r.close(last[:, ::64], "dbg.p5_every64", r.tolerance("roi"))
        r.compared.add("dbg.fpn_mean_std")

    def test_cells_that_were_read(self, case, dtype):
        r = run(case, dtype)
        roi, tolerance = r.roi, r.tolerance("roi")
        both = torch.stack([roi.mean((2, 3)), roi.flatten(2).std(-1, correction=0)], -1)
        r.close(both, "roi.mean_std_per_query", tolerance)
        some = roi[:, r.rows]
        r.close(some[..., ::64], "roi.every64", tolerance)
        norms = some.norm(dim=-1).unflatten(-1, (7, 7))
        r.close(norms, "roi.norm_per_cell", 16 * tolerance)  # of 256 channels

    def test_hidden_states(self, case, dtype):
        r = run(case, dtype)
        tolerance = r.tolerance("pred_logits")
        y = r.calls["cross", LAST].out
        r.close(y[:, r.rows], "dyn.pre_norm3", tolerance)
        r.close(r.dynamic[:, r.rows], "dyn.out", tolerance)
        stage = network(dtype).head.head_series[LAST]
        with torch.inference_mode():
            tgt = stage.norm2(r.query + r.dynamic)
            tgt = stage.norm3(tgt + stage.linear2(stage.linear1(tgt).relu()))
        r.close(tgt[:, r.rows], "obj.out", tolerance)

    def test_shares(self, case, dtype):
        r = run(case, dtype)
        found = {name: [] for name in ("norm", "norm_centred", "share", "projection")}
        bias_shares, bias_projections = [], []
        for i in r.images:
            attention = r.attention("cross", LAST, i)
            y, parts = r.calls["cross", LAST].out[i], attention.parts()
            share, bias_share = attention.shares()
            found["norm"].append(parts.norm(dim=-1))
            found["norm_centred"].append((parts - parts.mean(-1, keepdim=True)).norm(dim=-1))
            found["share"].append(share)
            direction = y / y.norm(dim=-1, keepdim=True)
            found["projection"].append((parts * direction[:, None]).sum(-1))
            bias_shares.append(bias_share)
            bias_projections.append(direction @ attention.bias)
        for name, arrays in found.items():
            got = torch.stack(arrays).unflatten(-1, (7, 7))
            r.close(got, f"cell.{name}", r.tolerance(f"cell.{name}"))
        r.close(torch.stack(bias_shares), "cell.bias_share", r.tolerance("cell.share"))
        r.close(
            torch.stack(bias_projections), "cell.bias_projection", r.tolerance("cell.projection")
        )
        total = torch.stack(found["share"]).sum(-1) + torch.stack(bias_shares)
        assert (total - 1).abs().max() < (2e-15 if r.exact else 1e-6)

    def test_gradient_of_the_class(self, case, dtype):
        """<W_c x_c, gradient of the best class's logit>, through norms, FFN and class tower.

        A ReLU has no slope at 0: where float32 rounds an input to the other side, that query is
        compared in float64 alone.
        """
        r = run(case, dtype)
        stage = network(dtype).head.head_series[LAST]
        got, unsure = [], []
        for i in r.images:
            labels = torch.from_numpy(r.gold["label"][i].astype(np.int64))[:, None]
            y = r.calls["cross", LAST].out[i].clone().requires_grad_()
            query = r.query[i].clone()
            with relu_inputs(stage.cls_module) as before:
                before.append(stage.inst_interact.norm3(y))
                tgt = stage.norm2(query + before[-1].relu())
                before.append(stage.linear1(tgt))
                tgt = stage.norm3(tgt + stage.linear2(before[-1].relu()))
                (slope,) = torch.autograd.grad(stage.classes(tgt).gather(-1, labels).sum(), y)
            parts = r.attention("cross", LAST, i).parts()
            got.append((parts * slope[:, None]).sum(-1).unflatten(-1, (7, 7)))
            unsure.append(torch.stack([x.abs().amin(-1) for x in before]).amin(0) < 2e-5)
        found, unsure = torch.stack(got), torch.stack(unsure)
        if not r.exact:
            assert unsure.float().mean() < 0.1
            found[unsure] = torch.from_numpy(r.gold["cell.grad_class"])[unsure].to(found.dtype)
        r.close(found, "cell.grad_class", r.tolerance("cell.grad_class"))

    def test_maps(self, case, dtype):
        """The adjoint of RoIAlign, against the authors' RoIAlign by automatic differentiation."""
        r = run(case, dtype)
        for i in r.images:
            attention = r.attention("cross", LAST, i)
            assert torch.equal(attention.levels, r.calls["cross", LAST].args[0].levels[i])
            maps = attention.weights("combine", [0, 17])[0]
            for row, query in enumerate((0, 17)):
                level = int(attention.levels[query])
                (h, w), start = attention.pyramid.shapes[level], attention.pyramid.starts[level]
                on_level = maps[row, start : start + h * w]
                tolerance = 1e-6 if r.exact else 1e-4
                r.close(on_level.unflatten(-1, (h, w)), f"adjoint.b{i}.q{query}", tolerance)
                mass = float(r.gold[f"adjoint_mass.b{i}.q{query}"])
                assert abs(on_level.sum() - mass) < tolerance
                assert not maps[row, :start].any() and not maps[row, start + h * w :].any()
                r.compared.add(f"adjoint_mass.b{i}.q{query}")

    def test_self_attention(self, case, dtype):
        r = run(case, dtype)
        tolerance = r.tolerance("selfattn")
        weights = [r.attention("decoder", LAST, i).weights() for i in r.images]
        whole = torch.stack(weights)
        r.close(whole[:, :, r.rows], "selfattn.last", tolerance)
        r.close(whole.mean(1), "selfattn.last_mean_heads", tolerance)
        stages = [
            torch.stack(
                [r.attention("decoder", n, i).weights("combine", r.rows[:2]) for i in r.images]
            )
            for n in range(LAST + 1)
        ]
        r.close(torch.stack(stages), "selfattn.layers", tolerance)

    def test_self_check(self, case, dtype):
        r = run(case, dtype)
        for site, call in r.calls.items():
            for i in r.images:
                assert call.of_image(i, ()).residual < (2e-14 if r.exact else 1e-5), site

    def test_cells_are_read_again_from_the_memory(self, case, dtype):
        """What a site was called with is all that RoIAlign needs."""
        r = run(case, dtype)
        inputs, memory = r.calls["cross", LAST].args[0], r.out["encoded"].memory
        again = pooled(memory, inputs.boxes, inputs.levels, inputs.pyramid, inputs.rule)
        assert torch.equal(again, r.roi)

    def test_every_array_was_compared(self, case, dtype, request):
        """The last test of a case: what is left are the authors' own errors."""
        chosen = {i.originalname for i in request.session.items if i.cls is type(self)}
        if chosen != {name for name in dir(self) if name.startswith("test_")}:
            pytest.skip("only some of the tests run")
        r = run(case, dtype)
        left = {k for k in r.gold if not k.startswith(("err32.", "residual."))} - r.compared
        assert not left
