"""The ledger against values worked out by hand, and against the networks' own maps."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from conftest import demo_explanation, demo_model
from fake_explanation import fake, one_hot
from figure_tools import captions_of, maps_of, pixels, texts
from look_tools import plain, share_in_box

from detr_viz import cli, explain, figures
from detr_viz.attention.terms import TERMS, formula_of, parse_terms
from detr_viz.common import assets
from detr_viz.explanation.capture import AttentionCall
from detr_viz.explanation.detector import AttentionSite
from detr_viz.explanation.logit_terms import logit_terms
from detr_viz.explanation.stored import store
from detr_viz.figures.styles import PRESETS, FigureError, PageFormat, Style
from detr_viz.models.layers.split_attention import AttentionInputs, PackedAttention
from detr_viz.models.site_readers import logits, read

WIDTH, KEYS = 6, (2, 3)


def identity() -> PackedAttention:
    """One head whose projections change nothing; its scale is 6 ** -0.5."""
    site = PackedAttention(WIDTH, 1).requires_grad_(False)
    site.in_proj_weight.copy_(torch.eye(WIDTH).repeat(3, 1))
    site.out_proj.weight.copy_(torch.eye(WIDTH))
    site.out_proj.bias.zero_()
    return site


def called(site: PackedAttention, **parts: torch.Tensor) -> AttentionCall:
    empty = torch.zeros(1, 6, WIDTH)
    known = {"c_q": empty[:, :2], "p_q": empty[:, :2], "c_k": empty, "p_k": empty, "value": empty}
    made = AttentionInputs(**{**known, **parts})
    reads = partial(read, site, "decoder"), site.out_proj, partial(logits, site)
    return AttentionCall(AttentionSite(site, *reads), (made,), {}, site(made))


def test_one_hot_positions():
    """Query i asks for cell i + 3 alone, by position; the key of cell j is the j-th unit vector."""
    asks = torch.zeros(1, 2, WIDTH)
    asks[0, 0, 3] = asks[0, 1, 4] = 12.0
    found = logit_terms(called(identity(), p_q=asks, p_k=torch.eye(WIDTH)[None]), [0, 1], KEYS)
    peak = 12 / 6**0.5
    for i in range(2):
        expected = np.full(6, -peak / 6)
        expected[3 + i] += peak
        np.testing.assert_allclose(found.terms["pq.pk"][i, 0].ravel(), expected, atol=1e-6)
        np.testing.assert_allclose(found.total[i, 0].ravel(), expected, atol=1e-6)
        likely = np.exp([peak if k == 3 + i else 0 for k in range(6)])
        np.testing.assert_allclose(found.weights[i, 0].ravel(), likely / likely.sum(), rtol=1e-5)
    assert not any(found.terms[name].any() for name in ("cq.ck", "cq.pk", "pq.ck"))
    np.testing.assert_allclose(found.shares["pq.pk"], 1, atol=1e-6)
    assert found.shares["cq.ck"].max() == 0 and found.residual < 1e-6


def test_shares_are_covariances():
    """Every part is there, with biases, which count with content; numpy's own cov and var."""
    torch.manual_seed(2)
    site = PackedAttention(WIDTH, 2).requires_grad_(False)
    site.in_proj_bias.normal_()
    drawn = {name: torch.randn(1, 2, WIDTH) for name in ("c_q", "p_q")}
    drawn |= {name: torch.randn(1, 6, WIDTH) for name in ("c_k", "p_k", "value")}
    found = logit_terms(called(site, **drawn), [1], KEYS)
    w_q, w_k, _ = site.in_proj_weight.chunk(3)
    b_q, b_k, _ = site.in_proj_bias.chunk(3)
    sides = {
        "cq": drawn["c_q"][0, 1] @ w_q.T + b_q,
        "pq": drawn["p_q"][0, 1] @ w_q.T,
        "ck": drawn["c_k"][0] @ w_k.T + b_k,
        "pk": drawn["p_k"][0] @ w_k.T,
    }
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        parts = {}
        for name in TERMS:
            q, k = name.split(".")
            parts[name] = (sides[k][:, own] @ sides[q][own] * 3**-0.5).double().numpy()
        total = sum(parts.values())
        for name, part in parts.items():
            share = np.cov(part, total, bias=True)[0, 1] / total.var()
            assert found.shares[name][0, head] == pytest.approx(share, abs=1e-5)
            np.testing.assert_allclose(
                found.terms[name][0, head].ravel(), part - part.mean(), atol=1e-5
            )
    np.testing.assert_allclose(sum(found.shares.values()), 1, atol=1e-5)


