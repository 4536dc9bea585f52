"""Saved maps changed at random: never a traceback, never much memory, never a wrong "same"."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
import zlib
from functools import cache

import numpy as np
import pytest
from conftest import demo_explanation

from detr_viz import heatmaps
from detr_viz.heatmaps.compare import judge
from detr_viz.heatmaps.limits import Limits
from detr_viz.heatmaps.npz import HeatmapError, Heatmaps

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

MOST_BYTES = 200_000_000
EXACT = Limits(0, 0, 0, 1, 0)
SEVERAL = [
    b"",
    b"\0",
    b"\xff" * 8,
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"\x93NUMPY",
    b"9" * 30,
    b"(9,9,9)",
]


@cache
def whole() -> bytes:
    """A small file as `save` writes it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        e = demo_explanation("detr")
        path = heatmaps.save(Path(folder) / "a.npz", e, [3], ["combine"], store="float16")
        return path.read_bytes()


@cache
def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(whole())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def good() -> Heatmaps:
    return loaded(whole())


def loaded(data: bytes) -> Heatmaps:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", lambda path, mode="r": io.BytesIO(data))
        return heatmaps.load("fuzz.npz")


def held(data: bytes) -> None:
    """What must be true of every file there is."""
    tracemalloc.start()
    try:
        found = loaded(data)
        verdict = judge(good(), found, EXACT)
    except HeatmapError as error:
        assert "fuzz.npz" in str(error) and "\n" not in str(error) and len(str(error)) < 600
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    if verdict.same:
        np.testing.assert_array_equal(found.maps["combine"], good().maps["combine"])
        np.testing.assert_array_equal(found.boxes_xyxy_px, good().boxes_xyxy_px)
        assert found.query_ids.tolist() == good().query_ids.tolist()
        assert found.label_names.tolist() == good().label_names.tolist()


@pytest.fixture(scope="module", autouse=True)
def warm():
    held(whole())


@hypothesis.settings(max_examples=800, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    place=st.integers(0, 20_000),
    gone=st.integers(0, 40),
    put=st.sampled_from(SEVERAL) | st.binary(),
)
def test_bytes_of_the_file(place, gone, put):
    data = whole()
    place %= len(data)
    held(data[:place] + put + data[place + gone :])


@hypothesis.settings(max_examples=800, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    name=st.sampled_from(["maps_combine.npy", "scores.npy", "boxes_xyxy_px.npy", "meta.npy"])
    | st.sampled_from(["label_names.npy", "grid_hw.npy", "query_ids.npy"]),
    place=st.integers(0, 20_000),
    gone=st.integers(0, 40),
    put=st.sampled_from(SEVERAL) | st.binary(),
    kind=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_bytes_of_an_array(name, place, gone, put, kind):
    """Packed again, so that the archive's own sums fit."""
    member = members()[name]
    place %= len(member)
    changed = members() | {name: member[:place] + put + member[place + gone :]}
    held(packed(changed, kind))


@hypothesis.settings(max_examples=400, deadline=None, derandomize=True, database=None)
@hypothesis.given(data=st.data())
def test_arrays_of_another_kind(data):
    """With sums that fit, as from a hand that knows the format."""
    arrays = {name: np.load(io.BytesIO(raw)) for name, raw in members().items()}
    name = data.draw(st.sampled_from(sorted(arrays.keys() - {"meta.npy"})))
    dtype = data.draw(st.sampled_from(["<f2", "<f4", "<f8", ">f4", "<i8", "<i4", "|b1", "<U3"]))
    shape = data.draw(st.lists(st.integers(0, 9), max_size=5).map(tuple))
    fill = data.draw(st.sampled_from([0, 1, -1, 7, np.nan, np.inf, 65504, 1e-8]))
    with np.errstate(all="ignore"):
        hypothesis.assume(np.isfinite(fill) or dtype[1] in "fU")
        arrays[name] = np.full(shape, fill).astype(dtype)
    meta = json.loads(str(arrays.pop("meta.npy")))
    meta["crc32"] = {
        key.removesuffix(".npy"): f"{zlib.crc32(_said(a) + a.tobytes()):08x}"
        for key, a in arrays.items()
    }
    change = data.draw(st.sampled_from(["", "num_heads", "store", "schema_version", "crc32"]))
    if change:
        meta[change] = data.draw(st.none() | st.integers(-2, 3) | st.text(max_size=3) | st.just([]))
    buffer = io.BytesIO()
    named = {key.removesuffix(".npy"): array for key, array in arrays.items()}
    np.savez(buffer, **named, meta=np.asarray(json.dumps(meta)))
    held(buffer.getvalue())


def _said(array: np.ndarray) -> bytes:
    return f"{array.dtype.str}{array.shape}".encode()


def packed(changed: dict[str, bytes], kind: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, raw in changed.items():
            archive.writestr(name, raw)
    return buffer.getvalue()
