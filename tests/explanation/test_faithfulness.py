"""Deletion and insertion where the answer is known, against direct loops, drawn, and by command."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import demo_explanation, demo_model
from figure_tools import check_page, texts
from matplotlib.colors import to_hex
from network_tools import DENSE, hooks, tiny

from detr_viz import cli, explain
from detr_viz.attention import kernel
from detr_viz.attention.grids import Grid
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.explanation import ablation, faithfulness
from detr_viz.explanation.capture import record
from detr_viz.explanation.removals import NOTHING
from detr_viz.figures.faithfulness import faithfulness_grid
from detr_viz.figures.styles import NORMS, FigureError, PageFormat, Style
from detr_viz.models.network import Encoded

HW = (5, 7)
K = 35


def standing_in(network, memory: torch.Tensor, maps: np.ndarray, label: int = 2) -> SimpleNamespace:
    """What is asked of an Explanation, of a hand-made network and memory; maps (Q, h, w)."""
    return SimpleNamespace(
        model=network,
        memory=given(memory),
        attention_at=lambda where: attention(network, memory, where),
        labels=np.full(4, label),
        grids=lambda layer: (Grid(HW, (40, 56), 8),),
        num_queries=4,
        num_layers=2,
        layer_word="decoder layer",
        cells=lambda ids, layer: None,
        arithmetic=nullcontext,
        maps=lambda mode, ids, layer, scale: maps[list(ids)][:, None],
        level_maps=lambda mode, ids, layer, scale: (maps[list(ids)][:, None],),
    )


def given(memory: torch.Tensor) -> Encoded:
    return Encoded(memory, torch.zeros_like(memory), None, HW, (40, 56))


def attention(network, memory, where):
    with record(network.attention_sites(), [where]) as calls, torch.inference_mode():
        network.decode(given(memory), [1])
    return calls[where].attention


def with_values_of(cell: int | None):
    """A network and a memory in which only one cell has a value, and draws all attention."""
    network, memory = tiny("detr"), torch.zeros(1, K, 16)
    for layer in network.network.transformer.decoder.layers:
        site = layer.multihead_attn
        q, k, v = site.in_proj_weight.chunk(3)
        q.zero_()
        k.copy_(torch.eye(16))
        v.copy_(torch.eye(16) if cell is not None else torch.zeros(16, 16))
        site.in_proj_bias.zero_()
        site.in_proj_bias[:16] = 10
    if cell is not None:
        memory[0, cell] = torch.linspace(1, 8, 16)
    return network, memory


def scores_of(network, memory, query: int, hidden: np.ndarray, label: int = 2) -> float:
    """One image at a time, by the other kernel."""
    mask = torch.zeros(4, K, dtype=torch.bool)
    mask[query] = torch.from_numpy(hidden)
    made, _ = ablation.decoded(network, given(memory), NOTHING, [0, 1], mask)
    return float(made.class_scores[1][0, query, label])


# ---- known answers ------------------------------------------------------------------------------


def test_one_cell_that_matters():
    """The score falls at the first step and rises at the first; random orders somewhere between."""
    network, memory = with_values_of(17)
    maps = np.zeros((4, *HW), np.float32)
    maps.reshape(4, K)[:, 17] = 1
    e = standing_in(network, memory, maps)
    found = faithfulness.faithfulness(e, [1, 3])
    for i, query in enumerate((1, 3)):
        plain = scores_of(network, memory, query, np.zeros(K, bool))
        blind = scores_of(network, memory, query, np.ones(K, bool))
        assert abs(plain - blind) > 0.02
        steps = len(found.shares) - 1
        np.testing.assert_allclose(
            found.deletion["combine"][i], [plain] + [blind] * steps, atol=1e-5
        )
        np.testing.assert_allclose(
            found.insertion["combine"][i], [blind] + [plain] * steps, atol=1e-5
        )
        assert found.scores[i] == found.deletion["combine"][i][0]
        for curve in found.random[i]:
            fell = np.abs(curve - plain) > 1e-5
            np.testing.assert_allclose(curve[fell], blind, atol=1e-5)
            assert (np.diff(fell.astype(int)) >= 0).all() and fell[-1] and not fell[0]


def test_a_class_that_does_not_hang_on_the_image():
    network, memory = with_values_of(None)
    e = standing_in(network, memory, np.random.default_rng(0).random((4, *HW)))
    found = faithfulness.faithfulness(e, [0])
    for curves in (found.deletion["combine"], found.insertion["combine"], found.random[0]):
        np.testing.assert_allclose(curves, found.scores[0], atol=1e-6)
    np.testing.assert_allclose(
        faithfulness.area(found.deletion["combine"], found.shares), found.scores, atol=1e-6
    )


def test_how_many_cells_are_hidden():
    """Rounded shares of 35 cells, and the same from the other end; of few cells no step twice."""
    by_hand = [0, 1, 2, 4, 9, 13, 17, 18, 22, 26, 31, 33, 34, 35]
    assert faithfulness._counts(35).tolist() == by_hand
    assert faithfulness._counts(1).tolist() == [0, 1]
    for cells in (1, 2, 35, 256, 950, 3800):
        counts = faithfulness._counts(cells)
        assert (np.diff(counts) > 0).all()
        np.testing.assert_array_equal(counts, cells - counts[::-1])


def test_area_by_hand():
    shares, curve = np.array([0, 0.25, 1]), np.array([[1, 0.5, 0], [1, 1, 1.0]])
    by_hand = [0.25 * (1 + 0.5) / 2 + 0.75 * 0.5 / 2, 1]
    np.testing.assert_allclose(faithfulness.area(curve, shares), by_hand)


# ---- against a loop -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layers"), [("detr", "all"), ("cd_detr", (0, 2))])
def test_every_point_is_a_decoder_run_of_its_own(name, layers):
    """One image at a time, by the kernel of ablations."""
    e = demo_explanation(name)
    query, modes = e.by_score()[1], ["content", "combine"]
    found = faithfulness.faithfulness(e, [query], modes, layers, "layer")
    assert found.layers == ((0, 1, 2) if layers == "all" else layers)
    label, cells = e.labels[query], e.grid_hw[0] * e.grid_hw[1]

    def score(hidden) -> float:
        mask = torch.zeros(e.num_queries, cells, dtype=torch.bool)
        mask[query, torch.from_numpy(np.array(hidden, np.int64))] = True
        made, _ = ablation.decoded(e.model, e.memory, NOTHING, found.layers, mask)
        return float(made.class_scores[e.num_layers - 1][0, query, label])

    np.testing.assert_allclose(found.scores, e.scores[query], atol=1e-4)
    for mode in modes:
        weights = e.maps(mode, [query], e.num_layers - 1, "layer")[0].mean(0)
        np.testing.assert_array_equal(found.maps[mode][0], weights)
        order = sorted(range(cells), key=lambda cell: -weights.flat[cell])
        for j, share in enumerate(found.shares):
            count = round(share * cells)
            deleted, inserted = (
                found.__dict__[way][mode][0, j] for way in ("deletion", "insertion")
            )
            assert deleted == pytest.approx(score(order[:count]), abs=1e-4)
            assert inserted == pytest.approx(score(order[count:]), abs=1e-4)
    order = np.random.default_rng((faithfulness._SEED, query)).permutation(cells)
    for j in (0, 3, 9, len(found.shares) - 1):
        count = round(found.shares[j] * cells)
        assert found.random[0, 0, j] == pytest.approx(score(order[:count]), abs=1e-4)


@pytest.mark.parametrize("name", DENSE)
def test_the_other_queries_still_see_all(name):
    network = tiny(name)
    with torch.inference_mode():
        memory = network.network.encode(torch.rand(1, 3, 40, 56))
    hidden = torch.zeros(3, 4, K, dtype=torch.bool)
    hidden[1, 2, :30] = True
    hidden[2, 2] = True
    sites = network.attention_sites()
    with record(sites, [("cross", 0)]) as calls, torch.inference_mode():
        network.scores_with_hidden(memory, hidden, [0, 1])
    out, others = calls["cross", 0].out, [0, 1, 3]
    torch.testing.assert_close(out[1:, others], out[:1, others].expand(2, -1, -1))
    assert not torch.allclose(out[0, 2], out[1, 2])
    torch.testing.assert_close(out[2, 2], sites["cross", 0].module.out_proj.bias)
    assert hooks(network) == 0


def test_hooks_are_gone_after_an_exception():
    network = tiny("detr")
    with torch.inference_mode():
        memory = network.network.encode(torch.rand(1, 3, 40, 56))
    with pytest.raises(RuntimeError):
        network.scores_with_hidden(memory, torch.zeros(1, 4, 9, dtype=torch.bool), [0, 1])
    assert hooks(network) == 0


def test_attention_with_hidden_and_padded_keys():
    make = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 2, n, 4, generator=make) for n in (3, 5, 5))
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    hidden = torch.rand(2, 3, 5, generator=make) > 0.6
    hidden[1, 0] = True
    made = kernel.attend(q, k, v, 0.5, padding, hidden)
    scores = (q @ k.transpose(-1, -2)).double() * 0.5
    mass = scores.exp() * ~(hidden[:, None] | padding[:, None, None])
    expected = (mass / mass.sum(-1, keepdim=True).clamp(min=1e-30)) @ v.double()
    torch.testing.assert_close(made.double(), expected, atol=1e-6, rtol=1e-5)
    assert not made[1, :, 0].any()


def test_neither_neighbours_nor_the_size_of_a_batch_matter(monkeypatch):
    e = demo_explanation("detr")
    both = faithfulness.faithfulness(e, [13, 14])
    again = faithfulness.faithfulness(e, [13, 14])
    np.testing.assert_array_equal(both.random, again.random)
    monkeypatch.setattr(faithfulness, "_MOST_FLOATS", 1)  # one image at a time
    one = faithfulness.faithfulness(e, [14], orders=2)
    np.testing.assert_allclose(one.random[0], both.random[1, :2], atol=1e-5)
    np.testing.assert_allclose(one.deletion["combine"][0], both.deletion["combine"][1], atol=1e-5)


def test_no_random_orders():
    e = demo_explanation("detr")
    found = faithfulness.faithfulness(e, [13], orders=0)
    assert found.random.shape == (1, 0, len(found.shares))
    assert "random" not in " ".join(texts(faithfulness_grid(e, found)))


def test_what_there_is_not():
    e = demo_explanation("detr")
    with pytest.raises(UserError, match="no decoder layer 3"):
        faithfulness.faithfulness(e, [0], layers=3)
    with pytest.raises(ValueError, match="no mode"):
        faithfulness.faithfulness(e, [0], ["colour"])
    with pytest.raises(ValueError, match="query 25 is not"):
        faithfulness.faithfulness(e, [25])


# ---- figure and command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    e = demo_explanation("cd_detr")
    return faithfulness.faithfulness(e, e.by_score()[:2], e.modes)


@pytest.mark.parametrize("preset", [None, "column", "page", "slide", "poster"])
@pytest.mark.parametrize("name", ["", "a baseball glove that nobody wears"])
def test_nothing_overlaps(found, preset, name):
    e = demo_explanation("cd_detr")
    e = replace(e, class_names=(name,) * len(e.class_names)) if name else e
    for modes in (["combine"], [*found.maps]):
        some = replace(found, **{k: {m: getattr(found, k)[m] for m in modes} for k in PER_MODE})
        fig = faithfulness_grid(e, some, page_format=PageFormat.of(preset))
        check_page(fig)
        assert fig.get_figwidth() < PageFormat.of(preset).width_in + 0.01


def test_letters_before_the_queries(found):
    page = replace(PageFormat.of(), letters=True)
    said = texts(faithfulness_grid(demo_explanation("cd_detr"), found, page_format=page))
    assert [text[:4] for text in said if text.startswith("(")] == ["(a) ", "(b) "]


PER_MODE = ("maps", "deletion", "insertion")


def test_the_curves_are_the_numbers(found):
    e = demo_explanation("cd_detr")
    fig = faithfulness_grid(e, found)
    inks = {"combine": "#1a1a1a", "position": "#0072b2", "content": "#b84a00"}
    for mode, ink in inks.items():
        drawn = [line for line in fig.axes[0].lines if to_hex(line.get_color()) == ink]
        assert len(drawn) == 4  # two queries, both ways
        for line, (i, way) in zip(
            drawn, [(i, w) for i in (0, 1) for w in ("deletion", "insertion")], strict=True
        ):
            x, y = line.get_data()
            np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), found.shares, atol=1e-9)
            scores = getattr(found, way)[mode][i]
            slope, shift = np.polyfit(y, scores, 1)
            assert slope < 0  # up is more
            np.testing.assert_allclose(slope * y + shift, scores, atol=1e-6)
    said = texts(fig)
    for mode in inks:
        assert said.count(mode) == 2  # under its maps
        for way in ("deletion", "insertion"):
            for value in faithfulness.area(getattr(found, way)[mode], found.shares):
                assert f"{value:.2f}"[1:] in said
    rule = fig.facts["Description"]
    assert "decoder layers 0\N{EN DASH}2" in rule and "RISE (Petsiuk et al., BMVC 2018)" in rule
    assert "5 random orders" in rule and "gray: 5 random orders" in " ".join(said)


def test_random_orders_from_either_end(found):
    """A share of the cells is seen where the rest is hidden: the plots are mirror images."""
    ax = faithfulness_grid(demo_explanation("cd_detr"), found).axes[0]
    frames, means = (
        [line.get_xydata() for line in ax.lines if to_hex(line.get_color()) == ink]
        for ink in ("#9a9a9a", "#8c8c8c")
    )
    bands = [patch.get_xy() for patch in ax.patches]
    assert len(frames) == len(means) == len(bands) == 4  # two queries, both ways
    frames.sort(key=lambda frame: (frame[0, 1], frame[0, 0]))
    for k, (first, corner, last) in enumerate(frames):  # from the top down, deletion first
        sides = np.array([last[0] - corner[0], first[1] - corner[1]])

        def within(lines, corner=corner, sides=sides) -> np.ndarray:
            placed = [(line - corner) / sides for line in lines]
            (one,) = [xy for xy in placed if (xy > -0.01).all() and (xy < 1.01).all()]
            return one

        i, insertion = divmod(k, 2)
        mean, band = within(means), within(bands)
        np.testing.assert_allclose(mean[:, 0], found.shares, atol=1e-9)
        for share, height in mean:
            hidden = 1 - share if insertion else share
            scores = found.random[i][:, np.abs(found.shares - hidden).argmin()]
            assert height == pytest.approx(scores.mean(), abs=1e-6)
            edges = band[np.abs(band[:, 0] - share) < 1e-9, 1]
            assert edges.min() == pytest.approx(scores.min(), abs=1e-6)
            assert edges.max() == pytest.approx(scores.max(), abs=1e-6)
        nothing_hidden = mean[-1 if insertion else 0, 1]
        assert nothing_hidden == pytest.approx(found.scores[i], abs=1e-6)


@pytest.mark.parametrize("style", [Style("contour"), Style("heat", "figure", "viridis")])
def test_styles(found, style):
    e = demo_explanation("cd_detr")
    fig = faithfulness_grid(e, found, style=style)
    contour = style.name == "contour"
    rule = "50 % of each map's mass" if contour else NORMS["figure"]
    assert rule in fig.facts["Description"]
    assert ("holds 50 %" in texts(fig)) == contour and ("attention: 0" in texts(fig)) != contour


def test_a_narrow_page_is_refused_before_the_decoder_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(faithfulness, "_scores", None)
    argv = ["--type", "detr", "--faithfulness", "--width", "0.6", "--plot", "all"]
    assert cli.main([*argv, "--out", str(tmp_path / "a.png")]) == 2
    assert "too narrow" in capsys.readouterr().err


def test_nothing_to_draw(found):
    e = demo_explanation("cd_detr")
    with pytest.raises(FigureError, match="nothing to draw"):
        faithfulness_grid(e, replace(found, queries=()))


def test_the_command(tmp_path, capsys):
    argv = ["--type", "detr", "--faithfulness", "--queries", "top:2", "--ablate-in", "1,2"]
    out = tmp_path / "a.png"
    assert cli.main([*argv, "--plot", "all", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if "area: deletion  insertion  random" in line]
    e = explain(demo_model("detr"), assets.find(assets.DEFAULT_IMAGE))
    ids = e.by_score()[:2]
    known = faithfulness.faithfulness(e, ids, e.modes, [1, 2])
    rows = [line.split() for line in lines[at + 1 : at + 7]]
    for row, (i, mode) in zip(rows, [(i, m) for i in (0, 1) for m in e.modes], strict=True):
        curves = known.deletion[mode][i], known.insertion[mode][i], known.random[i].mean(0)
        areas = [faithfulness.area(curve, known.shares) for curve in curves]
        assert row[:2] + row[3:4] == [str(ids[i]), e.label_name(ids[i]), mode]
        np.testing.assert_allclose([*map(float, row[4:])], areas, atol=6e-4)
        assert float(row[2]) == pytest.approx(e.scores[ids[i]], abs=6e-4)
    first = out.read_bytes()
    assert cli.main([*argv, "--plot", "all", "--out", f"{tmp_path}/", "--quiet"]) == 0
    assert (tmp_path / "scene_1_detr_all_faithfulness.png").read_bytes() == first


def test_a_sum_of_terms_and_another_precision(tmp_path, capsys):
    argv = ["--type", "detr", "--faithfulness", "--queries", "13", "--terms", "cq.pk+pq.pk"]
    argv += ["--precision", "bfloat16", "--format", "svg", "--out", f"{tmp_path}/"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "bfloat16 moves attention weights by up to" in out and "cq.pk+pq.pk" in out
    (path,) = tmp_path.iterdir()
    assert "cq.pk+pq.pk" in path.read_text()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--heads", "0"], "leave --heads out"),
        (["--layer", "0"], "(--ablate-in: hides in): leave --layer out"),
        (["--layer", "all"], "leave --layer out"),
        (["--attention", "encoder"], "is about cross-attention: leave --attention out"),
        (["--attention", "cross", "encoder"], "leave --attention out"),
        (["--points", "3,4"], "are for --attention encoder"),
        (["--ablate-in", "5"], "no decoder layer 5"),
        (["--ablate-in", "x"], "--ablate-in"),
        (["--ablate", "content"], "--ablate is not for"),
        (["--rollout"], "one at a time"),
        (["--plot", "terms"], "leave one of them out"),
        (["--terms", "cq.pp"], "terms are sums"),
        (["--queries", "99"], "no query 99"),
        (["--queries", "score:2"], "no query answers"),
        (["--type", "cd_detr"], "is for one model"),
        (["--biography", "3"], "--biography"),
        (["--list-queries"], "--list-queries is not for"),
        (["--cmap", "nope"], "no colour map"),
        (["--width", "0.6", "--plot", "all"], "too narrow for its panels"),
        (["--faithfulness=yes"], "ignored explicit argument"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", "--faithfulness", *argv], says)
