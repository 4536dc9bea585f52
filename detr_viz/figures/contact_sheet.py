"""A contact sheet: the figures of a run as thumbnails on the pages of one PDF.

contact_sheet(Path("outputs/contact.pdf"), [(png, "val/1.jpg") for png in written], title="DETR")

Places are in points from a page's bottom left corner, as in any PDF.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detr_viz.common.errors import UserError
from detr_viz.common.files import replacing
from detr_viz.figures.page.elements import GRAY, INK, NOTE_GRAY
from detr_viz.figures.page.text import ELLIPSIS, clean, font_file, is_truetype, plain_settings

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfFile, Reference, RendererPdf

MOST_PER_PAGE = 200

# Points. Title and page number stand in the margins, so that all pages have the same grid.
_PAGE_WIDTH, _PAGE_HEIGHT = 72 * 8.27, 72 * 11.69  # A4
_SIDE, _TOP, _BOTTOM = 36.0, 52.0, 46.0
_TITLE_RISE, _NUMBER_RISE = 16.0, 26.0  # above the grid, above the page's edge
_TITLE_PT, _NUMBER_PT = 9.0, 7.0
_SMALLEST_PT, _LARGEST_PT = 4.0, 7.0  # names; what follows is in their size
_NAME_DROP, _CAPTION, _ROW_GAP, _GUTTER = 1.3, 1.6, 2.0, 2.0
_LOOSEST = 2.0  # a row gap grows at most so many times where there is room

_SHARPEST_DPI, _COARSEST_DPI = 200, 100  # of a thumbnail on the page
_JPEG = {"quality": 88, "subsampling": 0}
_UNREADABLE, _BLANK = "cannot be read", (0.95, 0.95, 0.95)
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Cell(NamedTuple):
    """A figure's place: its left and top edge, its width and height."""

    left: float
    top: float
    width: float
    height: float


class Grid(NamedTuple):
    """The cells of a page, row by row; how wide a column is; the size of names."""

    columns: int
    width: float
    size_pt: float
    cells: tuple[Cell, ...]


