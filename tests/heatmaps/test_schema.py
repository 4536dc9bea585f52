"""Schema 3 of saved maps: levels, mass off the map, sampling points; and the older schemas."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import demo_explanation
from fake_sampled import GRIDS, HEADS, INPUT_HW, POINTS, VALID_HW, FakeSampled
from test_heatmaps import refusal, written

from detr_viz import heatmaps
from detr_viz.heatmaps import safe_npz
from detr_viz.heatmaps.compare import judge
from detr_viz.heatmaps.limits import Limits
from detr_viz.heatmaps.schema import HeatmapError, Heatmaps

IDS, MODES = [2, 0, 3], ["combine", "position"]


@pytest.fixture
def sampled() -> FakeSampled:
    return FakeSampled()


@pytest.fixture
def arrays(sampled, tmp_path) -> dict[str, np.ndarray]:
    """What a good file of two levels holds."""
    path = heatmaps.save(tmp_path / "good.npz", sampled, IDS, MODES)
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_the_arrays_of_two_levels(arrays):
    (h, w), (h1, w1) = GRIDS
    maps = {
        "": (np.float32, (3, HEADS, h, w)),
        ".l0": (np.float32, (3, HEADS, h, w)),
        ".l1": (np.float32, (3, HEADS, h1, w1)),
    }
    expected = {f"maps_{mode}{end}": what for mode in MODES for end, what in maps.items()}
    for mode in MODES:
        expected[f"outside_{mode}"] = (np.float32, (3, HEADS))
        expected[f"samples_{mode}"] = (np.float32, (3, HEADS, 2, POINTS, 2))
        expected[f"sample_weights_{mode}"] = (np.float32, (3, HEADS, 2, POINTS))
    for name, what in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == what, name
    assert set(arrays) - expected.keys() == {
        *("query_ids", "scores", "labels", "label_names", "boxes_xyxy_px", "image_hw_px"),
        *("grid_hw", "strides", "kind", "valid_hw_px", "input_hw_px", "layers", "meta"),
    }
    assert arrays["grid_hw"].tolist() == [[6, 8], [3, 4]] and arrays["strides"].tolist() == [8, 16]
    assert arrays["kind"].shape == () and str(arrays["kind"]) == "sampled"
    assert arrays["input_hw_px"].tolist() == [*INPUT_HW]
    assert arrays["valid_hw_px"].tolist() == [*VALID_HW]
    for name in ("grid_hw", "strides", "valid_hw_px", "input_hw_px"):
        assert arrays[name].dtype == np.int64


def test_values_come_back_and_sum_to_one(sampled, arrays, tmp_path):
    back = heatmaps.load(tmp_path / "good.npz")
    assert back.kind == "sampled" and back.hw == (6, 8)
    for mode in MODES:
        np.testing.assert_array_equal(back.maps[mode], sampled.maps(mode, IDS))
        for k in (0, 1):
            np.testing.assert_array_equal(back.levels[mode][k], sampled.maps(mode, IDS, level=k))
        np.testing.assert_array_equal(back.outside[mode], sampled.outside(mode, IDS))
        points, weights = sampled.samples(mode, IDS)
        np.testing.assert_array_equal(back.samples[mode], points)
        np.testing.assert_array_equal(back.sample_weights[mode], weights)
        total = back.maps[mode].sum((-2, -1)) + back.outside[mode]
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert back.outside[mode].min() > 1e-4  # so that the sums without it would not be 1
        spread = np.kron(back.levels[mode][1], np.full((2, 2), 0.25))
        np.testing.assert_allclose(back.maps[mode], back.levels[mode][0] + spread, atol=1e-7)
    meta = json.loads(str(arrays["meta"]))
    assert meta["schema_version"] == 3
    sums = {name: array for name, array in arrays.items() if name != "meta"}
    assert meta["crc32"] == safe_npz.checksums(sums)


def test_an_input_without_padding_shows_the_image_everywhere(sampled):
    """Where a grid leaves it open (None)."""
    for grid in (grids := sampled.grids(5)):
        grid.valid_hw = None
    sampled.grids = lambda layer: grids
    made = heatmaps.of(sampled, IDS, MODES)
    assert made.valid_hw_px.tolist() == made.input_hw_px.tolist() == [*INPUT_HW]


def test_rounding_below_no_mass_is_none(sampled, tmp_path):
    """1 minus a sum can come out as -1e-8."""
    sampled.weights["combine"][2, 0, :, -1] = 0
    sampled.weights["combine"][2, 0] /= sampled.weights["combine"][2, 0].sum()
    exact = sampled.outside
    sampled.outside = lambda *args: exact(*args) - np.float32(1e-8)
    back = heatmaps.load(heatmaps.save(tmp_path / "a.npz", sampled, IDS, MODES))
    assert back.outside["combine"][0, 0] == 0


def test_float16_is_of_weights_and_not_of_points(sampled, tmp_path):
    path = heatmaps.save(tmp_path / "half.npz", sampled, IDS, MODES, store="float16")
    with np.load(path) as archive:
        types = {name: archive[name].dtype for name in archive.files}
    for mode in MODES:
        for name in (f"maps_{mode}", f"maps_{mode}.l1", f"sample_weights_{mode}"):
            assert types[name] == np.float16
        assert types[f"outside_{mode}"] == types[f"samples_{mode}"] == np.float32
    back = heatmaps.load(path)
    points, weights = sampled.samples("position", IDS)
    within = heatmaps.STORED_WITHIN["float16"]
    np.testing.assert_array_equal(back.samples["position"], points)
    apart = np.abs(back.sample_weights["position"] - weights).max()
    assert 0 < apart <= within and back.sample_weights["position"].dtype == np.float32
    for k in (0, 1):
        apart = np.abs(back.levels["combine"][k] - sampled.maps("combine", IDS, level=k)).max()
        assert 0 < apart <= within and back.levels["combine"][k].dtype == np.float32
    verdict = judge(heatmaps.of(sampled, IDS, MODES), back, Limits(0, 0, 0.01, 1, 0))
    assert verdict.same and verdict.used > 0


def test_a_flat_map_of_many_cells_is_one_in_float16_too(tmp_path):
    """Half of such a weight's bits are gone: 160 x 250 cells sum to 1.003 then."""
    flat = heatmaps.of_arrays({"combine": np.full((1, 1, 160, 250), 1 / 40_000)})
    stored = flat.maps["combine"].astype(np.float16).astype(np.float64).sum()
    assert abs(stored - 1) > 1e-3
    back = heatmaps.load(heatmaps.write(tmp_path / "a.npz", flat, "float16"))
    np.testing.assert_allclose(back.maps["combine"], 1 / 40_000, atol=3e-8)