def test_padding_takes_no_part():
    torch.manual_seed(3)
    drawn = {name: torch.randn(1, 2, WIDTH) for name in ("c_q", "p_q")}
    keys = {name: torch.randn(1, 6, WIDTH) for name in ("c_k", "p_k", "value")}
    mask = torch.tensor([[False, False, False, False, True, True]])
    padded = logit_terms(called(identity(), **drawn, **keys, key_padding_mask=mask), [0], (1, 6))
    short = {name: part[:, :4] for name, part in keys.items()}
    alone = logit_terms(called(identity(), **drawn, **short), [0], (1, 4))
    for name in TERMS:
        np.testing.assert_allclose(padded.terms[name][..., :4], alone.terms[name], atol=1e-6)
        np.testing.assert_allclose(padded.shares[name], alone.shares[name], atol=1e-5)
        assert not padded.terms[name][..., 4:].any()
    np.testing.assert_allclose(padded.weights[..., :4], alone.weights, atol=1e-6)
    assert not padded.weights[..., 4:].any()


def test_flat_logits_have_no_shares():
    found = logit_terms(called(identity()), [0, 1], KEYS)
    assert all(np.isnan(share).all() for share in found.shares.values())
    np.testing.assert_allclose(found.weights, 1 / 6)


def test_the_residual_is_of_the_networks_own_logits():
    """A site whose terms are not what it attends with is found out."""

    class Wrong(PackedAttention):
        def qkv(self, parts):
            q, k, v = super().qkv(parts)
            return q * 1.01, k, v

    torch.manual_seed(0)
    site = Wrong(WIDTH, 2).requires_grad_(False)
    drawn = {name: torch.randn(1, 6, WIDTH) for name in ("c_q", "p_q", "c_k", "p_k", "value")}
    assert logit_terms(called(site, **drawn), [0], KEYS).residual > 1e-3


def test_the_networks_ledgers(explanation):
    e = explanation
    for layer in range(3):
        book = e.logit_terms([4, 0], layer)
        assert book.residual < 1e-4
        np.testing.assert_allclose(sum(book.terms.values()), book.total, atol=1e-4)
        np.testing.assert_allclose(book.weights, e.maps("combine", [4, 0], layer), atol=2e-5)
        np.testing.assert_allclose(sum(book.shares.values()), 1, atol=1e-4)
        crossed = [book.terms[name].any() for name in ("cq.pk", "pq.ck")]
        assert crossed == [layer not in e.separate] * 2


