"""The text of a page: it stands alone, its policy holds, names in it are inert, it is small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from explorer_tools import dense, photo

from detr_viz.html import page
from detr_viz.html.assembly import SCRIPTS, document, inert_json
from detr_viz.html.entry import measure
from detr_viz.images.annotated import Annotated

NASTY = "</script><img src=x onerror=alert(1)>\u2028<!--<script>{{script}}"
RGB = photo(120, 160)


class Parsed(HTMLParser):
    """Tags with their attributes, and the raw text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, "elements that are never closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")
        if tag not in ("meta", "link", "input", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text():
    names = (NASTY, "dog", "teapot")
    annotated = Annotated(
        np.array([[10.0, 10, 60, 60]]), (NASTY,), np.zeros(1, bool), (0,), "truth.json"
    )
    e = dense(RGB, 12, hw=(6, 8), names=names, path=f"x/{NASTY}.png", annotated=annotated)
    return page(e)


def test_it_is_well_formed_and_needs_nothing_else(text):
    parsed = Parsed(text)
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", re.sub(r"data:[^\"]*", "", text))
    for tag in ("script", "img", "iframe", "object", "embed", "link", "form", "base", "a"):
        for attrs in parsed.of(tag):
            assert not attrs.get("src"), tag
            assert attrs.get("href", "data:,") == "data:,"
    assert not any(key.startswith("on") for _, attrs in parsed.tags for key in attrs)
    assert not any("style" in attrs for _, attrs in parsed.tags), "the policy forbids them"
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    known = set(ids)
    for _, attrs in parsed.tags:
        assert (attrs.get("aria-labelledby") or "title") in known
        assert (attrs.get("for") or "title") in known


def test_the_policy_allows_its_own_script_and_style_alone(text):
    parsed = Parsed(text)
    (policy,) = [m["content"] for m in parsed.of("meta") if m.get("http-equiv")]
    rules = dict(part.split(" ", 1) for part in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data: blob:"

    def named(source: str) -> str:
        digest = hashlib.sha256(source.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    (style,) = parsed.raw["style"]
    assert rules["style-src"] == named(style)
    kinds = [attrs.get("type") for attrs in parsed.of("script")]
    code = [raw for raw, kind in zip(parsed.raw["script"], kinds, strict=True) if kind is None]
    assert len(code) == 1 and rules["script-src"] == named(code[0])
    assert {kind for kind in kinds if kind} == {"application/json"}
    assert "unsafe" not in policy


def test_scripts_never_make_elements_of_text(text):
    (code,) = [raw for raw in Parsed(text).raw["script"] if "'use strict'" in raw]
    for danger in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert danger not in code
    for danger in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "localStorage", "cookie"):
        assert danger not in code


def test_hostile_names_stand_in_the_data_as_they_are_and_nowhere_else(text):
    assert "<img" not in text and NASTY not in text
    parsed = Parsed(text)
    data = [raw for raw in parsed.raw["script"] if raw.startswith("{")]
    image = json.loads(data[1])
    assert image["image"]["path"] == f"x/{NASTY}.png"
    assert image["classes"][0] == NASTY and image["truth"]["names"] == [NASTY]
    assert len(parsed.of("script")) == 3


def test_json_is_inert():
    assert json.loads(inert_json({"a": NASTY})) == {"a": NASTY}
    assert "<" not in inert_json(NASTY) and inert_json("\ud800").isascii()
    with pytest.raises(ValueError):
        inert_json(float("nan"))


def test_the_title_is_a_line_of_plain_text():
    e = dense(RGB, 3, hw=(4, 5), path="a\n\x1b[31m&<b>.png")
    title = re.search(r"<title>(.*?)</title>", page(e), re.DOTALL)[1]
    assert "\n" not in title and "\x1b" not in title and "<b>" not in title and "&lt;b&gt;" in title


def test_the_digest_stands_in_the_head():
    e = dense(RGB, 3, hw=(4, 5))
    made = document([(measure(e), e.image)], "c" * 64)
    assert f"recipe {'c' * 64}" in made[:4000]
    assert document([(measure(e), e.image)], "c" * 64) == made  # the same input, the same bytes


def test_a_page_of_a_hundred_queries_is_at_most_1_5_megabytes():
    e = dense(photo(1066, 1600), 100, noise=1.5)
    made = page(e)
    assert e.maps().size * 3 == 100 * 8 * 25 * 38 * 3
    assert len(made.encode()) <= 1_500_000


def test_an_explanation_without_its_photo_is_refused():
    e = dense(RGB, 3, hw=(4, 5))
    with pytest.raises(ValueError, match="no photo"):
        page(replace(e, image=e.image.facts))


def test_several_explanations_make_one_page():
    pages = [dense(RGB, 3, hw=(4, 5), path=f"{name}.png") for name in "ab"]
    made = page(pages, queries=[1])
    data = [json.loads(raw) for raw in Parsed(made).raw["script"] if raw.startswith("{")]
    assert [row["name"] for row in data[0]["images"]] == ["a.png", "b.png"]
    assert [image["start"] for image in data[1:]] == [1, 1]
    assert "2 images" in made[:3000]


def test_every_script_is_in_the_page_and_short():
    from importlib.resources import files

    folder = files("detr_viz.html") / "web"
    names = {entry.name for entry in folder.iterdir()}
    assert names == {*SCRIPTS, "page.css", "page.html"}
    for name in names:
        assert len((folder / name).read_text().splitlines()) <= 300
