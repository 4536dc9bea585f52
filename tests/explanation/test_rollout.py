"""Rollout against hand values, and against products of block matrices made with numpy alone."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch
from conftest import demo_model
from figure_tools import captions_of, check_page, pixels, rows_of, texts
from look_tools import caption_of, check_heat, plain, share_in_box
from network_tools import tiny

from detr_viz import cli, explain
from detr_viz.attention.dense import DenseAttention
from detr_viz.attention.grids import Grid, on_one_grid
from detr_viz.common import assets
from detr_viz.common.errors import UserError
from detr_viz.explanation import rollout
from detr_viz.figures.rollout import encoder_rollout_grid, rollout_grid
from detr_viz.figures.styles import FigureError, PageFormat, Style


@cache
def explained(name: str):
    image = assets.find(assets.DEFAULT_IMAGE)
    return explain(demo_model(name), image, layers="all", sites=["encoder", "decoder"])


def stochastic(*shape: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).random(shape)
    return rows / rows.sum(-1, keepdims=True)


def attending(weights: np.ndarray, padding: np.ndarray | None = None) -> DenseAttention:
    """Terms whose softmax is these weights (M, N, N): q = log w, k = I."""
    q = torch.from_numpy(np.log(np.maximum(weights, 1e-300)))
    k = torch.eye(q.shape[-1], dtype=torch.float64).expand_as(q)
    mask = None if padding is None else torch.from_numpy(padding)
    zero = torch.zeros_like(q)
    return DenseAttention(q, zero, k, zero, None, None, zero, 1.0, {"combine": 1.0}, mask)


def blocks(between, across, encoder) -> tuple[np.ndarray, np.ndarray]:
    """(R_qi, R_qq): one product of (Q + K, Q + K) matrices, tokens being queries, then cells."""
    count, cells = across[0].shape
    eye, whole = np.eye(cells), np.eye(count + cells)
    for a in encoder:
        step = np.eye(count + cells)
        step[count:, count:] = (a + eye) / 2
        whole = step @ whole
    for s, c in zip(between, across, strict=True):
        own, look = np.eye(count + cells), np.eye(count + cells)
        own[:count, :count] = (s + np.eye(count)) / 2
        look[:count] *= 0.5
        look[:count, count:] = c / 2
        whole = look @ own @ whole
    return whole[:count, count:], whole[:count, :count]


# ---- by hand ------------------------------------------------------------------------------------


def test_two_encoder_layers_by_hand():
    """0.5 (A + I): [[.5, .5], [0, 1]], then [[1, 0], [.25, .75]]; the later times the earlier."""
    first, then = np.array([[[0, 1], [0, 1.0]]]), np.array([[[1, 0], [0.5, 0.5]]])
    made = rollout.through_encoder(
        torch.eye(2, dtype=torch.float64), [attending(first), attending(then)]
    )
    np.testing.assert_allclose(made, [[0.5, 0.5], [0.125, 0.875]], atol=1e-12)


def test_a_chain_of_one_hot_layers():
    """Each query hears the other, and looks at one cell."""
    swap, look = np.array([[0, 1], [1, 0.0]]), np.array([[1, 0, 0], [0, 0, 1.0]])
    tensors = [torch.from_numpy(x) for x in (swap, look)]
    cells, queries = rollout.through_decoder([tensors[0]] * 2, [tensors[1]] * 2)
    # .5 of the own cell; then both have .25 of either cell, half of which stays, and .5 anew
    np.testing.assert_allclose(cells, [[0.625, 0, 0.125], [0.125, 0, 0.625]], atol=1e-12)
    np.testing.assert_allclose(queries, [[0.125, 0.125], [0.125, 0.125]], atol=1e-12)


def test_attention_to_oneself_alone_changes_nothing():
    rows = torch.from_numpy(stochastic(3, 5))
    alone = attending(np.eye(5)[None].repeat(2, 0))
    np.testing.assert_allclose(rollout.through_encoder(rows, [alone] * 3), rows, atol=1e-12)


def test_padded_cells_take_no_part():
    """The rows of cells that are none put nothing into those that are."""
    padding = np.array([False, False, True, True])
    weights = stochastic(2, 4, 4)
    made = rollout.through_encoder(
        torch.eye(4, dtype=torch.float64), [attending(weights, padding)] * 2
    )
    valid = weights[:, :2, :2] / weights[:, :2, :2].sum(-1, keepdims=True)
    expected = np.linalg.matrix_power((valid.mean(0) + np.eye(2)) / 2, 2)
    np.testing.assert_allclose(made[:2, :2], expected, atol=1e-12)
    assert not made[:2, 2:].any()


def test_blocks_of_rows_are_all_rows(monkeypatch):
    terms = attending(stochastic(2, 7, 7))
    rows, whole = torch.from_numpy(stochastic(3, 7, seed=1)), rollout.head_mean(terms)
    rolled = rollout.through_encoder(rows, [terms] * 2)
    monkeypatch.setattr(rollout, "_MOST_WEIGHTS", 2 * 7 * 2)  # two rows at a time
    torch.testing.assert_close(rollout.head_mean(terms), whole)
    torch.testing.assert_close(rollout.through_encoder(rows, [terms] * 2), rolled)
    assert rollout.head_mean(terms, [4, 0]).equal(whole[[4, 0]])


def test_against_one_product_of_blocks():
    between, across = stochastic(3, 4, 4), stochastic(3, 4, 6, seed=1)
    cells, queries = rollout.through_decoder(
        [*map(torch.tensor, between)], [*map(torch.tensor, across)]
    )
    expected = blocks(between, across, [])
    np.testing.assert_allclose(cells, expected[0], atol=1e-12)
    np.testing.assert_allclose(queries, expected[1], atol=1e-12)
    np.testing.assert_allclose(cells.sum(-1) + queries.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(cells.sum(-1), 1 - 0.5**3, atol=1e-12)  # whatever the weights


# ---- of a network -------------------------------------------------------------------------------


def stacks_of(e) -> list[list[np.ndarray]]:
    """Means of heads, a list a kind of attention: decoder, cross, encoder."""
    counts = {
        "decoder": e.num_layers,
        "cross": e.num_layers,
        "encoder": e.model.info.num_encoder_layers,
    }
    return [
        [e.attention((kind, i), scale="layer").mean(1).astype(np.float64) for i in range(count)]
        for kind, count in counts.items()
    ]


def of_all_cells(encoder: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The product of all layers, and what is left without the part that identities alone make."""
    whole = np.eye(len(encoder[0]))
    for a in encoder:
        whole = (a + np.eye(len(a))) / 2 @ whole
    gathered = whole - np.eye(len(whole)) * 0.5 ** len(encoder)
    return whole, gathered / gathered.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_of_a_model(name):
    e = explained(name)
    stacks = stacks_of(e)
    found = rollout.of_queries(e, [13, 2])
    for made, encoder in ((found.decoder, []), (found.both, stacks[2])):
        cells = blocks(*stacks[:2], encoder)[0][[13, 2]]
        np.testing.assert_allclose(made, cells / cells.sum(-1, keepdims=True), atol=2e-6)
        np.testing.assert_allclose(made.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.last, stacks[1][-1][[13, 2]], atol=1e-6)
    whole, gathered = of_all_cells(stacks[2])
    np.testing.assert_allclose(rollout.of_cells(e, [5, 40]), whole[[5, 40]], atol=2e-6)
    np.testing.assert_allclose(rollout.of_cells(e, [5], stays=False), gathered[[5]], atol=2e-6)


