"""Files of several levels compared: what has moved is found, and named where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_sampled import HEADS, FakeSampled

from detr_viz import heatmaps
from detr_viz.heatmaps.compare import Comparison, Outcome, judge
from detr_viz.heatmaps.limits import EXACT, Limits
from detr_viz.heatmaps.schema import Heatmaps
from detr_viz.regression.page import page
from detr_viz.regression.reports import as_json
from detr_viz.regression.tables import lines, worst

IDS, MODES = [2, 0, 3], ["combine", "position"]


@pytest.fixture
def old() -> Heatmaps:
    return heatmaps.of(FakeSampled(), IDS, MODES)


def changed(maps: Heatmaps, field: str, mode: str, change) -> Heatmaps:
    """With a copy of one array of the field, changed in place."""
    arrays = dict(getattr(maps, field))
    arrays[mode] = arrays[mode].copy()
    change(arrays[mode])
    return replace(maps, **{field: arrays})


def printed(verdict: Comparison) -> str:
    rows = list(lines("x.npz", verdict))
    assert max(map(len, rows)) <= 79
    return "\n".join(rows)


def test_what_is_the_same(old):
    verdict = judge(old, heatmaps.of(FakeSampled(), IDS, MODES), Limits(0, 0, 0, 1, 0))
    assert verdict.same and verdict.used == 0
    assert len(verdict.heads) == 3 * HEADS * 2 * 3  # queries, modes; the map and its two levels
    assert {change.level for change in verdict.heads} == {None, 0, 1}
    assert len(verdict.parts) == 3 * HEADS * 2 * 3  # outside, points, their weights
    assert printed(verdict) == "same       x.npz (0% of the limits used)"


def test_a_level_that_moved_by_one_cell(old):
    first, second = old.levels["position"]
    moved = second.copy()
    moved[1, 0] = np.roll(moved[1, 0], 1, axis=-1)
    new = replace(old, levels={**old.levels, "position": (first, moved)})
    verdict = judge(old, new)
    (far,) = [change for change in verdict.heads if change.excess > 1]
    assert (far.mode, far.query, far.head, far.level) == ("position", 0, 0, 1)
    assert far.total_variation == pytest.approx(
        np.abs(moved[1, 0].astype(float) - second[1, 0]).sum() / 2
    )
    said = printed(verdict)
    assert "maps of level 1 alone:" in said and "\n  position  0 cat " in said
    assert "head 0, query 0 cat, level 1, total variation" in worst(verdict)
    html = page([Outcome("x.npz", None, verdict, old, new)])
    assert "<b>position, layer 5, head 0, level 1</b>, query 0 cat" in html.replace("\n", "")


def test_a_map_of_all_levels_that_moved_is_told_apart_from_its_levels(old):
    def moved(maps):
        maps[0, 1] = np.roll(maps[0, 1], 1, axis=-1)

    verdict = judge(old, changed(old, "maps", "combine", moved))
    assert [change.level for change in verdict.heads if change.excess > 1] == [None]
    assert "alone" not in printed(verdict)


def test_mass_that_falls_off_the_map(old):
    def more(outside):
        outside[2, 1] += 0.001

    verdict = judge(old, changed(old, "outside", "combine", more))
    (far,) = [change for change in verdict.parts if change.excess > 1]
    assert (far.part, far.mode, far.query, far.head, far.level) == (
        "outside",
        "combine",
        3,
        1,
        None,
    )
    assert far.change == pytest.approx(0.001, rel=1e-3)
    assert far.excess == pytest.approx(2, rel=1e-3)  # of 0.0005
    assert not verdict.same and "mass off the map: 0.001" in printed(verdict)
    assert worst(verdict) == "worst: combine, layer 5, head 1, query 3 dog, mass off the map: 0.001"
    assert judge(old, changed(old, "outside", "combine", more), replace(EXACT, atol=0.0011)).same


def test_a_sampling_point_that_moved_is_told_in_cells_of_its_level(old):
    """By 0.15 of the width and 0.2 of the height of 4 x 3 cells: 0.6 cells each, 0.849 in all."""

    def moved(points):
        points[0, 1, 1, 2] += [0.15, 0.2]

    new = changed(old, "samples", "position", moved)
    verdict = judge(old, new)
    (far,) = [change for change in verdict.parts if change.excess > 1]
    assert (far.part, far.mode, far.query, far.head) == ("point", "position", 2, 1)
    assert (far.level, far.point) == (1, 2)
    assert far.change == pytest.approx(0.6 * 2**0.5, rel=1e-5)
    assert far.excess == pytest.approx(far.change / EXACT.max_shift)
    assert "level 1, point 2: 0.8 cells" in printed(verdict)
    assert "level 1, point 2: 0.8 cells" in worst(verdict)
    assert judge(old, new, replace(EXACT, max_shift=0.85)).same
    outcome = Outcome("x.npz", None, verdict, old, new)
    assert "<td>2 cat<td>level 1, point 2: 0.8 cells" in page([outcome])
    assert '"part": "point"' in as_json([outcome])
    assert "level 1, point 2" in page([outcome.brief()])


def test_a_sampling_weight(old):
    def moved(weights):
        weights[1, 0, 0, 1] += 0.002

    verdict = judge(old, changed(old, "sample_weights", "combine", moved))
    (far,) = [change for change in verdict.parts if change.excess > 1]
    assert (far.part, far.query, far.head, far.level, far.point) == ("weight", 0, 0, 0, 1)
    assert far.change == pytest.approx(0.002, rel=1e-3)
    assert "weight of level 0, point 1: 0.002" in printed(verdict)


def test_the_centre_of_a_level_that_has_no_mass_says_nothing(old):
    """1e-7 here or there: its centre is an accident, and so it moves by cells."""
    first, second = old.levels["combine"]
    nothing = [np.zeros_like(second) for _ in range(2)]
    nothing[0][..., 0, 0], nothing[1][..., 2, 3] = 1e-7, 1e-7
    a, b = (replace(old, levels={**old.levels, "combine": (first, n)}) for n in nothing)
    assert judge(a, b).same


def test_queries_in_another_order_are_the_same(old):
    new = heatmaps.of(FakeSampled(), IDS[::-1], MODES)
    assert judge(old, new, Limits(0, 0, 0, 1, 0)).same


def test_mass_that_left_the_map_is_no_mistake_of_the_softmax(old):
    less = {mode: maps * 0.5 for mode, maps in old.maps.items()}
    out = {mode: 1 - maps.sum((-2, -1)) for mode, maps in less.items()}
    assert not judge(old, replace(old, maps=less, outside=out)).likeness
    (words,) = judge(old, replace(old, maps=less)).likeness
    assert "do not sum to what they did" in words


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "dense"}, "their attention is sampled and dense"),
        (
            {"grid_hw": np.asarray([[6, 8]]), "strides": np.asarray([8])},
            "they have 2 and 1 levels: 8 x 6 cells of 8 px + 4 x 3 cells of 16 px and "
            "8 x 6 cells of 8 px",
        ),
        (
            {"grid_hw": np.asarray([[6, 8], [3, 5]])},
            "their grids are 8 x 6 cells of 8 px + 4 x 3 cells of 16 px and "
            "8 x 6 cells of 8 px + 5 x 3 cells of 16 px",
        ),
        (
            {"strides": np.asarray([8, 32])},
            "their grids are 8 x 6 cells of 8 px + 4 x 3 cells of 16 px and "
            "8 x 6 cells of 8 px + 4 x 3 cells of 32 px",
        ),
        (
            {"samples": {}, "sample_weights": {}},
            "only one of them has the sampling points of combine and position",
        ),
    ],
)
def test_what_cannot_be_compared(old, change, says):
    verdict = judge(old, replace(old, **change))
    assert not verdict.same and verdict.cannot == says
    assert verdict.heads == () and verdict.parts == ()
    assert printed(verdict).startswith("different  x.npz")


def test_another_number_of_points(old):
    few = {mode: points[:, :, :, :2] for mode, points in old.samples.items()}
    weights = {mode: array[..., :2] for mode, array in old.sample_weights.items()}
    verdict = judge(old, replace(old, samples=few, sample_weights=weights))
    assert verdict.cannot == "they have 3 and 2 sampling points a level"
