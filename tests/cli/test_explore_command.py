"""Pages from the command line: explore, and --format html of a run."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from detr_viz import cli
from detr_viz.checkpoints.sources import ModelSource
from detr_viz.cli.command_words import model_words
from detr_viz.render.file_digests import carries, digest_in

SCENES = [str(ROOT / "image" / f"scene_{i}.jpg") for i in (1, 2)]


pytestmark = pytest.mark.usefixtures("here")


def images(path: str | Path) -> list[dict]:
    """The data of each image of a page."""
    text = Path(path).read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="image-\d+">(.*?)</script>', text)
    return [json.loads(one) for one in found]


def test_explore_writes_one_page_and_says_where(capsys, here):
    assert cli.main(["explore", "--type", "cd_detr"]) == 0
    out = capsys.readouterr().out.splitlines()
    page = here / "outputs" / "explore.html"
    size = page.stat().st_size
    assert out[-1] == f"wrote outputs/explore.html ({size / 1e6:.1f} MB)"
    assert [path.name for path in here.rglob("*") if path.is_file()] == ["explore.html"]
    (image,) = images(page)
    assert image["model"]["type"] == "cd_detr" and image["words"] == ["--type", "cd_detr"]
    assert image["num_queries"] == len(image["queries"]) == 20


def test_several_images_and_models_are_on_one_page(here):
    argv = ["explore", "--type", "cd_detr", "detr", "--image", *SCENES, "--out", "all.html"]
    assert cli.main([*argv, "--layer", "0,2", "--plot", "position", "--quiet"]) == 0
    found = images("all.html")
    assert [(i["image"]["path"], i["model"]["type"]) for i in found] == [
        (path, kind) for path in SCENES for kind in ("cd_detr", "detr")
    ]
    assert all(image["layers"] == [0, 2] and image["mode"] == "position" for image in found)
    assert all("maps/0/content/sum" in image["blocks"] for image in found)


def test_queries_asked_for_come_first_and_none_is_no_fault(here):
    argv = ["explore", "--out", "a.html", "--quiet", "--image", SCENES[0]]
    assert cli.main([*argv, "--queries", "7"]) == 0
    assert images("a.html")[0]["start"] == 7
    assert cli.main([*argv, "--queries", "score:1"]) == 0
    (image,) = images("a.html")
    assert image["start"] == image["queries"][0]


def test_an_image_that_fails_is_left_out(here, capsys):
    Path("bad.png").write_bytes(b"no picture")
    argv = ["explore", "--image", SCENES[0], "bad.png", SCENES[1], "--out", "a.html"]
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert "bad.png" in err and "1 of 3 images failed" in err
    assert [image["image"]["path"] for image in images("a.html")] == SCENES


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--out", "a.png"], "no .html file"),
        (["--out", ""], "not a path"),
        (["--out", "-"], "not a path"),
        (["--out", "file/a.html"], "is a file, not a folder"),
        (["--image", "missing.png"], "missing.png"),
        (["--queries", "frobnicate"], "frobnicate"),
        (["--layer", "7"], "7"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(here, capsys, argv, says):
    Path("file").write_text("x")
    assert cli.main(["explore", *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: ") and says in err
    assert os.listdir() == ["file"]


def test_a_full_disk_leaves_no_half_page(here, capsys, monkeypatch):
    Path("a.html").write_text("before")

    def full(self, text, **_):
        with open(self, "w") as file:
            file.write(text[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["explore", "--out", "a.html", "--quiet"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir() == ["a.html"] and Path("a.html").read_text() == "before"


def test_open_asks_the_browser(here, monkeypatch):
    asked = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    assert cli.main(["explore", "--out", "a b.html", "--open", "--quiet"]) == 0
    assert asked == [(here / "a b.html").as_uri()]


# ---- --format html ------------------------------------------------------------------------------


def test_a_page_stands_beside_the_figure_with_its_digest(here, capsys):
    assert cli.main(["--type", "cd_detr", "--format", "html,png", "--out", "both/"]) == 0
    assert cli.main(["--type", "cd_detr", "--out", "one/", "--quiet"]) == 0
    out = capsys.readouterr().out
    figure, page = (Path(f"both/scene_1_cd_detr_combine{end}") for end in (".png", ".html"))
    assert f"wrote {figure}" in out and f"wrote {page}" in out
    digest = Image.open(figure).text["Recipe"]
    assert digest_in(page) == digest and carries(page, digest)
    assert Image.open("one/scene_1_cd_detr_combine.png").text["Recipe"] == digest
    shown = re.findall(r"^ +(\d+) ", out, re.MULTILINE)  # the table of the figure's queries
    assert images(page)[0]["start"] == int(shown[0])


def test_a_page_alone_needs_no_figure(here):
    assert cli.main(["--type", "detr", "--plot", "content", "--out", "x.html", "--quiet"]) == 0
    assert os.listdir() == ["x.html"]
    assert images("x.html")[0]["mode"] == "content"


def test_two_models_are_two_entries(here):
    argv = ["--type", "detr", "cd_detr", "--out", "x.html", "--quiet"]
    assert cli.main(argv) == 0
    assert [image["words"] for image in images("x.html")] == [
        ["--type", "detr"],
        ["--type", "cd_detr"],
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--attention", "encoder"], "shows cross-attention, not --attention encoder"),
        (["--rollout"], "shows cross-attention, not --rollout"),
        (["--ablate", "position"], "shows no --ablate"),
        (["--caption"], "--caption is for figures"),
        (["--contact-sheet"], "add png to --format"),
    ],
)
def test_what_a_page_does_not_show_is_refused(here, capsys, argv, says):
    assert cli.main(["--type", "detr", "--format", "html", "--out", "o/", *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err
    assert os.listdir() == []


def test_a_resumed_batch_makes_only_pages_that_are_missing_or_cut(here, capsys):
    Path("in").mkdir()
    for i, path in enumerate(SCENES * 2):
        shutil.copy(path, f"in/{i}.jpg")
    argv = ["--type", "detr", "--image", "in", "--out", "o/", "--format", "html", "--jobs", "1"]
    assert cli.main(argv) == 0
    pages = sorted(Path("o").glob("*.html"))
    assert len(pages) == 4
    before = [path.read_bytes() for path in pages]
    os.truncate(pages[1], 5000)
    pages[2].unlink()
    assert cli.main([*argv, "--resume"]) == 0
    out = capsys.readouterr().out
    assert "wrote 2 files for 2 images" in out and "2 images done by an earlier run" in out
    assert [path.read_bytes() for path in pages] == before
    assert cli.main([*argv[:-2], "--jobs", "1", "--resume", "--format", "html,png"]) == 0
    assert len(list(Path("o").glob("*.png"))) == 4


def test_words_name_each_source_again():
    sources = [
        ModelSource(weights="-odd name.pth", type="detr", nheads=4, dilation=False),
        ModelSource(script="a b.py:make"),
        ModelSource(),
    ]
    assert model_words(sources) == (
        ("--weights=-odd name.pth", "--type", "detr", "--nheads", "4", "--no-dilation"),
        ("--model", "a b.py:make"),
        (),
    )
