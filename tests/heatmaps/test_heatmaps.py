"""The .npz of --save-maps: its arrays, its bytes, and what is refused."""

from __future__ import annotations

import json
import re
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import demo_explanation

from detr_viz import heatmaps
from detr_viz.attention.grids import Grid
from detr_viz.common.errors import UserError
from detr_viz.heatmaps import npz, safe_npz
from detr_viz.heatmaps.npz import HeatmapError

MODES = ("combine", "position", "content")


class Photo:
    """What `save` asks of ExplanationBase, with maps of one's own at 25 x 34."""

    meta, class_names = {"num_heads": 8}, ("cat",)

    class image:
        hw = (800, 1066)

    def __init__(self, maps) -> None:
        self._maps = {m: a.astype(np.float32).reshape(5, 8, 25, 34) for m, a in maps.items()}

    def pick_layer(self, layer):
        return 5

    def kind(self, layer):
        return "dense"

    def grids(self, layer):
        return (Grid((25, 34), (800, 1066), 32),)

    def samples(self, mode, ids, layer):
        return None

    def output(self, layer):
        return SimpleNamespace(
            scores=np.zeros(5, np.float32),
            labels=np.zeros(5, np.int64),
            boxes_xyxy_px=np.zeros((5, 4), np.float32),
        )

    def maps(self, mode, ids, layer=None, scale="mode"):
        return self._maps[mode][list(ids)]


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
        "outside_combine": (np.float32, (2, 8)),
        "outside_position": (np.float32, (2, 8)),
        "grid_hw": (np.int64, (1, 2)),
        "strides": (np.int64, (1,)),
        "valid_hw_px": (np.int64, (2,)),
        "input_hw_px": (np.int64, (2,)),
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
    assert arrays["kind"].shape == () and str(arrays["kind"]) == "dense"
    assert arrays["grid_hw"].tolist() == [[16, 16]] and arrays["strides"].tolist() == [8]
    assert arrays["valid_hw_px"].tolist() == arrays["input_hw_px"].tolist() == [128, 128]
    assert not arrays["outside_combine"].any()  # dense attention stays on the map
    assert set(arrays) == {*expected, "label_names", "kind", "meta"}


def test_meta_says_what_made_it(explanation, tmp_path):
    path = heatmaps.save(tmp_path / "m.npz", explanation, [0], ["content"], layer=1, scale="layer")
    meta = heatmaps.load(path).meta
    assert meta["schema_version"] == 3
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


@pytest.mark.parametrize(("store", "most"), [("float16", 250_000), ("float32", 420_000)])
def test_five_queries_of_a_photo_take_little_room(tmp_path, store, most):
    """8 heads x 3 modes at 25 x 34, the cells of an 800 x 1066 photo, as hard to pack as noise."""
    rng = np.random.default_rng(0)
    made = Photo({m: rng.dirichlet(np.full(850, 0.3), (5, 8)) for m in MODES})
    path = heatmaps.save(tmp_path / "m.npz", made, range(5), MODES, store=store)
    assert 100_000 < path.stat().st_size <= most
    back = heatmaps.load(path)
    for mode in MODES:
        assert back.maps[mode].dtype == np.float32
        apart = np.abs(back.maps[mode] - made.maps(mode, range(5))).max()
        assert apart <= heatmaps.STORED_WITHIN[store]
        assert (apart > 0) == (store == "float16")


def test_a_store_that_is_none(explanation, tmp_path):
    with pytest.raises(UserError, match="float32 or float16, not int8"):
        heatmaps.save(tmp_path / "m.npz", explanation, [0], ["combine"], store="int8")
    assert not list(tmp_path.iterdir())


# ---- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def arrays(tmp_path) -> dict[str, np.ndarray]:
    """What a good file holds."""
    demo = demo_explanation("detr")
    path = heatmaps.save(tmp_path / "good.npz", demo, [2, 5], ["combine", "content"])
    with np.load(path) as archive:
        return dict(archive)


def crc32(array: np.ndarray) -> str:
    return (
        f"{zlib.crc32(array.tobytes(), zlib.crc32(f'{array.dtype.str}{array.shape}'.encode())):08x}"
    )


def written(path, arrays, **changes):
    """A file with sums that fit, whatever its arrays are; changes are those of its meta."""
    arrays = dict(arrays)
    meta = json.loads(str(arrays.pop("meta")))
    meta["crc32"] = {name: crc32(np.asarray(array)) for name, array in arrays.items()}
    meta |= changes
    np.savez(path, **arrays, meta=np.asarray(json.dumps(meta)))
    return path


def refusal(path) -> str:
    with pytest.raises(HeatmapError) as raised:
        heatmaps.load(path)
    assert str(raised.value).count("\n") == 0 and path.name in str(raised.value)
    return str(raised.value)