@pytest.mark.parametrize(
    "name", ["maps_combine.l1", "outside_position", "samples_combine", "sample_weights_combine"]
)
def test_what_has_rotted_is_damage(arrays, tmp_path, name):
    arrays[name] = arrays[name][::-1].copy()
    np.savez(tmp_path / "rotten.npz", **arrays)
    assert f"damaged: the CRC-32 of {name} is not" in refusal(tmp_path / "rotten.npz")


REFUSED = {
    "kind": ({"kind": lambda a: np.asarray("sparse")}, "attention of kind 'sparse'"),
    "kinds": ({"kind": lambda a: np.asarray(["dense"])}, "kind is <U5"),
    "one level": (
        {"grid_hw": lambda a: a[:1], "strides": lambda a: a[:1]},
        r"maps_combine.l1 is float32 \(3, 2, 3, 4\)",
    ),
    "many levels": (
        {"grid_hw": lambda a: np.ones((17, 2), int), "strides": lambda a: np.ones(17, int)},
        "has 17 levels: 1 to 16 are read",
    ),
    "no levels": ({"grid_hw": lambda a: a[:0]}, "has 0 levels"),
    "coarsest first": ({"grid_hw": lambda a: a[::-1]}, "finest first"),
    "huge": ({"grid_hw": lambda a: a * 0 + 2**62}, "maps_combine is float32"),
    "a stride": ({"strides": lambda a: a[:1]}, r"strides is \(1,\), expected \(2,\)"),
    "backwards": ({"strides": lambda a: -a}, "strides is below 0"),
    "padding": ({"valid_hw_px": lambda a: a * 2}, "more than input_hw_px"),
    "a level's shape": ({"maps_combine.l1": lambda a: a[..., :-1]}, r"maps_combine.l1 is float32"),
    "a level's mass": ({"maps_combine.l1": lambda a: a / 2}, "the levels of maps_combine and what"),
    "the map's mass": ({"maps_combine": lambda a: a / 2}, "maps_combine and what is outside"),
    "outside": ({"outside_combine": lambda a: a * 0}, "outside do not sum to 1"),
    "below nothing": ({"outside_combine": lambda a: -a}, "outside_combine has values"),
    "outside's shape": ({"outside_combine": lambda a: a.T}, "outside_combine is float32"),
    "half outside": ({"outside_combine": lambda a: a.astype("f2")}, "expected float32"),
    "points": ({"samples_combine": lambda a: a[..., :1]}, r"samples_combine is float32 \(3, 2, 2"),
    "nowhere": (
        {"samples_combine": lambda a: a * np.inf},
        "samples_combine has values",
    ),
    "weights": ({"sample_weights_combine": lambda a: -a}, "sample_weights_combine has values"),
    "twice": ({"sample_weights_combine": lambda a: 2 * a}, "more than 1 in all"),
    "no points": (
        {f"{n}_combine": lambda a: a[:, :, :, :0] for n in ("samples", "sample_weights")},
        "sample_weights_combine has 0 points",
    ),
    "many points": (
        {"sample_weights_combine": lambda a: np.zeros((3, 2, 2, 1025), np.float32)},
        "has 1025 points: 1 to 1024 are read",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_do_not_fit(arrays, tmp_path, name):
    changes, words = REFUSED[name]
    for key, change in changes.items():
        arrays[key] = change(arrays[key])
    with pytest.raises(HeatmapError, match=words) as raised:
        heatmaps.load(written(tmp_path / "changed.npz", arrays))
    assert "\n" not in str(raised.value) and "changed.npz" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("maps_combine.l0", "lacks maps_combine.l0"),
        ("outside_position", "lacks outside_position"),
        ("samples_combine", "lacks samples_combine"),
        ("sample_weights_combine", "lacks sample_weights_combine"),
        ("maps_combine", "maps_combine.l0 belongs to no map"),
        ("strides", "lacks strides"),
        ("kind", "lacks kind"),
    ],
)
def test_an_array_that_is_missing(arrays, tmp_path, name, words):
    del arrays[name]
    with pytest.raises(HeatmapError, match=words):
        heatmaps.load(written(tmp_path / "short.npz", arrays))


