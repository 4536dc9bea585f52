"""Reports of a check that has passes, failures and trouble: HTML, JUnit, JSON, GitHub's words."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from detr_viz import cli, heatmaps
from detr_viz.demo.shapes import scene
from detr_viz.heatmaps.compare import Outcome
from detr_viz.regression import reports
from detr_viz.regression.page import page

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Baselines of a good image, of one that was changed, and of one that is gone."""
    home = tmp_path_factory.mktemp("project")
    before = os.getcwd()
    os.chdir(home)
    try:
        names = ["good", NASTY, "gone"]
        for i, name in enumerate(names):
            Image.fromarray(scene(2_000_000_300 + i, 96).rgb).save(f"{name}.png")
        images = [f"{name}.png" for name in names]
        argv = ["record", "--out", "base", "--type", "detr", "--plot", "all", "--image", *images]
        assert cli.main([*argv, "--quiet"]) == 0
        shutil.copy("good.png", f"{NASTY}.png")
        os.remove("gone.png")
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def checked(project, monkeypatch, capsys):
    """The reports of a check, by kind, and what it printed."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def check(*argv: str) -> tuple[int, list[str], str]:
        code = cli.main(["check", "base", *argv])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return check


def test_all_reports_at_once(checked, project):
    argv = ["--report", "r/page.html", "--junit", "r/j.xml", "--json", "r/j.json"]
    code, out, err = checked(*argv)
    assert code == 2 and err.count("\n") == 1 and "gone.png" in err
    assert [line for line in out if line.startswith("wrote")] == [f"wrote {p}" for p in argv[1::2]]
    assert out[-1] == "1 same, 1 different, 1 not run"
    assert sorted(p.name for p in (project / "r").iterdir()) == ["j.json", "j.xml", "page.html"]


# ---- HTML ---------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Tags, the text in each, and what is nested in no way that HTML allows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "tr", "td", "th"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag != "tr":
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_stands_alone_and_shows_names_as_text(checked, project):
    checked("--report", "page.html", "--quiet")
    text = (project / "page.html").read_text()
    parsed = Parsed(text)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "iframe", "object", "form", "a", "base", "svg"}
    assert all(img["src"].startswith("data:image/png;base64,") for img in parsed.attributes("img"))
    assert parsed.attributes("link") == [{"rel": "icon", "href": "data:,"}]
    assert not any(key.startswith("on") for _, attrs in parsed.tags for key in attrs)
    (policy,) = [m for m in parsed.attributes("meta") if m.get("http-equiv")]
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert any(f"{NASTY}_detr_all.npz" in words for tag, words in parsed.texts if tag == "summary")
    assert not re.search(r"https?:|//[a-z]", text)


def test_what_failed_is_open_and_comes_first(checked, project):
    checked("--report", "page.html", "--quiet")
    parsed = Parsed((project / "page.html").read_text())
    assert ["open" in attrs for attrs in parsed.attributes("details")] == [True, True, False]
    states = [words for tag, words in parsed.texts if tag == "span" and words in STATES]
    assert sorted(states[:2]) == ["different", "not run"] and states[2] == "same"
    titles = [words for tag, words in parsed.texts if tag == "h1"]
    assert titles == ["2 of 3 baselines failed"]


STATES = ("same", "different", "not run")


def test_the_pictures_are_the_maps_and_their_difference(checked, project):
    checked("--report", "page.html", "--json", "j.json", "--quiet")
    parsed = Parsed((project / "page.html").read_text())
    worst = json.loads((project / "j.json").read_text())["baselines"]
    (worst,) = [entry for entry in worst if entry["state"] == "different"]
    head = worst["heads"][0]
    old = heatmaps.load(project / f"base/{NASTY}_detr_all.npz")
    (place,) = np.flatnonzero(old.query_ids == head["query"])
    before = old.maps[head["mode"]][place, head["head"]]
    sources = [img["src"].partition(",")[2] for img in parsed.attributes("img")[:3]]
    pictures = [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]
    assert {picture.size for picture in pictures} == {before.shape[::-1]}
    levels = [np.asarray(picture, int) for picture in pictures]  # places in the palette
    assert max(levels[0].max(), levels[1].max()) == 255  # one scale
    scale = before.max() / levels[0].max()
    np.testing.assert_allclose(levels[0] * scale, before, atol=0.6 * scale)
    change = levels[1] - levels[0]
    assert np.unravel_index(np.abs(levels[2] - 127.5).argmax(), change.shape) == np.unravel_index(
        np.abs(change).argmax(), change.shape
    )
    assert np.abs(levels[2][change == 0] - 127.5).max() < 6  # the middle is no change
    assert (levels[2][change > 50] > 127.5).all() and (levels[2][change < -50] < 127.5).all()
    rgb = np.asarray(pictures[2].convert("RGB"), int)
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert rgb[y, x, 0] > rgb[y, x, 2] + 40  # grown: red
    y, x = np.unravel_index(change.argmin(), change.shape)
    assert rgb[y, x, 2] > rgb[y, x, 0] + 40  # fallen: blue


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium without a window, offline."""
    said = "the page was only parsed (the tests above)"
    playwright = pytest.importorskip("playwright.sync_api", reason=f"no Playwright: {said}")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no Chromium: {said}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        yield context
        context.close()
        browser.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_in_a_browser(checked, project, chromium, width):
    checked("--report", "page.html", "--quiet")
    tab = chromium.new_page()
    tab.set_viewport_size({"width": width, "height": 900})
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.goto((project / "page.html").as_uri(), wait_until="load")

    shown = tab.locator("details[open] img")
    assert shown.count() == tab.locator("img").count() >= 3
    assert shown.evaluate_all(
        "images => images.every(i => i.complete && i.naturalWidth > 1 && i.offsetWidth > 99)"
    )
    names = tab.locator("summary").all_inner_texts()
    assert any(f"{NASTY}_detr_all.npz" in name for name in names)
    passed = tab.locator("details").last.locator("p").first
    assert names[-1].split()[0] == "same" and not passed.is_visible()
    tab.locator("summary").last.click()
    assert passed.is_visible()
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [tab.url]
    tab.close()


