"""Contact sheets: what is on which page, where, how sharp, and in which fonts."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.font_manager import fontManager
from pdf_tools import operations
from PIL import Image, ImageFont
from pypdf import PageObject, PdfReader
from test_fonts import CAT, DOG, build_font, forget

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError
from detr_viz.figures.contact_sheet import contact_sheet
from detr_viz.figures.page.text import shorten_middle
from detr_viz.figures.page.thumbnail_grid import best_grid

A4 = (595.44, 841.68)
DEJAVU = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
SIGN = "\N{REPLACEMENT CHARACTER}"


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


# --- pages and their texts ----------------------------------------------------------------------


@pytest.mark.parametrize(("count", "per_page", "pages"),
                         [(1, 8, 1), (8, 8, 1), (9, 8, 2), (3, 1, 3), (20, 12, 2)])  # fmt: skip
def test_every_figure_is_on_its_page_under_its_name(tmp_path, count, per_page, pages):
    reader = sheet(tmp_path, several(tmp_path, count), per_page, title="Attention of each head")
    assert len(reader.pages) == pages
    for i, page in enumerate(reader.pages):
        names = [f"val/{k:012d}.jpg" for k in range(count)][i * per_page : (i + 1) * per_page]
        title = ["Attention of each head"] if i == 0 else []
        number = [f"{i + 1} / {pages}"] if pages > 1 else []
        assert sorted(lines(page)) == sorted(names + title + number)
        assert [a.what for a in pictures(page)] == [f"/P{k}" for k in range(len(names))]
        check_page(page, len(names))
        positions = {t.what: t for t in texts(page)}
        left = min(a.x0 for a in pictures(page))
        if title:
            above = positions[title[0]]
            assert above.x0 == pytest.approx(left, abs=1) and above.y0 > 800
        if number:
            right = max(a.x1 for a in pictures(page))
            assert positions[number[0]].y1 < 40
            if len(names) == per_page:
                assert positions[number[0]].x1 == pytest.approx(right, abs=1)


def test_the_order_is_that_of_reading(tmp_path):
    (page,) = sheet(tmp_path, several(tmp_path, 8)).pages
    shown = pictures(page)
    assert shown == sorted(shown, key=lambda a: (-a.y1, a.x0))
    names = [t for t in texts(page) if t.what.startswith("val")]
    assert [t.what for t in sorted(names, key=lambda t: (-round(t.y0), t.x0))] == [
        f"val/{i:012d}.jpg" for i in range(8)
    ]


def test_without_a_length_pages_have_plain_numbers(tmp_path):
    reader = sheet(tmp_path, iter(several(tmp_path, 5)), 2)
    assert [lines(page)[-1] for page in reader.pages] == ["1", "2", "3"]


def test_metadata_are_those_of_figures(tmp_path):
    facts = {"Software": "detr_viz 1", "Description": f"{CAT}, 2 images", "Comment": "no"}
    reader = sheet(tmp_path, several(tmp_path, 1), title="Heads", facts=facts)
    assert {k: v for k, v in reader.metadata.items() if k != "/Producer"} == {
        "/Title": "Heads", "/Creator": "detr_viz 1", "/Subject": f"{CAT}, 2 images"
    }  # fmt: skip
    other = sheet(tmp_path, several(tmp_path, 1), title="Heads", facts={"Title": "Other"})
    assert other.metadata["/Title"] == "Other" and "Heads" in lines(other.pages[0])


# --- the grid -------------------------------------------------------------------------------------

MIXED = ((1533, 814), (1533, 1028), (1533, 411), (900, 500), (1533, 814), (1533, 3100))


@pytest.mark.parametrize("per_page", [1, 2, 5, 8, 12, 40, 200])
@pytest.mark.parametrize("sizes", [MIXED, MIXED[:1], ((300, 2400), (2400, 300))],
                         ids=["mixed", "alike", "extreme"])  # fmt: skip
def test_nothing_overlaps(per_page, sizes, tmp_path):
    small = [(w // 6, h // 6) for w, h in sizes]
    figures = several(tmp_path, per_page + 1, small)
    long = [(path, name.replace("val/", f"a {'very ' * (i % 3 * 20)}long folder/"))
            for i, (path, name) in enumerate(figures)]  # fmt: skip
    first, second = sheet(tmp_path, long, per_page, title="head " * 60).pages
    for page, count, before in ((first, per_page, 0), (second, 1, per_page)):
        shown, words = check_page(page, count)
        for area in shown:
            i = int(area.what[2:]) + before
            width, height = small[i % len(small)]
            assert area.width / area.height == pytest.approx(width / height, rel=1e-3)
            assert area.width < width  # not coarser than 100 dpi, that is 0.72 pt a pixel
        for text in words:
            if "…" in text.what and not text.what.startswith("head"):
                assert text.what.endswith(".jpg")


@pytest.mark.parametrize(("size", "count", "columns", "width"), [
    ((1533, 814), 1, 1, 523.44),  # as wide as the page
    ((1533, 814), 8, 2, (523.44 - 14) / 2),
    ((1533, 300), 8, 1, (743.68 - 8 * 11.2 - 7 * 14) / 8 * 1533 / 300),  # as high
    ((600, 400), 1, 1, 432.0),  # 100 dpi
])  # fmt: skip
def test_figures_are_as_large_as_the_page_lets_them(size, count, columns, width):
    grid = best_grid([size] * count)
    assert grid.columns == columns and grid.cells[0].width == pytest.approx(width)


@pytest.mark.parametrize("height", [150, 411, 814, 1028, 2000])
@pytest.mark.parametrize("count", [2, 4, 8, 12])
def test_no_other_number_of_columns_shows_more(height, count):
    """Against the area that columns and rows alone leave, without gaps and names, less a tenth."""
    grid = best_grid([(1533, height)] * count)
    bound = max(min(523.44 / n, 743.68 / math.ceil(count / n) * 1533 / height)
                for n in range(1, count + 1))  # fmt: skip
    assert 0.7 * bound < grid.cells[0].width <= bound


def test_only_a_figure_that_is_too_high_shrinks():
    sizes = [(1533, 814)] * 7 + [(1533, 6000)]
    *others, high = best_grid(sizes).cells
    assert {round(c.width, 3) for c in others} == {round((523.44 - 14) / 2, 3)}
    assert high.width < 0.5 * others[0].width
    assert high.width / high.height == pytest.approx(1533 / 6000)


def test_the_last_page_keeps_the_scale_of_the_others(tmp_path):
    *others, last = sheet(tmp_path, several(tmp_path, 17, MIXED[:1])).pages
    (alone,) = pictures(last)
    for page in others:
        assert pictures(page)[0][:4] == pytest.approx(alone[:4], abs=0.01)
    (single,) = pictures(sheet(tmp_path, several(tmp_path, 1, MIXED[:1])).pages[0])
    assert single.width > 1.9 * alone.width


def test_pages_change_their_columns_only_for_much(tmp_path):
    """Figures for which one column is a little better, and far better."""
    one, two = (best_grid([(1533, h)] * 8).columns for h in (320, 620))
    assert (one, two) == (1, 2)
    near = next(h for h in range(320, 620) if best_grid([(1533, h)] * 8).columns == 2)
    assert best_grid([(1533, near - 5)] * 8, before=2).columns == 2
    assert best_grid([(1533, near + 5)] * 8, before=1).columns == 1
    assert best_grid([(1533, 150)] * 8, before=2).columns == 1
    assert best_grid([(1533, 900)] * 8, before=1).columns == 2


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_are_as_sharp_as_200_dpi_and_upright(tmp_path):
    places = (0.2, 0.1), (0.2, 0.6), (0.9, 0.1), (0.9, 0.6)
    colors = (200, 0, 0), (255, 255, 255), (0, 0, 200), (0, 0, 200)
    for page in sheet(tmp_path, several(tmp_path, 9, ((1533, 1028), (1533, 814)))).pages:
        objects, shown = page["/Resources"]["/XObject"], pictures(page)
        assert sorted(objects) == sorted(area.what for area in shown)  # its own and no other
        for area in shown:
            entry = objects[area.what].get_object()
            assert entry["/Filter"] == "/DCTDecode"
            for pixels, points in ((entry["/Width"], area.width), (entry["/Height"], area.height)):
                assert abs(pixels - points / 72 * 200) <= 0.5
            image = np.asarray(page.images[area.what].image.convert("RGB")).astype(int)
            for (y, x), color in zip(places, colors, strict=True):
                pixel = image[int(y * image.shape[0]), int(x * image.shape[1])]
                assert abs(pixel - color).max() < 6


def test_pictures_are_not_enlarged(tmp_path):
    (page,) = sheet(tmp_path, several(tmp_path, 1, ((600, 400),))).pages
    entry = page["/Resources"]["/XObject"]["/P0"]
    assert (entry["/Width"], entry["/Height"]) == (600, 400)
    assert pictures(page)[0].width == pytest.approx(432)


def test_noise_is_written_too(tmp_path):
    """Pillow's JPEG encoder can ask for more room than it has set aside."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (page,) = sheet(tmp_path, [(tmp_path / "noise.png", "noise")]).pages
    assert page.images["/P0"].image.size == (400, 300)


