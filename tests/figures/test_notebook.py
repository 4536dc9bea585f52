"""In a notebook: an explanation shows one picture and a table, and figures are drawn of words."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from conftest import ROOT, demo_explanation, demo_model
from PIL import Image

from detr_viz import PageFormat, Style, UserError, explain, head_grid, select, store
from detr_viz.images.annotated import Annotated
from detr_viz.images.loaded_image import LoadedImage

SCENE = str(ROOT / "image/scene_1.jpg")
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\x1b[31m\u202e'


class Elements(HTMLParser):
    """Names of elements, the text in them, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.rows:
            self.rows[-1].append(data)


def pixels(fig) -> np.ndarray:
    data, size = fig._repr_png_()
    picture = Image.open(BytesIO(data))
    assert picture.format == "PNG" and 0 < size["width"] <= picture.width
    assert abs(size["width"] / size["height"] - picture.width / picture.height) < 0.01
    return np.asarray(picture.convert("RGB"))


def same(a, b) -> bool:
    one, other = pixels(a), pixels(b)
    return one.shape == other.shape and np.array_equal(one, other)


# ---- an explanation in a cell --------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene():
    return demo_explanation("cd_detr")


def test_the_table_has_what_was_detected(scene):
    shown = Elements(scene._repr_html_())
    head, *rows = shown.rows
    assert [cell.partition(":")[0] for cell in head] == ["query", "class", "score", "box"]
    wanted = [q for q in scene.by_score() if scene.scores[q] >= 0.5]
    assert [int(row[0]) for row in rows[: len(wanted)]] == wanted and len(wanted) >= 3
    for query, name, score, box in (row[:4] for row in rows):
        q = int(query)
        assert name == scene.label_name(q) and score == f"{scene.scores[q]:.2f}"
        assert np.allclose([float(x) for x in box.split(",")], scene.boxes_xyxy_px[q], atol=0.5)


def test_the_figure_in_it_is_that_of_the_best_queries(scene):
    shown = Elements(scene._repr_html_())
    assert shown.names.count("img") == 1
    assert not {"script", "style", "link", "iframe"} & {*shown.names}
    (source,) = (value for name, value in shown.attributes if name == "src")
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    png = base64.b64decode(data)
    assert png == scene._repr_png_()
    picture = np.asarray(Image.open(BytesIO(png)).convert("RGB"), np.float64)
    drawn = pixels(scene.plot("combine", scene.by_score()[:3], dpi=200)).astype(np.float64)
    assert picture.shape == drawn.shape and np.abs(picture - drawn).mean() < 2  # fewer colours
    assert len(png) < 150_000


@pytest.mark.parametrize("name", ["deformable_detr", "sparse_rcnn", "dynamic_detr", "anchor_detr"])
def test_every_kind_of_attention_is_drawn_and_fits_a_screen(name):
    e = explain(demo_model(name), str(ROOT / "image/scene_2.jpg"), layers="all")
    picture = Image.open(BytesIO(e._repr_png_()))
    assert picture.height <= 900 and picture.width > 800
    assert "<img" in e._repr_html_()


def test_names_are_inert():
    image = replace(demo_explanation("cd_detr").image, path=f"{HOSTILE}/a.jpg")
    e = replace(demo_explanation("cd_detr"), image=image, class_names=(HOSTILE,) * 6)
    text = e._repr_html_()
    shown = Elements(text)
    assert {*shown.names} == {"div", "p", "img", "table", "tr", "th", "td"}
    assert {name for name, _ in shown.attributes} == {"alt", "width", "style", "src"}
    assert any("<script>alert(1)</script>" in word for word in shown.words)
    assert "\x1b" not in text and "\u202e" not in text
    bad = replace(e, class_names=("caf\udce9",) * 6)  # bytes of a file's name that are no text
    bad._repr_html_().encode()


def test_what_cannot_be_drawn_falls_back(scene):
    facts = replace(scene, image=scene.image.facts)  # no pixels
    assert facts._repr_png_() is None
    assert "<img" not in facts._repr_html_() and "<table" in facts._repr_html_()
    nothing = replace(
        scene,
        **{
            name: getattr(scene, name)[:0]
            for name in ("scores", "labels", "boxes_xyxy_px", "class_scores")
        },
    )
    assert nothing._repr_png_() is None and "no query" in nothing._repr_html_()
    low = replace(scene, scores=scene.scores * 0.01)
    assert len(Elements(low._repr_html_()).rows) == 4  # the three best
    broken = replace(scene, scores=None)
    assert broken._repr_html_() is None and broken._repr_png_() is None


def test_stored_maps_are_shown_as_far_as_they_go(scene):
    few = store(scene, [15, 3], ["position"])
    wanted = pixels(scene.plot("position", [15, 3], dpi=200)).astype(np.float64)
    shown = np.asarray(Image.open(BytesIO(few._repr_png_())).convert("RGB"), np.float64)
    assert shown.shape == wanted.shape and np.abs(shown - wanted).mean() < 2
    none = store(scene, [], ["position"])
    assert none._repr_png_() is None and "<table" in none._repr_html_()


def test_verdicts_stand_in_the_table_of_an_annotated_image(scene):
    best = scene.by_score()[0]
    box = scene.boxes_xyxy_px[[best]].astype(np.float64)
    truth = Annotated(box, (scene.label_name(best),), np.zeros(1, bool), (7,), "a.json")
    rows = Elements(replace(scene, image=replace(scene.image, annotated=truth))._repr_html_()).rows
    assert rows[0][4] == "against the annotation"
    assert rows[1][4] == f"found ({scene.label_name(best)}, IoU 1.00)"
    kinds = {row[4].split(" (")[0] for row in rows[2:]}
    assert kinds <= {"background", "duplicate"}