def test_a_page_of_nothing_but_passes(checked, project):
    assert checked("--report", "page.html", "--only", "good*", "--quiet")[0] == 0
    parsed = Parsed((project / "page.html").read_text())
    assert ("h1", "All baselines hold") in parsed.texts and not parsed.attributes("img")
    assert parsed.attributes("details") == [{}]


def test_of_very_many_the_page_shows_no_maps(checked, project, monkeypatch):
    checked("--report", "page.html", "--json", "all.json", "--quiet")
    monkeypatch.setattr(reports, "MOST_SHOWN", 0)
    checked("--report", "page.html", "--json", "few.json", "--quiet")
    parsed = Parsed((project / "page.html").read_text())
    assert not parsed.attributes("img")
    assert any(re.match("worst: [a-z]+, layer 2, head [0-7], query ", t) for _, t in parsed.texts)
    assert (project / "few.json").read_text() == (project / "all.json").read_text()


def test_a_page_of_troubles_that_hold_markup():
    parsed = Parsed(page([Outcome("<b>&\"'", trouble="</details><script>alert(1)</script>")]))
    assert not parsed.attributes("script") and not parsed.attributes("b")
    assert ("p", "</details><script>alert(1)</script>") in parsed.texts


# ---- for machines -------------------------------------------------------------------------------


def test_junit(checked, project):
    checked("--junit", "j.xml", "--quiet")
    root = ElementTree.parse(project / "j.xml").getroot()
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    numbers = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert numbers == {"tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert kinds == {
        "good_detr_all.npz": [],
        f"{NASTY}_detr_all.npz": ["failure"],
        "gone_detr_all.npz": ["error"],
    }
    assert all(case.get("classname") == "heatmaps" for case in suite)
    times = [float(case.get("time")) for case in suite]
    assert max(times) > 0.001 and sum(times) == pytest.approx(float(suite.get("time")), abs=0.01)
    (failure,) = suite.iter("failure")
    assert failure.get("message").startswith("image changed (")
    assert "combine" in failure.text and "box IoU" in failure.text


def valid(text: str) -> bool:
    etree = pytest.importorskip("lxml.etree", reason="no lxml: the schema was not tried")
    schema = etree.RelaxNG(etree.parse(Path(__file__).parent / "junit.rng"))
    return schema.validate(etree.fromstring(text.encode()))


def test_junit_is_what_ci_systems_read(checked, project):
    """By a schema of what Jenkins' xUnit plugin takes, and by a library that reads such files."""
    checked("--junit", "j.xml", "--quiet")
    text = (project / "j.xml").read_text()
    assert valid(text) and valid(reports.junit([]))
    junitparser = pytest.importorskip("junitparser", reason="no junitparser: not read with it")
    read = junitparser.JUnitXml.fromfile(str(project / "j.xml"))
    assert (read.tests, read.failures, read.errors) == (3, 1, 1)
    (suite,) = read
    results = {case.name: [type(result).__name__ for result in case.result] for case in suite}
    assert results[f"{NASTY}_detr_all.npz"] == ["Failure"]
    assert results["gone_detr_all.npz"] == ["Error"] and results["good_detr_all.npz"] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('tests="1"', ""),
        ('failures="0"', 'failures="none"'),
        ('time="0.000"', 'time="1.5 s"'),
        ('name="a"', ""),
        ('classname="heatmaps"', 'class="heatmaps"'),
        ('type="not run"', 'kind="not run"'),
        ("<testsuites>", "<testsuites>text"),
    ],
)
def test_the_schema_refuses_what_is_none(right, wrong):
    text = reports.junit([Outcome("a", trouble="b")])
    assert right in text and valid(text) and not valid(text.replace(right, wrong, 1))