def test_other_kinds_of_png(tmp_path):
    made = []
    for mode in ("L", "P", "RGBA", "1"):
        Image.open(png(tmp_path)).convert(mode).save(tmp_path / f"{mode}.png")
        made.append((tmp_path / f"{mode}.png", mode))
    (page,) = sheet(tmp_path, made).pages
    assert len(page["/Resources"]["/XObject"]) == 4 and "cannot be read" not in lines(page)


def test_what_cannot_be_read_is_said_in_its_cell(tmp_path):
    good = png(tmp_path, 1533, 814)
    cut, text, empty = (tmp_path / name for name in ("cut.png", "text.png", "empty.png"))
    cut.write_bytes(good.read_bytes()[:-600])
    text.write_text("not a picture")
    empty.touch()
    broken = [tmp_path / "gone.png", cut, text, empty, tmp_path, Path("null\0.png")]
    figures = [(path, f"image {i}") for i, path in enumerate([good, *broken, good])]
    (page,) = sheet(tmp_path, figures).pages
    found = pictures(page)
    assert [a.what for a in found] == ["/P0", *["blank"] * 6, "/P7"]
    assert lines(page).count("cannot be read") == 6
    assert {f"image {i}" for i in range(8)} <= set(lines(page))
    check_page(page, 8)
    words = [t for t in texts(page) if t.what == "cannot be read"]
    for area, said in zip(found[1:7], words, strict=True):
        assert area.width == pytest.approx(found[0].width) and area.x0 < said.x0 < said.x1 < area.x1
        assert (said.x0 + said.x1) / 2 == pytest.approx((area.x0 + area.x1) / 2, abs=1)
        assert area.y0 < said.y0 < said.y1 < area.y1
    (page,) = sheet(tmp_path, figures[1:3]).pages  # not one that can be read
    assert lines(page).count("cannot be read") == 2


