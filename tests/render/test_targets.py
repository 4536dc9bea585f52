"""Where figures go: paths for images, and places that cannot be written, before time is spent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detr_viz.common.errors import UserError
from detr_viz.render.paths import OutputPaths, check_out, folder_of, is_folder, output_paths


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "there.png").mkdir()
    return tmp_path


def files(out: str | None, name: str = "cat.v2_detr_all", suffixes=(".png", ".npz")) -> list[str]:
    paths = output_paths(out, suffixes, caption=False).at(name)
    return [str(path) for path in (*paths.figures, paths.numbers("", ".npz"))]


def test_files_are_called_after_their_image_or_what_out_says():
    assert files(None) == ["outputs/cat.v2_detr_all.png", "outputs/cat.v2_detr_all.npz"]
    assert files("figs/") == ["figs/cat.v2_detr_all.png", "figs/cat.v2_detr_all.npz"]
    assert files("new/a.SVG") == ["new/a.SVG", "new/a.npz"]
    assert files("there.png") == ["there.png/cat.v2_detr_all.png", "there.png/cat.v2_detr_all.npz"]
    several = output_paths("figs", (".png", ".pdf", ".npz"), caption=False).at("cat")
    assert [path.name for path in several.figures] == ["cat.png", "cat.pdf"]
    assert several.saves_maps and not output_paths("a.pdf", (".png",), False).saves_maps


@pytest.mark.parametrize(
    ("out", "folder"),
    [(None, "outputs"), ("figs", "figs"), ("figs/", "figs"), ("new/a.svg", "new"), ("a.png", ".")],
)
def test_the_folder_of_out(out, folder):
    assert folder_of(out) == Path(folder)


@pytest.mark.parametrize(
    ("out", "folder"),
    [("a.png", False), ("a.bmp", False), ("a", True), ("a.png/", True), ("there.png", True)],
)
def test_what_is_a_folder(out, folder):
    assert is_folder(out) is folder


@pytest.mark.parametrize("out", [None, "a.png", "a.PDF", "new/deep/a.svg", "new", "new/", "."])
def test_places_that_will_do(out):
    check_out(out, several=False)
    assert sorted(os.listdir()) == ["file.txt", "there.png"]  # looked at, not made


@pytest.mark.parametrize(
    ("out", "several", "says"),
    [
        ("", False, "--out '' is not a path"),
        ("-", False, "--out '-' is not a path"),
        ("a.bmp", False, "the suffix must be one of .png, .pdf, .svg"),
        ("a.png", True, "there are several images: give a folder"),
        ("file.txt/a.png", False, "file.txt is a file, not a folder"),
        ("file.txt/new/", True, "file.txt is a file, not a folder"),
        ("x" * 300 + "/a.png", False, "File name too long"),
    ],
)
def test_places_that_will_not(out, several, says):
    with pytest.raises(UserError) as caught:
        check_out(out, several)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def target(figure: str, caption: bool, maps: bool) -> OutputPaths:
    path = Path(figure)
    suffixes = (path.suffix, ".npz") if maps else (path.suffix,)
    return OutputPaths(path.parent, path.stem, suffixes, caption)


def test_what_stands_in_the_way_of_a_figure_or_what_goes_beside_it():
    for name in ("maps.npz", "caption.tex"):
        os.mkdir(name)
    Path("paper.tex").write_text("\\documentclass{article}")
    Path("own.png").write_bytes(b"an older figure")
    for figure, caption, maps, says in (
        ("there.png", False, False, "cannot write there.png: it is a folder"),
        ("maps.png", False, True, "cannot write maps.npz: it is a folder"),
        ("caption.pdf", True, False, "cannot write caption.tex: Is a directory"),
        ("paper.svg", True, False, "paper.tex was not written by --caption"),
    ):
        with pytest.raises(UserError) as caught:
            target(figure, caption, maps).check()
        assert says in str(caught.value) and "--out" in str(caught.value)
    target("maps.png", True, False).check()  # not asked for, so not in the way
    target("paper.png", False, True).check()
    target("own.png", True, True).check()
    target("not/made/yet.png", True, True).check()
