"""The maths against loops over plain numbers, and against PyTorch's own attention."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detr_viz.attention import dense, kernel, self_check
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.kernel import merge_heads, split_heads
from detr_viz.attention.terms import MODES, Mode
from detr_viz.models.layers.split_attention import (
    AttentionInputs,
    ConcatAttention,
    PackedAttention,
    SumAttention,
)

B, M, Q, K, D = 2, 2, 3, 5, 4
C = M * D


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_terms(mask: torch.Tensor | None = None) -> DenseAttention:
    return DenseAttention(
        c_q=rand(B, M, Q, D, seed=1),
        p_q=rand(B, M, Q, D, seed=2),
        c_k=rand(B, M, K, D, seed=3),
        p_k=rand(B, M, K, D, seed=4),
        b_q=rand(M, 1, D, seed=5),
        b_k=rand(M, 1, D, seed=6),
        value=rand(B, M, K, D, seed=7),
        scale=0.5,
        mode_scales={"combine": 0.5, "position": 0.7, "content": 0.9},
        key_padding_mask=mask,
    )


def oracle(
    terms: DenseAttention, q_parts: str, k_parts: str, scale: float, mask=None
) -> np.ndarray:
    """softmax by hand, one number at a time."""
    out = np.zeros((B, M, Q, K))
    for b in range(B):
        for m in range(M):
            for i in range(Q):
                rows = []
                for j in range(K):
                    total = 0.0
                    for e in range(D):
                        q = {"c": terms.c_q[b, m, i, e], "p": terms.p_q[b, m, i, e]}
                        k = {"c": terms.c_k[b, m, j, e], "p": terms.p_k[b, m, j, e]}
                        q["b"], k["b"] = terms.b_q[m, 0, e], terms.b_k[m, 0, e]
                        total += float(sum(q[x] for x in q_parts) * sum(k[x] for x in k_parts))
                    hidden = mask is not None and bool(mask[b, j])
                    rows.append(0.0 if hidden else math.exp(total * scale))
                out[b, m, i] = np.array(rows) / sum(rows)
    return out


@pytest.mark.parametrize(
    ("mode", "scale", "parts", "factor"),
    [
        ("combine", "mode", ("cpb", "cpb"), 0.5),
        ("position", "mode", ("pb", "pb"), 0.7),
        ("content", "mode", ("cb", "cb"), 0.9),
        ("position", "layer", ("pb", "pb"), 0.5),
        (Mode("cpb", "p", ""), "mode", ("cpb", "p"), 0.5),
        (Mode("b", "c", ""), "mode", ("b", "c"), 0.5),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_weights_equal_the_formula(mode, scale, parts, factor, masked):
    mask = torch.tensor([[False] * 5, [False, False, True, True, False]]) if masked else None
    terms = make_terms(mask)
    weights = dense.weights(terms, mode, scale=scale)
    np.testing.assert_allclose(weights, oracle(terms, *parts, factor, mask), atol=1e-12)
    if masked:
        assert (weights[1, ..., 2:4] == 0).all()


def test_queries_are_picked_in_the_order_given():
    terms = make_terms()
    every = dense.weights(terms)
    np.testing.assert_array_equal(dense.weights(terms, queries=[2, 0]), every[:, :, [2, 0]])
    for rows in (range(Q), range(0, Q, 2), range(Q - 1, -1, -1), range(1, 1), range(-1, 1)):
        found = dense.weights(terms, queries=rows)
        np.testing.assert_array_equal(found, every[:, :, list(rows)])
    with pytest.raises(IndexError):
        dense.weights(terms, queries=range(Q + 1))


def test_part_sums():
    terms = make_terms()
    whole = dense.logits(terms)
    four, nine = dense.four_terms(terms), dense.nine_terms(terms)
    assert len(four) == 4 and len(nine) == 9
    torch.testing.assert_close(sum(four.values()), whole)
    torch.testing.assert_close(sum(nine.values()), whole)
    cc = nine["content", "content"]
    expected = torch.einsum("bmqe,bmke->bmqk", terms.c_q, terms.c_k) * 0.5
    torch.testing.assert_close(cc, expected)


def laid(*columns: str) -> DenseAttention:
    """Terms whose parts c_q, p_q, c_k and p_k are 0 but in these columns of every head."""
    parts = {}
    for name, kept in zip(("c_q", "p_q", "c_k", "p_k"), columns, strict=True):
        whole = getattr(make_terms(), name)
        shown = torch.tensor([str(e) in kept for e in range(D)])
        parts[name] = torch.where(shown, whole, torch.zeros_like(whole))
    return replace(make_terms(), **parts, b_q=None, b_k=None)


@pytest.mark.parametrize(
    ("columns", "apart"),
    [
        (("01", "23", "01", "23"), True),
        (("01", "23", "01", "2"), True),
        (("012", "23", "01", "3"), True),  # 2 of the query's content meets nothing
        (("01", "23", "", ""), True),
        (("01", "23", "01", "123"), False),  # content of the query meets a position
        (("01", "123", "01", "23"), False),  # a position meets content of the key
        (("0123", "0123", "0123", "0123"), False),
        (("01", "01", "01", "01"), False),
    ],
)
def test_content_and_position_lie_apart(columns, apart):
    """Then, and only then, both cross terms are 0 and combine's logits are those of the two."""
    terms = laid(*columns)
    assert dense.separate(terms) is apart
    four = dense.four_terms(terms)
    crossed = four["content", "position"], four["position", "content"]
    assert bool(crossed[0].any() or crossed[1].any()) is not apart