# --- text -----------------------------------------------------------------------------------------


@pytest.fixture
def only_dejavu(monkeypatch) -> Iterator[None]:
    """A machine where no font is installed but those that come with matplotlib."""
    own = [e for e in fontManager.ttflist if "mpl-data" in Path(e.fname).parts]
    monkeypatch.setattr(fontManager, "ttflist", own)
    forget()
    yield
    forget()


def fonts(reader: PdfReader) -> dict[str, str]:
    found = {}
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            (inner,) = font.get_object()["/DescendantFonts"]
            found[font.get_object()["/BaseFont"].split("+")[-1]] = inner.get_object()["/Subtype"]
            assert "/FontFile2" in inner.get_object()["/FontDescriptor"]
    return found


def test_text_is_text_in_truetype(tmp_path):
    names = ["K\u00e4se \u03bb.jpg", "$x_1^2$ 50% #1 {a}&b.jpg", "two\nlines\tand \x07.jpg"]
    names += ["", "\udcff.jpg"]
    reader = sheet(tmp_path, [(png(tmp_path), name) for name in names])
    assert {
        "K\u00e4se \u03bb.jpg",
        "$x_1^2$ 50% #1 {a}&b.jpg",
        "two lines and .jpg",
        ".jpg",
    } == set(lines(reader.pages[0]))
    assert fonts(reader) == {"DejaVuSans": "/CIDFontType2"}
    assert b"/Type3" not in (tmp_path / "sheet.pdf").read_bytes()


def test_a_name_without_a_font_has_signs_and_no_warning(only_dejavu, tmp_path):
    names = [f"{CAT}{DOG} 1.jpg", "\U0001f408.jpg"]
    reader = sheet(tmp_path, [(png(tmp_path), name) for name in names], title=f"{CAT} a")
    assert set(lines(reader.pages[0])) == {f"{SIGN}{SIGN} 1.jpg", f"{SIGN}.jpg", f"{SIGN} a"}
    assert reader.metadata["/Title"] == f"{CAT} a"
    assert set(fonts(reader)) == {"DejaVuSans"}


def test_a_font_that_has_a_name_is_taken(only_dejavu, tmp_path):
    fontManager.addfont(build_font(tmp_path / "two-signs.ttf", CAT + DOG))
    forget()
    names = [f"{CAT}{DOG}", f"{CAT} 1.jpg"]
    reader = sheet(tmp_path, [(png(tmp_path), name) for name in names])
    assert set(lines(reader.pages[0])) == {CAT + DOG, f"{SIGN} 1.jpg"}
    assert fonts(reader) == dict.fromkeys(("DejaVuSans", "TwoSigns"), "/CIDFontType2")


