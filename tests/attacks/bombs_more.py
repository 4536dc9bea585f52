"""More small files that would take a machine: pickles, JSON, Hugging Face folders, images, maps."""

from __future__ import annotations

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
from bombs import RUN, SCENE, demo
from PIL import Image, PngImagePlugin

Build = Callable[[Path], list[str]]


def _weights(name: str) -> list[str]:
    return [*RUN, "--weights", name]


def _image(name: str) -> list[str]:
    return ["--image", name, "--queries", "0"]


# ---- pickles ------------------------------------------------------------------------------------


def _torch_zip(data: bytes) -> Build:
    """An archive of torch.save with this data.pkl."""

    def build(home: Path) -> list[str]:
        buffer = io.BytesIO()
        torch.save({"model": {"a.weight": torch.zeros(2)}}, buffer)
        source = zipfile.ZipFile(buffer)
        with zipfile.ZipFile(home / "a.pth", "w") as archive:
            for name in source.namelist():
                own = data if name.endswith("data.pkl") else source.read(name)
                archive.writestr(name, own)
        return _weights("a.pth")

    return build


def _pickle_file(data: bytes) -> Build:
    def build(home: Path) -> list[str]:
        (home / "a.pkl").write_bytes(data)
        return _weights("a.pkl")

    return build


def _calls(name: str, argument: bytes, times: int) -> bytes:
    """A pickle that calls one function again and again on one large value."""
    module, leaf = name.rsplit(".", 1)
    head = b"\x80\x02" + argument + b"q\x00" + f"c{module}\n{leaf}\n".encode() + b"q\x01"
    return head + b"]" + b"h\x01h\x00\x85Ra" * times + b"."


def _laughs(depth: int, width: int) -> bytes:
    """Lists of one list, again and again: small as a pickle, endless as a copy."""
    inner: object = ["x"] * width
    for _ in range(depth):
        inner = [inner] * width
    return pickle.dumps({"model": {}, "meta": {"type": "detr", "classes": inner}}, 2)


_LONG = b"X" + struct.pack("<I", 4_000_000) + b"a" * 4_000_000
_MANY = b"](" + b"K\x01" * 3_000_000 + b"e"
_ARRAY = (  # numpy's _reconstruct of an array of 10^11 numbers, without any of them
    b"\x80\x02}X\x05\x00\x00\x00modelcnumpy.core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\n\x8a\x05\x00\xe8vH\x17\x85U\x01f\x87Rs."
)
_BYTES = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85R."
_TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00actorch\nFloatTensor\n" + b"J\x00\xc3\x00\x00" * 2 + b"\x86Rs."
)


def lying_zip(home: Path) -> list[str]:
    """A member of 2 bytes that says it has 4 GB."""
    _torch_zip(pickle.dumps({"model": {}}, 2))(home)
    data = (home / "a.pth").read_bytes()
    with zipfile.ZipFile(home / "a.pth") as archive:
        size = archive.getinfo("archive/data.pkl").file_size
    (home / "a.pth").write_bytes(
        data.replace(struct.pack("<II", size, size), struct.pack("<II", 2**32 - 2, 2**32 - 2))
    )
    return _weights("a.pth")


# ---- JSON and Hugging Face folders --------------------------------------------------------------


def _hf(config: dict, processor: dict | str | None = None) -> Build:
    def build(home: Path) -> list[str]:
        from hf_factory import save, small

        save(small("detr"), home)
        path = home / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        if processor is not None:
            text = processor if isinstance(processor, str) else json.dumps(processor)
            (home / "preprocessor_config.json").write_text(text)
        return _weights(".")

    return build


def stride_zero(home: Path) -> list[str]:
    """q, k and v are one number each, as views without a stride."""
    from hf_factory import save, small

    save(small("detr"), home)
    from safetensors.torch import load_file

    state = load_file(home / "model.safetensors")
    state = {
        k: v.flatten()[:1].expand(25_000, 25_000) if "q_proj.w" in k or "k_proj.w" in k else v
        for k, v in state.items()
    }
    (home / "model.safetensors").unlink()
    torch.save(state, home / "pytorch_model.bin")
    return _weights(".")


def _text(name: str, text: str, *words: str) -> Build:
    def build(home: Path) -> list[str]:
        (home / name).write_text(text)
        return [*words] if words else _image(name)

    return build


def _header(data: bytes, length: int | None = None) -> Build:
    def build(home: Path) -> list[str]:
        size = len(data) if length is None else length
        (home / "a.safetensors").write_bytes(struct.pack("<Q", size) + data)
        return _weights("a.safetensors")

    return build


def _meta(**entries: object) -> Build:
    def build(home: Path) -> list[str]:
        content = demo()
        content["meta"] = {**content["meta"], **entries}
        torch.save(content, home / "a.pth")
        return _weights("a.pth")

    return build


