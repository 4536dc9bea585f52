"""The numbers of the atlas: cell by cell on small grids, against other code, against scipy."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import demo_model

from detr_viz import explain
from detr_viz.atlas.box_frame import BINS, PER_BOX, ZONES, frame_of, zone_masks
from detr_viz.atlas.levels import LevelShares, sizes_of
from detr_viz.atlas.statistics import HeadStatistics, interval
from detr_viz.atlas.table import COLUMNS, EVEN, IN_BOX, AtlasTable
from detr_viz.atlas.words import level_notes
from detr_viz.attention.grids import Grid
from detr_viz.demo.measure import Geometry, baselines, measure_maps, peak_offsets
from detr_viz.demo.shapes import held_out_seeds, scene
from detr_viz.explanation.results import ExplanationBase


class Seen:
    """What the atlas asks of ExplanationBase, with maps of one's own: made (Q, M, h, w)."""

    cell_centers_px, cells_inside = ExplanationBase.cell_centers_px, ExplanationBase.cells_inside
    _centers, _inside = ExplanationBase._centers, ExplanationBase._inside

    def __init__(self, boxes, made, hw=(120, 160), stride=10, rule="centered", input_hw=None):
        self.boxes_xyxy_px = np.asarray(boxes, np.float32)
        self.made = np.asarray(made, np.float32)
        self.image = SimpleNamespace(hw=hw)
        self.grid_hw = self.made.shape[-2:]
        self._grid = Grid(self.grid_hw, input_hw or hw, stride, rule)
        self.num_queries = len(self.boxes_xyxy_px)

    def grid(self, layer=None):
        return self._grid

    def grids(self, layer=None):
        return (self._grid,)

    def maps(self, mode, queries, layer, scale):
        return self.made[queries]

    def cells(self, queries, layer=None):
        return None


def tally_of(seen: Seen, **more) -> HeadStatistics:
    ids = list(range(seen.num_queries))
    tally = HeadStatistics(seen.made.shape[1])
    tally.add(seen.made, frame_of(seen, ids), **more)
    return tally


def one_hot(*cells: tuple[int, int], grid=(12, 16)) -> np.ndarray:
    """A map a cell (row, column): (1, cells, h, w)."""
    made = np.zeros((1, len(cells), *grid), np.float32)
    for i, (row, column) in enumerate(cells):
        made[0, i, row, column] = 1
    return made


def binned(made: np.ndarray, box: tuple[int, ...], owner_y, owner_x) -> np.ndarray:
    """Pixel by pixel: what each bin of a box with bins of whole pixels gets of a map (h, w)."""
    left, top, right, bottom = box
    wide, high = (right - left) // PER_BOX, (bottom - top) // PER_BOX
    area = np.bincount(owner_y)[:, None] * np.bincount(owner_x)[None]
    found = np.zeros((BINS, BINS))
    for y, row in enumerate(owner_y):
        for x, column in enumerate(owner_x):
            i = (y - top) // high + BINS // 4
            j = (x - left) // wide + BINS // 4
            if 0 <= i < BINS and 0 <= j < BINS:
                found[i, j] += made[row, column] / area[row, column]
    return found


@pytest.mark.parametrize("box", [(40, 30, 72, 78), (96, 64, 160, 112), (-8, 0, 40, 64)])
def test_bins_hold_what_lies_on_their_pixels(box):
    made = np.random.default_rng(3).dirichlet(np.ones(192), 2).reshape(1, 2, 12, 16)
    seen = Seen([box], made)
    around = frame_of(seen, [0])
    owner_y, owner_x = np.arange(120) // 10, np.arange(160) // 10
    for head in range(2):
        mass = around.rows[0] @ seen.made[0, head] @ around.columns[0].T
        expected = binned(seen.made[0, head], box, owner_y, owner_x)
        np.testing.assert_allclose(mass, expected, atol=1e-7)
    everywhere = binned(np.ones((1, 1)), box, np.zeros(120, int), np.zeros(160, int))
    pixels = (box[2] - box[0]) * (box[3] - box[1]) / PER_BOX**2
    np.testing.assert_allclose(around.visible[0], everywhere * 120 * 160 / pixels, atol=1e-9)


def test_territories_of_aligned_cells_end_halfway():
    """Input 64, stride 16, image 128: centres at pixels 1, 33, 65, 97, so borders at 17, 49, 81."""
    made = np.random.default_rng(4).dirichlet(np.ones(16), 1).reshape(1, 1, 4, 4)
    box, input_hw = (32, 48, 80, 112), (64, 64)
    seen = Seen([box], made, hw=(128, 128), stride=16, rule="aligned", input_hw=input_hw)
    owner = np.digitize(np.arange(128) + 0.5, [17, 49, 81])
    around = frame_of(seen, [0])
    mass = around.rows[0] @ seen.made[0, 0] @ around.columns[0].T
    expected = binned(seen.made[0, 0], box, owner, owner)
    np.testing.assert_allclose(mass, expected, atol=1e-7)


