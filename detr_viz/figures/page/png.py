"""A page as a PNG file: the rows are filtered here, zlib packs them, Pillow writes texts as chunks.

Pillow tries five filters for each row in turn; choosing between two of them by a sample of the row
gives files of the same size in half the time.

Source: W3C, Portable Network Graphics (third edition), sections 9 (filtering) and 11 (chunks).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

_MAGIC = b"\x89PNG\r\n\x1a\n"
_SUB, _UP = 1, 2  # filters: less the pixel to the left, less the one above
_LEVEL = 2  # of zlib: higher ones take a multiple of the time for a tenth of the size
_BAND = 128  # rows at a time
_SAMPLED = 8  # every so many bytes of a row tell its filter
_INCH = 0.0254  # metres


def write_png(
    path: Path, pixels: np.ndarray, dpi: float, facts: Mapping[str, str] | None = None
) -> None:
    """Write pixels (height, width, 3) uint8, their density, and facts as texts."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, text in (facts or {}).items():
        texts.add_text(name, text)
    height, width = pixels.shape[:2]
    per_metre = round(dpi / _INCH)
    with path.open("wb") as file:
        file.write(_MAGIC)
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(_chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)))
        for kind, data, *_ in texts.chunks:
            file.write(_chunk(kind, data))
        for data in _packed(pixels):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)))


def _packed(pixels: np.ndarray) -> Iterator[bytes]:
    """The compressed rows, in pieces."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1)
    above = np.zeros(pixels.shape[1] * 3, np.uint8)
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        rows = np.empty(band.shape, np.uint8)
        for channel in range(3):  # a view without alpha is copied at once in four times the time
            rows[..., channel] = band[..., channel]
        rows = rows.reshape(len(band), -1)
        if data := packer.compress(_filtered(rows, above)):
            yield data
        above = rows[-1]
    yield packer.flush()


def _filtered(rows: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Rows (n, 3 * width) below `above` as differences, each after the number of its filter."""
    out = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    differences = out[:, 1:]
    differences[:, :3] = rows[:, :3]
    np.subtract(rows[:, 3:], rows[:, :-3], out=differences[:, 3:])
    of_above = rows - np.concatenate([above[None], rows[:-1]])
    # the usual guess: the smaller sum of differences, taken as signed, packs better
    sums = [
        np.abs(d[:, ::_SAMPLED].view(np.int8).astype(np.int16)).sum(1)
        for d in (differences, of_above)
    ]
    upward = sums[1] < sums[0]
    out[:, 0] = np.where(upward, _UP, _SUB)
    differences[upward] = of_above[upward]
    return out