def test_what_is_whole_is_read_whoever_packed_it(arrays, tmp_path):
    assert heatmaps.load(written(tmp_path / "a.npz", arrays)).query_ids.tolist() == [2, 5]


CHANGED = {
    "a mode shorter": ({"maps_combine": lambda a: a[:, :3]}, r"maps_combine is float32 \(2, 3"),
    "doubles": ({"maps_combine": lambda a: a.astype(float)}, "maps_combine is float64"),
    "no number": ({"maps_content": lambda a: a * np.nan}, "no weights"),
    "negative": ({"maps_content": lambda a: -a}, "no weights"),
    "twice": ({"maps_content": lambda a: 2 * a}, "more than 1 in all"),
    "scores": ({"scores": lambda a: a + np.inf}, "scores has values that are no numbers"),
    "one score": ({"scores": lambda a: a[:1]}, r"scores is \(1,\), expected \(2,\)"),
    "boxes": ({"boxes_xyxy_px": lambda a: a[:, :3]}, r"boxes_xyxy_px is \(2, 3\)"),
    "grid": ({"grid_hw": lambda a: a[::-1] * 2}, "maps_combine is float32"),
    "words": ({"labels": lambda a: np.array(["cat", "dog"])}, "labels is <U3"),
    "pickle": ({"scores": lambda a: np.array([{}, {}], object)}, "objects"),
    "records": ({"scores": lambda a: np.zeros(2, [("a", "f4")])}, "records"),
    "dates": ({"scores": lambda a: np.zeros(2, "M8[s]")}, "records"),
    "meta": ({"meta": lambda a: np.asarray("[1]")}, "schema version None"),
    "no json": ({"meta": lambda a: np.asarray("not json")}, "not a file of saved maps"),
    "deep json": ({"meta": lambda a: np.asarray("[" * 100_000)}, "not a file of saved maps"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_arrays_that_are_not_ours(arrays, tmp_path, name):
    changes, words = CHANGED[name]
    for key, change in changes.items():
        arrays[key] = change(arrays[key])
    path = tmp_path / "changed.npz"
    if "meta" in changes or "pickle" in name:
        np.savez(path, **arrays)
    else:
        written(path, arrays)
    assert re.search(words, refusal(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 4}, "newer detr_viz"),
        ({"schema_version": "3"}, "schema version 3: write"),
        ({"schema_version": 2}, "not schema version 2"),
        ({"schema_version": 1}, "not schema version 1"),
        ({"schema_version": True}, "schema version True"),
        ({"schema_version": 0}, "schema version 0"),
        ({"num_heads": 4}, "expected float32"),
        ({"num_heads": None}, "heads: write it again"),
        ({"store": "float16"}, "expected float16"),
        ({"store": "object"}, "expected object"),
        ({"store": ["float32"]}, "expected"),
        ({"crc32": None}, "damaged"),
        ({"crc32": [1]}, "damaged"),
    ],
    ids=str,
)
def test_meta_that_is_not_ours(arrays, tmp_path, changes, words):
    assert words in refusal(written(tmp_path / "changed.npz", arrays, **changes))


@pytest.mark.parametrize("name", ["scores", "maps_combine", "query_ids"])
def test_an_array_that_was_changed_after_it_was_written_is_damage(arrays, tmp_path, name):
    arrays[name] = arrays[name][::-1].copy()  # still of the right kind
    np.savez(tmp_path / "rotten.npz", **arrays)
    said = refusal(tmp_path / "rotten.npz")
    assert f"rotten.npz is damaged: the CRC-32 of {name} is not the one it had" in said


def test_a_file_without_maps(arrays, tmp_path):
    del arrays["maps_combine"], arrays["maps_content"]
    assert "has no maps" in refusal(written(tmp_path / "none.npz", arrays))


def test_a_mode_that_is_gone_is_damage(arrays, tmp_path):
    del arrays["maps_content"]
    np.savez(tmp_path / "rotten.npz", **arrays)
    assert "it has no maps_content any more" in refusal(tmp_path / "rotten.npz")


def test_files_of_another_kind(tmp_path, arrays):
    (tmp_path / "text.npz").write_text("no archive")
    assert "it is no zip archive, or is cut short" in refusal(tmp_path / "text.npz")
    assert "No such file" in refusal(tmp_path / "none.npz")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-100])
    assert "cut short" in refusal(tmp_path / "cut.npz")
    np.save(tmp_path / "single.npy", arrays["scores"])
    assert "single array" in refusal(tmp_path / "single.npy")
    del arrays["scores"]
    assert "lacks scores" in refusal(written(tmp_path / "short.npz", arrays))
    for place in range(0, len(whole), 97):  # one flipped byte is never another error
        broken = bytearray(whole)
        broken[place] ^= 0x55
        (tmp_path / "flipped.npz").write_bytes(broken)
        with suppress(HeatmapError):
            back = heatmaps.load(tmp_path / "flipped.npz")
            np.testing.assert_array_equal(back.maps["combine"], arrays["maps_combine"])