def test_of_sampled_attention():
    """Products of splats over all levels; with what fell off the map, rows sum to 1."""
    image = assets.find(assets.DEFAULT_IMAGE)
    model = tiny("deformable_detr", enc_layers=2)
    e = explain(model, image, layers="all", sites=["encoder", "decoder"])
    stacks, ids = stacks_of(e), [3, 0]
    grids = e.grids()
    found = rollout.of_queries(e, ids)
    for rolled, encoder in ((found.decoder, []), (found.both, stacks[2])):
        cells, queries = blocks(*stacks[:2], encoder)
        expected = cells[ids] / cells[ids].sum(-1, keepdims=True)
        expected = on_one_grid(expected, grids).reshape(len(ids), -1)
        np.testing.assert_allclose(rolled, expected, atol=2e-6)
        np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-5)
    off = {
        site: e.attention_at(site).outside().sum(-1).mean(0).numpy()
        for site in e.sites
        if site[0] != "decoder"
    }
    in_cells = np.zeros(sum(grid.cells for grid in grids))
    for i, a in enumerate(stacks[2]):
        in_cells = 0.5 * in_cells + 0.5 * (a @ in_cells + off["encoder", i])
    in_queries = np.zeros(len(cells))
    for i, (s, c) in enumerate(zip(*stacks[:2], strict=True)):
        in_queries = 0.5 * in_queries + 0.5 * s @ in_queries
        in_queries = 0.5 * in_queries + 0.5 * (c @ in_cells + off["cross", i])
    assert in_queries.min() > 1e-3
    np.testing.assert_allclose(cells.sum(-1) + queries.sum(-1) + in_queries, 1, atol=1e-5)
    notes = rollout_grid(e, ids).facts["Description"]
    assert "A is the splat of the samples" in notes
    one_hot = rollout.of_cells(e, [0], stays=False)
    np.testing.assert_allclose(one_hot.sum(), 1, atol=1e-5)


