"""The page in headless Chromium: pointing, clicking, keys, its address, export, its command."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, demo_model
from explorer_tools import dense, photo
from PIL import Image

from detr_viz import cli, explain
from detr_viz.html import page
from detr_viz.images.annotated import Annotated
from detr_viz.images.read import load_image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCENE = str(ROOT / "image" / "scene_1.jpg")
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the page of explanations; at the end nothing may have gone wrong in it."""
    said, asked, contexts = [], [], []

    def show(text: str, end: str = "", width: int = 1440, scheme: str = "light", **more):
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            offline=True,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            accept_downloads=True,
            **more,
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        tab.goto(path.as_uri() + end)
        ready(tab)
        return tab

    yield show
    for context in contexts:
        context.close()
    assert said == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}


SETTLED = """(ms) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
  () => setTimeout(() => requestAnimationFrame(done), ms))))"""


def settle(tab, ms: int) -> None:
    """Wait by the page's own frames and timers, which a slow machine holds up as it does its work.

    A pause by the clock of the test would end before the page has come to the event.
    """
    tab.evaluate(SETTLED, ms)


def ready(tab) -> None:
    """Wait until arrays are unpacked and drawn."""
    tab.locator("#list li:not([hidden])").first.wait_for()
    settle(tab, 400)


@pytest.fixture(scope="module")
def explained():
    """Conditional DETR, all layers; annotated: what its best query found, and what it missed."""
    model = demo_model("cd_detr")
    plain = explain(model, SCENE)
    best = plain.by_score()[0]
    height, width = plain.image.hw
    boxes = np.array([plain.boxes_xyxy_px[best], [0.7 * width, 0.75 * height, width, height]])
    names = (plain.label_name(best), "circle")
    annotated = Annotated(boxes, names, np.zeros(2, bool), (1, 2), "made by hand")
    picture = replace(load_image(SCENE), annotated=annotated)
    return explain(model, picture, layers="all")


@pytest.fixture(scope="module")
def text(explained):
    return page(explained)


def place(tab, x: float, y: float) -> tuple[float, float]:
    """Pixels of the window of a place of the photo, in shares of it."""
    box = tab.locator("#marks").bounding_box()
    return box["x"] + float(x) * box["width"], box["y"] + float(y) * box["height"]


def address(tab) -> dict[str, str]:
    """The state in the address, once it is written."""
    settle(tab, 300)
    return dict(part.split("=") for part in tab.url.partition("#")[2].split("&"))


def pixels_of(tab) -> np.ndarray:
    """What the photo's canvas shows, (h, w, 3)."""
    url = tab.evaluate("document.getElementById('base').toDataURL()")
    image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(image.convert("RGB"), np.float64)


def listed(tab) -> list[int]:
    rows = tab.locator("#list li:not([hidden]) .row")
    return [int(n) for n in rows.evaluate_all("rows => rows.map(row => row.dataset.query)")]


def ranked(e, x: float, y: float) -> tuple[list[int], np.ndarray]:
    """Queries by their mean attention at a place of the photo, and these, from the exact maps."""
    rows, columns = e.cell_centers_px()
    height, width = e.image.hw
    line, column = np.abs(rows - y * height).argmin(), np.abs(columns - x * width).argmin()
    here = e.maps().mean(1)[:, line, column]
    return np.argsort(-here, kind="stable").tolist(), np.sort(here)[::-1]


# ---- pointing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [(0.31, 0.42), (0.72, 0.55)])
def test_pointing_lists_the_queries_that_look_there(opened, text, explained, x, y):
    tab = opened(text)
    assert listed(tab) == explained.by_score()[:8]
    tab.mouse.move(*place(tab, x, y))
    settle(tab, 200)
    order, weights = ranked(explained, x, y)
    assert weights[0] > 1.05 * weights[1]  # so that 8 bits keep the first
    assert listed(tab)[0] == order[0]
    times = weights[0] * 16 * 16
    shown = tab.locator("#list .value").first.inner_text()
    assert float(shown.removeprefix("\N{MULTIPLICATION SIGN}")) == pytest.approx(times, rel=0.08)
    tab.mouse.move(5, 5)
    settle(tab, 200)
    assert listed(tab) == explained.by_score()[:8]


