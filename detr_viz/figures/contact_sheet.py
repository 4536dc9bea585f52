"""A contact sheet: the figures of a run as thumbnails on the pages of one PDF.

contact_sheet(Path("outputs/contact.pdf"), [(png, "val/1.jpg") for png in written], title="DETR")
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.files import replacing
from detr_viz.figures.page.elements import GRAY, INK, NOTE_GRAY
from detr_viz.figures.page.fonts import drawn_glyphs_only, font_file, is_truetype
from detr_viz.figures.page.text import clean, plain_settings, shorten_middle
from detr_viz.figures.page.thumbnail_grid import (
    PAGE_HEIGHT,
    PAGE_WIDTH,
    SIDE,
    TOP,
    Cell,
    ThumbnailGrid,
    best_grid,
)

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfFile, Reference, RendererPdf

MOST_PER_PAGE = 200

# Points.
_TITLE_RISE, _NUMBER_RISE = 16.0, 26.0  # above the grid, above the page's edge
_TITLE_PT, _NUMBER_PT = 9.0, 7.0
_NAME_DROP = 1.3  # below its figure, in the size of names

_SHARPEST_DPI = 200  # of a thumbnail on the page
_JPEG = {"quality": 88, "subsampling": 0}
_UNREADABLE, _BLANK = "cannot be read", (0.95, 0.95, 0.95)
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def contact_sheet(
    path: Path,
    figures: Iterable[tuple[Path, str]],
    per_page: int = 8,
    title: str = "",
    facts: Mapping[str, str] | None = None,
) -> int:
    """Write a PDF of A4 pages with the figures in their order; return the number of pages.

    figures   (PNG file, the words under it); only those of one page are held at a time. Pages are
              numbered "3 / 12" where `figures` has a length, else "3". A file that cannot be read
              leaves a gray cell with a remark.
    per_page  the most figures on a page, 1 to MOST_PER_PAGE
    title     small, at the top of the first page
    facts     Title (None: `title`), Software and Description, as in page.save.save

    Thumbnails have at most 200 dpi. No dates: the same input gives the same bytes. UserError where
    there is no figure, OutputError where the file cannot be written; nothing half-written is left.
    """
    if not 1 <= per_page <= MOST_PER_PAGE:
        raise UserError(f"a page holds 1 to {MOST_PER_PAGE} figures, not {per_page}")
    pages = math.ceil(len(figures) / per_page) if isinstance(figures, Sized) else 0
    left = iter(figures)
    shown = list(islice(left, per_page))
    if not shown:
        raise UserError("nothing to put on a contact sheet: no figure was drawn")
    names = {"Title": "Title", "Software": "Creator", "Description": "Subject"}
    known = {"Title": clean(title), **(facts or {})}
    info = {names[name]: text for name, text in known.items() if name in names and text}
    count, sizes, columns = 0, [], 0
    with replacing(path) as part, _pdf(part, info) as file:
        while shown:
            count += 1
            # empty cells count with the sizes of the page before, so that its scale is kept
            sizes = _sizes([figure for figure, _ in shown]) + sizes[len(shown) :]
            grid = best_grid(sizes, columns)
            columns = grid.columns
            number = f"{count} / {pages}" if pages > 1 else "" if pages else f"{count}"
            _add_page(file, shown, grid, title if count == 1 else "", number)
            shown.clear()  # a page is dropped before the figures of the next one are drawn
            shown.extend(islice(left, per_page))
    return count


def _sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of each in pixels; those of a usual figure where a file cannot be read."""
    from PIL.PngImagePlugin import PngImageFile

    sizes: list[tuple[int, int] | None] = []
    for file in files:
        try:
            with PngImageFile(file) as image:
                sizes.append(image.size)
        except Exception:  # broken files make decoders raise nearly anything
            sizes.append(None)
    known = sorted((size for size in sizes if size), key=lambda size: size[1] / size[0])
    usual = known[len(known) // 2] if known else (1500, 1000)
    return [size or usual for size in sizes]


def _text_and_font(text: str) -> tuple[str, str]:
    """The text on one line, and a TrueType file that has all its characters.

    Where no font has them, DejaVu Sans, and a sign in place of every character that it lacks.
    """
    from matplotlib.font_manager import get_font

    text = clean(text)
    path, own = font_file(frozenset(text)), font_file(frozenset())
    assert own is not None
    # up to matplotlib 3.10, characters beyond U+FFFF are no text in a PDF
    if path and is_truetype(path) and max(text, default="") <= "\uffff":
        return text, path
    index = get_font(own).get_char_index
    return "".join(c if c <= "\uffff" and index(ord(c)) else _UNKNOWN for c in text), own


@contextmanager
def _settings() -> Iterator[None]:
    """matplotlib's settings for a PDF: TrueType fonts, and none of the user's own settings."""
    import matplotlib

    own = {
        "pdf.fonttype": 42,
        "ps.fonttype": 42,  # says how many characters a font of the PDF may have
        "pdf.use14corefonts": False,
        "pdf.inheritcolor": False,
        "pdf.compression": 6,
    }
    with plain_settings(), matplotlib.rc_context(own), drawn_glyphs_only():
        yield


def _write(
    pen: RendererPdf,
    text: str,
    x: float,
    base: float,
    size_pt: float,
    color: str,
    room: float,
    align: float = 0,
) -> None:
    """A line of text in the room from x on: at its left (align 0), middle (0.5) or right (1)."""
    from matplotlib.font_manager import FontProperties

    text, path = _text_and_font(text)
    font = FontProperties(fname=path, size=size_pt)

    def width(words: str) -> float:
        return pen.get_text_width_height_descent(words, font, False)[0]

    text = shorten_middle(text, room, width)
    if text:
        ink = pen.new_gc()
        ink.set_foreground(color)
        left = x + align * (room - width(text)) if align else x
        pen.draw_text(ink, left, base, text, font, 0)


@contextmanager
def _pdf(path: Path, info: Mapping[str, str]) -> Iterator[PdfFile]:
    """A PDF to add pages to.

    matplotlib's writer of PDF objects, with its own backend's internals, since it is the one that
    puts a page into the file before the next begins and embeds TrueType fonts. PdfPages holds all
    pictures to the end, three times as large. So does reportlab (124, 333, 758 MB for 10, 100, 300
    pages of noise; here 94, 95, 95). pikepdf holds the file too, and draws text in Helvetica only.
    """
    from matplotlib.backends.backend_pdf import PdfFile

    with _settings():
        file = PdfFile(path, metadata={**info, "CreationDate": None})
    try:
        yield file
        with _settings():
            file.finalize()
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            file.fh.close()
        raise
    file.close()


def _add_page(
    file: PdfFile, shown: Sequence[tuple[Path, str]], grid: ThumbnailGrid, title: str, number: str
) -> None:
    """Write a page: one figure in each cell, until there are no more."""
    import matplotlib
    from matplotlib.backends.backend_pdf import Name, Op, RendererPdf

    # resources of its own: a page that is taken out of the file takes only its pictures along
    file.resourceObject = file.reserveObject("resources")
    placed = list(zip(shown, grid.cells, strict=False))
    with matplotlib.rc_context({"pdf.compression": 0}):  # a JPEG is compressed
        pictures = [_add_picture(file, figure, cell) for (figure, _), cell in placed]
    left, size_pt = grid.cells[0].left, grid.size_pt
    right = grid.cells[grid.columns - 1].left + grid.width
    with _settings():
        file.newPage(PAGE_WIDTH / 72, PAGE_HEIGHT / 72)
        pen = RendererPdf(file, 72, PAGE_HEIGHT / 72, PAGE_WIDTH / 72)
        for i, ((_, name), (x, top, width, height)) in enumerate(placed):
            y = top - height
            area = (width, 0, 0, height, x, y, Op.concat_matrix)
            if pictures[i]:
                file.output(Op.gsave, *area, Name(f"P{i}"), Op.use_xobject, Op.grestore)
            else:
                file.output(Op.gsave, *_BLANK, Op.setrgb_nonstroke, *area)
                file.output(0, 0, 1, 1, Op.rectangle, Op.fill, Op.grestore)
                base = y + height / 2 - size_pt / 3
                _write(pen, _UNREADABLE, x, base, size_pt, NOTE_GRAY, width, 0.5)
            _write(pen, name, x, y - _NAME_DROP * size_pt, size_pt, GRAY, grid.width)
        above = PAGE_HEIGHT - TOP + _TITLE_RISE
        _write(pen, title, left, above, _TITLE_PT, INK, PAGE_WIDTH - SIDE - left)
        _write(pen, number, left, _NUMBER_RISE, _NUMBER_PT, NOTE_GRAY, right - left, 1)
        pen.finalize()
        file.endStream()
    used = {Name(f"P{i}"): picture for i, picture in enumerate(pictures) if picture}
    file.writeObject(file.resourceObject, {"Font": file.fontObject, "XObject": used})


def _add_picture(file: PdfFile, figure: Path, cell: Cell) -> Reference | None:
    """Write a figure with the resolution that its cell needs; None where it cannot be read.

    matplotlib's setting pdf.compression is 0.
    """
    from matplotlib.backends.backend_pdf import Name
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    most = (max(1, round(pt / 72 * _SHARPEST_DPI)) for pt in (cell.width, cell.height))
    try:
        # Image.open would refuse the largest figures of this package as an attack
        with PngImageFile(figure) as image:
            whole = image if image.mode == "RGB" else image.convert("RGB")
            size = tuple(map(min, image.size, most))
            picture = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    except Exception:  # broken files make decoders raise nearly anything
        return None
    jpeg = io.BytesIO()
    picture.save(jpeg, "jpeg", **_JPEG)
    entries = {"Width": picture.width, "Height": picture.height, "BitsPerComponent": 8}
    names = dict(Type="XObject", Subtype="Image", ColorSpace="DeviceRGB", Filter="DCTDecode")
    entries |= {key: Name(name) for key, name in names.items()}
    reference = file.reserveObject("picture")
    file.beginStream(reference.id, file.reserveObject("length"), entries)
    file.currentstream.write(jpeg.getvalue())
    file.endStream()
    return reference