def test_points_of_an_encoder_that_samples():
    """The last layer beside the rollout: splats of all levels, on the finest grid."""
    image = assets.find(assets.DEFAULT_IMAGE)
    e = explain(tiny("deformable_detr", enc_layers=2), image, sites=["encoder"])
    grids = e.grids()
    assert len(grids) > 1
    stacks = e.attention_at(("encoder", 1)).weights("combine", [5, 40], "layer").mean(0).numpy()
    expected = on_one_grid(stacks / stacks.sum(-1, keepdims=True), grids).reshape(2, -1)
    np.testing.assert_allclose(rollout.last_of_cells(e, [5, 40]), expected, atol=1e-6)
    fig = encoder_rollout_grid(e, [(100, 200), (0, 0)])
    assert {"last layer", "rollout"} <= {*texts(fig)}


@pytest.mark.parametrize("name", ["deformable_detr", "efficient_detr"])
def test_the_command_of_points_that_sample(tmp_path, name):
    out = tmp_path / "a.png"
    argv = ["--type", name, "--rollout", "--attention", "encoder", "--points", "100,200"]
    assert cli.main([*argv, "--save-maps", "--out", str(out)]) == 0
    with np.load(out.with_suffix(".npz"), allow_pickle=False) as saved:
        for key in ("maps_last", "maps_rollout"):
            np.testing.assert_allclose(saved[key].sum((1, 2)), 1, atol=1e-5)


def test_what_falls_off_the_map_altogether_has_no_share():
    rows = torch.tensor([[0.0, 0.0], [0.5, 0.25]])
    grids = (Grid((1, 2), (8, 16), 8),)
    np.testing.assert_allclose(rollout._normalised(rows, grids), [[0, 0], [2 / 3, 1 / 3]])


def test_a_layer_that_was_not_captured():
    e = explain(demo_model("detr"), assets.find(assets.DEFAULT_IMAGE), sites=["encoder"])
    with pytest.raises(UserError, match='decoder 0 was not captured: explain with layers="all"'):
        rollout.of_queries(e, [0])
    assert rollout.of_cells(e, [0]).shape == (1, 256)


# ---- figures and the command --------------------------------------------------------------------


@pytest.mark.parametrize("preset", [None, "column", "slide"])
def test_the_figure_of_queries(preset):
    e = explained("detr")
    fig = rollout_grid(e, [13, 2], page_format=PageFormat.of(preset))
    check_page(fig)
    said, found = texts(fig), rollout.of_queries(e, [13, 2])
    for words in ("last layer", "rollout", "with encoder"):
        assert words in said
    expected = []
    for i, query in enumerate((13, 2)):
        for maps in (found.last, found.decoder, found.both):
            one, centers = maps[i].reshape(e.grid_hw), e.cell_centers_px()
            share = share_in_box(one, e.boxes_xyxy_px[query], centers, e.image.hw)
            expected.append(caption_of(one, share))
    shares = [text for text in said if re.match(r"\d+ %", text)]  # under panels, or over them
    assert plain(shares) == expected
    assert any("attention rollout, an approximation" in text for text in said)
    rule = fig.facts["Description"]
    assert "approximation (Abnar and Zuidema, ACL 2020)" in rule and "FFNs" in rule
    assert "Queries 13, 2" in rule


def test_the_figure_of_points():
    e = explained("detr")
    fig = encoder_rollout_grid(e, [(100, 200), (0, 0)])
    said = texts(fig)
    assert {"cell 3, 6", "cell 0, 0", "last layer", "rollout"} <= {*said}
    rolled = rollout.of_cells(e, [6 * 16 + 3, 0], stays=False)
    last = e.attention(("encoder", 1), rows=[99, 0], scale="layer").mean(1)
    pairs = [one for pair in zip(last, rolled, strict=True) for one in pair]
    assert captions_of(fig) == [caption_of(one) for one in pairs]  # of no box