def test_no_attention_is_lost_where_the_window_holds_the_image():
    made = np.random.default_rng(5).dirichlet(np.ones(192), 1).reshape(1, 1, 12, 16)
    tally = tally_of(Seen([(0, 0, 160, 120)], made))
    inner = tally.mean_map()[0, 8:24, 8:24]
    assert inner.sum() / PER_BOX**2 == pytest.approx(1)
    assert np.isnan(tally.mean_map()[0, :8]).all()  # above the image


def test_means_by_hand():
    """A box of 4 x 4 cells from cell 4, 3 on; peaks a cell inside its left edge, and far right."""
    seen = Seen([(40, 30, 80, 70)], one_hot((4, 4), (4, 9)))
    means = tally_of(seen).means()
    assert means["entropy"] == pytest.approx([0, 0])
    assert means["mass_in_box"] == pytest.approx([1, 0])
    assert means["peak_in_box"] == pytest.approx([1, 0])
    assert means["peak_to_left"] == pytest.approx([0.5, 5.5])
    assert means["peak_to_right"] == pytest.approx([3.5, 1.5])
    assert means["peak_to_top"] == pytest.approx([1.5, 1.5])
    assert means["peak_to_bottom"] == pytest.approx([2.5, 2.5])
    assert means["peak_to_edge"] == pytest.approx([0.5, 1.5])
    assert means["peak_x"] == pytest.approx([0.125, 1.375], abs=1 / 64)
    assert means["peak_y"] == pytest.approx([0.375, 0.375], abs=1 / 64)


def test_zones_share_the_plane():
    masks = zone_masks()
    assert masks.min() >= 0 and masks.sum(0).max() == pytest.approx(1)
    area = masks.sum((1, 2)) / PER_BOX**2
    assert area == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.25])  # of 2.25 boxes
    left, right, top, bottom, inside = masks
    np.testing.assert_array_equal(left, right[:, ::-1])
    np.testing.assert_array_equal(top, bottom[::-1])
    np.testing.assert_array_equal(left, top.T)
    np.testing.assert_array_equal(inside, inside[::-1])

    def at(u: float, v: float) -> str:
        i, j = (int((t + 0.5) * PER_BOX) for t in (v, u))
        found = [*masks[:, i, j], 1 - masks[:, i, j].sum()]
        assert max(found) == 1
        return ZONES[int(np.argmax(found))]

    assert at(0.1, 0.5) == at(-0.1, 0.5) == at(-0.1, 0.04) == "left"
    assert at(0.9, 0.4) == at(1.2, 0.6) == "right"
    assert (at(0.5, 0.2), at(0.5, 1.1), at(0.3, 0.3)) == ("top", "bottom", "inside")
    assert at(-0.3, 0.5) == at(1.4, 1.4) == at(0.5, -0.4) == "background"


def test_a_head_is_what_it_is_for_most():
    """Heads at the middle of each edge, in the middle, far away; and one that changes its mind."""
    spots = ((5, 4), (5, 9), (3, 7), (8, 7), (5, 7), (1, 1))
    first = one_hot(*spots, (5, 4))
    second = one_hot(*spots, (5, 9))
    boxes = [(40, 30, 100, 90)] * 4  # cells 4 to 9 across, 3 to 8 down
    seen = Seen(boxes, np.concatenate([first, first, first, second]))
    tally = tally_of(seen)
    kinds = tally.roles()
    assert [kind.zone for kind in kinds] == [*ZONES, "left"]
    assert [kind.share for kind in kinds] == [1] * 6 + [0.75]
    assert [kind.clear for kind in kinds] == [True] * 6 + [False]  # 3 of 4 may be chance
    assert (kinds[-1].second, kinds[-1].second_share) == ("right", 0.25)
    assert tally.zones()[:6].argmax(1).tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(tally.zones().sum(1), 1)


@pytest.mark.parametrize(("hits", "trials"), [(0, 3), (1, 1), (7, 9), (130, 200), (200, 200)])
def test_the_interval_is_wilsons(hits, trials):
    from scipy import stats

    known = stats.binomtest(hits, trials).proportion_ci(0.95, "wilson")
    assert interval(hits, trials) == pytest.approx((known.low, known.high), abs=1e-4)