def test_one_number_that_meets_is_enough():
    """In one head, of one query and one key of another image."""
    terms = laid("01", "23", "01", "23")
    terms.p_k[1, 1, 4, 0] = 1e-9
    assert not dense.separate(terms)
    # numbers that only happen to cancel are not apart for every input
    terms = laid("01", "23", "01", "01")
    flat = replace(terms, c_q=terms.c_q * 0 + torch.tensor([1.0, -1.0, 0, 0]))
    flat = replace(flat, p_k=flat.p_k * 0 + torch.tensor([1.0, 1.0, 0, 0]))
    assert not dense.four_terms(flat)["content", "position"].any()
    assert not dense.separate(flat)
    # but what one head does with its columns is nothing to another
    terms = laid("01", "23", "01", "23")
    for name in ("c_q", "p_q", "c_k", "p_k"):
        part = getattr(terms, name)
        part[:, 1] = part[:, 1].roll(2, -1)
    assert dense.separate(terms)


@pytest.mark.parametrize("bias", ["b_q", "b_k"])
def test_a_bias_is_no_part_of_its_own(bias):
    terms = laid("01", "23", "01", "23")
    assert not dense.separate(replace(terms, **{bias: getattr(make_terms(), bias)}))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="combine, position, content"):
        dense.weights(make_terms(), "spatial")
    with pytest.raises(ValueError, match="mode, layer"):
        dense.weights(make_terms(), scale="global")


def test_apples_kernel_is_given_values_as_wide_as_the_query(monkeypatch):
    """Its output has the query's width on some versions; padding and cutting changes nothing."""
    q, k, v = rand(B, M, Q, 2 * D, seed=1), rand(B, M, K, 2 * D, seed=2), rand(B, M, K, D, seed=3)
    expected = kernel.attend(q, k, v, 0.3)

    class OnMps(torch.Tensor):
        device = torch.device("mps")

    seen = []

    def fused(q, k, v, attn_mask=None, scale=None):
        seen.append(v.shape[-1])
        return (q @ k.transpose(-1, -2) * scale).softmax(-1) @ v

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", fused)
    got = kernel.attend(q.as_subclass(OnMps), k, v, 0.3)
    assert seen == [2 * D]
    torch.testing.assert_close(got.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize(("q_parts", "k_parts"), [("x", "c"), ("", "c"), ("c", "pp"), ("cq", "p")])
def test_a_mode_of_unknown_parts_is_refused(q_parts, k_parts):
    with pytest.raises(ValueError, match="name c, p and b"):
        Mode(q_parts, k_parts, "")


def test_half_precision_maps_still_sum_to_one():
    terms = make_terms()
    half = {
        name: getattr(terms, name).bfloat16()
        for name in ("c_q", "p_q", "c_k", "p_k", "b_q", "b_k", "value")
    }
    narrow = DenseAttention(**half, scale=0.5, mode_scales=terms.mode_scales)
    weights = dense.weights(narrow)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, M, Q))


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.requires_grad_(False)


