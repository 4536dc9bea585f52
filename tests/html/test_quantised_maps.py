"""The arrays of a page: what 8 bits change, and that the page's own decoding gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from explorer_tools import dense, photo

from detr_viz.attention.grids import Grid
from detr_viz.html import measure
from detr_viz.html.entry import MAPS_BYTES, MOST_QUERIES, _grid, kept_queries
from detr_viz.html.ledger import TERMS_BYTES
from detr_viz.html.quantise import LEVELS, Curve, linear, packed, unpacked

RGB = photo(120, 160)


@pytest.mark.parametrize("cells", [1, 16, 950, 13_400])
@pytest.mark.parametrize("levels", LEVELS)
def test_a_weight_moves_by_no_more_than_half_a_step_of_the_curve(cells, levels):
    weights = np.concatenate([[0, 1, 1 / cells], np.geomspace(1e-9, 1, 20_000)])
    curve = Curve(cells, levels)
    back = curve.weights(curve.codes(weights))
    # by hand: u = log(1 + r^2) / 2 is rounded to a multiple of s, so 1 + r^2 changes by exp(+-s)
    s = np.log(1 + float(cells) ** 2) / 2 / levels
    r = weights * cells
    low = np.sqrt(np.maximum((1 + r**2) * np.exp(-s) - 1, 0)) / cells
    high = np.sqrt((1 + r**2) * np.exp(s) - 1) / cells
    assert (back >= low - 1e-12).all() and (back <= high + 1e-12).all()
    assert (np.abs(back - weights) <= curve.bound(weights) + 1e-12).all()


def test_ends_are_exact_and_order_is_kept():
    curve = Curve(950)
    weights = np.sort(np.random.default_rng(0).uniform(0, 1, 1000))
    codes = curve.codes(weights)
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert curve.weights(curve.codes(np.array([0.0, 1.0]))) == pytest.approx([0, 1], abs=1e-12)
    # an even spread of 950 cells: 1.4 % of it, by (1 + 1) * (exp(s) - 1) / 2 with s = .0269
    assert curve.bound(np.array([1 / 950]))[0] * 950 < 0.03


def test_signed_values_move_by_half_a_step():
    values = np.linspace(-10, 10, 1001)
    back = (linear(values, 10 / 127).astype(float) - 128) * 10 / 127
    assert np.abs(back - values).max() <= 10 / 127 / 2 + 1e-12


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (1, 1, 1, 1), (2, 1, 1, 9), (2, 3, 9, 1)])
@pytest.mark.parametrize("kind", ["noise", "rows", "columns"])
def test_packing_loses_nothing(shape, kind):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, shape, np.uint8)
    if kind == "rows":
        codes = np.broadcast_to(codes[..., :1, :], shape).copy()
    if kind == "columns":
        codes = np.broadcast_to(codes[..., :, :1], shape).copy()
    assert np.array_equal(unpacked(packed(codes)), codes)


def test_smooth_maps_are_stored_as_differences():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8), (4, 8, 32, 64))
    assert packed(ramp).filter != "none"
    assert len(packed(ramp)) < 500


@pytest.fixture(scope="module")
def explained():
    return dense(RGB, 30, noise=0.3)


def test_maps_of_an_entry_are_those_of_the_explanation(explained):
    entry = measure(explained)
    kept = entry.facts["queries"]
    for mode in explained.modes:
        name = f"maps/5/{mode}/sum"
        curve = Curve(*entry.facts["curves"][name])
        back = curve.weights(unpacked(entry.blocks[name]))
        maps = explained.maps(mode, kept).astype(np.float64)
        assert back.shape == maps.shape == (30, 8, 25, 38)
        assert (np.abs(back - maps) <= curve.bound(maps) + 1e-9).all()
        assert np.abs(back - maps).max() <= entry.errors["weight"] + 1e-12
    assert 0 < entry.errors["weight"] < 0.05


def test_terms_of_an_entry_are_those_of_the_explanation(explained):
    entry = measure(explained)
    ledger = entry.facts["ledger"]
    terms = explained.logit_terms(ledger["queries"]).terms
    for name, steps in ledger["steps"]["5"].items():
        codes = unpacked(entry.blocks[f"terms/5/{name}"]).astype(np.float64)
        step = np.array(steps)[:, None, None]
        assert (np.abs((codes - 128) * step - terms[name]) <= step / 2 + 1e-6).all()
        assert max(steps) / 2 <= entry.errors["term"] + 1e-12


def test_queries_asked_for_are_kept_and_have_terms_before_better_ones():
    e = dense(RGB, 130, noise=1.0)
    worst = e.by_score()[-1]
    assert worst not in kept_queries(e, [])
    entry = measure(e, [worst])
    assert len(entry.facts["queries"]) == MOST_QUERIES + 1
    assert entry.facts["queries"][-1] == worst == entry.facts["start"]
    assert entry.facts["ledger"]["queries"][0] == worst
    assert len(entry.facts["ledger"]["queries"]) < 130


def test_what_does_not_fit_takes_coarser_steps():
    entry = measure(dense(RGB, 100, noise=2.0))
    maps = {name: len(block) for name, block in entry.blocks.items() if name.startswith("maps")}
    assert sum(maps.values()) <= MAPS_BYTES
    levels = {name: entry.facts["curves"][name][1] for name in maps}
    assert min(levels.values()) < LEVELS[0]
    terms = [len(block) for name, block in entry.blocks.items() if name.startswith("terms")]
    assert sum(terms) <= TERMS_BYTES


@pytest.mark.parametrize("rule", ["aligned", "centered", "strided"])
def test_cells_lie_where_the_grid_says(rule):
    grid = Grid((5, 7), (160, 224), 32, rule, (150, 200))
    facts = _grid(grid)
    left, top, width, height = facts["rect"]
    for axis, start, size in ((1, left, width), (0, top, height)):
        middles = start + size * (np.arange(grid.hw[axis]) + 0.5)
        px = 4000
        assert middles * px == pytest.approx(grid.centers(px, axis) + 0.5, abs=0.01)
    assert facts["borders"][0] == pytest.approx(grid.of_photo(1), abs=1e-5)
    share = grid.input_share(np.array(30.0), 200, 1)
    assert float(share) / facts["photo"][0] == pytest.approx(30 / 200)
