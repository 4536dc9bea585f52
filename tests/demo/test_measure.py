"""The measurements behind the README's table, on maps whose answers can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detr_viz.demo.measure import (
    COLUMNS,
    Geometry,
    baselines,
    matched_queries,
    measure_maps,
    peak_offsets,
    report,
)

# a 4 x 5 grid whose cells are 10 px apart, the first centred on pixel 0
GRID = Geometry(x=np.arange(5) * 10.0, y=np.arange(4) * 10.0, pitch_px=10.0)
BOX = np.array([[5.0, 5.0, 35.0, 25.0]])  # holds the centres x 10, 20, 30 and y 10, 20


def one_hot(row: int, column: int) -> np.ndarray:
    maps = np.zeros((1, 1, 4, 5), np.float32)
    maps[0, 0, row, column] = 1
    return maps


def columns(maps: np.ndarray, objects: np.ndarray = BOX) -> dict[str, float]:
    return dict(zip(COLUMNS, measure_maps(maps, BOX, objects, GRID)[0, 0].tolist(), strict=True))


def test_a_peak_inside():
    found = columns(one_hot(1, 2))  # at (20, 10): 5 px below the top edge
    assert found == pytest.approx(
        {
            "entropy": 0,
            "mass in box": 1,
            "mass on objects": 1,
            "peak to edge": 0.5,
            "peak in box": 1,
        }
    )


def test_a_peak_outside():
    found = columns(one_hot(0, 0))  # at (0, 0): 5 px left of and above the corner
    assert found["mass in box"] == 0 and found["peak in box"] == 0
    assert found["peak to edge"] == pytest.approx(math.hypot(0.5, 0.5))


def test_shares_and_entropy():
    maps = np.full((1, 1, 4, 5), 1 / 20, np.float32)
    everything = np.array([[-5.0, -5.0, 14.0, 50.0]])  # two columns of cells
    found = columns(maps, everything)
    assert found["entropy"] == pytest.approx(1)
    assert found["mass in box"] == pytest.approx(6 / 20)
    assert found["mass on objects"] == pytest.approx(8 / 20)


def test_offsets_are_in_half_box_sizes():
    offsets = peak_offsets(one_hot(2, 3), BOX, GRID)  # (30, 20); centre (20, 15), half (15, 10)
    np.testing.assert_allclose(offsets, [[[10 / 15, 5 / 10]]])


def test_baselines():
    rows = baselines(BOX, BOX, GRID)
    everywhere = dict(zip(COLUMNS, rows["uniform"][0, 0], strict=True))
    assert everywhere["mass in box"] == everywhere["peak in box"] == pytest.approx(6 / 20)
    inside = dict(zip(COLUMNS, rows["uniform in the box"][0, 0], strict=True))
    assert inside["peak to edge"] == pytest.approx(0.5)  # all six are 5 px from an edge
    assert inside["entropy"] == pytest.approx(math.log(6) / math.log(20))


def test_geometry_follows_the_cell_rule(explanation):
    """128 px input drawn from 512: cell i of stride 8 is centred on pixel index (8 i + 0.5) * 4 -
    0.5, which is half a pixel more from the image's edge, where boxes count from.
    """
    geometry = Geometry.of(explanation)
    np.testing.assert_allclose(geometry.x, (8 * np.arange(16) + 0.5) * 4)
    assert geometry.pitch_px == 32


def test_an_object_is_found_once(explanation):
    from detr_viz.demo.shapes import scene

    drawn = scene(2_000_000_018, 512)
    queries = matched_queries(explanation, drawn)
    assert sorted(explanation.labels[queries]) == sorted(drawn.labels)


def test_the_report_has_a_row_a_mode():
    text = report("cd_detr", None, 3)
    for label in ("combine", "position", "content", "uniform in the box"):
        assert f"\n| {label} | " in text


def test_what_matters_is_what_ablations_say():
    """One scene by hand."""
    from conftest import demo_model

    from detr_viz.demo import matter
    from detr_viz.demo.measure import scenes
    from detr_viz.explanation.explain_image import explain

    (picture,) = scenes(1)
    e = explain(demo_model("detr"), picture.rgb)
    ids = matched_queries(e, picture)
    shares, rows = matter.measurements("detr", None, 1)
    assert len(shares) == len(ids) > 0
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-4)
    after = e.ablate("head:4").after
    kept = after.class_scores[ids, e.labels[ids]]
    np.testing.assert_allclose(rows["head:4"][:, 1], kept, atol=1e-6)
    np.testing.assert_array_equal(rows["head:4"][:, 0], kept >= 0.5)
    assert "| box:outside | " in matter.report("detr", None, 1)


def test_held_out_scenes_as_pictures(tmp_path, capsys):
    from PIL import Image

    from detr_viz.demo import pictures
    from detr_viz.demo.shapes import held_out_seeds, scene

    pictures.main(["--out", str(tmp_path / "a"), "--count", "2"])
    paths = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in paths] == ["scene_0000.png", "scene_0001.png"]
    for path, seed in zip(paths, held_out_seeds(2), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), scene(seed, 512).rgb)
    for argv in (["--out", str(paths[0])], ["--out", "x", "--count", "0"]):
        with pytest.raises(SystemExit) as stop:
            pictures.main(argv)
        assert stop.value.code == 2 and "error: " in capsys.readouterr().err
