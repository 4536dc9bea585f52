"""The tokens that became queries: against a choice worked out here, and a hand-made example."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from network_tools import tiny

from detr_viz import explain
from detr_viz.attention.grids import Grid
from detr_viz.explanation.explain_image import explain_batch
from detr_viz.explanation.proposals import Proposals
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.images.read import load_image

QUERIES = 9
TWO_STAGE = {"refine": True, "two_stage": True, "num_queries": QUERIES, "num_logits": 5}


@pytest.fixture(scope="module")
def model():
    """Two-stage, of random weights, whose class 0 tells tokens apart."""
    model = tiny("deformable_detr", **TWO_STAGE)
    torch.manual_seed(5)
    for name, value in model.network.named_parameters():
        if "class_embed" in name and value.ndim == 2:
            value.normal_()
    return model


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (60, 84, 3), np.uint8)


def last_head(model, run) -> tuple[np.ndarray, object]:
    """Logits (B, S) of class 0 by the head that the encoder's tokens go through, and the result."""
    kept = []
    handle = model.network.class_embed[-1].register_forward_hook(
        lambda module, args, out: kept.append(out[..., 0].double().numpy())
    )
    try:
        result = run()
    finally:
        handle.remove()
    return kept[0], result


def test_the_tokens_are_those_of_the_highest_logits(model):
    logits, e = last_head(model, lambda: explain(model, photo(), size=64))
    found, (logits,) = e.proposals, logits
    best = np.argsort(-logits, kind="stable")[:QUERIES]
    assert found.tokens.tolist() == best.tolist() and found.ranks.tolist() == [*range(1, 10)]
    scores = np.concatenate([level.ravel() for level in found.scores])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_allclose(found.token_scores, scores[best], atol=0)
    assert np.ptp(scores) > 0.1
    assert found.rule == model.info.proposal_scores == "sigmoid of the encoder's class 0 logit"
    assert found.grids == e.grids() and [s.shape for s in found.scores] == [g.hw for g in e.grids()]


def test_the_boxes_are_those_that_enter_the_decoder(model):
    e = explain(model, photo(), size=64, layers=0)
    entering = e._call(("cross", 0)).args[0].reference[0, :, 0].numpy()  # cx, cy, w, h of level 0
    x, y, w, h = entering.T
    expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1) * [84, 60, 84, 60]
    np.testing.assert_allclose(e.proposals.boxes_xyxy_px, expected, atol=1e-3)
    middles = (e.proposals.boxes_xyxy_px[:, :2] + e.proposals.boxes_xyxy_px[:, 2:]) / 2
    np.testing.assert_allclose(e.reference_px, middles, atol=1e-3)


def test_each_image_of_a_batch_has_its_own(model):
    pictures = [load_image(photo(seed)) for seed in (1, 2)]
    pixels = np.stack([picture.rgb for picture in pictures])
    both = explain_batch(model, pictures, pixels, size=60)
    for picture, one in zip(pictures, both, strict=True):
        alone = explain(model, picture, size=60).proposals
        assert one.proposals.tokens.tolist() == alone.tokens.tolist()
        for a, b in zip(one.proposals.scores, alone.scores, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert both[0].proposals.tokens.tolist() != both[1].proposals.tokens.tolist()


def test_tokens_of_padding_and_at_the_edge_are_invalid(model):
    """Anchors are .05 of the image wide, twice that on each next level; their middles and sizes
    must lie between .01 and .99."""
    padded = replace(model, preprocessing=Preprocessing(64, 128, pad_hw=(96, 128)))
    e = explain(padded, photo())
    valid = e.input_hw
    assert valid == (64, 89)
    for level, (grid, invalid) in enumerate(zip(e.grids(), e.proposals.invalid, strict=True)):
        assert 0.05 * 2**level < 0.99
        seen = [
            -(-side * cells // full)
            for side, cells, full in zip(valid, grid.hw, (96, 128), strict=True)
        ]
        expected = np.ones(grid.hw, bool)
        y, x = ((np.arange(n) + 0.5) / n for n in seen)
        inside = [(at > 0.01) & (at < 0.99) for at in (y, x)]
        expected[: seen[0], : seen[1]] = ~(inside[0][:, None] & inside[1])
        np.testing.assert_array_equal(invalid, expected)
        assert invalid.any() and not invalid.all()
    assert e.proposals.num_tokens == sum(int((~one).sum()) for one in e.proposals.invalid)
    boxes = e.proposals.boxes_xyxy_px  # of the image, not of its padding
    np.testing.assert_allclose(e.reference_px, (boxes[:, :2] + boxes[:, 2:]) / 2, atol=1e-3)


def test_the_outermost_of_many_cells_are_invalid(model):
    """Of 53 rows the first has its middle at .5 / 53, below .01; columns are 74, of stride 4."""
    found = explain(model, photo(), size=212, max_size=500).proposals
    assert found.grids[0].hw == (53, 74)
    rows, columns = np.mgrid[:53, :74]
    edge = np.isin(rows, (0, 52)) | np.isin(columns, (0, 73))
    np.testing.assert_array_equal(found.invalid[0], edge)
    assert not found.invalid[1].any() and not found.invalid[2].any()
    assert found.num_tokens == sum(grid.cells for grid in found.grids) - int(edge.sum())


@pytest.mark.parametrize(("name", "sizes"), [("detr", {}), ("deformable_detr", {"refine": True})])
def test_learned_queries_are_no_proposals(name, sizes):
    model = tiny(name, **sizes)
    assert explain(model, photo(), size=64).proposals is None
    assert model.info.proposal_scores == ""


def test_an_explanation_with_proposals_can_be_sent(model):
    e = explain(model, photo(), size=64)
    known = e.proposals
    again = pickle.loads(pickle.dumps(e.proposals))
    assert again.tokens.tolist() == known.tokens.tolist() and again.rule == known.rule
    assert len(repr(known).splitlines()) <= 3 and "[" not in repr(known)


def test_ranks_cells_and_counts_by_hand():
    grids = (Grid((2, 3), (16, 24), 8, "centered"), Grid((1, 2), (16, 24), 16, "centered"))
    fine = np.array([[0.1, 0.9, 0.3], [0.9, 0.2, 0.5]], np.float32)
    coarse = np.array([[0.7, 0.4]], np.float32)
    one = Proposals(
        rule="by hand",
        tokens=np.array([7, 3, 6, 1]),
        scores=(fine, coarse),
        invalid=(fine < 0.15, coarse > 1),
        boxes_xyxy_px=np.zeros((4, 4), np.float32),
        grids=grids,
    )
    np.testing.assert_allclose(one.token_scores, [0.4, 0.9, 0.7, 0.9], atol=1e-7)
    assert one.ranks.tolist() == [4, 1, 3, 2]  # equal ones in the order of queries
    assert one.cells.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert one.counts() == [2, 2] and one.num_tokens == 7