@pytest.mark.parametrize("self_attention", [False, True])
def test_packed_attention_equals_torchs(self_attention):
    site = randomised(PackedAttention(C, M))
    reference = torch.nn.MultiheadAttention(C, M, batch_first=True).double()
    reference.load_state_dict(site.state_dict(), strict=True)  # same parameter names
    c_q, p_q = rand(B, Q, C, seed=1), rand(1, Q, C, seed=2)
    c_k, p_k = (c_q, p_q) if self_attention else (rand(B, K, C, seed=3), rand(1, K, C, seed=4))
    mask = torch.zeros(B, c_k.shape[1], dtype=torch.bool)
    mask[1, -1] = True
    out, weights = reference(
        c_q + p_q, c_k + p_k, c_k, key_padding_mask=mask, average_attn_weights=False
    )
    torch.testing.assert_close(site(AttentionInputs(c_q, p_q, c_k, p_k, c_k, mask)), out)
    terms = site.read(AttentionInputs(c_q, p_q, c_k, p_k, c_k, mask))
    torch.testing.assert_close(dense.weights(terms), weights)
    assert terms.scale == D**-0.5
    assert not dense.separate(terms)


def test_packed_modes_are_those_of_the_parts_alone():
    """position = attention of (query_pos, pos), content = attention of (tgt, memory)."""
    site = randomised(PackedAttention(C, M))
    reference = torch.nn.MultiheadAttention(C, M, batch_first=True).double()
    reference.load_state_dict(site.state_dict())
    c_q, p_q = rand(B, Q, C, seed=1), rand(B, Q, C, seed=2)
    c_k, p_k = rand(B, K, C, seed=3), rand(B, K, C, seed=4)
    terms = site.read(AttentionInputs(c_q, p_q, c_k, p_k, c_k))
    for mode, q, k in (("position", p_q, p_k), ("content", c_q, c_k)):
        weights = reference(q, k, k, average_attn_weights=False)[1]
        torch.testing.assert_close(dense.weights(terms, mode), weights)


@pytest.mark.parametrize("first", [False, True])
def test_concat_attention(first):
    """Per head [content | position]; in the first layer position enters the content half too."""
    site = randomised(ConcatAttention(C, M))
    c_q, p_q, shared = rand(B, Q, C, seed=1), rand(B, Q, C, seed=2), rand(1, Q, C, seed=8)
    c_k, p_k, value = rand(B, K, C, seed=3), rand(1, K, C, seed=4), rand(B, K, C, seed=5)
    extra = (None, shared) if first else ()
    q_half = c_q + shared if first else c_q
    k_half = c_k + p_k if first else c_k
    q = torch.cat((split_heads(q_half, M), split_heads(p_q, M)), -1)
    k = torch.cat((split_heads(k_half, M), split_heads(p_k, M).expand(B, -1, -1, -1)), -1)
    expected = (q @ k.transpose(-1, -2) * (2 * D) ** -0.5).softmax(-1)
    terms = site.read(AttentionInputs(c_q, p_q, c_k, p_k, value, *extra))
    torch.testing.assert_close(dense.weights(terms), expected)
    out = site(AttentionInputs(c_q, p_q, c_k, p_k, value, *extra))
    torch.testing.assert_close(out, site.out_proj(merge_heads(expected @ split_heads(value, M))))
    # scales of the modes: position fills both halves in the first layer only
    own = (2 * D) ** -0.5 if first else D**-0.5
    assert terms.mode_scales == {"combine": (2 * D) ** -0.5, "position": own, "content": D**-0.5}
    four = dense.four_terms(terms)
    assert four["content", "position"].any() == first
    assert dense.separate(terms) is not first
    content = split_heads(c_q, M) @ split_heads(c_k, M).transpose(-1, -2) * D**-0.5
    torch.testing.assert_close(dense.weights(terms, "content"), content.softmax(-1))


def test_layer_scale_splits_combine_exactly():
    """Concatenating models: logits of content + position at the layer's scale are combine's."""
    site = randomised(ConcatAttention(C, M))
    parts = AttentionInputs(
        rand(B, Q, C, seed=1),
        rand(B, Q, C, seed=2),
        rand(B, K, C, seed=3),
        rand(1, K, C, seed=4),
        rand(B, K, C, seed=5),
    )
    terms = site.read(parts)
    shares = [
        dense.logits(terms, MODES[m].q_parts, MODES[m].k_parts, terms.scale_of(m, "layer"))
        for m in ("content", "position")
    ]
    torch.testing.assert_close(sum(shares), dense.logits(terms))