def test_a_click_on_a_box_shows_its_query_and_keeps_the_point(opened, text, explained):
    tab = opened(text)
    second = explained.by_score()[1]
    left, top, right, bottom = explained.boxes_xyxy_px[second]
    height, width = explained.image.hw
    x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
    tab.mouse.click(*place(tab, x, y))
    state = address(tab)
    assert int(state["query"]) == second
    assert [float(v) for v in state["at"].split(",")] == pytest.approx([x, y], abs=0.01)
    before = listed(tab)
    tab.mouse.move(*place(tab, 0.05, 0.05))
    settle(tab, 200)
    assert listed(tab) == before  # the point stays
    tab.mouse.click(*place(tab, x, y))
    assert "at" not in address(tab)


def test_shift_keeps_the_query(opened, text, explained):
    tab = opened(text)
    first, second = explained.by_score()[:2]
    left, top, right, bottom = explained.boxes_xyxy_px[second]
    height, width = explained.image.hw
    tab.keyboard.down("Shift")
    tab.mouse.click(*place(tab, (left + right) / 2 / width, (top + bottom) / 2 / height))
    state = address(tab)
    assert int(state["query"]) == first and "at" in state


def test_touch_taps_and_presses_long(opened, text, explained):
    tab = opened(text, width=390, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 390
    second = explained.by_score()[1]
    left, top, right, bottom = explained.boxes_xyxy_px[second]
    height, width = explained.image.hw
    x, y = place(tab, (left + right) / 2 / width, (top + bottom) / 2 / height)
    session = tab.context.new_cdp_session(tab)
    point = [{"x": x, "y": y}]
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
    tab.wait_for_timeout(700)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    state = address(tab)
    assert int(state["query"]) == explained.by_score()[0] and "at" in state  # long: the point
    tab.locator("#release").tap()
    assert "at" not in address(tab)
    tab.touchscreen.tap(*place(tab, (left + right) / 2 / width, (top + bottom) / 2 / height))
    assert int(address(tab)["query"]) == second


# ---- keys, address ------------------------------------------------------------------------------


def test_keys(opened, text, explained):
    tab = opened(text)
    order = np.argsort(-np.round(explained.output(2).scores, 4), kind="stable").tolist()
    assert int(address(tab)["query"]) == order[0]
    tab.keyboard.press("ArrowRight")
    assert int(address(tab)["query"]) == order[1]
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert int(address(tab)["query"]) == order[-1]
    for key, name, value in (
        *(("3", "head", "3"), ("a", "head", "mean"), ("x", "head", "max"), ("9", "head", "max")),
        *(("m", "mode", "position"), ("[", "layer", "1"), ("]", "layer", "2")),
        *(("s", "norm", "head"), ("g", "ground", "photo")),
    ):
        tab.keyboard.press(key)
        assert address(tab)[name] == value, key
    tab.keyboard.press("Shift+ArrowRight")
    assert "at" in address(tab)
    tab.keyboard.press("Escape")
    assert "at" not in address(tab)
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()
    query = address(tab)["query"]
    tab.keyboard.press("ArrowRight")  # the page behind a dialog hears no key
    assert address(tab)["query"] == query
    tab.keyboard.press("Escape")
    assert not tab.locator("#help").is_visible()
    tab.keyboard.press("n")
    assert "at" in address(tab)


def test_an_address_brings_the_view_back(opened, text):
    tab = opened(text)
    for key in ("ArrowRight", "ArrowRight", "5", "m", "[", "s", "Shift+ArrowDown"):
        tab.keyboard.press(key)
    state = address(tab)
    shown = tab.locator("#caption").inner_text()
    again = opened(text, f"#{tab.url.partition('#')[2]}")
    assert address(again) == state
    assert again.locator("#caption").inner_text() == shown
    assert listed(again) == listed(tab)
    # browsers may smooth a photo otherwise the first time that they draw it
    there, here = pixels_of(tab), pixels_of(again)
    assert there.shape == here.shape and np.abs(there - here).mean() < 0.5
    assert np.abs(there - pixels_of(opened(text))).mean() > 2  # the start is another picture


@pytest.mark.parametrize(
    "end", ["#image=9&query=99&mode=x&layer=7&head=80&level=4", "#query=%E0%A4%A&at=2,3", "#&=&&at"]
)
def test_an_address_that_means_nothing_shows_the_start(opened, text, explained, end):
    state = address(opened(text, end))
    assert int(state["query"]) == explained.by_score()[0]
    assert (state["mode"], state["layer"], state["head"]) == ("combine", "2", "mean")
    assert "at" not in state


# ---- numbers ------------------------------------------------------------------------------------


def test_the_ledger_is_that_of_the_explanation(opened, text, explained):
    tab = opened(text)
    x, y = 0.31, 0.42
    tab.mouse.move(*place(tab, x, y))
    settle(tab, 300)
    query = int(address(tab)["query"])
    rows, columns = explained.cell_centers_px()
    height, width = explained.image.hw
    cell = np.abs(rows - y * height).argmin(), np.abs(columns - x * width).argmin()
    terms = explained.logit_terms([query])
    facts = json.loads(tab.locator("#image-0").inner_text())
    steps = facts["ledger"]["steps"]["2"]
    names = list(steps)
    assert names == ["cq.ck", "pq.pk"]  # this model has no others
    cells = tab.locator("#ledger-table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert len(cells) == 8
    for head, (_, *values, total, weight) in enumerate(cells):
        for name, shown in zip(names, values, strict=True):
            exact = terms.terms[name][0, head][cell]
            # half a step of the codes, and of the decimals that are printed
            assert number(shown) == pytest.approx(exact, abs=steps[name][head] / 2 + 0.051)
        slack = sum(steps[name][head] for name in names) / 2 + 0.051
        assert number(total) == pytest.approx(terms.total[0, head][cell], abs=slack)
        exact = explained.maps("combine", [query])[0, head][cell]
        assert float(weight.rstrip(" %")) / 100 == pytest.approx(exact, rel=0.06, abs=6e-4)


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_shares_in_the_box_are_those_of_the_maps(opened, text, explained):
    tab = opened(text)
    query = int(address(tab)["query"])
    maps = explained.maps("combine", [query])[0].astype(np.float64)
    grid = explained.grid()
    box = explained.boxes_xyxy_px[query]
    height, width = explained.image.hw

    def part(axis: int, low: float, high: float) -> np.ndarray:
        edges = grid.of_photo(axis)
        inside = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
        return np.clip(inside, 0, None) / np.diff(edges)

    cells = np.outer(
        part(0, box[1] / height, box[3] / height), part(1, box[0] / width, box[2] / width)
    )
    shown = tab.locator("#head-list .share").all_inner_texts()[2:]
    exact = (maps * cells).sum((1, 2)) / maps.sum((1, 2))
    assert [int(s.split()[0]) for s in shown] == pytest.approx(100 * exact, abs=1.6)


def test_truth(opened, text, explained):
    tab = opened(text)
    best = explained.by_score()[0]
    row = tab.locator(f'#list .row[data-query="{best}"] .verdict')
    assert row.inner_text() == "found"
    assert tab.locator("#missed-title").inner_text() == "Missed objects: 1"
    tab.locator("#missed-list .row").click()
    state = address(tab)
    x, y = (float(v) for v in state["at"].split(","))
    assert (x, y) == pytest.approx((0.85, 0.875), abs=0.01)
    # of all queries, the one with most of its mean map in that box, by hand
    grid = explained.grid()
    borders = [grid.of_photo(axis) for axis in (0, 1)]
    parts = [
        np.clip(np.minimum(1, b[1:]) - np.maximum(low, b[:-1]), 0, None) / np.diff(b)
        for b, low in zip(borders, (0.75, 0.7), strict=True)
    ]
    mass = (explained.maps().mean(1) * np.outer(*parts)).sum((1, 2))
    assert int(state["query"]) == int(mass.argmax())


# ---- out of the page ----------------------------------------------------------------------------


def test_the_export_is_the_view(opened, text):
    tab = opened(text)
    with tab.expect_download() as download:
        tab.keyboard.press("e")
    assert download.value.suggested_filename.startswith("scene_1_query")
    saved = Image.open(BytesIO(Path(download.value.path()).read_bytes()))
    assert saved.format == "PNG" and saved.width >= 1000 and saved.height > saved.width
    colours = np.asarray(saved.convert("RGB"), int)
    warm = (colours[..., 0] - colours[..., 2] > 80).mean()  # the map
    blue = ((colours == (0, 87, 184)).all(-1)).sum()  # the boxes
    assert warm > 0.002 and blue > 100


@pytest.mark.parametrize(
    ("end", "plot", "head", "layer"),
    [
        ("#query=17&mode=position&head=3&layer=1", "position", "head 3", "layer 1"),
        ("#query=2&mode=content&head=mean&norm=head&ramp=violet", "content", "mean", "layer 2"),
    ],
)
def test_the_copied_command_draws_the_same(opened, text, tmp_path, end, plot, head, layer):
    tab = opened(text, end)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.keyboard.press("c")
    tab.locator("#copy").click()
    tab.locator("#copy", has_text="Copied").wait_for()
    command = tab.evaluate("navigator.clipboard.readText()")
    assert command == tab.locator("#command-text").inner_text()
    program, script, *flags = shlex.split(command)
    assert (program, script) == ("python", "attention_scripts.py")
    figure = tmp_path / "figure.png"
    assert cli.main([*flags, "--out", str(figure), "--quiet"]) == 0
    facts = Image.open(figure).text
    query = end.split("&")[0].removeprefix("#query=")
    assert f"query {query}." in facts["Description"]
    assert facts["Title"].startswith(f"Conditional DETR: {plot} attention")
    assert f"decoder {layer} of" in facts["Description"]
    assert head in f"{facts['Title']} {facts['Description']}"


def test_a_hostile_path_is_one_word_of_the_command(opened, tmp_path):
    path = f"it's {NASTY} $(x) -\n.png"
    tab = opened(page(dense(photo(90, 120), 4, hw=(4, 5), path=path, names=(NASTY,))))
    tab.keyboard.press("c")
    words = shlex.split(tab.locator("#command-text").text_content())
    assert words[words.index("--image") + 1] == path
    assert tab.locator("#query-class").inner_text().startswith(NASTY)
    thumbnail = tab.locator("img")
    assert thumbnail.count() == 1 and thumbnail.get_attribute("src").startswith("data:image/")


# ---- other models, other people -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["deformable_detr", "sparse_rcnn", "anchor_detr", "dynamic_detr"])
def test_other_kinds_of_attention(opened, tmp_path, name):
    e = explain(demo_model(name), SCENE)
    tab = opened(page(e))
    choices = tab.locator("#draw option").evaluate_all("options => options.map(o => o.value)")
    extra = {"deformable_detr": ["points"], "anchor_detr": []}.get(name, ["cells"])
    assert choices == ["map", *extra]
    pictures = set()
    for choice in choices:
        if len(choices) > 1:
            tab.locator("#draw").select_option(choice)
            settle(tab, 400)
        pictures.add(tab.evaluate("document.getElementById('base').toDataURL()"))
    assert len(pictures) == len(choices)
    query = int(address(tab)["query"])
    levels = tab.locator("#level option").evaluate_all("options => options.map(o => o.value)")
    count = len(e.grids())
    assert levels == ["sum", *map(str, range(count))] if count > 1 else ["sum"]
    for level in levels[1:]:
        tab.locator("#level").select_option(level)
        settle(tab, 400)
        largest = e.maps("combine", [query], level=int(level)).mean(1).max()
        words = tab.locator("#query-facts").inner_text()
        shown = re.search(r"Largest weight of a cell\s*([\d.]+) %", words)[1]
        assert float(shown) / 100 == pytest.approx(largest, rel=0.05, abs=6e-4)
    assert tab.locator("#heads").is_visible() == (not e.stages)
    order, _ = ranked(e, 0.31, 0.42)
    if count > 1:
        tab.locator("#level").select_option("sum")
    tab.mouse.move(*place(tab, 0.31, 0.42))
    settle(tab, 300)
    assert listed(tab)[0] in order[:2]
    tab.keyboard.press("c")
    _, _, *flags = shlex.split(tab.locator("#command-text").inner_text())
    assert cli.main([*flags, "--out", str(tmp_path / "figure.png"), "--quiet"]) == 0
    assert f"query {flags[flags.index('--queries') + 1]}." in str(
        Image.open(tmp_path / "figure.png").text
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_no_serious_fault_of_accessibility(opened, text, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
    tab = opened(text, "#at=.31,.42", width=width, scheme=scheme)
    check = axe.Axe()
    for dialog in (None, "open-help", "open-about", "open-command"):
        if dialog:
            tab.locator(f"#{dialog}").click()
        faults = check.run(tab).response["violations"]
        bad = [f for f in faults if f["impact"] in ("serious", "critical")]
        assert bad == [], [(f["id"], [n["html"] for n in f["nodes"]]) for f in bad]
        if dialog:
            tab.keyboard.press("Escape")


def test_the_theme_follows_the_system_and_the_button(opened, text):
    ground = "getComputedStyle(document.body).backgroundColor"
    tab = opened(text, scheme="dark")
    dark = tab.evaluate(ground)
    tab.locator("#theme").click()
    light = tab.evaluate(ground)
    assert dark != light == "rgb(255, 255, 255)"
    assert tab.locator("#theme").inner_text() == "Dark"


def test_several_images_are_chosen_at_the_left(opened):
    pages = [dense(photo(90, 120, i), 4, hw=(4, 5), path=f"{n}.png") for i, n in enumerate("abc")]
    tab = opened(page(pages), "#image=1")
    assert tab.locator("#title").inner_text() == "b.png"
    assert tab.locator("#index [aria-current]").inner_text().startswith("b.png")
    tab.locator("#index button").nth(2).click()
    ready(tab)
    assert tab.locator("#title").inner_text() == "c.png" and address(tab)["image"] == "2"
    tab.keyboard.press("i")
    ready(tab)
    assert tab.locator("#title").inner_text() == "a.png"


def test_it_works_in_a_frame_without_an_address(browser, text):
    """As a notebook shows it: an iframe whose document is a text."""
    tab = browser.new_page()
    said = []
    tab.on("pageerror", lambda error: said.append(str(error)))
    frame = f'<iframe id="f" width="1200" height="800" srcdoc="{escape(text)}"></iframe>'
    tab.set_content(f"<!DOCTYPE html><title>a</title>{frame}")
    inner = tab.frame_locator("#f")
    inner.locator("#list .row").first.wait_for()
    inner.locator("#marks").click(position={"x": 60, "y": 60})
    inner.locator("#release").wait_for()
    assert inner.locator("#here-title").inner_text() == "Queries that look here"
    assert said == []
    tab.close()


def test_moving_the_pointer_is_cheap(opened):
    tab = opened(page(dense(photo(800, 1200), 100)))
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "ScriptDuration")

    before = seconds()
    for i in range(60):
        tab.mouse.move(*place(tab, 0.5 + 0.4 * math.sin(i), 0.5 + 0.4 * math.cos(i / 3)))
    assert (seconds() - before) / 60 < 0.016
