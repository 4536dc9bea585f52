"""What tests read off a page of a PDF faster than pypdf does: its drawing operators, its picture.

pypdf parses a page of ten thousand lines for ten seconds, and undoes the filters of a picture's
rows in Python.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from pypdf import PageObject

_TOKEN = re.compile(
    rb"(?P<string>\((?:\\.|[^\\()])*\)|<[0-9A-Fa-f\s]*>)|(?P<number>[-+]?\.?\d[\d.]*)"
    rb"|/(?P<name>[^\s/<>()\[\]]+)|(?P<operator>[A-Za-z'\"][A-Za-z0-9*]*)|[\[\]\s]+",
    re.DOTALL,
)


def operations(page: PageObject) -> Iterator[tuple[list[float | str], bytes]]:
    """(operands, operator) in the order of drawing: numbers, and names as /Name; no strings."""
    content, at = page.get_contents().get_data(), 0
    operands: list[float | str] = []
    for token in _TOKEN.finditer(content):
        assert token.start() == at, content[at : token.start()]  # nothing unknown in between
        at = token.end()
        if token.lastgroup == "number":
            operands.append(float(token["number"]))
        elif token.lastgroup == "name":
            operands.append(f"/{token['name'].decode()}")
        elif token.lastgroup == "operator":
            yield operands, token["operator"]
            operands = []
    assert at == len(content)


def only_picture(page: PageObject) -> np.ndarray:
    """The one picture of a page as uint8 (height, width, 3): the rows of a PNG, read as one."""
    (picture,) = (
        found
        for entry in page["/Resources"]["/XObject"].values()
        if (found := entry.get_object())["/Subtype"] == "/Image"
    )
    assert (picture["/Filter"], picture["/ColorSpace"]) == ("/FlateDecode", "/DeviceRGB")
    parameters = picture["/DecodeParms"]
    size = picture["/Width"], picture["/Height"]
    assert (parameters["/Predictor"], parameters["/Colors"]) == (10, 3)
    assert (parameters["/Columns"], picture["/BitsPerComponent"]) == (size[0], 8)
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", picture._data), (b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)