def test_sum_attention():
    site = randomised(SumAttention(C, M))
    c_q, p_q = rand(B, Q, C, seed=1), rand(1, Q, C, seed=2)
    c_k, p_k, value = rand(B, Q, C, seed=3), rand(1, Q, C, seed=4), rand(B, Q, C, seed=5)
    q, k = split_heads(c_q + p_q, M), split_heads(c_k + p_k, M)
    expected = (q @ k.transpose(-1, -2) * D**-0.5).softmax(-1)
    torch.testing.assert_close(
        dense.weights(site.read(AttentionInputs(c_q, p_q, c_k, p_k, value))), expected
    )
    out = site(AttentionInputs(c_q, p_q, c_k, p_k, value))
    torch.testing.assert_close(out, site.out_proj(merge_heads(expected @ split_heads(value, M))))


class TestSelfCheck:
    def setup_method(self):
        self.site = randomised(PackedAttention(C, M))
        self.parts = AttentionInputs(
            rand(B, Q, C, seed=1),
            rand(B, Q, C, seed=2),
            rand(B, K, C, seed=3),
            rand(B, K, C, seed=4),
            rand(B, K, C, seed=5),
        )
        self.out = self.site(self.parts)

    def residual(self, site=None, parts=None):
        terms = (site or self.site).read(parts or self.parts)
        return dense.residual(terms, self.site.out_proj, self.out)

    def test_right_weights_leave_nothing(self):
        assert self.residual() < 1e-12

    def test_wrong_weights_are_seen(self):
        other = PackedAttention(C, 4)  # the same parameters read as another number of heads
        other.load_state_dict(self.site.state_dict())
        assert self.residual(site=other.double().requires_grad_(False)) > 0.1
        assert self.residual(parts=self.parts._replace(p_q=self.parts.c_q)) > 0.1

    def test_many_rows_are_compared_in_pieces(self, monkeypatch):
        """Rows of an encoder: every third of 1,100, some at a time; the same number as at once."""
        monkeypatch.setattr(self_check, "_MOST_WEIGHTS", 50 * B * M * K)
        pieces: list[int] = []
        weights = dense.weights

        def counted(attention, *args, queries, **named):
            found = weights(attention, *args, queries=queries, **named)
            pieces.append(found.shape[-2])
            return found

        monkeypatch.setattr(dense, "weights", counted)
        self.parts = self.parts._replace(c_q=rand(B, 1100, C, seed=1), p_q=rand(B, 1100, C, seed=2))
        self.out = self.site(self.parts)
        assert self.residual() < 1e-12
        assert pieces == [50] * 7 + [17]  # 367 rows
        other = self.parts._replace(p_q=self.parts.c_q)
        found = self.residual(parts=other)
        terms, value = self.site.read(other), self.site.read(other).value
        every = range(0, 1100, 3)
        rec = self.site.out_proj(merge_heads(weights(terms, queries=every) @ value))
        even = self.site.out_proj(merge_heads(value.mean(-2, keepdim=True)))
        out = self.out[:, ::3]
        expected = (rec - out).norm() / (out - even).norm()
        assert found == pytest.approx(float(expected), rel=1e-9) and found > 0.1

    def test_a_constant_value_is_untestable(self):
        parts = self.parts._replace(value=self.parts.value[:, :1].expand(-1, K, -1))
        self.out = self.site(parts)
        assert math.isnan(self.residual(parts=parts))

    def test_uniform_weights_leave_padding_out(self):
        """All valid values alike: nothing can be tested, whatever stands in the padding."""
        value = self.parts.value[:, :1].expand(-1, K, -1).clone()
        value[:, -1] = 1e3
        mask = torch.zeros(B, K, dtype=torch.bool)
        mask[:, -1] = True
        parts = self.parts._replace(value=value, key_padding_mask=mask)
        self.out = self.site(parts)
        assert math.isnan(self.residual(parts=parts))

    def test_weights_that_are_not_finite_fail(self):
        parts = self.parts._replace(c_q=self.parts.c_q * float("nan"))
        assert self.residual(parts=parts) == math.inf

    def test_an_output_that_is_not_finite_fails(self):
        self.out = self.out.clone()
        self.out[0, 0, 0] = float("nan")
        assert self.residual() == math.inf