def _remade(size: int) -> Build:
    """A baseline that says its image is resized to this."""

    def build(home: Path) -> list[str]:
        from detr_viz import cli

        words = ["record", "--type", "detr", "--image", SCENE, "--out", str(home / "b"), "--quiet"]
        assert cli.main([*words, "--size", "64"]) == 0
        (path,) = (home / "b").glob("*.npz")
        with np.load(path) as saved:
            arrays = dict(saved)
        meta = json.loads(str(arrays["meta"]))
        meta["remake"] |= {"size": size, "max_size": size}
        arrays["meta"] = np.asarray(json.dumps(meta))
        np.savez(home / "a.npz", **arrays)
        for one in (home / "b").iterdir():
            one.unlink()
        (home / "b").rmdir()
        return ["check", "a.npz"]

    return build


# ---- images -------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(*chunks: bytes, hw: tuple[int, int] = (64, 64)) -> Build:
    def build(home: Path) -> list[str]:
        buffer = io.BytesIO()
        Image.new("RGB", hw[::-1], "white").save(buffer, "PNG")
        data = buffer.getvalue()
        (home / "a.png").write_bytes(data[:33] + b"".join(chunks) + data[33:])
        return _image("a.png")

    return build


def _packed(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    block = b"\0" * 1_000_000
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


def _frames(format: str, count: int, side: int = 8) -> Build:
    def build(home: Path) -> list[str]:
        first, *more = (Image.new("P", (side, side), i % 250) for i in range(count))
        first.putpalette([i % 256 for i in range(768)])
        for one in more:
            one.putpalette([i % 256 for i in range(768)])
        path = home / f"a.{format}"
        first.save(path, save_all=True, append_images=more, duration=10)
        return _image(path.name)

    return build


def many_scans(home: Path) -> list[str]:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(buffer, "JPEG", progressive=True, quality=10)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    tables = data.rindex(b"\xff\xc4", 0, last)
    whole = data[tables:last] + scan
    (home / "a.jpg").write_bytes(data[:-2] + whole * (9_000_000 // len(whole)) + b"\xff\xd9")
    return _image("a.jpg")


def many_pages(home: Path) -> list[str]:
    """A TIFF whose directories follow each other in a long chain."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    table = bytes(data[first : first + 2 + 12 * count])
    struct.pack_into("<I", data, first + 2 + 12 * count, len(data))
    for _ in range(40_000):
        data += table + struct.pack("<I", len(data) + len(table) + 4)
    (home / "a.tif").write_bytes(bytes(data[:-4]) + b"\0\0\0\0")
    return _image("a.tif")


def _pillow(name: str, mode: str, side: int, **how: object) -> Build:
    def build(home: Path) -> list[str]:
        Image.new(mode, (side, side)).save(home / name, **how)  # type: ignore[arg-type]
        return _image(name)

    return build


def deep_png(home: Path) -> list[str]:
    Image.fromarray(np.zeros((13_000, 13_000), np.uint16)).save(home / "a.png")
    return _image("a.png")


def text_png(home: Path) -> list[str]:
    info = PngImagePlugin.PngInfo()
    for i in range(800):
        info.add_text(f"k{i}", "a" * 1_000_000, zip=True)
    Image.new("RGB", (64, 64)).save(home / "a.png", pnginfo=info)
    return _image("a.png")


# ---- saved maps ---------------------------------------------------------------------------------


def _npz(header: dict[str, object] | bytes, data: bytes = b"") -> Build:
    def build(home: Path) -> list[str]:
        text = header if isinstance(header, bytes) else repr(header).encode() + b"\n"
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 65535)) + text + data
        with zipfile.ZipFile(home / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("meta.npy", member)
        return ["compare", "a.npz", "a.npz"]

    return build


def _shape(*shape: int, code: str = "<f4") -> dict[str, object]:
    return {"descr": code, "fortran_order": False, "shape": shape}


_DEEP = "[" * 4_000_000
_COCO = json.dumps({"images": [{"file_name": f"{i}.j"} for i in range(250_000)]})
MORE: dict[str, tuple[Build, str]] = {  # name -> (builder, words of the error; "": may succeed)
    "pickle: bytes of 10 GB": (_torch_zip(_BYTES), "error: "),
    "pickle: a tensor of no bytes": (_torch_zip(_TENSOR), "error: "),
    "pickle: copies of a list": (
        _torch_zip(_calls("collections.deque", _MANY, 200_000)),
        "error: ",
    ),
    "pickle: copies of a text": (
        _torch_zip(_calls("torch.torch_version.TorchVersion", _LONG, 200_000)),
        "error: ",
    ),
    "pickle: lists of a list": (_torch_zip(_laughs(12, 300)), "error: "),
    "pkl: lists of a list": (_pickle_file(_laughs(6, 300)), "error: "),
    "pkl: copies of a text": (_pickle_file(_calls("_codecs.encode", _LONG, 200_000)), "error: "),
    "pkl: an array of no bytes": (_pickle_file(_ARRAY), "error: "),
    "zip that lies of sizes": (lying_zip, "error: "),
    "meta: 9,000 pixels": (_meta(size=9000, max_size=9000), "--limit pixels="),
    "meta: 10^300 pixels": (_meta(size=10**300, max_size=10**300), "error: "),
    "meta: stride": (_meta(stride=10**30), ""),
    "processor: 9,000 pixels": (
        _hf({}, {"size": {"shortest_edge": 9000, "longest_edge": 9000}}),
        "--limit pixels=",
    ),
    "processor: 10^300": (_hf({}, {"size": 10**300}), "error: "),
    "processor: padding": (
        _hf({}, {"size": 64, "pad_size": {"height": 60_000, "width": 60_000}, "do_pad": True}),
        "",
    ),
    "processor: depth": (_hf({}, _DEEP), "error: "),
    "config: layers": (_hf({"encoder_layers": 10**6, "decoder_layers": 10**6}), "error: "),
    "config: width": (_hf({"d_model": 10**6, "encoder_ffn_dim": 10**7}), "error: "),
    "config: queries": (_hf({"num_queries": 10**9}), "error: "),
    "config: heads": (_hf({"encoder_attention_heads": 10**300}), "error: "),
    "config: labels": (_hf({"id2label": {str(i): "a" for i in range(300_000)}}), "error: "),
    "views of no stride": (stride_zero, "error: "),
    "safetensors: length": (_header(b"{}", 2**62), "error: "),
    "safetensors: depth": (_header(b'{"a":' * 1_500_000), "error: "),
    "safetensors: words": (_header(b'{"__metadata__":{"a":"' + b"x" * 9_000_000 + b'"}}'), "error"),
    "safetensors: empty tensors": (
        _header(
            json.dumps(
                {
                    f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for i in range(120_000)
                }
            ).encode()
        ),
        "error: ",
    ),
    "baseline: 900,000 pixels": (_remade(900_000), "error: "),
    "JSON: depth": (_text("a.json", _DEEP), "error: "),
    "JSON: digits": (_text("a.json", '{"images": ' + "9" * 9_000_000 + "}"), "error: "),
    "JSON: images": (_text("a.json", _COCO), "error: "),
    "list: lines": (_text("a.txt", "a\n" * 4_000_000, *_image("@a.txt")), "error: "),
    "list: a line": (_text("a.txt", "a" * 9_000_000, *_image("@a.txt")), "error: "),
    "classes: depth": (_text("a.json", _DEEP, *RUN, "--classes", "a.json"), "error: "),
    "PNG: profile": (_png(_chunk(b"iCCP", b"a\0\0" + _packed(2000))), ""),
    "PNG: text": (_png(_chunk(b"zTXt", b"a\0\0" + _packed(2000))), ""),
    "PNG: EXIF": (_png(_chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 5_000_000)), ""),
    "PNG: texts": (text_png, ""),
    "GIF: frames": (_frames("gif", 60_000), ""),
    "WebP: frames": (_frames("webp", 6_000), ""),
    "APNG: frames": (_frames("png", 20_000), ""),
    "TIFF: pages": (many_pages, ""),
    "JPEG: scans": (many_scans, "--limit scans="),
    "JPEG: size": (_pillow("a.jpg", "L", 13_000, quality=5), ""),
    "JPEG 2000: size": (_pillow("a.jp2", "RGB", 9_000), ""),
    "WebP: size": (_pillow("a.webp", "RGB", 13_000, method=0), ""),
    "GIF: size": (_pillow("a.gif", "L", 13_000), ""),
    "PNG: size": (_pillow("a.png", "RGBA", 13_000), ""),
    "PNG of 16 bits": (deep_png, "--limit deep="),
    "npz: dimensions": (_npz(_shape(*[2**40] * 8)), "error: "),
    "npz: numbers": (_npz(_shape(10**10)), "error: "),
    "npz: no numbers": (_npz(_shape(0, 10**300)), "error: "),
    "npz: objects": (_npz(_shape(10, code="|O"), pickle.dumps([1])), "error: "),
    "npz: header": (_npz(b"(" * 9_000), "error: "),
    "npz: text": (_npz(_shape(code="<U30000000"), b"\0" * 120_000_000), "error: "),
    "npz: records": (_npz(_shape(10**9, code="|V0")), "error: "),
}
