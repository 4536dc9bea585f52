"""The .npz of --save-maps: its arrays, its bytes, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest

from detr_viz import heatmaps
from detr_viz.heatmaps import HeatmapError


def test_fields_types_and_values(explanation, tmp_path):
    path = heatmaps.save(tmp_path / "m.npz", explanation, [3, 1], ["combine", "position"])
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    h, w = explanation.grid_hw
    expected = {
        "maps_combine": (np.float32, (2, 8, h, w)),
        "maps_position": (np.float32, (2, 8, h, w)),
        "query_ids": (np.int64, (2,)),
        "scores": (np.float32, (2,)),
        "labels": (np.int64, (2,)),
        "boxes_xyxy_px": (np.float32, (2, 4)),
        "image_hw_px": (np.int64, (2,)),
        "grid_hw": (np.int64, (2,)),
        "layers": (np.int64, (1,)),
    }
    for name, (dtype, shape) in expected.items():
        assert arrays[name].dtype == dtype and arrays[name].shape == shape, name
    assert arrays["label_names"].tolist() == [explanation.label_name(q) for q in (3, 1)]
    assert arrays["query_ids"].tolist() == [3, 1]
    assert arrays["layers"].tolist() == [2]
    assert arrays["image_hw_px"].tolist() == [512, 512]
    np.testing.assert_array_equal(arrays["maps_position"], explanation.maps("position", [3, 1]))
    np.testing.assert_array_equal(arrays["boxes_xyxy_px"], explanation.boxes_xyxy_px[[3, 1]])
    assert set(arrays) == {*expected, "label_names", "meta"}


def test_meta_says_what_made_it(explanation, tmp_path):
    path = heatmaps.save(tmp_path / "m.npz", explanation, [0], ["content"], layer=1, scale="layer")
    meta = heatmaps.load(path).meta
    assert meta["schema_version"] == 1
    assert meta["model_type"] == explanation.model_type
    assert meta["attention_site"] == "decoder cross-attention"
    assert (meta["scale"], meta["layer"], meta["modes"]) == ("layer", 1, ["content"])
    assert meta["cell_rule"] == "aligned"
    assert len(meta["weights_sha256"]) == len(meta["image_sha256"]) == 64
    assert meta["preprocessing"]["size_px"] == 128
    assert meta["residuals"]["1"] < 1e-4
    assert "torch" in meta["versions"]
    json.dumps(dict(meta))


def test_round_trip_and_same_bytes(explanation, tmp_path):
    a = heatmaps.save(tmp_path / "a.npz", explanation, [2], list(explanation.modes))
    b = heatmaps.save(tmp_path / "b.npz", explanation, [2], list(explanation.modes))
    assert a.read_bytes() == b.read_bytes()
    back = heatmaps.load(a)
    assert set(back.maps) == {"combine", "position", "content"}
    for mode, maps in back.maps.items():
        np.testing.assert_array_equal(maps, explanation.maps(mode, [2]))


def test_refused_files(explanation, tmp_path):
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    with pytest.raises(HeatmapError, match=r"text\.npz is not a file of saved maps"):
        heatmaps.load(text)
    with pytest.raises(HeatmapError, match="No such file"):
        heatmaps.load(tmp_path / "none.npz")
    good = heatmaps.save(tmp_path / "good.npz", explanation, [2], ["combine"])
    cut = tmp_path / "cut.npz"
    cut.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(HeatmapError, match=r"cut\.npz"):
        heatmaps.load(cut)
    with np.load(good) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "short.npz", **{k: v for k, v in arrays.items() if k != "scores"})
    with pytest.raises(HeatmapError, match="lacks scores"):
        heatmaps.load(tmp_path / "short.npz")
    later = json.loads(str(arrays["meta"])) | {"schema_version": 7}
    np.savez(tmp_path / "later.npz", **{**arrays, "meta": np.asarray(json.dumps(later))})
    with pytest.raises(HeatmapError, match="schema version 7"):
        heatmaps.load(tmp_path / "later.npz")
    np.savez(tmp_path / "shape.npz", **{**arrays, "maps_combine": arrays["maps_combine"][:, :3]})
    with pytest.raises(HeatmapError, match=r"maps_combine is float32 \(1, 3"):
        heatmaps.load(tmp_path / "shape.npz")
    np.savez(tmp_path / "words.npz", **{**arrays, "meta": np.asarray("not json")})
    with pytest.raises(HeatmapError, match="not a file of saved maps"):
        heatmaps.load(tmp_path / "words.npz")
    np.savez(tmp_path / "list.npz", **{**arrays, "meta": np.asarray("[1]")})
    with pytest.raises(HeatmapError, match="schema version None"):
        heatmaps.load(tmp_path / "list.npz")
    np.save(tmp_path / "single.npy", arrays["scores"])
    with pytest.raises(HeatmapError, match="single array"):
        heatmaps.load(tmp_path / "single.npy")
    whole = bytearray(good.read_bytes())
    for place in range(60, len(whole) - 200, 97):  # one flipped byte is never another error
        broken = bytearray(whole)
        broken[place] ^= 0x55
        (tmp_path / "flipped.npz").write_bytes(broken)
        with suppress(HeatmapError):
            heatmaps.load(tmp_path / "flipped.npz")
    np.savez(tmp_path / "pickle.npz", **{**arrays, "scores": np.array([{}], dtype=object)})
    with pytest.raises(HeatmapError, match="pickle"):
        heatmaps.load(tmp_path / "pickle.npz")
