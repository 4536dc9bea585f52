"""Where figures go: paths for images, and places that cannot be written, before time is spent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detr_viz.errors import UserError
from detr_viz.targets import check_out, check_target, is_folder, output_paths


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "there.png").mkdir()
    return tmp_path


def named(images: list[str], out: str | None = None) -> list[str]:
    return [str(path) for path in output_paths(images, "detr_all", out)]


def test_a_figure_is_called_after_its_image():
    assert named(["photos/cat.jpg"]) == ["outputs/cat_detr_all.png"]
    assert named(["cat.v2.jpg"], "figs") == ["figs/cat.v2_detr_all.png"]
    assert named(["cat.jpg"], "new/a.SVG") == ["new/a.SVG"]


def test_images_of_one_name_do_not_share_a_figure():
    images = ["a/cat.jpg", "b/cat.jpg", "c/cat-2.jpg", "d/cat.png"]
    assert named(images, "figs/") == [
        "figs/cat_detr_all.png",
        "figs/cat-2_detr_all.png",
        "figs/cat-2-2_detr_all.png",
        "figs/cat-3_detr_all.png",
    ]


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
        ("", False, "--out '' is no place"),
        ("-", False, "--out '-' is no place"),
        ("a.jpg", False, "the suffix must be one of .png, .pdf, .svg"),
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
            check_target(Path(figure), caption, maps)
        assert says in str(caught.value) and "--out" in str(caught.value)
    check_target(Path("maps.png"), True, False)  # not asked for, so not in the way
    check_target(Path("paper.png"), False, True)
    check_target(Path("own.png"), True, True)
    check_target(Path("not/made/yet.png"), True, True)