def check_columns(fig, e, expected) -> None:
    """expected: heading -> (rows, K). The panels under it have these colours.

    For figures in style heat, whose cells are of one colour: to one of 256 tones.
    """
    rows = rows_of(fig)
    for heading, maps in expected.items():
        (x,) = [t.get_position()[0] for t in fig.axes[0].texts if t.get_text() == heading]
        for row, one in zip(rows, maps, strict=True):
            (tile,) = [tile for tile in row[1:] if tile.left <= x < tile.right]
            check_heat(pixels(fig, tile), np.reshape(one, e.grid_hw))


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_each_column_has_its_own_map(name):
    e, ids = explained(name), [13, 2]
    between, across, encoder = stacks_of(e)
    decoder, both = (blocks(between, across, some)[0][ids] for some in ([], encoder))
    expected = {"last layer": across[-1][ids], "rollout": decoder, "with encoder": both}
    expected = {heading: maps / maps.sum(-1, keepdims=True) for heading, maps in expected.items()}
    fig = rollout_grid(e, ids, style=Style("heat"))
    assert [len(row) for row in rows_of(fig)] == [1 + 3] * 2
    check_columns(fig, e, expected)


def test_each_column_of_points_has_its_own_map():
    e, cells = explained("detr"), [6 * 16 + 3, 0]
    encoder = stacks_of(e)[2]
    fig = encoder_rollout_grid(e, [(100, 200), (0, 0)], style=Style("heat"))
    assert [len(row) for row in rows_of(fig)] == [1 + 2] * 2
    gathered = of_all_cells(encoder)[1]
    check_columns(fig, e, {"last layer": encoder[-1][cells], "rollout": gathered[cells]})


def test_nothing_to_draw():
    for draw in (rollout_grid, encoder_rollout_grid):
        with pytest.raises(FigureError, match="nothing to draw"):
            draw(explained("detr"), [])


def test_the_command(tmp_path, capsys):
    argv = ["--type", "cd_detr", "--rollout", "--queries", "top:2", "--format", "png,svg"]
    assert cli.main([*argv, "--out", f"{tmp_path}/"]) == 0
    assert cli.main([*argv, "--attention", "encoder", "--out", f"{tmp_path}/"]) == 0
    assert "wrote" in capsys.readouterr().out
    stem = "scene_1_cd_detr_combine_rollout"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{stem}{end}" for end in (".png", ".svg", "_encoder.png", "_encoder.svg")
    ]
    first = (tmp_path / f"{stem}.png").read_bytes()
    assert cli.main([*argv[:-2], "--out", str(tmp_path / "b.png"), "--quiet"]) == 0
    assert (tmp_path / "b.png").read_bytes() == first


def test_another_precision_says_what_it_moves(tmp_path, capsys):
    argv = ["--type", "detr", "--rollout", "--precision", "bfloat16", "--queries", "13"]
    for more in ([], ["--attention", "encoder"]):
        assert cli.main([*argv, *more, "--out", f"{tmp_path}/"]) == 0
        assert "bfloat16 moves rolled out weights by up to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--plot", "position"], "leave --plot and --terms out"),
        (["--plot", "all"], "leave --plot and --terms out"),
        (["--plot", "terms"], "leave one of them out"),
        (["--terms", "cq.ck"], "leave --plot and --terms out"),
        (["--heads", "mean"], "leave --heads out"),
        (["--layer", "0"], "goes through all layers: leave --layer out"),
        (["--scale", "layer"], "leave --scale out"),
        (["--points", "3,4"], "are for --attention encoder"),
        (["--attention", "cross", "encoder"], "give --attention one of them"),
        (["--attention", "encoder", "--points", "900,4"], "outside the image"),
        (["--attention", "encoder", "--points", "3,4", "--queries", "3"], "give one of them"),
        (["--queries", "99"], "no query 99"),
        (["--queries", "class:dog"], "no class is named"),
        (["--type", "cd_detr"], "is for one model"),
        (["--ablate", "content"], "--ablate is not for"),
        (["--biography", "3"], "--biography"),
    ],
)
def test_mistakes(refused, argv, says):
    refused(["--type", "detr", "--rollout", *argv], says)