# ---- hostile archives ---------------------------------------------------------------------------


def npy(shape: str, descr: str = "<f4", data: bytes = b"") -> bytes:
    """A member with a header of one's own."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HOSTILE = {
    "a promise": (npy("(2000000000,)"), "too large"),
    "many dimensions": (npy("(1,1,1,1,1,1,1,1,1)", data=bytes(4)), "has the shape"),
    "negative": (npy("(-1,)"), "has the shape"),
    "texts of nothing": (npy("(1000000000000,)", "<U0"), "objects"),
    "shorter": (npy("(3,)", data=bytes(8)), "not as long"),
    "longer": (npy("(3,)", data=bytes(16)), "not as long"),
    "a bomb": (npy("(200000000,)", "|u1", bytes(200_000_000)), "too large"),
    "code": (npy("__import__('os').getcwd()"), "damaged"),
    "a later format": (b"\x93NUMPY\x09\x00" + bytes(50), "a format of its own"),
    "no array": (b"text", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_are_meant_to_do_harm(tmp_path, name):
    member, words = HOSTILE[name]
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", member)
    del member
    tracemalloc.start()
    try:
        assert words in refusal(tmp_path / "bad.npz")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("names", [["a.npy", "a.npy"], ["a.txt"], ["../a.npy"] * 2])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_no_arrays_of_their_own(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name in names:
            archive.writestr(name, npy("(1,)", data=bytes(4)))
    assert "no array of its own" in refusal(tmp_path / "bad.npz")


def test_too_many_members_and_unknown_packing(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for i in range(1001):
            archive.writestr(f"{i}.npy", b"")
    assert "1001 members" in refusal(tmp_path / "many.npz")
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy("(1,)", data=bytes(4)))
    assert "packed in an unknown way" in refusal(tmp_path / "lzma.npz")


def test_all_arrays_together_are_bounded(tmp_path):
    np.savez(tmp_path / "a.npz", **{f"a{i}": np.zeros(1000, np.float32) for i in range(5)})
    assert len(safe_npz.read(tmp_path / "a.npz", 20_000)) == 5
    with pytest.raises(safe_npz.ArchiveError, match="a4' is too large"):
        safe_npz.read(tmp_path / "a.npz", 19_999)


def test_arrays_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    made = {
        "fortran": np.asfortranarray(rng.random((3, 4, 5))),
        "empty": np.zeros((0, 8, 2, 3), np.float16),
        "single": np.asarray("é"),
        "texts": np.asarray(["a", "chat noir"]),
        "big_endian": np.arange(6, dtype=">i4").reshape(2, 3),
        "flags": np.asarray([True, False]),
    }
    np.savez_compressed(tmp_path / "a.npz", **made)
    found = safe_npz.read(tmp_path / "a.npz", 10_000)
    with np.load(tmp_path / "a.npz") as theirs:
        for name, array in made.items():
            np.testing.assert_array_equal(found[name], theirs[name])
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
    assert safe_npz.checksums(found) == {name: crc32(array) for name, array in found.items()}


def test_a_header_is_no_way_to_much_memory(tmp_path):
    """A length of 1 GB in front of a .npy member: it is not read."""
    import tracemalloc
    import zipfile

    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        length = (1 << 27).to_bytes(4, "little")
        archive.writestr("meta.npy", b"\x93NUMPY\x02\x00" + length + b" " * (1 << 27))
    tracemalloc.start()
    with pytest.raises(HeatmapError, match="header of 134,217,728 bytes"):
        heatmaps.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def small(**fields):
    made = heatmaps.of_arrays({"combine": np.full((2, 1, 3, 4), 1 / 12)})
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"query_ids": np.asarray([1, 1])}, "no ids, each once"),
        ({"query_ids": np.asarray([-1, 1])}, "no ids, each once"),
        ({"image_hw_px": np.asarray([0, 4])}, "image_hw_px has none"),
        ({"scores": np.asarray([np.nan, 0], np.float32)}, "no numbers"),
        ({"maps": {"combine": np.full((2, 1, 3, 4), np.nan, np.float32)}}, "no weights"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, fields, says):
    with pytest.raises(HeatmapError, match=says):
        heatmaps.write(tmp_path / "a.npz", small(**fields))
    assert not list(tmp_path.iterdir())


def test_nor_more_than_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_MOST_BYTES", 200)
    with pytest.raises(HeatmapError, match="and 200 are read: choose fewer queries"):
        heatmaps.write(tmp_path / "a.npz", small())
    assert not list(tmp_path.iterdir())


def test_no_queries_are_no_maps(tmp_path):
    empty = heatmaps.of_arrays({"combine": np.zeros((0, 1, 3, 4))})
    with pytest.raises(HeatmapError, match="has no queries"):
        heatmaps.write(tmp_path / "a.npz", empty)