def test_an_array_of_a_third_level_belongs_to_no_map(arrays, tmp_path):
    arrays["maps_combine.l2"] = arrays["maps_combine.l1"]
    assert "maps_combine.l2 belongs to no map" in refusal(written(tmp_path / "a.npz", arrays))


def test_what_could_not_be_read_again_is_not_written(sampled, tmp_path):
    good = heatmaps.of(sampled, IDS, MODES)
    with pytest.raises(HeatmapError, match="lacks outside_combine"):
        heatmaps.write(tmp_path / "a.npz", replace(good, outside={}))
    with pytest.raises(HeatmapError, match=r"lacks maps_combine.l0"):
        heatmaps.write(tmp_path / "a.npz", replace(good, levels={}))
    many = {f"mode{i}": np.full((1, 1, 1, 1), 1.0) for i in range(500)}
    with pytest.raises(HeatmapError, match="arrays: choose fewer modes"):
        heatmaps.write(tmp_path / "a.npz", heatmaps.of_arrays(many))
    assert not list(tmp_path.iterdir())


# ---- one level, older files ---------------------------------------------------------------------


def older(path, version: int, **changes) -> Heatmaps:
    """The demo's maps as that version had them, read back. changes: of the meta, None to leave."""
    e = demo_explanation("detr")
    output = e.output(2)
    arrays = {
        "maps_combine": e.maps("combine", [3, 1]),
        "maps_content": e.maps("content", [3, 1]),
        "query_ids": np.asarray([3, 1]),
        "scores": output.scores[[3, 1]],
        "labels": output.labels[[3, 1]],
        "label_names": np.asarray([e.class_names[output.labels[q]] for q in (3, 1)]),
        "boxes_xyxy_px": output.boxes_xyxy_px[[3, 1]],
        "image_hw_px": np.asarray([512, 512]),
        "grid_hw": np.asarray([16, 16]),
        "layers": np.asarray([2]),
    }
    meta = {**e.meta, "scale": "mode", "modes": ["combine", "content"], "layer": 2}
    meta["schema_version"] = version
    if version == 2:
        meta |= {"store": "float32", "crc32": safe_npz.checksums(arrays)}
    meta |= changes
    np.savez(path, **arrays, meta=np.asarray(json.dumps(meta)))
    return heatmaps.load(path)


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_are_one_level_of_dense_attention(tmp_path, version):
    old = older(tmp_path / "old.npz", version)
    e = demo_explanation("detr")
    new = heatmaps.of(e, [3, 1], ["combine", "content"])
    for mode in ("combine", "content"):
        np.testing.assert_array_equal(old.maps[mode], e.maps(mode, [3, 1]))
        assert not old.outside[mode].any() and old.outside[mode].shape == (2, 8)
        assert old.levels[mode] == new.levels[mode] == ()
    assert old.kind == new.kind == "dense" and not old.samples and not new.samples
    for name in ("grid_hw", "strides", "valid_hw_px", "input_hw_px", "query_ids", "layers"):
        np.testing.assert_array_equal(getattr(old, name), getattr(new, name), name)
    for pair in ((old, new), (new, old), (old, old)):
        verdict = judge(*pair, Limits(0, 0, 0, 1, 0))
        assert verdict.same and verdict.used == 0 and verdict.changed == ()


