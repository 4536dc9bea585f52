"""Small figures, and what lies where on the pages of a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from pdf_tools import operations
from PIL import Image, ImageFont
from pypdf import PageObject, PdfReader

from detr_viz.figures.contact_sheet import contact_sheet

A4 = (595.44, 841.68)
DEJAVU = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
SIGN = "\N{REPLACEMENT CHARACTER}"
MIXED = ((1533, 814), (1533, 1028), (1533, 411), (900, 500), (1533, 814), (1533, 3100))


class Area(NamedTuple):
    """A rectangle on a page, in points from its bottom left corner, and what is in it."""

    x0: float
    y0: float
    x1: float
    y1: float
    what: str

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0


def png(folder: Path, width: int = 300, height: int = 200, name: str = "") -> Path:
    """A figure: red on the left, blue below."""
    path = folder / (name or f"{width}x{height}.png")
    if not path.exists():
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[:, : width // 4] = 200, 0, 0
        pixels[-(height // 4) :] = 0, 0, 200
        Image.fromarray(pixels).save(path)
    return path


def several(folder: Path, count: int, sizes=((300, 200),)) -> list[tuple[Path, str]]:
    return [(png(folder, *sizes[i % len(sizes)]), f"val/{i:012d}.jpg") for i in range(count)]


def sheet(folder: Path, figures, *args, **more) -> PdfReader:
    pages = contact_sheet(folder / "sheet.pdf", figures, *args, **more)
    reader = PdfReader(folder / "sheet.pdf")
    assert len(reader.pages) == pages
    for page in reader.pages:
        assert (float(page.mediabox.width), float(page.mediabox.height)) == pytest.approx(A4)
    return reader


def lines(page: PageObject) -> list[str]:
    return [line.strip() for line in page.extract_text().splitlines() if line.strip()]


def pictures(page: PageObject) -> list[Area]:
    """Pictures and blank cells; drawn in the unit square of the matrix set before them."""
    found, matrix = [], None
    for operands, operator in operations(page):
        if operator == b"cm":
            matrix = operands
        elif operator in (b"Do", b"re"):
            width, skew, slant, height, x, y = matrix
            assert (skew, slant) == (0, 0) and width > 0 and height > 0
            what = str(operands[0]) if operator == b"Do" else "blank"
            found.append(Area(x, y, x + width, y + height, what))
    return found


def texts(page: PageObject) -> list[Area]:
    """Lines of text with the extents that Pillow finds for them in DejaVu Sans."""
    font, found = ImageFont.truetype(DEJAVU, 1000), []

    def visit(text, cm, tm, _, size):
        if text.strip():
            x, y, text = cm[4] + tm[4], cm[5] + tm[5], text.strip()
            left, top, right, bottom = (e * size / 1000 for e in font.getbbox(text, anchor="ls"))
            found.append(Area(x + left, y - bottom, x + right, y - top, text))

    page.extract_text(visitor_text=visit)
    return found


def check_page(page: PageObject, names: int) -> tuple[list[Area], list[Area]]:
    """Nothing meets or leaves the page; each picture has its name under it, aligned left.

    Gives the pictures and the texts.
    """
    shown, words = pictures(page), texts(page)
    everything = [*shown, *(t for t in words if t.what != "cannot be read")]
    boxes = np.array([area[:4] for area in everything])
    assert (boxes[:, :2] > 20).all() and (boxes[:, 2:] < np.subtract(A4, 20)).all()
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    meet = np.triu((high - low > 0.01).all(-1), k=1)
    assert not meet.any(), [(everything[i].what, everything[j].what) for i, j in np.argwhere(meet)]
    under = [
        [t for t in words if abs(t.x0 - p.x0) < 1 and 0 < p.y0 - t.y1 < 8 and t.y1 > p.y0 - 9]
        for p in shown
    ]
    assert [len(found) for found in under] == [1] * names
    return shown, words
