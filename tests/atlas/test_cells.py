"""Attention to cells of boxes in the atlas: hand-made shares, their places and their sums."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from figure_tools import texts
from test_atlas import Seen, one_hot

from detr_viz import cli
from detr_viz.atlas.box_frame import BINS, PER_BOX, cell_frame
from detr_viz.atlas.cell_shares import CellShares, positive_parts
from detr_viz.atlas.figure import atlas_figure
from detr_viz.atlas.table import COLUMNS, EVEN, IN_BOX, AtlasTable

SIDE = 7


class SeenInCells(Seen):
    """Shares (layer -> (q, 7, 7)) of cells of boxes that are elsewhere than those found."""

    def __init__(self, boxes, shares, entering, bias=0.25):
        maps = np.concatenate([one_hot((0, 0))] * len(boxes))
        super().__init__(boxes, maps)
        self.shares, self.entering, self.bias = shares, np.asarray(entering, np.float32), bias

    def cells(self, queries, layer=None):
        share = np.asarray(self.shares[layer], np.float32)[queries][:, None]
        bias = np.full(len(queries), self.bias, np.float32)
        return share, self.entering[queries], bias


def corner(row: int, column: int, positive: float = 1.0, negative: float = 0.0) -> np.ndarray:
    """Shares with one positive cell, and a negative one in the middle."""
    share = np.zeros((SIDE, SIDE))
    share[3, 3] = negative
    share[row, column] += positive
    return share


def table_of(seen: SeenInCells, layers=(0,)) -> AtlasTable:
    table = AtlasTable("x", ["combine"], layers, 1, "mode", noun="stage")
    table.add(seen, [*range(seen.num_queries)])
    return table


def row_of(table: AtlasTable, i: int) -> dict[str, str]:
    return dict(zip(table.columns, [*table.rows()][i], strict=True))


BOXES, ENTERING = [(60, 50, 150, 110)] * 2, [(0, 0, 100, 60), (10, 10, 150, 90)]


def test_places_are_those_of_the_cells_whatever_box_enters():
    """The boxes found, the boxes that enter and the spread maps are all elsewhere: no matter."""
    table = table_of(SeenInCells(BOXES, {0: [corner(1, 6)] * 2}, ENTERING))
    row = row_of(table, 0)
    assert (row["kind"], row["share"], row["objects"]) == ("right", "1", "2")
    # the cell's centre is at (6.5, 1.5) sevenths: .5 of a cell off the right edge
    distances = [row[f"peak_to_{side}"] for side in ("left", "right", "top", "bottom", "edge")]
    assert distances == ["6.5", "0.5", "1.5", "5.5", "0.5"]
    bins = 1 / 64  # in which medians are known
    assert float(row["peak_x"]) == pytest.approx(6.5 / 7, abs=bins)
    assert float(row["peak_y"]) == pytest.approx(1.5 / 7, abs=bins)
    # the cell is all of the band at the right but for what is nearer to the top edge: v < 1 - u
    u, v = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(16) + 0.5) / 16)
    across = np.clip(np.minimum(u + 1 / 32, 7 / 7) - np.maximum(u - 1 / 32, 6 / 7), 0, None)
    down = np.clip(np.minimum(v + 1 / 32, 2 / 7) - np.maximum(v - 1 / 32, 1 / 7), 0, None)
    mass = across * down * 49
    to_top, to_right = v, 1 - u
    top = mass[to_top < to_right - 1e-9].sum() + mass[np.isclose(to_top, to_right)].sum() / 2
    assert float(row["mass_right"]) == pytest.approx(1 - top, rel=1e-3)
    assert float(row["mass_top"] or 0) == pytest.approx(top, abs=1e-4)
    assert row["mass_background"] == "0" and row["mass_left"] == "0"
    # the spread map lies at the image's corner, outside the boxes found
    assert (row["mass_in_box"], row["peak_in_box"], row["entropy"]) == ("0", "0", "0")


def test_signed_shares_are_means_and_the_panel_has_the_positive_ones():
    first, second = corner(0, 0, 1.0, -0.25), corner(0, 6, 0.5, 0.25)
    table = table_of(SeenInCells(BOXES, {0: [first, second]}, ENTERING))
    row = row_of(table, 0)
    assert (row["cell_0_0"], row["cell_0_6"]) == ("0.5", "0.25")
    assert (row["cell_3_3"], row["cell_6_6"], row["bias_share"]) == ("0", "0", "0.25")
    shares = [float(row[name]) for name in table.columns if name.startswith(("cell_", "bias"))]
    assert len(shares) == 50 and sum(shares) == pytest.approx(1)
    density = table.cells[0].density()
    known = np.zeros((SIDE, SIDE))
    known[0, 0] = 49 / 2  # all of the first box's
    known[0, 6], known[3, 3] = 49 / 3, 49 / 6  # two thirds and one third of the second's
    np.testing.assert_allclose(density, known)
    assert density.mean() == pytest.approx(1)


def test_boxes_without_a_positive_cell_and_narrow_ones():
    seen = SeenInCells(
        BOXES * 2,
        {0: [corner(0, 0), -corner(0, 0), corner(0, 6), corner(6, 6)]},
        [*ENTERING, (0, 0, 19, 60), (0, 0, 20, 20)],  # two cells of 10 px are resolved
    )
    table = table_of(seen)
    row = row_of(table, 0)
    assert (row["objects"], row["objects_resolved"], table.objects) == ("3", "2", 4)
    assert (table.cells[0].objects, table.cells[0].resolved) == (4, 2)
    known = np.zeros((SIDE, SIDE))
    known[0, 0] = known[6, 6] = 49 / 2
    np.testing.assert_allclose(table.cells[0].density(), known)
    assert "a panel is without 2 boxes" in atlas_figure(table).facts["Description"]


def test_an_even_map_is_even_cells():
    table = table_of(SeenInCells(BOXES, {0: [corner(0, 0)] * 2}, ENTERING))
    rows = [row_of(table, i) for i in (1, 2)]
    assert [row["mode"] for row in rows] == [EVEN, IN_BOX]
    steps = np.minimum(np.arange(7) + 0.5, 6.5 - np.arange(7))
    nearest = np.minimum(steps[:, None], steps[None]).mean()
    for row in rows:
        assert float(row["peak_to_edge"]) == pytest.approx(nearest, abs=1e-3)
        assert float(row["mass_inside"]) == pytest.approx(0.25, abs=1e-4)
        assert row["cell_0_0"] == row["bias_share"] == ""
    assert float(rows[0]["mass_in_box"]) == pytest.approx(9 * 6 / 192, abs=1e-4)  # of 12 x 16 cells
    assert rows[1]["mass_in_box"] == "1"


def test_a_cell_is_a_square_of_the_box():
    frame = cell_frame(Seen([(0, 0, 1, 1)], one_hot((0, 0))), np.array([(0, 0, 70, 70)]), SIDE)
    np.testing.assert_allclose(frame.rows.sum(1), 1)
    edge = round(BINS / 4)
    assert not frame.rows[:, :edge].any() and not frame.rows[:, edge + PER_BOX :].any()
    np.testing.assert_allclose(frame.columns[0, edge : edge + 3, 0], [7 / 16, 7 / 16, 2 / 16])
    assert frame.visible.sum() == PER_BOX**2


def test_parts_of_nothing_are_nothing():
    share = np.stack([corner(0, 0, 2, -1), -corner(0, 0)])[:, None]
    parts = positive_parts(share)
    assert parts[0, 0, 0, 0] == 1 and parts.sum() == 1
    assert np.isnan(CellShares(SIDE).bias()) and np.isnan(CellShares(SIDE).density()).all()


def test_stages_stand_side_by_side():
    layers = {0: [corner(0, 0)] * 2, 3: [corner(6, 6)] * 2}
    table = table_of(SeenInCells(BOXES, layers, ENTERING), layers=(0, 3))
    fig = atlas_figure(table)
    shown = texts(fig)
    assert [text for text in shown if text in ("stage 0", "3")] == ["stage 0", "3"]
    assert not any("head" in text or "layer" in text for text in shown)
    facts = fig.facts
    assert "what each stage does" in facts["Title"] and "head" not in facts["Description"]
    assert "combine, stage 3" not in facts["Description"]  # of one level: no line of levels
    assert [row["layer"] for row in (row_of(table, 0), row_of(table, 1))] == ["0", "3"]


def test_tables_of_other_attention_have_no_cells(explanation):
    table = AtlasTable("x", ["combine"], [2], 8, "mode")
    table.add(explanation, [0])
    assert table.columns == COLUMNS and not table.cells


@pytest.mark.parametrize("name", ["sparse_rcnn", "dynamic_detr"])
def test_the_command_writes_the_shares_of_the_explanation(tmp_path, name):
    """The table's cells are those of `explain`, for one image."""
    from conftest import ROOT, demo_model
    from PIL import Image

    from detr_viz import explain

    scene = ROOT / "image/scene_1.jpg"
    argv = ["atlas", "--type", name, "--image", str(scene), "--queries", "top:2", "--layer", "all"]
    assert cli.main([*argv, "--out", str(tmp_path), "--quiet"]) == 0
    with (tmp_path / f"{name}_demo.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"]]
    e = explain(demo_model(name), np.asarray(Image.open(scene)), layers="all")
    assert [row["layer"] for row in rows] == [str(layer) for layer in e.layers]
    for row, layer in zip(rows, e.layers, strict=True):
        share, _, bias = e.cells(e.by_score()[:2], layer)
        got = [float(row[f"cell_{i}_{j}"]) for i in range(SIDE) for j in range(SIDE)]
        np.testing.assert_allclose(got, share.mean((0, 1)).ravel(), rtol=2e-3, atol=1e-5)
        assert float(row["bias_share"]) == pytest.approx(bias.mean(), rel=2e-3, abs=1e-5)
