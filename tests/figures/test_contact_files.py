"""Contact sheets: their fonts and names, the file, and what stops it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from contact_tools import (
    MIXED,
    SIGN,
    lines,
    pictures,
    png,
    several,
    sheet,
    texts,
)
from matplotlib.font_manager import fontManager
from PIL import Image
from pypdf import PdfReader
from test_fonts import CAT, DOG, build_font, forget

from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError
from detr_viz.figures.contact_sheet import contact_sheet
from detr_viz.figures.page.text import shorten_middle

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