@pytest.mark.parametrize(
    "how",
    [
        {"stride_px": None, "preprocessing": None},
        {"stride_px": -8, "preprocessing": {"input_hw_px": [128]}},
        {"stride_px": "8", "preprocessing": {"input_hw_px": [128, 10**30]}},
        {"stride_px": True, "preprocessing": {"input_hw_px": "no"}},
    ],
)
def test_where_an_older_meta_does_not_say_it_the_place_is_not_known(tmp_path, how):
    old = older(tmp_path / "old.npz", 2, **how)
    assert old.strides.tolist() == [0]
    assert old.input_hw_px.tolist() == old.valid_hw_px.tolist() == [0, 0]
    new = heatmaps.of(demo_explanation("detr"), [3, 1], ["combine", "content"])
    assert judge(old, new).cannot == ""


def test_an_older_file_is_written_as_one_of_version_3(tmp_path):
    old = older(tmp_path / "old.npz", 1)
    back = heatmaps.load(heatmaps.write(tmp_path / "new.npz", old))
    assert back.meta["schema_version"] == 3
    with np.load(tmp_path / "new.npz") as archive:
        assert archive["grid_hw"].tolist() == [[16, 16]] and archive["strides"].tolist() == [8]
    assert judge(old, back, Limits(0, 0, 0, 1, 0)).same


def test_plain_arrays_that_sum_to_less_keep_the_rest_outside(tmp_path):
    made = heatmaps.of_arrays(
        {"combine": np.full((1, 2, 2, 2), 0.2), "a.l1": np.full((1, 2, 2, 2), 0.25)}
    )
    assert made.kind == "dense" and made.grid_hw.tolist() == [[2, 2]]
    np.testing.assert_allclose(made.outside["combine"], 0.2, atol=1e-6)
    assert not made.outside["a.l1"].any()
    back = heatmaps.load(heatmaps.write(tmp_path / "a.npz", made))
    assert set(back.maps) == {"combine", "a.l1"}  # with one level, ".l1" is a name as any other
    np.testing.assert_array_equal(back.outside["combine"], made.outside["combine"])