def test_a_font_with_other_outlines_is_not_taken(only_dejavu, tmp_path):
    fontManager.addfont(build_font(tmp_path / "a.otf", CAT + DOG, truetype=False))
    forget()
    reader = sheet(tmp_path, [(png(tmp_path), CAT)])
    assert lines(reader.pages[0]) == [SIGN] and set(fonts(reader)) == {"DejaVuSans"}


@pytest.mark.parametrize(("limit", "short"), [
    (13, "val/00139.jpg"), (12, "val…0139.jpg"), (10, "val…39.jpg"),
    (4, "v…pg"), (2, "…g"), (1, "…"),
])  # fmt: skip
def test_names_are_shortened_in_the_middle(limit, short):
    assert shorten_middle("val/00139.jpg", limit, len) == short


def test_what_is_shortened_fills_its_room(tmp_path):
    figures = [(png(tmp_path, 1533, 814), f"{'folder/' * 40}{i}.jpg") for i in range(8)]
    (page,) = sheet(tmp_path, figures).pages
    column = pictures(page)[0].width
    for i, text in enumerate(texts(page)):
        assert text.what.startswith("folder/") and text.what.endswith(f"folder/{i}.jpg")
        assert 0.96 * column < text.width <= column


# --- the file -------------------------------------------------------------------------------------


def test_the_same_figures_are_the_same_file(tmp_path):
    write = partial(contact_sheet, figures=several(tmp_path, 11, MIXED[:3]), title="Heads")
    write(tmp_path / "a.pdf")
    own = {"pdf.fonttype": 3, "pdf.compression": 0, "pdf.inheritcolor": True, "font.size": 30,
           "pdf.use14corefonts": True, "text.usetex": True, "ps.fonttype": 3}  # fmt: skip
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        write(tmp_path / "b.pdf")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert b"Date" not in (tmp_path / "a.pdf").read_bytes()


def test_no_more_than_a_page_is_held(tmp_path):
    """Names of pages written are forgotten, and their pictures are in the file."""

    class Name(str):
        pass

    held: weakref.WeakSet[Name] = weakref.WeakSet()
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    written: list[int] = []

    def drawn() -> Iterator[tuple[Path, str]]:
        for i in range(20):
            if i % 4 == 0:
                written.append(sum(p.stat().st_size for p in tmp_path.glob(".*")))
            name = Name(f"image {i}")
            held.add(name)
            assert len(held) <= 4
            yield tmp_path / "noise.png", name
            del name

    assert contact_sheet(tmp_path / "sheet.pdf", drawn(), 4) == 5
    page = 4 * 400 * 300  # noise: more than a byte a pixel, as JPEG too
    assert all(size >= i * page for i, size in enumerate(written[1:]))
    assert written[-1] > 3 * page


@pytest.mark.parametrize("figures", [[], iter([]), ()])
def test_no_figures_is_a_mistake(tmp_path, figures):
    with pytest.raises(UserError, match="nothing to put on a contact sheet"):
        contact_sheet(tmp_path / "new" / "sheet.pdf", figures)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("per_page", [0, -1, 201])
def test_a_page_holds_1_to_200_figures(tmp_path, per_page):
    with pytest.raises(UserError, match="1 to 200"):
        contact_sheet(tmp_path / "sheet.pdf", several(tmp_path, 1), per_page)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="cannot write") as caught:
        contact_sheet(tmp_path / "taken" / "sheet.pdf", several(tmp_path, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["newPage", "endStream", "writeFonts", "close"])
def test_nothing_half_written_stays(tmp_path, monkeypatch, method):
    from matplotlib.backends.backend_pdf import PdfFile

    figures, target = several(tmp_path, 3), tmp_path / "out" / "sheet.pdf"
    target.parent.mkdir()
    target.write_bytes(b"older")
    right = getattr(PdfFile, method)

    def fails(self, *args, **more):
        right(self, *args, **more)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PdfFile, method, fails)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        contact_sheet(target, figures)
    assert "\n" not in str(caught.value) and target.read_bytes() == b"older"
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_what_stops_the_figures_stops_the_sheet(tmp_path):
    def drawn() -> Iterator[tuple[Path, str]]:
        yield from several(tmp_path, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contact_sheet(tmp_path / "out" / "sheet.pdf", drawn(), 2)
    assert not list((tmp_path / "out").iterdir())


def test_matplotlib_comes_late_and_pyplot_and_torch_never(tmp_path):
    code = f"""
import sys
from pathlib import Path
from detr_viz.figures.contact_sheet import contact_sheet
assert not {{"matplotlib", "PIL"}} & set(sys.modules)
contact_sheet(Path({str(tmp_path / "a.pdf")!r}), [(Path({str(png(tmp_path))!r}), "a")])
assert not {{"matplotlib.pyplot", "torch"}} & set(sys.modules)
"""
    root = str(ROOT)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root},
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