def test_narrow_boxes_have_no_sides():
    """Fewer than two cells across: they count for the means, not for maps and kinds."""
    made = one_hot((4, 4), (4, 9))
    seen = Seen([(40, 30, 59, 70), (40, 30, 60, 70)], np.concatenate([made, made]))
    tally = tally_of(seen)
    assert (tally.objects, tally.resolved) == (2, 1)
    alone = tally_of(Seen([(40, 30, 59, 70)], made))
    assert alone.roles() == [None, None]
    assert np.isnan(alone.mean_map()).all() and np.isnan(alone.zones()).all()
    assert alone.means()["mass_in_box"] == pytest.approx([1, 0])


def test_memory_does_not_grow():
    seen = Seen([(40, 30, 80, 70)], one_hot((4, 4)))
    one = tally_of(seen)
    small = len(pickle.dumps(one))
    for _ in range(300):
        one.add(seen.made, frame_of(seen, [0]))
    assert one.objects == 301 and len(pickle.dumps(one)) - small < 64


@pytest.mark.parametrize("name", ["detr", "cd_detr"])
def test_the_demos_maps_are_measured_as_in_the_readme(name):
    """demo/measure.py is other code for some of the same numbers."""
    scenes = [scene(seed, 256) for seed in held_out_seeds(4)]
    book = AtlasTable(name, ["combine", "content"], [2], 8, "mode")
    rows, places, chance = [], [], {EVEN: [], IN_BOX: []}
    for picture in scenes:
        e = explain(demo_model(name), picture.rgb)
        ids = [q for q in e.by_score() if e.scores[q] >= 0.5]
        book.add(e, ids)
        there, boxes = Geometry.of(e), e.boxes_xyxy_px[ids]
        rows.append(measure_maps(e.maps("combine", ids), boxes, boxes, there))
        places.append(peak_offsets(e.maps("combine", ids), boxes, there))
        found = baselines(boxes, boxes, there)
        chance[EVEN].append(found["uniform"])
        chance[IN_BOX].append(found["uniform in the box"])
    names = ("entropy", "mass_in_box", "mass_on_found", "peak_to_edge", "peak_in_box")
    means = book.statistics[2, "combine"].means()
    made = np.stack([means[n] for n in names], -1)
    np.testing.assert_allclose(made, np.concatenate(rows).mean(0), rtol=2e-5, atol=1e-6)
    medians = (np.median(np.concatenate(places), 0) + 1) / 2  # from half boxes off the centre
    of_hand = np.stack([means["peak_x"], means["peak_y"]], -1)
    apart = np.abs(of_hand - medians)
    assert (apart <= 1 / 64).mean() > 0.8  # between two values the middle one of either may be told
    for name, parts in chance.items():
        means = book.chance[name].means()
        known = np.concatenate(parts).mean((0, 1))
        np.testing.assert_allclose([means[n][0] for n in names], known, rtol=2e-5)


def test_rows_have_all_columns(explanation):
    book = AtlasTable("x", ["combine", "cq.ck"], [2], 8, "mode")
    book.add(explanation, [0, 1])
    book.add(explanation, [])
    assert (book.images, book.objects) == (2, 2)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in book.rows()]
    assert [row["head"] for row in rows] == [*"01234567", "mean"] * 2 + ["", ""]
    assert {row["mode"] for row in rows} == {"combine", "cq.ck", EVEN, IN_BOX}
    heads = [float(row["entropy"]) for row in rows[:8]]
    assert float(rows[8]["entropy"]) == pytest.approx(np.mean(heads), rel=1e-3)
    zones = [float(rows[3][f"mass_{zone}"]) for zone in ZONES]
    assert sum(zones) == pytest.approx(1, abs=2e-3)


def test_shares_of_levels_by_the_size_of_objects():
    """Hand-made weights of two heads on two levels; areas as COCO counts them, in pixels."""
    boxes = np.array([[0, 0, 31, 33], [0, 0, 32, 32], [10, 10, 105.9, 106], [5, 0, 101, 96]])
    assert sizes_of(boxes).tolist() == [0, 1, 1, 2]  # 1023, 1024, 9206.4 and 9216 px
    assert sizes_of(np.array([[9, 9, 3, 3]])).tolist() == [0]
    weights = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])
    shares = LevelShares(2, 2)
    both_heads = np.stack([weights, weights[:, ::-1]], 1)
    shares.add(both_heads[:2], sizes_of(boxes[:2]))  # of two images
    shares.add(both_heads[2:], sizes_of(boxes[2:]))
    assert shares.counts.tolist() == [1, 2, 1]
    np.testing.assert_allclose(shares.means("small"), [[0.9, 0.1], [0.1, 0.9]])
    np.testing.assert_allclose(shares.means("medium"), [[0.4, 0.6], [0.6, 0.4]])
    np.testing.assert_allclose(shares.means("large"), [[0, 1], [1, 0]])
    np.testing.assert_allclose(shares.means()[0], [1.7 / 4, 2.3 / 4])
    assert np.isnan(LevelShares(1, 2).means("small")).all()


