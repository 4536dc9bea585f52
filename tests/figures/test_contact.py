"""Contact sheets: what is on which page, where, and how sharp."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from contact_tools import (
    MIXED,
    check_page,
    lines,
    pictures,
    png,
    several,
    sheet,
    texts,
)
from PIL import Image
from test_fonts import CAT

from detr_viz.figures.page.thumbnail_grid import best_grid

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
