"""Small images and saved maps that would take a machine."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

Build = Callable[[Path], list[str]]


def _image(name: str) -> list[str]:
    return ["--image", name, "--queries", "0"]


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


IMAGES: dict[str, tuple[Build, str]] = {  # name -> (builder, words of the error; "": may succeed)
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
    "JPEG 2000: size": (_pillow("a.jp2", "RGB", 7_500), ""),
    "WebP: size": (_pillow("a.webp", "RGB", 13_000, method=0), "--limit deep="),
    "WebP: less": (_pillow("a.webp", "RGB", 8_000, method=0), ""),
    "JPEG: colours": (_pillow("a.jpg", "RGB", 13_000, quality=5), ""),
    "JPEG 2000: more": (_pillow("a.jp2", "RGB", 13_000), "--limit deep="),
    "BMP of bits": (_pillow("a.bmp", "1", 8_800), ""),
    "TIFF: size": (_pillow("a.tif", "CMYK", 13_000, compression="tiff_lzw"), ""),
    "GIF: size": (_pillow("a.gif", "L", 13_000), ""),
    "PNG: size": (_pillow("a.png", "RGBA", 13_000), ""),
    "PNG of 16 bits": (deep_png, ""),
    "npz: dimensions": (_npz(_shape(*[2**40] * 8)), "error: "),
    "npz: numbers": (_npz(_shape(10**10)), "error: "),
    "npz: no numbers": (_npz(_shape(0, 10**300)), "error: "),
    "npz: objects": (_npz(_shape(10, code="|O"), pickle.dumps([1])), "error: "),
    "npz: header": (_npz(b"(" * 9_000), "error: "),
    "npz: text": (_npz(_shape(code="<U30000000"), b"\0" * 120_000_000), "error: "),
    "npz: records": (_npz(_shape(10**9, code="|V0")), "error: "),
}

# Pixels of the pictures that are read whole: their RGB is part of what the result needs.
PIXELS = {
    **dict.fromkeys(("JPEG: size", "JPEG: colours", "GIF: size", "PNG: size"), 13_000**2),
    **dict.fromkeys(("PNG of 16 bits", "TIFF: size"), 13_000**2),
    "JPEG 2000: size": 7_500**2,
    "WebP: less": 8_000**2,
    "BMP of bits": 8_800**2,
}