def test_gt_draws_the_annotated_boxes(scene):
    box = scene.boxes_xyxy_px[[3]].astype(np.float64) + 20
    truth = Annotated(box, ("star",), np.zeros(1, bool), (7,), "a.json")
    e = replace(scene, image=replace(scene.image, annotated=truth))
    assert e.plot(queries=3, gt=True, dpi=60).shown.style.truth
    assert same(e.plot(queries=3, dpi=60), scene.plot(queries=3, dpi=60))
    assert not same(e.plot(queries=3, dpi=60, gt=True), e.plot(queries=3, dpi=60))
    with pytest.raises(UserError, match="this image has none: annotate it, or leave gt out"):
        scene.plot(queries=3, gt=True)


def test_a_picture_is_shown_small():
    rgb = np.zeros((900, 1800, 3), np.uint8)
    rgb[:, 900:] = (200, 10, 10)
    image = LoadedImage(rgb, None, "ab" * 32)
    small = Image.open(BytesIO(image._repr_jpeg_()))
    assert small.size == (320, 160)
    assert np.allclose(small.getpixel((300, 80)), (200, 10, 10), atol=4)
    assert LoadedImage(np.zeros((0, 5, 3), np.uint8), None, "ab")._repr_jpeg_() is None


# ---- words ---------------------------------------------------------------------------------------


def test_plot_takes_the_words_of_the_command_line(scene):
    ids = select(scene, "top:2")
    contour = Style("contour", heads="mean")
    column = PageFormat.of("column", dpi=100)
    wanted = head_grid(scene, ids, "position", style=contour, page_format=column)
    for words in (
        {"style": "contour", "heads": "mean", "preset": "column", "dpi": 100},
        {"style": contour, "preset": column},
        {"style": Style("contour"), "heads": "mean", "preset": "column", "dpi": 100},
    ):
        assert same(scene.plot("position", "top:2", **words), wanted)
    numbers = scene.plot(["combine", "content"], ids, layer=[0, 2], heads=[1, 4], dpi=80)
    text = scene.plot("combine,content", "top:2", layer="0,2", heads="1,4", dpi=80)
    assert same(numbers, text)
    assert same(
        scene.plot("all", 3, dpi=60, zoom="2", norm="head"),
        head_grid(scene, [3], scene.modes, style=Style(zoom=2.0, norm="head"),
                  page_format=PageFormat.of(dpi=60)),
    )  # fmt: skip
    assert scene.plot("terms", "top:1", dpi=60).shown.modes == ("terms",)
    assert scene.plot("cq.ck+pq.pk", "top:1", dpi=60).shown.modes == ("cq.ck+pq.pk",)
    inches = PageFormat.of(None, 85 / 25.4, 100)
    assert same(scene.plot(width="85mm", dpi=100), head_grid(scene, "objects", page_format=inches))


def test_head_grid_takes_them_too(scene):
    fig = head_grid(
        scene, "top:2", "all", layer="all", heads="mean", style="contour", page_format="column"
    )
    shown = fig.shown
    assert shown.modes == scene.modes and shown.style == Style("contour", heads="mean")
    assert shown.subjects[0].layers == scene.layers
    assert fig.get_figwidth() == pytest.approx(3.25, abs=0.01)
    assert head_grid(scene, np.int64(3), heads=np.arange(2)).shown.style.heads == (0, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"mode": "positon"}, "did you mean position?"),
        ({"mode": "combine,contnet"}, "did you mean content?"),
        ({"mode": "cq.pk+xx.pk"}, "terms are sums such as"),
        ({"mode": "proposals"}, "Conditional DETR has no proposals: its queries are learned"),
        ({"mode": []}, "nothing to draw"),
        ({"queries": "tpo:3"}, "did you mean top?"),
        ({"queries": "class:trangle"}, "did you mean triangle?"),
        ({"queries": "99"}, "no query 99"),
        ({"queries": []}, "nothing to draw"),
        ({"style": "contuor"}, "did you mean contour?"),
        ({"heads": "maen"}, "did you mean mean?"),
        ({"heads": 8}, "no head 8: Conditional DETR has 0..7"),
        ({"preset": "colum"}, "did you mean column?"),
        ({"norm": "evn"}, "did you mean even?"),
        ({"zoom": "near"}, "no zoom: write auto, none"),
        ({"level": "al"}, "did you mean all?"),
        ({"layer": "lst"}, "is not last, all, a layer from 0"),
        ({"layer": "7"}, "decoder layer 7 was not captured"),
        ({"cmap": "virids"}, "virids"),
        ({"width": "3ft"}, "is not a width"),
        ({"interpolation": "smoth"}, "did you mean smooth?"),
        ({"contours": "0,120", "style": "contour"}, "are no contours"),
        ({"hedas": "mean"}, "did you mean heads?"),
        ({"qqq": "x"}, "plot has no 'qqq': it takes cmap"),
    ],
)  # fmt: skip
def test_words_that_say_nothing_are_one_line(scene, words, says):
    with pytest.raises(ValueError) as error:
        scene.plot(**words)
    text = str(error.value)
    assert says in text and "\n" not in text and len(text) < 400


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"style": "contuor"}, "did you mean contour?"),
        ({"page_format": "colum"}, "did you mean column?"),
        ({"heads": "maen"}, "did you mean mean?"),
        ({"mode": "positon"}, "did you mean position?"),
        ({"queries": "tpo:3"}, "did you mean top?"),
        ({"layer": "lst"}, "is not last, all"),
    ],
)
def test_head_grid_says_the_same(scene, words, says):
    with pytest.raises(UserError, match=re.escape(says)):
        head_grid(scene, **{"queries": "top:1", **words})
