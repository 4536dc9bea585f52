"""Small files that would take a machine: each builder writes one, and gives the command's words."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT
from PIL import Image

SCENE = str(ROOT / "image/scene_1.jpg")
RUN = ["--image", SCENE, "--queries", "0"]


def _weights(name: str) -> list[str]:
    return [*RUN, "--weights", name]


def demo() -> dict:
    """The content of the demo checkpoint of DETR."""
    from detr_viz.checkpoints.locate import locate

    path = locate(None, "detr", None, False).path
    return torch.load(path, map_location="cpu", weights_only=True)


def _resaved(
    home: Path, member: str, start: bytes, unit: bytes, times: int, packed: bool
) -> list[str]:
    """A small archive of torch.save with one more, or another, member; written in pieces."""
    buffer = io.BytesIO()
    torch.save({"model": {"a.weight": torch.zeros(2)}}, buffer)
    source = zipfile.ZipFile(buffer)
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(home / "a.pth", "w", kind) as archive:
        for name in source.namelist():
            if not name.endswith(member):
                archive.writestr(name, source.read(name))
        top = source.namelist()[0].split("/")[0]
        with archive.open(f"{top}/{member}", "w", force_zip64=True) as file:
            file.write(start)
            for _ in range(times):
                file.write(unit)
    return _weights("a.pth")


def deflated_pickle(home: Path) -> list[str]:
    return _resaved(home, "data.pkl", b"\x80\x02", b"}" * 1_000_000, 900, True)


def deflated_version(home: Path) -> list[str]:
    return _resaved(home, "version", b"3", b"3" * 1_000_000, 900, True)


def deflated_byteorder(home: Path) -> list[str]:
    return _resaved(home, "byteorder", b"", b"little" * 100_000, 1500, True)


def deflated_tensor(home: Path) -> list[str]:
    return _resaved(home, "data/0", b"", b"\0" * 1_000_000, 900, True)


def long_pickle(home: Path) -> list[str]:
    return _resaved(home, "data.pkl", b"\x80\x02", b"}" * 1_000_000, 9, False)


def many_layers(home: Path) -> list[str]:
    model = dict(demo()["model"])
    for key in [k for k in model if k.endswith("decoder.layers.0.norm1.weight")]:
        for layer in range(2, 6000):
            model[key.replace(".layers.0.", f".layers.{layer}.")] = torch.zeros(1)
    torch.save({"model": model}, home / "a.pth")
    return _weights("a.pth")


def expanded(home: Path) -> list[str]:
    model = {k: v.flatten()[:1].expand(20_000, 20_000) for k, v in demo()["model"].items()}
    torch.save({"model": model}, home / "a.pth")
    return _weights("a.pth")


def shared(home: Path) -> list[str]:
    one = torch.zeros(1_000_000)
    torch.save({"model": {f"layer.{i}": one.view(1000, 1000) for i in range(9000)}}, home / "a.pth")
    return _weights("a.pth")


def nested(home: Path) -> list[str]:
    model = {k: v.to_sparse() for k, v in demo()["model"].items() if v.shape == (128, 128)}
    torch.save({"model": model}, home / "a.pth")
    return _weights("a.pth")


def empty_shapes(home: Path) -> list[str]:
    header = {
        f"t{i}": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}
        for i in range(20_000)
    }
    return _safetensors(home, header)


def wild_shapes(home: Path) -> list[str]:
    shape = [2**40, 2**40, 0]
    return _safetensors(home, {"t": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}})


def _safetensors(home: Path, header: dict) -> list[str]:
    data = json.dumps(header).encode()
    (home / "a.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    return _weights("a.safetensors")


def float4(home: Path) -> list[str]:
    header = {"t": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}
    data = json.dumps(header).encode()
    (home / "a.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + b"\0\0")
    return _weights("a.safetensors")


def _hf(home: Path, name: str, content: object) -> list[str]:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, home / "model.safetensors")
    (home / "config.json").write_text(json.dumps({"model_type": "detr"}))
    (home / name).write_text(json.dumps(content))
    return _weights(".")


def long_config(home: Path) -> list[str]:
    words = _hf(home, "config.json", {})
    (home / "config.json").write_text('{"model_type": "' + "x" * 9_000_000 + '"}')
    return words


def huge_heads(home: Path) -> list[str]:
    content = demo()
    content["meta"] = {**content.get("meta", {}), "nheads": 10**4000}
    torch.save(content, home / "a.pth")
    return _weights("a.pth")


def long_class_names(home: Path) -> list[str]:
    content = demo()
    names = content["meta"]["classes"]
    content["meta"] = {**content["meta"], "classes": ["x y" * 1_000_000, *names[1:]]}
    torch.save(content, home / "a.pth")
    return _weights("a.pth")


def long_class_list(home: Path) -> list[str]:
    (home / "names.json").write_text(json.dumps(["ab " * 300_000] * 3))
    return [*RUN, "--classes", "names.json"]


def large_size(home: Path) -> list[str]:
    return [*RUN, "--size", "9000", "--max-size", "9000"]


def _tiff_bomb(dtype: str) -> Callable[[Path], list[str]]:
    def build(home: Path) -> list[str]:
        side, bits = 13_000, np.dtype(dtype).itemsize * 8
        row = np.zeros(side, dtype).tobytes()
        packer = zlib.compressobj(9)
        data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
        kind = 3 if dtype.startswith("f") else 1
        tags = [(256, 4, side), (257, 4, side), (258, 3, bits), (259, 3, 8), (262, 3, 1)]
        tags += [(273, 4, 8), (277, 3, 1), (278, 4, side), (279, 4, len(data)), (339, 3, kind)]
        table = b"".join(struct.pack("<HHII", tag, what, 1, value) for tag, what, value in tags)
        head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
        (home / "a.tif").write_bytes(
            head + data + struct.pack("<H", len(tags)) + table + b"\0\0\0\0"
        )
        return ["--image", "a.tif", "--queries", "0"]

    return build


def fits(home: Path) -> list[str]:
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   = 2"]
    cards += ["NAXIS1  =                12000", "NAXIS2  =                12000", "END"]
    head = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    (home / "a.fits").write_bytes(head + gzip.compress(b"\0" * 144_000_000))
    return ["--image", "a.fits", "--queries", "0"]


def eps(home: Path) -> list[str]:
    (home / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n")
    return ["--image", "a.eps", "--queries", "0"]


def avif(home: Path) -> list[str]:
    Image.new("RGB", (12_000, 12_000)).save(home / "a.avif", speed=10)
    return ["--image", "a.avif", "--queries", "0"]


def png(home: Path) -> list[str]:
    Image.new("1", (60_000, 60_000)).save(home / "a.png")
    return ["--image", "a.png", "--queries", "0"]


def _npz(home: Path, name: str, queries: int, modes: int, cells: int = 1) -> None:
    from detr_viz.heatmaps import npz

    maps = np.full((queries, 1, 1, cells), 1 / cells, np.float32)
    saved = npz.of_arrays({f"m{i}": maps for i in range(modes)}, weights_sha256=name)
    arrays = saved.arrays("float32")
    from detr_viz.heatmaps import safe_npz

    meta = {**saved.meta, "store": "float32", "crc32": safe_npz.checksums(arrays)}
    arrays["meta"] = np.asarray(json.dumps(meta))
    np.savez_compressed(home / name, **arrays)


def many_modes(home: Path) -> list[str]:
    _npz(home, "a.npz", 1, 400)
    return ["compare", "a.npz", "a.npz"]


def many_queries(home: Path) -> list[str]:
    _npz(home, "a.npz", 1000, 1)
    _npz(home, "b.npz", 20_000, 1)
    return ["compare", "a.npz", "b.npz"]


def wide_maps(home: Path) -> list[str]:
    _npz(home, "a.npz", 300, 1, 100_000)
    _npz(home, "b.npz", 300, 1, 100_000)
    return ["compare", "a.npz", "b.npz"]


def long_json_name(home: Path) -> list[str]:
    (home / "a.json").write_text(json.dumps({"images": [{"file_name": "a b" * 1_000_000}]}))
    return ["--image", "a.json", "--queries", "0"]


def legacy_pickle(home: Path) -> list[str]:
    (home / "a.pth").write_bytes(pickle.dumps(10**3000, 2) + b"}" * 9_000_000)
    return _weights("a.pth")


# name -> (builder, words of the error; "" where the run may succeed)
BOMBS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "deflated data.pkl": (deflated_pickle, "is compressed"),
    "deflated version": (deflated_version, "is compressed"),
    "deflated byteorder": (deflated_byteorder, "is compressed"),
    "deflated tensor": (deflated_tensor, "is compressed"),
    "long data.pkl": (long_pickle, "error: "),
    "legacy pickle": (legacy_pickle, "error: "),
    "layers by the thousand": (many_layers, "--limit "),
    "expanded views": (expanded, "expanded view"),
    "one storage for all": (shared, "--limit shared="),
    "sparse": (nested, "sparse"),
    "empty shapes": (empty_shapes, "error: "),
    "wild shapes": (wild_shapes, "error: "),
    "float4": (float4, "error: "),
    "long config": (long_config, "error: "),
    "heads beyond float": (huge_heads, ""),
    "long class names": (long_class_names, "--limit name="),
    "long list of classes": (long_class_list, "error: "),
    "large size": (large_size, "--limit pixels="),
    "float TIFF": (_tiff_bomb("<f4"), "--limit deep="),
    "double TIFF": (_tiff_bomb("<f8"), "--limit deep="),
    "int TIFF": (_tiff_bomb("<u4"), "--limit deep="),
    "FITS": (fits, "error: "),
    "EPS": (eps, "error: "),
    "AVIF": (avif, "--limit deep="),
    "PNG": (png, "too large"),
    "many modes": (many_modes, "--limit modes="),
    "many queries": (many_queries, "--limit "),
    "wide maps": (wide_maps, ""),
    "long name in JSON": (long_json_name, "error: "),
}
