"""The page in a cell: a frame that holds all of it, and is shut off from the notebook."""

from __future__ import annotations

import html
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from conftest import demo_explanation

from detr_viz import UserError, explore
from detr_viz import html as pages
from detr_viz.html.notebook import Explorer

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = '"></iframe><script>top.hacked = 1</script><img src=x onerror="top.hacked=1">'


class Frame(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def scene():
    return demo_explanation("cd_detr")


def test_the_frame_holds_the_page_and_nothing_else(scene):
    shown = scene.explore(height=500)
    assert isinstance(shown, Explorer)
    ((tag, attributes),) = Frame(shown._repr_html_()).elements
    assert tag == "iframe" and attributes["srcdoc"] == shown.text == pages.page(scene)
    assert attributes["height"] == "500"
    assert set(attributes["sandbox"].split()) == {"allow-scripts", "allow-downloads"}


def test_saved_it_is_the_same_page(scene, tmp_path):
    shown = scene.explore()
    shown.save(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == shown.text
    assert shown.text.lstrip().lower().startswith("<!doctype html")


def test_it_prints_in_three_lines(scene):
    text = repr(explore([scene, scene]))
    assert text.count("\n") <= 2 and text.startswith("Explorer of") and "and 1 more" in text


def test_what_cannot_be_explored(scene):
    with pytest.raises(UserError, match="give at least one explanation"):
        explore([])
    for height in (0, 10**6):
        with pytest.raises(UserError, match=f"cannot be {height} pixels high"):
            scene.explore(height=height)
    with pytest.raises(ValueError):
        replace(scene, image=scene.image.facts).explore()


def test_hostile_names_stay_in_the_frame(scene):
    image = replace(scene.image, path=HOSTILE)
    hostile = replace(scene, image=image, class_names=(HOSTILE,) * 6, model_title=HOSTILE)
    shown = hostile.explore()
    ((tag, attributes),) = Frame(shown._repr_html_()).elements
    assert tag == "iframe" and attributes["srcdoc"] == shown.text
    assert html.unescape(html.escape(HOSTILE)) in attributes["title"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_in_a_cell_of_a_browser_it_is_drawn_and_cannot_reach_the_notebook(scene, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    image = replace(scene.image, path=HOSTILE)
    cell = replace(scene, image=image, class_names=(HOSTILE,) * 6).explore()._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><body>{cell}</body>", encoding="utf-8")
    errors: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(notebook.as_uri())
        frame = page.frame_locator("iframe")
        frame.locator("canvas").first.wait_for(timeout=20_000)
        inner = page.frames[1]
        inner.wait_for_timeout(800)
        drawn = inner.evaluate(
            """() => Math.max(...[...document.querySelectorAll('canvas')].map((c) => {
                 const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                 return new Set(data).size; }))"""
        )
        before = inner.evaluate("document.body.innerText")
        page.mouse.click(500, 250)
        page.keyboard.press("ArrowRight")
        inner.wait_for_timeout(500)
        after = inner.evaluate("document.body.innerText")
        hacked = page.evaluate("window.hacked")
        reach = inner.evaluate(
            "(() => { try { return String(parent.document); } catch { return 'shut'; } })()"
        )
        page.screenshot(path=tmp_path / "cell.png")
        browser.close()
    assert drawn > 20  # many colours, so a photo and a map
    assert before != after
    assert hacked is None and reach == "shut"
    assert errors == []