def test_characters_that_xml_has_none_for():
    text = reports.junit([Outcome("a\x00b\x1b\ud800.npz", trouble="\x08\ufffe")])
    (case,) = ElementTree.fromstring(text.encode()).iter("testcase")
    assert case.get("name") == "a\ufffdb\ufffd\ufffd.npz" and valid(text)


def test_json(checked, project):
    checked("--json", "j.json", "--quiet")
    found = json.loads((project / "j.json").read_text(), parse_constant=pytest.fail)
    assert found["counts"] == {"same": 1, "different": 1, "not run": 1}
    states = {entry["name"]: entry for entry in found["baselines"]}
    assert "gone.png" in states["gone_detr_all.npz"]["trouble"]
    bad = states[f"{NASTY}_detr_all.npz"]
    assert bad["why"].startswith("image changed") and len(bad["heads"]) > 50
    assert bad["heads"][0]["excess"] == max(head["excess"] for head in bad["heads"]) > 1
    assert {"mode", "query", "head", "max_abs", "total_variation"} <= set(bad["heads"][0])
    assert any(query["excess"] is None for query in bad["queries"])  # another class: no number


# ---- GitHub -------------------------------------------------------------------------------------


def test_github_annotations_and_summary(checked, project, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("summary.md").write_text("before\n")
    _, out, _ = checked("--quiet")
    notes = [line for line in out if line.startswith("::error ")]
    assert len(notes) == 2
    assert any(f"title=heatmap different%3A {NASTY}_detr_all.npz::image" in n for n in notes)
    summary = Path("summary.md").read_text()
    assert summary.startswith("before\n### Heatmaps: 1 same, 1 different, 1 not run\n")
    assert "\\<img src=x onerror=alert\\(1\\)\\>\\_detr\\_all.npz" in summary
    assert "| good" not in summary


def test_github_words_are_escaped(monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    list(reports.write({}, [Outcome("a:b,c%\n::error ::x", trouble="100%\r\n::set-env::")]))
    title = "heatmap not run%3A a%3Ab%2Cc%25%0A%3A%3Aerror %3A%3Ax"
    assert capsys.readouterr().out == f"::error title={title}::100%25%0D%0A::set-env::\n"


def test_elsewhere_github_is_not_spoken_to(checked, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "none.md")
    assert not any(line.startswith("::") for line in checked()[1])
    assert not Path("none.md").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--report", "base"], "--report 'base' is no .html file"),
        (["--report", "folder.html"], "folder.html: it is a folder; give a file name"),
        (["--junit", ""], "--junit '' is no .xml file: give a name such as heatmaps.xml"),
        (["--json", "x", "--junit", "x"], "is no .xml file"),
        (["--json", "good.png/x.json"], "good.png is a file, not a folder; choose another --json"),
        (["--json", f"{'x' * 300}.json"], "too long"),
        (["--report", "pipe.html"], "pipe.html: it is a pipe, not a regular file; choose another"),
        (["--report"], "expected one argument"),
    ],
)
def test_mistakes_before_anything_is_run(checked, project, capsys, argv, says):
    Path("folder.html").mkdir(exist_ok=True)
    if not Path("pipe.html").exists():
        os.mkfifo("pipe.html")
    before = sorted(project.rglob("*"))
    try:
        code = cli.main(["check", "base", *argv])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err
    assert sorted(project.rglob("*")) == before


def test_a_report_that_cannot_be_written_is_one_line(checked, project):
    Path("taken").write_text("a file")
    code, _, err = checked("--only", "good*", "--json", "taken/j.json", "--quiet")
    assert code == 2 and err.count("\n") == 1 and "taken/j.json" in err and "--json" in err


def test_the_workflow_of_the_docs(tmp_path, monkeypatch, capsys):
    """Ten lines that are YAML, and whose command does what it should; on this project's own."""
    yaml = pytest.importorskip("yaml", reason="no PyYAML: the workflow was not tried")
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/regression.md").read_text(), re.DOTALL)
    assert text.count("\n") <= 10
    steps = yaml.safe_load(text)["jobs"]["heatmaps"]["steps"]
    (command,) = [step["run"] for step in steps if "check" in step.get("run", "")]
    (kept,) = [step["with"]["path"] for step in steps if step.get("if") == "failure()"]
    name, *argv = command.split()
    assert name == "detr-viz"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "baselines").symlink_to(ROOT / "tests/heatmaps")
    (tmp_path / "image").symlink_to(ROOT / "image")
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 same"
    assert (tmp_path / kept).exists() and "4 same" in (tmp_path / "summary.md").read_text()
