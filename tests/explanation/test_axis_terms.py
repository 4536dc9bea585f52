"""Terms of attention along rows and columns: each axis by itself, in numbers and as strips."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.factored import FactoredAttention
from detr_viz.attention.terms import TERMS
from detr_viz.explanation.logit_terms import logit_terms

H, W, HEADS, QUERIES, WIDTH = 3, 5, 2, 4, 6


def axis(places: int, rng: np.random.Generator) -> DenseAttention:
    def some(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    return DenseAttention(
        c_q=some(HEADS, QUERIES, WIDTH),
        p_q=some(HEADS, QUERIES, WIDTH),
        b_q=some(HEADS, 1, WIDTH),
        c_k=some(HEADS, places, WIDTH),
        p_k=some(HEADS, places, WIDTH),
        b_k=some(HEADS, 1, WIDTH),
        value=some(HEADS, places, WIDTH),
        scale=0.4,
        mode_scales={},
    )


def call(padding: np.ndarray | None = None) -> SimpleNamespace:
    """A captured call; padding (H, W) True = padding."""
    rng = np.random.default_rng(5)
    value = torch.from_numpy(rng.normal(size=(HEADS, H * W, WIDTH)))
    masks = {}
    if padding is not None:
        masks = {"padding": torch.from_numpy(padding.ravel())}
    attention = FactoredAttention(axis(W, rng), axis(H, rng), value, **masks)
    return SimpleNamespace(attention=attention, site=SimpleNamespace(logits=None))


def by_hand(dense: DenseAttention, name: str, rows: list[int]) -> np.ndarray:
    """One product of parts in numpy, (q, M, places); biases go with content."""
    query = {"cq": dense.c_q + dense.b_q, "pq": dense.p_q}[name[:2]].numpy()[:, rows]
    key = {"ck": dense.c_k + dense.b_k, "pk": dense.p_k}[name[3:]].numpy()
    return np.einsum("mqd,mkd->qmk", query, key) * dense.scale


@pytest.mark.parametrize("padded", [False, True])
def test_each_axis_is_its_own_product_and_a_cell_is_the_sum_of_both(padded):
    padding = np.zeros((H, W), bool)
    padding[2:], padding[:, 4:] = padded, padded
    h, w = (2, 4) if padded else (H, W)
    captured, rows = call(padding if padded else None), [3, 1]
    terms = logit_terms(captured, rows, (H, W))
    assert set(terms.axes) == set(TERMS)
    for name, (row, column) in terms.axes.items():
        both = captured.attention
        for got, dense, n in ((row, both.row, w), (column, both.column, h)):
            expected = by_hand(dense, name, rows)[..., :n]
            expected -= expected.mean(-1, keepdims=True)
            np.testing.assert_allclose(got[..., :n], expected, atol=1e-6)
            assert not got[..., n:].any()
        cells = column[..., :h, None] + row[..., None, :w]
        np.testing.assert_allclose(cells, terms.terms[name][..., :h, :w], atol=1e-6)
    row, column = terms.axes_total
    cells = column[..., :h, None] + row[..., None, :w]
    np.testing.assert_allclose(cells, terms.total[..., :h, :w], atol=2e-6)


def test_some_of_the_queries_keep_their_axes():
    terms = logit_terms(call(), [0, 1, 2], (H, W))
    one = terms.of([1])
    np.testing.assert_array_equal(one.axes["cq.pk"][0], terms.axes["cq.pk"][0][1:2])
    np.testing.assert_array_equal(one.axes["cq.pk"][1], terms.axes["cq.pk"][1][1:2])


def test_attention_without_axes_has_none():
    dense = axis(H * W, np.random.default_rng(0))
    captured = SimpleNamespace(attention=dense, site=SimpleNamespace(logits=None))
    terms = logit_terms(captured, [0], (H, W))
    assert terms.axes == {} and terms.axes_total is None