def contact_sheet(
    path: Path,
    figures: Iterable[tuple[Path, str]],
    per_page: int = 8,
    title: str = "",
    facts: Mapping[str, str] | None = None,
) -> int:
    """Write a PDF of A4 pages with the figures in their order; return the number of pages.

    figures   (PNG file, the words under it); no more than a page of them is held at a time. Pages
              are numbered "3 / 12" where it has a length, else "3". A file that cannot be read
              leaves a cell that says so.
    per_page  at most so many on a page, 1 to MOST_PER_PAGE
    title     small, at the top of the first page
    facts     Title (without it: the title), Software and Description, as `output.save` has them

    Thumbnails have at most 200 dpi. No dates: the same input gives the same bytes. UserError where
    there is no figure, OutputError for what the disk refuses; nothing half-written is left.
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
            # cells left empty count as those of the page before, so that its scale is kept
            sizes = _sizes([figure for figure, _ in shown]) + sizes[len(shown) :]
            grid = best_grid(sizes, columns)
            columns = grid.columns
            number = f"{count} / {pages}" if pages > 1 else "" if pages else f"{count}"
            _add_page(file, shown, grid, title if count == 1 else "", number)
            shown.clear()  # a page is let go before the figures of the next are drawn
            shown.extend(islice(left, per_page))
    return count


def best_grid(sizes: Sequence[tuple[int, int]], before: int = 0) -> Grid:
    """The grid that shows figures of these (width, height) in pixels largest, row by row.

    They have one scale; where the rows are too high together, the highest shrink first. The number
    of columns `before`, of the last page, is kept unless another is better by a tenth.
    """
    most = min(len(sizes), 20)
    grids = [grid for columns in range(1, most + 1) if (grid := _grid(sizes, columns))]

    def worth(grid: Grid) -> float:
        shown = sum(cell.width / width for cell, (width, _) in zip(grid.cells, sizes, strict=True))
        return shown * (1.1 if grid.columns == before else 1)

    return max(grids, key=worth)


def _grid(sizes: Sequence[tuple[int, int]], columns: int) -> Grid | None:
    """The grid of so many columns; None: gaps and names alone fill the page."""
    size_pt = min(max(8 - columns / 2, _SMALLEST_PT), _LARGEST_PT)
    gutter, gap, caption = (size_pt * s for s in (_GUTTER, _ROW_GAP, _CAPTION))
    width = (_PAGE_WIDTH - 2 * _SIDE - (columns - 1) * gutter) / columns
    scale = min(width / max(w for w, _ in sizes), 72 / _COARSEST_DPI)
    rows = [sizes[i : i + columns] for i in range(0, len(sizes), columns)]
    heights = [max(h for _, h in row) * scale for row in rows]
    room = _PAGE_HEIGHT - _TOP - _BOTTOM - len(rows) * caption - (len(rows) - 1) * gap
    if room <= 0:
        return None
    limit = _limit(heights, room)
    heights = [min(height, limit) for height in heights]
    gap += min((room - sum(heights)) / max(len(rows) - 1, 1), gap * (_LOOSEST - 1))
    placed = [(w * min(scale, limit / h), min(h * scale, limit)) for w, h in sizes]
    width = max(w for w, _ in placed)
    left = (_PAGE_WIDTH - columns * width - (columns - 1) * gutter) / 2
    cells, top = [], _PAGE_HEIGHT - _TOP
    for i, (w, h) in enumerate(placed):
        row, column = divmod(i, columns)
        if row and not column:
            top -= heights[row - 1] + caption + gap
        cells.append(Cell(left + column * (width + gutter), top, w, h))
    return Grid(columns, width, size_pt, tuple(cells))


def _limit(heights: Sequence[float], room: float) -> float:
    """What to cut the highest down to, so that all fit into the room."""
    for i, height in enumerate(sorted(heights)):
        share = room / (len(heights) - i)
        if height > share:
            return share
        room -= height
    return math.inf


def _sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of each in pixels; a middling one's where a file cannot be read."""
    from PIL.PngImagePlugin import PngImageFile

    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            with PngImageFile(file) as image:
                found.append(image.size)
        except Exception:  # broken files make decoders raise nearly anything
            found.append(None)
    known = sorted((size for size in found if size), key=lambda size: size[1] / size[0])
    usual = known[len(known) // 2] if known else (1500, 1000)
    return [size or usual for size in found]


def shorten_middle(text: str, limit: float, width: Callable[[str], float]) -> str:
    """The text, or its beginning and twice as much of its end as fit, with an ellipsis between."""

    def keep(count: int) -> str:
        return text[: count // 3].rstrip() + ELLIPSIS + text[len(text) - count + count // 3 :]

    if width(text) <= limit:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width(keep(middle)) <= limit:
            fits = middle
        else:
            too_long = middle
    return keep(fits)


def _lettered(text: str) -> tuple[str, str]:
    """The text on one line and a TrueType file that has all its characters.

    Where there is none, it is DejaVu Sans, with a sign in place of every character that it lacks.
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
    """matplotlib's settings of a PDF: TrueType fonts; nothing of the user's."""
    import matplotlib

    own = {
        "pdf.fonttype": 42,
        "ps.fonttype": 42,  # says how many characters a font of the PDF may have
        "pdf.use14corefonts": False,
        "pdf.inheritcolor": False,
        "pdf.compression": 6,
    }
    with plain_settings(), matplotlib.rc_context(own):
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

    text, path = _lettered(text)
    font = FontProperties(fname=path, size=size_pt)

    def width(words: str) -> float:
        return pen.get_text_width_height_descent(words, font, False)[0]

    text = shorten_middle(text, room, width)
    if text:
        ink = pen.new_gc()
        ink.set_foreground(color)
        pen.draw_text(ink, x + align * (room - width(text)), base, text, font, 0)


@contextmanager
def _pdf(path: Path, info: Mapping[str, str]) -> Iterator[PdfFile]:
    """A PDF to add pages to.

    Of matplotlib it takes the file and the text. PdfPages would hold all pictures to the end, and
    write them without loss, three times as large.
    """
    from matplotlib.backends.backend_pdf import PdfFile

    with _settings():
        file = PdfFile(path, metadata={**info, "CreationDate": None})
    try:
        yield file
        with _settings():
            file.finalize()
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            file.fh.close()
        raise
    file.close()


def _add_page(
    file: PdfFile, shown: Sequence[tuple[Path, str]], grid: Grid, title: str, number: str
) -> None:
    """Write a page: a figure a cell, as far as there are figures."""
    from matplotlib.backends.backend_pdf import Name, Op, RendererPdf

    # resources of its own: a page that is taken out of the file takes only its pictures along
    file.resourceObject = file.reserveObject("resources")
    placed = list(zip(shown, grid.cells, strict=False))
    pictures = [_add_picture(file, figure, cell) for (figure, _), cell in placed]
    left, size_pt = grid.cells[0].left, grid.size_pt
    right = grid.cells[grid.columns - 1].left + grid.width
    with _settings():
        file.newPage(_PAGE_WIDTH / 72, _PAGE_HEIGHT / 72)
        pen = RendererPdf(file, 72, _PAGE_HEIGHT / 72, _PAGE_WIDTH / 72)
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
        above = _PAGE_HEIGHT - _TOP + _TITLE_RISE
        _write(pen, title, left, above, _TITLE_PT, INK, _PAGE_WIDTH - _SIDE - left)
        _write(pen, number, left, _NUMBER_RISE, _NUMBER_PT, NOTE_GRAY, right - left, 1)
        pen.finalize()
        file.endStream()
    used = {Name(f"P{i}"): picture for i, picture in enumerate(pictures) if picture}
    file.writeObject(file.resourceObject, {"Font": file.fontObject, "XObject": used})


def _add_picture(file: PdfFile, figure: Path, cell: Cell) -> Reference | None:
    """Write a figure, as sharp as its cell needs; None: it cannot be read."""
    import matplotlib
    from matplotlib.backends.backend_pdf import Name
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    most = (max(1, round(pt / 72 * _SHARPEST_DPI)) for pt in (cell.width, cell.height))
    try:
        # Image.open would take the largest figures of this package for an attack
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
    written = file.reserveObject("picture")
    with matplotlib.rc_context({"pdf.compression": 0}):  # a JPEG is compressed
        file.beginStream(written.id, file.reserveObject("length"), entries)
        file.currentstream.write(jpeg.getvalue())
        file.endStream()
    return written
