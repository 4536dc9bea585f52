"""Figures by their artists and files, not by their pixels' looks."""

from __future__ import annotations

import errno
import io
import re
import subprocess
import sys
import textwrap
from dataclasses import fields

import matplotlib
import numpy as np
import pytest
from fake_explanation import MODES, FakeExplanation, fake, one_hot
from matplotlib.figure import Figure
from PIL import Image

from detr_viz import figures
from detr_viz.errors import UserError
from detr_viz.figures import FigureError

INFERNO_TOP = (252, 255, 164)


def texts(fig: Figure) -> list[str]:
    return [t.get_text() for t in fig.axes[0].texts]


def sheet_of(fig: Figure) -> np.ndarray:
    (image,) = fig.axes[0].images
    return np.asarray(image.get_array())[..., :3]


def spans(line: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of the stretches of a line of pixels that are not white."""
    dark = np.concatenate([[False], (line < 250).any(-1), [False]])
    edges = np.flatnonzero(dark[1:] != dark[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def panels_of(fig: Figure) -> list[list[np.ndarray]]:
    """The pixels of every panel, a list a row: photo first. Found by the white gaps."""
    sheet = sheet_of(fig)
    rows = spans(sheet.min(1, keepdims=True)[:, 0])
    out = []
    for top, bottom in rows:
        columns = spans(sheet[top:bottom].min(0))
        out.append([sheet[top:bottom, a:b] for a, b in columns])
    return out


def test_the_stand_in_is_like_an_explanation():
    from detr_viz.explanation import Explanation

    real = {f.name for f in fields(Explanation)} | set(dir(Explanation))
    ours = {f.name for f in fields(FakeExplanation)} - {"made", "calls"}
    assert ours <= real
    assert {"maps", "pick_layer", "label_name"} <= real


# --- what stands in a figure ------------------------------------------------------------------


def test_every_fact_stands_once():
    fig = figures.head_grid(fake(), [0, 2, 1], "position")
    found = texts(fig)
    labels = ["cat", "0.98 · query 0", "teapot", "0.30 · query 2", "dog", "0.75 · query 1"]
    heads = [f"head {i}" for i in range(8)]
    for text in (*labels, *heads):
        assert found.count(text) == 1, text
    order = [found.index(name) for name in ("cat", "teapot", "dog")]
    assert order == sorted(order)
    rule = "".join(found)
    for part in (
        "Conditional DETR",
        "decoder layer 5 of 0\N{EN DASH}5",
        "position",
        "16 × 12 cells",
    ):
        assert rule.count(part) == 1
    assert "each panel scaled to its own maximum" in rule
    assert fig.axes[0].get_title() == "" and not fig.axes[0].axison


def test_the_reading_rule_has_the_formula_with_subscripts():
    fig = figures.head_grid(fake(), [0], "position")
    small = [t for t in fig.axes[0].texts if t.get_text() in ("q", "k")]
    assert [t.get_text() for t in small] == ["q", "k"]
    letters = [t for t in fig.axes[0].texts if t.get_text() == "p"]
    assert len(letters) == 2
    for letter, subscript in zip(letters, small, strict=True):
        assert subscript.get_fontsize() < letter.get_fontsize()
        assert subscript.get_position()[1] > letter.get_position()[1]  # y points down


def test_one_image_two_collections_and_a_box_in_every_panel():
    fig = figures.head_grid(fake(), [0, 1])
    (ax,) = fig.axes
    assert len(ax.images) == 1 and len(ax.collections) == 2 and not ax.patches and not ax.lines
    for boxes in ax.collections:
        assert len(boxes.get_paths()) == 2 * (1 + 8)
    halos, boxes = sorted(ax.collections, key=lambda c: c.get_zorder())
    assert (np.array(halos.get_linewidths()) > np.array(boxes.get_linewidths())).all()
    for halo, box in zip(halos.get_edgecolor(), boxes.get_edgecolor(), strict=True):
        assert abs(halo[:3].mean() - box[:3].mean()) > 0.3  # light on dark or dark on light


def test_panels_are_where_they_should_be():
    rows = panels_of(figures.head_grid(fake(), [0, 1, 2]))
    assert [len(row) for row in rows] == [9, 9, 9]
    shapes = {panel.shape for row in rows for panel in row}
    assert len(shapes) == 1
    height, width, _ = shapes.pop()
    assert width / height == pytest.approx(128 / 96, rel=0.01)


def test_the_photo_is_in_colour_and_the_ground_of_maps_is_grey():
    example = fake()
    example.made = np.zeros_like(example.made)  # nothing is attended: the bare ground
    (row, *_) = panels_of(figures.head_grid(example, [0]))
    assert np.ptp(row[0].astype(int), axis=-1).mean() > 20
    for panel in row[1:]:
        assert np.ptp(panel.astype(int), axis=-1).max() == 0


@pytest.mark.parametrize(
    ("input_hw", "stride", "rule", "cell"),
    [
        ((800, 1066), 32, "aligned", (12, 20)),
        ((800, 1066), 32, "aligned", (3, 33)),
        ((800, 1066), 16, "aligned", (9, 50)),  # DC5
        ((160, 160), 8, "aligned", (4, 11)),  # a demo at 160 px
        ((800, 1066), 32, "centered", (12, 20)),
    ],
)
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_a_peak_lands_on_its_pixel(input_hw, stride, rule, cell, interpolation):
    """Cell i lies at resized pixel stride * i, so at panel pixel (stride * i + 0.5) * P / W - 0.5."""
    image_hw = (input_hw[0] // 2, input_hw[1] // 2)
    example = fake(image_hw, input_hw, stride, heads=8, cell_rule=rule)
    example.made = np.broadcast_to(one_hot(example.grid_hw, cell), (3, 8, *example.grid_hw))
    (row,) = panels_of(figures.head_grid(example, [0], interpolation=interpolation))
    height, width = row[0].shape[:2]
    expected = [
        (stride * i + 0.5) * p / n - 0.5
        for i, p, n in zip(cell, (height, width), input_hw, strict=True)
    ]
    if rule == "centered":
        expected = [
            (i + 0.5) * p / n - 0.5
            for i, p, n in zip(cell, (height, width), example.grid_hw, strict=True)
        ]
    for panel in row[1:]:
        distance = np.abs(panel.astype(int) - INFERNO_TOP).sum(-1)
        found = np.unravel_index(distance.argmin(), distance.shape)
        assert np.abs(np.array(found) - expected).max() <= 0.5 + 1e-9


def test_nearest_draws_cells_of_one_colour():
    example = fake((96, 128), (96, 128), 8)
    example.image.rgb[:] = 120
    example.made = np.broadcast_to(one_hot((12, 16), (5, 7)), (3, 8, 12, 16))
    (row,) = panels_of(figures.head_grid(example, [0], interpolation="nearest"))
    colors = np.unique(row[1][:80, :100].reshape(-1, 3), axis=0)  # without the number's corner
    assert len(colors) == 2


def test_maxima_are_printed_in_the_panels():
    example = fake(heads=5)
    for head, top in enumerate((0.624, 0.0412, 0.0031, 0.00004, 1.0)):
        example.made[0, head] = one_hot(example.grid_hw, (6, 8), max(top, 0.006))
        example.made[0, head] *= min(1, top / 0.006)
    found = texts(figures.head_grid(example, [0]))
    for number in (".62", ".04", ".003", "<.001", "1"):
        assert found.count(number) == 1


def test_numbers_give_way_where_panels_are_small():
    fig = figures.head_grid(fake(), [0], width_in=3.25)
    assert ".50" not in texts(fig)
    assert "the number in it" not in "".join(texts(fig))
    assert "the number in it" in "".join(texts(figures.head_grid(fake(), [0])))


def test_numbers_stay_clear_of_the_box():
    example = fake()
    example.boxes_xyxy_px[:2] = [[70, 50, 126, 94], [4, 4, 50, 40]]  # lower right, upper left
    fig = figures.head_grid(example, [0, 1])
    x = [t.get_position()[0] for t in fig.axes[0].texts if t.get_text() == ".50"]
    panel = panels_of(fig)[0][1]
    first, second = min(x[:8]), min(x[8:])
    assert second - first > panel.shape[1] / 2  # left in the first row, right in the second


def test_several_modes_are_stacked_by_query():
    fig = figures.head_grid(fake(), [1, 0], MODES)
    found = texts(fig)
    for mode in MODES:
        assert found.count(mode) == 2 + 1  # a row's name for each query, and the reading rule
    for once in ("cat", "dog", "0.98 · query 0", "head 3"):
        assert found.count(once) == 1
    assert len(fig.axes[0].collections[0].get_paths()) == 2 * (1 + 3 * 8)  # one photo a query
    y = {t.get_text(): t.get_position()[1] for t in fig.axes[0].texts}
    assert y["dog"] < y["cat"]


def test_layer_and_scale_reach_the_maps_and_the_reader():
    example = fake(layers=(0, 5))
    fig = figures.head_grid(example, [0], ["content", "position"], layer=0, scale="layer")
    assert example.calls == [("content", 0, "layer"), ("position", 0, "layer")]
    rule = "".join(texts(fig))
    assert "decoder layer 0 of" in rule and "the same for every query" in rule
    assert "the layer's own scale" in rule
    rule = "".join(texts(figures.head_grid(example, [0], "position", layer=0)))
    assert "the same for every query" not in rule and "own scale" not in rule


def test_weak_detections_are_dimmed():
    fig = figures.head_grid(fake(), [0, 2])
    labels = {t.get_text(): t for t in fig.axes[0].texts}
    assert labels["cat"].get_fontweight() == "bold"
    assert labels["teapot"].get_fontweight() == "normal"
    rgb = {k: matplotlib.colors.to_rgb(labels[k].get_color()) for k in ("cat", "teapot")}
    assert np.ptp(rgb["teapot"]) < np.ptp(rgb["cat"])


def test_a_class_keeps_its_colour():
    a, b = fake(), fake(names=("teapot", "cat"), scores=(0.9, 0.8), labels=np.array([2, 0]))
    b.class_names = a.class_names
    colors = []
    for example in (a, b):
        fig = figures.head_grid(example, range(len(example.scores)))
        colors.append({t.get_text(): t.get_color() for t in fig.axes[0].texts})
    assert colors[0]["cat"] == colors[1]["cat"]
    assert len({colors[0][n] for n in ("cat", "dog")}) == 2


def test_a_name_that_no_font_has(monkeypatch):
    monkeypatch.setattr(figures, "drawable", lambda text: text.isascii())
    example = fake(names=("cat", "\N{CJK UNIFIED IDEOGRAPH-732B}"), scores=(0.9, 0.8))
    with pytest.warns(UserWarning, match="no installed font has all characters"):
        fig = figures.head_grid(example, [0, 1])
    assert "class 1" in texts(fig) and "cat" in texts(fig)


def test_names_are_text_not_formulas():
    fig = figures.head_grid(
        fake(names=("$x_y$ 100%", "a\nb", ""), scores=(0.9, 0.8, 0.7)), [0, 1, 2]
    )
    assert {"$x_y$ 100%", "a b", "class 2"} <= set(texts(fig))
    fig.canvas.draw()  # mathtext would fail here


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cmap": "infernal"}, "no colour map 'infernal'"),
        ({"interpolation": "lanczos"}, "cubic, linear, nearest"),
        ({"width_in": 0.5}, "too narrow"),
        ({"width_in": 0}, "cannot be 0 in wide"),
        ({"dpi": -1}, "-1 dpi"),
        ({"width_in": float("nan")}, "nan"),
        ({"width_in": 500, "dpi": 600}, "pixels: choose fewer queries or a lower dpi"),
        ({"queries": []}, "at least one query"),
        ({"mode": []}, "one mode"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(arguments, words):
    arguments = {"queries": [0], **arguments}
    with pytest.raises(FigureError, match=words) as caught:
        figures.head_grid(fake(), **arguments)
    assert "\n" not in str(caught.value) and isinstance(caught.value, UserError)


# --- files ------------------------------------------------------------------------------------


def png_of(fig: Figure, tmp_path, name="a.png") -> Image.Image:
    figures.save(fig, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        image.load()
    return image


def test_png_shows_the_panels_pixel_for_pixel(tmp_path):
    for width_in, dpi in ((7.0, 220), (6.875, 133), (5.03, 97.7)):
        fig = figures.head_grid(fake(), [0, 1], width_in=width_in, dpi=dpi)
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
    for part in ("decoder layer 5", "cat, 0.98, query 0", "teapot", "ab" * 32, "own maximum"):
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
    assert all(w in words for w in ("cat", "Käse", "0.75 · query 1", "head 7", "own maximum"))
    kinds = [
        f.get_object()["/DescendantFonts"][0].get_object()["/Subtype"]
        for f in page["/Resources"]["/Font"].values()
    ]
    assert set(kinds) == {"/CIDFontType2"}  # TrueType
    assert reader.metadata["/Title"].startswith("Conditional DETR")
    assert reader.metadata["/Creator"].startswith("detr_viz")
    assert "query 0" in reader.metadata["/Subject"] and "/CreationDate" not in reader.metadata
    (image,) = page.images
    assert np.array_equal(np.asarray(image.image.convert("RGB"))[::-1], sheet_of(fig))
    assert float(page.mediabox.width) == pytest.approx(sheet_of(fig).shape[1] / 220 * 72, abs=0.01)


def test_svg_has_text_and_one_picture(tmp_path):
    figures.save(figures.head_grid(fake(), [0, 1], "content"), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for words in ("cat", "0.75 · query 1", "head 7"):
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


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.gz", ".png"])
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
    real = Figure.savefig

    def fails(self, file, **options):
        real(self, io.BytesIO(), **options)
        with open(file, "wb") as half:
            half.write(b"half")
        raise failure

    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        figures.save(fig, target)
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    assert target.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


# --- windows, imports -------------------------------------------------------------------------


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    root, tests = figures.__file__.rsplit("/", 2)[0], __file__.rsplit("/", 1)[0]
    env = {**os.environ, "PYTHONPATH": f"{root}:{tests}", **environment}
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