def test_the_other_sites_have_terms_and_weights():
    e = explain(
        demo_model("detr"), assets.find(assets.DEFAULT_IMAGE), sites=["encoder", ("decoder", 1)]
    )
    assert e.sites == (("cross", 2), ("encoder", 0), ("encoder", 1), ("decoder", 1))
    cells, queries = e.grid_hw[0] * e.grid_hw[1], e.num_queries
    for site, rows, keys in ((("encoder", 1), cells, cells), (("decoder", 1), queries, queries)):
        made = e.attention(site)
        assert made.shape == (rows, 8, keys) and made.dtype == np.float32
        np.testing.assert_allclose(made.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(e.attention(site, "content", [3]).shape, (1, 8, keys))
        np.testing.assert_allclose(e.attention(site, rows=[3, 1]), made[[3, 1]], atol=2e-6)
    assert set(e.meta["residuals"]) == {"2", "encoder 0", "encoder 1", "decoder 1"}
    with pytest.raises(ValueError, match="there is cross 2, encoder 0"):
        e.attention_at(("encoder", 7))
    with pytest.raises(ValueError, match=r"not one of 0\.\."):
        e.attention(("decoder", 1), rows=[queries])


@pytest.mark.parametrize(
    ("sites", "says"),
    [(["eyes"], "no attention site"), ([("encoder", 9)], "no encoder layer 9")],
)
def test_sites_that_there_are_not(sites, says):
    from detr_viz.common.errors import UserError

    with pytest.raises(UserError, match=says):
        explain(demo_model("detr"), np.zeros((32, 32, 3), np.uint8), sites=sites)


# ---- sums of terms as modes ---------------------------------------------------------------------


def test_a_sum_of_terms_is_a_mode(explanation):
    """All four are combine; position alone is pq.pk but for the bias of the query."""
    e, four = explanation, "+".join(TERMS)
    np.testing.assert_allclose(e.maps(four, [1]), e.maps("combine", [1]), atol=2e-5)
    book = e.logit_terms([1], 2)
    logits = book.terms["cq.pk"] + book.terms["pq.pk"]
    expected = np.exp(logits - logits.max((2, 3), keepdims=True))
    expected /= expected.sum((2, 3), keepdims=True)
    np.testing.assert_allclose(e.maps("cq.pk + pq.pk", [1]), expected, atol=2e-5)
    assert e.formula("cq.pk+pq.pk") == "c_q · p_k + p_q · p_k"
    with pytest.raises(ValueError, match=r"not 'pq\.bk'"):
        e.maps("pq.bk", [1])


@pytest.mark.parametrize("text", ["", "+", "cq", "cq.ck+cq.ck", "cq.ck+", "ck.cq", "cq.ck*2"])
def test_what_is_no_sum(text):
    with pytest.raises(ValueError, match="terms are sums"):
        parse_terms(text)


def test_names_and_formulas():
    assert parse_terms(" pq.pk + cq.ck") == ("pq.pk", "cq.ck")
    assert formula_of("pq.ck") == "p_q · c_k"


# ---- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_the_figure_of_a_ledger(name):
    e = demo_explanation(name)
    query = e.by_score()[0]
    fig = figures.head_grid(e, [query], "terms", layer=2)
    found = texts(fig)
    apart = name == "cd_detr"
    rows = ["cq·ck", "cq·pk", "pq·ck", "pq·pk"]
    words = "".join(found)  # letters and subscripts are texts of their own
    shown = [row for row in rows if words.count(row) == 1]
    assert shown == [row for row in rows if not (apart and row in ("cq·pk", "pq·ck"))]
    assert found.count("sum") == found.count("weights") == 1
    rule = fig.facts["Description"]
    assert ("exactly 0" in rule) is apart and "cov(term, sum) / var(sum)" in rule
    shares = e.logit_terms([query], 2).shares["pq.pk"][0]
    for share in shares:
        assert f"{round(float(share), 2) + 0.0:.0%}".replace("%", " %") in found
    assert "-0 %" not in found
    largest = np.abs(e.logit_terms([query], 2).total[0]).max((1, 2))
    assert [text for text in found if text[0] == "±"] == [f"±{value:.1f}" for value in largest]


def test_first_layers_of_conditional_detr_have_cross_terms():
    e = demo_explanation("cd_detr")
    fig = figures.head_grid(e, [3], "terms", layer=0)
    assert "cq·pk" in "".join(texts(fig)) and "exactly 0" not in fig.facts["Description"]


@pytest.mark.parametrize(
    ("style", "says"),
    [
        (Style("contour"), "take style overlay or heat"),
        (Style(heads="sort"), "name heads by number"),
        (Style(heads=(0, 8)), r"no head 8: .* has 0\.\.7"),
    ],
)
def test_what_a_ledger_cannot_be_drawn_as(style, says):
    with pytest.raises(FigureError, match=says):
        figures.head_grid(demo_explanation("detr"), [3], "terms", style=style)


@pytest.mark.parametrize("norm", [None, "figure"])
def test_colours_end_at_the_largest_term(norm):
    """Zero is the bare ground; the largest, either way, is one of the two last colours."""
    from detr_viz.figures.page.scale import signed_lut
    from detr_viz.figures.panel_rows import TermPanels

    e = demo_explanation("detr")
    queries = e.by_score()[:2]
    panels = TermPanels(Style("heat", norm))
    from detr_viz.figures.reading_rule import ShownModel

    subject = ShownModel(e, "DETR", (2,))
    panels.collect(subject, queries)
    reaches = [panels.rows(subject, 2, query)[0].reach for query in queries]
    largest = [
        max(np.abs(part).max() for part in (*book.terms.values(), book.total))
        for book in (e.logit_terms([query], 2) for query in queries)
    ]
    expected = [max(largest)] * 2 if norm == "figure" else largest
    np.testing.assert_allclose(reaches, expected, rtol=1e-5)
    low, high = signed_lut()[[0, 255]].astype(int)
    assert low[2] > low[0] + 50 and high[0] > high[2] + 50  # blue takes away, red adds


def test_a_snapshot_keeps_the_ledgers_it_was_asked_for():
    e = demo_explanation("detr")
    kept = store(e, [5, 2], ["combine"], terms=True)
    for layer in e.layers:
        ours, theirs = kept.logit_terms([2], layer), e.logit_terms([5, 2], layer).of([1])
        np.testing.assert_array_equal(ours.total, theirs.total)
        np.testing.assert_array_equal(ours.shares["cq.pk"], theirs.shares["cq.pk"])
    with pytest.raises(ValueError, match="not kept"):
        kept.logit_terms([3])
    with pytest.raises(ValueError, match="not kept"):
        store(e, [5, 2], ["combine"]).logit_terms([5])


# ---- heads --------------------------------------------------------------------------------------


CAT = (12.8, 19.2, 44.8, 67.2)  # the box of the stand-in's query 0


def peaks(heads: int):
    """The stand-in with half of each head's mass on a cell of row 5, in CAT of heads 1 and 2."""
    example = fake(heads=heads)
    example.made[0] = [one_hot((12, 16), (5, 2 * m), 0.5) for m in range(heads)]
    return example


def shares(maps: np.ndarray) -> list[str]:
    centers = np.arange(12) * 8 + 0.5, np.arange(16) * 8 + 0.5
    return [f"{round(100 * share_in_box(one, CAT, centers, (96, 128)))} %" for one in maps]


def test_some_heads_in_the_order_asked_for():
    example = peaks(4)
    fig = figures.head_grid(example, [0], style=Style(heads=(3, 1)))
    assert texts(fig)[:2] == ["head 3", "1"]
    three, one = shares(example.made[0, [3, 1]])
    assert plain(captions_of(fig)) == [three, one] and three != one
    assert "combine" in texts(fig)[-1] or "combine" in texts(fig)[-2]


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_all_heads_as_one(heads):
    """The mean has the mean of the shares. The largest of all sums to more than 1: a part of it."""
    example = peaks(4)
    one = getattr(example.made[0], heads)(0)
    (expected,) = shares([one / max(one.sum(), 1)])
    fig = figures.head_grid(example, [0], style=Style(heads=heads))
    assert plain(captions_of(fig)) == [expected]
    assert any(f"{heads} of heads" in text for text in texts(fig))
    assert 20 < int(expected.split()[0]) < 60


def test_sorted_by_how_concentrated_they_are():
    example = fake(heads=3)
    grid = example.made.shape[-2:]
    example.made[0, 0] = 1 / (grid[0] * grid[1])
    example.made[0, 2] = 0
    example.made[0, 2, 1, 1] = 1
    fig = figures.head_grid(example, [0], style=Style(heads="sort"))
    found = texts(fig)
    assert [t for t in found if t in ("1st", "2nd", "3rd")] == ["1st", "2nd", "3rd"]
    made = shares(example.made[0])
    assert plain(captions_of(fig))[:2] == [f"2: {made[2]}", f"1: {made[1]}"]
    assert captions_of(fig)[2] in ("0: 12 %, flat", "0: 13 %, flat")  # 12.5
    assert "of the least entropy first" in fig.facts["Description"]
    assert "most concentrated first" in fig.facts["Title"]


def test_red_adds_and_blue_takes_away():
    """The pixels of the sum's panel, cell by cell as --style heat shows them."""
    e = demo_explanation("detr")
    query = e.by_score()[0]
    fig = figures.head_grid(e, [query], "terms", layer=2, style=Style("heat", heads=(4,)))
    picture = pixels(fig, maps_of(fig)[4]).astype(int)  # four terms, then their sum
    total = e.logit_terms([query], 2).total[0, 4]
    high, wide = picture.shape[:2]
    for at, sign in ((total.argmax(), 1), (total.argmin(), -1)):
        row, column = np.unravel_index(at, total.shape)
        y, x = (int((8 * i + 0.5) / 128 * n) for i, n in ((row, high), (column, wide)))
        red, _, blue = picture[min(y, high - 1), min(x, wide - 1)]
        assert (red - blue) * sign > 60


@pytest.mark.parametrize("heads", [(), (0, 0), (-1,), (0, 1.5), [0, 1]])
def test_heads_that_are_none(heads):
    with pytest.raises(FigureError, match="numbers from 0"):
        Style(heads=heads)


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_sorted_heads_are_always_named(preset):
    """On narrow pages too: the number of each head before its share."""
    page = PageFormat.of(preset, dpi=100)
    fig = figures.head_grid(peaks(8), [0], style=Style(heads="sort"), page_format=page)
    numbers = [text.split(":")[0] for text in texts(fig) if re.match(r"\d: ", text)]
    assert sorted(numbers) == list("01234567")


def test_a_head_that_has_nothing_comes_last():
    example = fake(heads=3)
    example.made[0, 1] = 0
    found = captions_of(figures.head_grid(example, [0], style=Style(heads="sort")))
    assert [text.split(":")[0] for text in found] == ["0", "2", "1"]


def test_the_table_of_shares(explanation):
    from detr_viz.render.tables import shares_table

    head, *lines = shares_table(explanation, [3, 1], 2).splitlines()
    assert head.split()[:4] == ["query", "class", "share", "of"] and head.split()[-1] == "7"
    assert len(lines) == 2 * 4
    book = explanation.logit_terms([3, 1], 2)
    for line, (i, name) in zip(lines, [(i, n) for i in (0, 1) for n in book.shares], strict=True):
        query, label, term, *said = line.split()
        assert (query, term) == (("3", "1")[i], name)
        assert label == explanation.label_name(int(query))
        assert said == [f"{share:.0%}" for share in book.shares[name][i]]


def test_terms_are_drawn_over_the_photo_and_their_shares_printed(tmp_path, capsys):
    argv = ["--type", "cd_detr", "--plot", "terms", "--queries", "top:2", "--layer", "0,2"]
    assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scene_1_cd_detr_terms_layers.png"]
    out = capsys.readouterr().out
    assert out.count("share of") == 2 and out.count("pq.pk") == 4
    assert "Conditional DETR (cd_detr_demo.pth), layer 0" in out


@pytest.mark.parametrize(("layer", "said"), [(2, True), (0, False)])
def test_a_sum_of_zero_terms_is_said(layer, said):
    """In Conditional DETR's layer 0 they are none."""
    e = demo_explanation("cd_detr")
    rule = figures.head_grid(e, [3], "cq.pk+pq.ck", layer=layer).facts["Description"]
    assert (f"exactly 0 in layer {layer}: even maps" in rule) is said
    other = figures.head_grid(e, [3], "cq.pk+cq.ck").facts["Description"]
    assert "exactly 0" not in other
