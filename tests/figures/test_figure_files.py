"""Figures as files and windows: pixels, metadata, settings, failures, imports."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from fake_explanation import MODES, fake
from matplotlib.figure import Figure
from pdf_tools import only_picture
from PIL import Image

from detr_viz import figures
from detr_viz.common.errors import UserError
from detr_viz.figures.page import save as save_module
from detr_viz.figures.styles import FigureError, PageFormat


def sheet_of(fig: Figure) -> np.ndarray:
    (image,) = fig.axes[0].images
    return np.asarray(image.get_array())[..., :3]


def png_of(fig: Figure, tmp_path, name="a.png") -> Image.Image:
    figures.save(fig, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        image.load()
    return image


def test_png_shows_the_panels_pixel_for_pixel(tmp_path):
    for width_in, dpi in ((7.0, 220), (6.875, 133), (5.03, 97.7)):
        fig = figures.head_grid(fake(), [0, 1], page_format=PageFormat.of(None, width_in, dpi))
        for artist in (*fig.axes[0].texts, *fig.axes[0].collections):
            artist.remove()
        saved = np.asarray(png_of(fig, tmp_path).convert("RGB"))
        assert np.array_equal(saved, sheet_of(fig))
        assert saved.shape[1] <= width_in * dpi + 1


def test_files_say_what_they_show(tmp_path):
    fig = figures.head_grid(fake(), [0, 2], "position")
    image = png_of(fig, tmp_path)
    assert image.text["Title"] == "Conditional DETR: position attention of each head"
    assert re.fullmatch(r"detr_viz \S+", image.text["Software"])
    for part in (
        "decoder layer 5",
        "cat, 0.98, query 0",
        "teapot",
        "ab" * 32,
        "normalisation even (relative to an even spread, on one logarithmic scale for all panels",
        "2.3e-07",
    ):
        assert part in image.text["Description"]
    assert not {"Date", "Creation Time"} & set(image.text)
    figures.save(fig, tmp_path / "b.png", {"Title": "Mine", "Comment": "猫"})
    with Image.open(tmp_path / "b.png") as other:
        assert (other.text["Title"], other.text["Comment"]) == ("Mine", "猫")
        assert other.text["Software"] == image.text["Software"]


def test_pdf_has_truetype_text_metadata_and_the_panels_pixels(tmp_path):
    from pypdf import PdfReader

    fig = figures.head_grid(fake(names=("cat", "dog", "Käse")), [0, 1, 2])
    figures.save(fig, tmp_path / "a.pdf")
    reader = PdfReader(tmp_path / "a.pdf")
    (page,) = reader.pages
    words = page.extract_text()
    words = " ".join(words.split())
    for said in (
        "cat",
        "Käse",
        ".75 query 1",
        "head 0 1 2",
        "% in box",
        "attention: even spread",
    ):
        assert said in words, said
    kinds = [
        f.get_object()["/DescendantFonts"][0].get_object()["/Subtype"]
        for f in page["/Resources"]["/Font"].values()
    ]
    assert set(kinds) == {"/CIDFontType2"}  # TrueType
    assert reader.metadata["/Title"].startswith("Conditional DETR")
    assert reader.metadata["/Creator"].startswith("detr_viz")
    assert "query 0" in reader.metadata["/Subject"] and "/CreationDate" not in reader.metadata
    assert np.array_equal(only_picture(page)[::-1], sheet_of(fig))
    width_pt = sheet_of(fig).shape[1] / fig.dpi * 72
    assert float(page.mediabox.width) == pytest.approx(width_pt, abs=0.01)


def test_svg_has_text_and_one_picture(tmp_path):
    figures.save(figures.head_grid(fake(), [0, 1], "content"), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for words in (
        "cat",
        ".75",
        "query 1",
        "head 0",
        "7",
        "attention: even spread \N{MULTIPLICATION SIGN}1",
    ):
        assert len(re.findall(rf"<text[^>]*>{re.escape(words)}</text>", svg)) == 1
    assert svg.count("<image") == 1
    assert "<dc:date>" not in svg and "content attention of each head" in svg
    assert "'DejaVu Sans', 'Verdana'" in svg


@pytest.mark.parametrize("suffix", figures.SUFFIXES)
def test_the_same_figure_is_the_same_file(tmp_path, suffix):
    for name in ("a", "b"):
        figures.save(figures.head_grid(fake(), [0, 1], MODES), tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second


def test_nobodys_settings_change_a_figure(tmp_path):
    figures.save(figures.head_grid(fake(), [0]), tmp_path / "a.png")
    settings = {
        "font.size": 30,
        "font.family": "serif",
        "axes.grid": True,
        "axes.linewidth": 9,
        "figure.dpi": 50,
        "figure.autolayout": True,
        "figure.facecolor": "red",
        "savefig.bbox": "tight",
        "savefig.dpi": 50,
        "savefig.transparent": True,
        "image.origin": "lower",
        "image.interpolation": "bicubic",
        "image.cmap": "jet",
        "text.color": "blue",
        "text.usetex": True,
        "lines.antialiased": False,
        "patch.linewidth": 8,
    }
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        figures.save(figures.head_grid(fake(), [0]), tmp_path / "b.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["a.bmp", "a", "a.png.gz", ".png"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(FigureError, match=r"must end in \.png, \.pdf, \.svg") as caught:
        figures.save(figures.head_grid(fake(), [0]), tmp_path / name)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_suffixes_in_capitals_and_missing_folders(tmp_path):
    figures.save(figures.head_grid(fake(), [0]), str(tmp_path / "new" / "deep" / "A.PNG"))
    with Image.open(tmp_path / "new" / "deep" / "A.PNG") as image:
        assert image.format == "PNG"


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot write") as caught:
        figures.save(figures.head_grid(fake(), [0]), tmp_path / "taken" / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", figures.SUFFIXES)
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_nothing_half_written_stays(tmp_path, monkeypatch, suffix, failure):
    target = tmp_path / f"a{suffix}"
    target.write_bytes(b"older")
    fig = figures.head_grid(fake(), [0])

    def fails(*arguments, **_options):
        file = next(a for a in arguments if isinstance(a, Path))
        file.write_bytes(b"half")
        raise failure

    vector = suffix in (".pdf", ".svg", ".eps")
    owner, name = (Figure, "savefig") if vector else (Image.Image, "save")
    if suffix == ".png":
        owner, name = save_module, "write_png"
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        figures.save(fig, target)
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    assert target.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests", **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )


def test_matplotlib_comes_late_and_pyplot_and_torch_never(tmp_path):
    done = python(f"""
        import sys
        from detr_viz import figures
        assert "matplotlib" not in sys.modules
        from fake_explanation import fake
        figures.save(figures.head_grid(fake(), [0]), {str(tmp_path / "a.png")!r})
        assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
    """)
    assert done.returncode == 0, done.stderr


def test_no_display_is_one_line():
    done = python(
        """
        from fake_explanation import fake
        from detr_viz import figures
        try:
            figures.show(figures.head_grid(fake(), [0]))
        except figures.FigureError as error:
            print(error)
        """,
        MPLBACKEND="agg",
    )
    assert done.stdout == "no display to open a window on: write a file instead\n", done.stderr
    missing = python(
        """
        from fake_explanation import fake
        from detr_viz import figures
        try:
            figures.show(figures.head_grid(fake(), [0]))
        except figures.FigureError as error:
            print(error)
        """,
        MPLBACKEND="module://no_such_toolkit",
    )
    assert missing.stdout.startswith("cannot open a window (No module named"), missing.stderr
    assert missing.stdout.count("\n") == 1


def test_a_window_shows_this_figure(tmp_path):
    (tmp_path / "toolkit.py").write_text(
        textwrap.dedent("""
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        class FigureManager(FigureManagerBase):
            @classmethod
            def pyplot_show(cls, *, block=None):
                from matplotlib._pylab_helpers import Gcf
                print([m.canvas.figure.facts["Title"] for m in Gcf.get_all_fig_managers()])

        class FigureCanvas(FigureCanvasAgg):
            required_interactive_framework = "headless"
            manager_class = FigureManager
        """)
    )
    done = python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from fake_explanation import fake
        from detr_viz import figures
        fig = figures.head_grid(fake(), [0])
        figures.show(fig)
        figures.save(fig, {str(tmp_path / "after.png")!r})
        """,
        MPLBACKEND="module://toolkit",
    )
    assert done.stdout == "['Conditional DETR: combine attention of each head']\n", done.stderr
    assert (tmp_path / "after.png").stat().st_size > 10_000
