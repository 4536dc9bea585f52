"""The measurements behind the README's table, on maps whose answers can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detr_viz import explain, load_model
from detr_viz.demo import measure_samples, shapes
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


# --- samples -------------------------------------------------------------------------------------


def test_samples_and_their_weight_in_the_box_and_on_levels():
    """One query, one head, two levels of two points: one point of each level lies in the box."""
    xy = np.array([[[0.2, 0.3], [0.9, 0.3]], [[0.4, 0.6], [0.4, 0.9]]], float)[None, None]
    weights = np.array([[0.1, 0.3], [0.4, 0.2]])[None, None]
    (row,) = measure_samples.sample_columns(xy, weights, np.array([[0.1, 0.1, 0.5, 0.7]]))[0]
    np.testing.assert_allclose(row, [0.5, 0.5, 0.4, 0.6])
    (row,) = measure_samples.sample_columns(xy, weights / 2, np.array([[0.1, 0.1, 0.5, 0.5]]))[0]
    np.testing.assert_allclose(row, [0.25, 0.1, 0.4, 0.6])


def test_the_reference_alone_is_what_the_biases_place():
    """In a box of the last layer, location = centre + offset / points * size / 2."""
    model = load_model(None, "deformable_detr", device="cpu")
    e = explain(model, shapes.scene(shapes.held_out_seeds(1)[0], 128).rgb)
    attention = measure_samples.alone(e)
    site = model.network.attention_sites()["cross", 2]
    offsets = site.sampling_offsets.bias.detach().view(8, 3, 4, 2)
    xy, weights = attention.samples("combine", [4])
    h, w = e.image.hw
    x0, y0, x1, y1 = e.reference_boxes[2][4] / np.array([w, h, w, h])
    centre, size = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), np.array([x1 - x0, y1 - y0])
    np.testing.assert_allclose(xy[0], centre + offsets.numpy() / 4 * size / 2, atol=1e-5)
    logits = site.attention_weights.bias.detach().view(8, 12)
    np.testing.assert_allclose(weights[0].flatten(1), logits.softmax(-1), atol=1e-6)
    maps = measure_samples.maps_alone(e, attention, [4])
    assert maps.shape == (1, 8, 16, 16)
    np.testing.assert_allclose(maps.sum((2, 3)) <= 1 + 1e-5, True)
    assert measure_samples.alone(explain(load_model(None, "detr"), e.image)) is None


def test_references_by_hand():
    """A point 3 right and 4 down of the middle of a box with half sizes 10 and 20."""
    references = measure_samples.References()
    box = np.array([[0.0, 0, 20, 40]])
    references._add("a", np.array([[13.0, 24]]), box, box, [0])
    references._add("b", np.array([[25.0, 20]]), None, box, [0])
    assert references.lines()[-2:] == ["| a | 0.36 | 1.00 | 1.00 |", "| b | 1.50 | 0.00 | - |"]