class SeenOnLevels(Seen):
    """Its objects have half of the weight of each head on level 1, whose points lie off the map."""

    def grids(self, layer=None):
        return (self._grid, Grid((6, 8), self._grid.input_hw, 20, "centered"))

    def samples(self, mode, queries, layer=None):
        weight = np.zeros((len(queries), self.made.shape[1], 2, 2), np.float32)
        weight[:, :, 0] = [0.3, 0.2]
        weight[:, :, 1] = [0.5, 0.0]
        return np.full((*weight.shape, 2), -9, np.float32), weight


def test_columns_of_levels_are_those_of_detectors_with_levels():
    made = np.concatenate([one_hot((4, 4), (5, 5))] * 2)
    boxes = [(0, 0, 30, 30), (0, 0, 100, 100)]
    with_levels, without = (AtlasTable("x", ["combine"], [5], 2, "mode") for _ in range(2))
    with_levels.add(SeenOnLevels(boxes, made), [0, 1])
    without.add(Seen(boxes, made), [0, 1])
    assert without.columns == COLUMNS
    assert with_levels.columns[: len(COLUMNS)] == COLUMNS
    assert with_levels.columns[len(COLUMNS) :] == (
        *("objects_small", "objects_medium", "objects_large", "level_0", "level_1"),
        *("level_0_small", "level_1_small", "level_0_medium", "level_1_medium"),
        *("level_0_large", "level_1_large"),
    )
    rows = [*with_levels.rows()]
    assert [row[: len(COLUMNS)] for row in rows] == [*without.rows()]
    of_levels = ("1", "0", "1", "0.5", "0.5", "0.5", "0.5", "", "", "0.5", "0.5")
    assert [row[len(COLUMNS) :] for row in rows[:3]] == [of_levels] * 3  # two heads, their mean
    assert {row[len(COLUMNS) :] for row in rows[3:]} == {("",) * 11}
    (first, rule) = level_notes(with_levels)
    assert first == "combine, share of levels 0\N{EN DASH}1: 1 small .50 .50, 1 large .50 .50"
    assert "32² px" in rule or "32²" in rule
    assert level_notes(without) == []


def test_boxes_that_are_none_are_left_out():
    made = one_hot((4, 4))
    seen = Seen([(np.nan, 0, 10, 10), (40, 30, 80, 70)], np.concatenate([made, made]))
    book = AtlasTable("x", ["combine"], [5], 1, "mode")
    book.add(seen, [0, 1])
    assert book.objects == 1


def test_an_empty_box_breaks_nothing():
    tally = tally_of(Seen([(40, 30, 40, 30)], one_hot((4, 4))))
    assert tally.objects == 1 and tally.resolved == 0
    assert np.isfinite(tally.means()["peak_to_edge"]).all()


def test_what_few_objects_have_shown_is_left_open():
    """Of 40 boxes in the middle and one at the rim, what lies right of the rim is none's but its
    own; and where the image ends, a mean is that of the objects for which it does not.
    """
    made = np.full((1, 1, 12, 16), 1 / 192, np.float32)
    middle, rim = (40, 40, 72, 72), (128, 40, 160, 72)
    tally = tally_of(Seen([middle] * 40, np.repeat(made, 40, 0)))
    assert not np.isnan(tally.mean_map()).any()
    tally.add(made, frame_of(Seen([rim], made), [0]))
    both = tally.mean_map()[0]
    np.testing.assert_allclose(both, 32 * 32 / (160 * 120), rtol=1e-5)  # even, so even there too
    only = tally_of(Seen([rim] * 40 + [middle], np.repeat(made, 41, 0))).mean_map()[0]
    assert np.isnan(only[:, 24:]).all()  # beyond the image for 40 of 41
    np.testing.assert_allclose(only[:, :24], 32 * 32 / (160 * 120), rtol=1e-5)


def test_cells_that_are_no_squares():
    """Cells of 10 x 20 pixels: distances along an axis are in that axis's cells."""
    seen = Seen([(40, 40, 80, 80)], one_hot((3, 4), grid=(6, 16)))  # centre (45, 70)
    tally = tally_of(seen)
    means = tally.means()
    assert means["peak_to_left"] == pytest.approx([0.5])
    assert means["peak_to_top"] == pytest.approx([1.5])
    assert means["peak_to_edge"] == pytest.approx([0.5])  # of the bottom: 10 pixels, half a cell
    assert means["peak_to_bottom"] == pytest.approx([0.5])
    assert tally.resolved == 1
    for box, resolved in (((40, 40, 60, 79), 0), ((40, 40, 60, 80), 1), ((40, 40, 59, 80), 0)):
        assert tally_of(Seen([box], one_hot((3, 4), grid=(6, 16)))).resolved == resolved
