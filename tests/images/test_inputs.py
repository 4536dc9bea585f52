"""The words of --image: which files they stand for, in which order, under which names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from input_tools import coco, files, listed, names, paths, refused
from PIL import Image

from detr_viz.common.errors import UserError
from detr_viz.images.collect import Input, expand, is_single
from detr_viz.images.read import load_image

pytestmark = pytest.mark.usefixtures("here")


# ---- what a word is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "single"),
    [
        (["cat.jpg"], True),
        (["missing/cat.jpg"], True),
        (["a[1].jpg"], True),  # there is such a file
        (["dangling*.jpg"], True),  # a link is there, though it leads nowhere
        (["http://host/cat.jpg?size=2"], True),
        (["https://host/coco.json"], True),
        (["./@cat.jpg"], True),
        ([""], True),
        (["cat.jpg", "dog.jpg"], False),
        ([], False),
        (["folder"], False),
        (["odd.json"], False),
        (["a[2].jpg"], False),
        (["*.jpg"], False),
        (["ca?.jpg"], False),
        (["@list.txt"], False),
        (["@cat.jpg"], False),
        (["missing.JSON"], False),
    ],
)
def test_one_image_is_told_from_all_that_may_be_several(words, single):
    files("cat.jpg", "@cat.jpg", "a[1].jpg", "folder/x.jpg", "odd.json/x.jpg")
    os.symlink("nowhere", "dangling*.jpg")
    assert is_single(words) is single


def test_files_are_kept_as_they_were_given_also_where_there_are_none(here):
    words = ["b/../cat.jpg", "gone/dog.v2.PNG", str(here / "x.jpg"), "http://h/a/owl.jpg?w=2", "c["]
    files("cat.jpg", "c[")
    assert expand(words) == [
        Input("b/../cat.jpg", "cat"),
        Input("gone/dog.v2.PNG", "dog.v2"),
        Input(str(here / "x.jpg"), "x"),
        Input("http://h/a/owl.jpg?w=2", "owl"),
        Input("c[", "c["),
    ]


def test_no_words_are_no_images():
    assert expand([]) == []


def test_words_of_all_kinds_in_their_order_and_each_file_once(here):
    files("one.jpg", "f/b.jpg", "f/a.jpg", "g/c.png", "d/e.jpg")
    words = ["g/*.png", "one.jpg", "f", str(here / "f" / "a.jpg"), listed("./one.jpg", "d/e.jpg")]
    words += [coco("e.jpg", "z.jpg", path="d/coco.json"), "f/"]
    assert expand(words) == [
        Input("g/c.png", "c"),
        Input("one.jpg", "one"),
        Input("f/a.jpg", "a"),
        Input("f/b.jpg", "b"),
        Input("d/e.jpg", "d/e"),
        Input("d/z.jpg", "z"),
    ]


# ---- folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["f", "f/", "./f", "{here}/f"])
def test_a_folder_is_searched_to_its_depths_in_one_order(here, word):
    files("f/b.jpg", "f/b/z.JPG", "f/b/a/y.webp", "f/B.png", "f/10.tiff", "f/9.bmp", "f/b-c/x.gif")
    files("f/notes.txt", "f/jpg", "f/coco.json", "f/c.jpg.part")
    word = word.format(here=here)
    found = expand([word])
    # by parts: the folder b comes before b-c and the file b.jpg, though "-" and "." before "/"
    assert [made.name for made in found] == ["10", "9", "B", "b/a/y", "b/z", "b-c/x", "b-2"]
    assert [os.path.relpath(made.path, "f") for made in found] == [
        *("10.tiff", "9.bmp", "B.png", "b/a/y.webp", "b/z.JPG", "b-c/x.gif", "b.jpg"),
    ]
    assert all(made.path.startswith(word.rstrip("/") + "/") for made in found)


def test_the_order_is_not_that_of_the_file_system(monkeypatch):
    files(*(f"f/{folder}/{i}.png" for folder in "cab" for i in range(9)))
    straight = paths("f")
    walk = os.walk

    def backwards(top, **options):
        for folder, inner, inside in walk(top, **options):
            inner.sort(reverse=True)
            yield folder, inner, sorted(inside, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert paths("f") == straight == [f"f/{folder}/{i}.png" for folder in "abc" for i in range(9)]


def test_hidden_files_and_folders_are_left_out_but_for_a_folder_that_is_named():
    files("f/a.jpg", "f/.b.jpg", "f/.jpg", "f/.git/c.jpg", "f/d/.e/f/g.jpg", ".h/i.jpg")
    assert paths("f") == ["f/a.jpg"]
    assert paths(".h") == [".h/i.jpg"]
    assert paths(".") == ["f/a.jpg"]


def test_links_to_folders_are_not_followed_links_to_files_are(here):
    files("f/a.jpg", "f/sub/b.jpg", "else/c.jpg")
    os.symlink(here / "f", "f/sub/loop")
    os.symlink(here / "else", "f/else")
    os.symlink(here / "else/c.jpg", "f/d.jpg")
    os.symlink("nowhere", "f/e.jpg")  # the batch will tell
    os.symlink("f", "linked")
    assert paths("f") == ["f/a.jpg", "f/d.jpg", "f/e.jpg", "f/sub/b.jpg"]
    assert names("linked") == ["a", "d", "e", "sub/b"]
    # glob alone goes round the loop forty times
    assert paths("f/**/*.jpg") == ["f/a.jpg", "f/d.jpg", "f/e.jpg", "f/sub/b.jpg"]
    assert paths("f/**") == ["f/a.jpg", "f/d.jpg", "f/e.jpg", "f/sub/b.jpg"]
    assert paths("f/*") == ["f/a.jpg", "f/d.jpg", "f/e.jpg", "f/else/c.jpg", "f/sub/b.jpg"]


def test_what_is_taken_for_an_image_can_be_read():
    known = Image.registered_extensions()
    files(*(f"f/a{suffix}" for suffix in known))
    taken, written = paths("f"), set()
    for path in taken:
        kind = known[Path(path).suffix]
        for mode in ("RGB", "L", "1", "P") if kind in Image.SAVE else ():
            with suppress(OSError, ValueError):  # no format takes all modes
                Image.new(mode, (8, 6)).save(path, format=kind)
                written.add(path)
                break
    assert {load_image(path).hw for path in written} == {(6, 8)} and len(written) > 20
    common = "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff ppm pgm pbm pnm tga jp2 mpo psd"
    assert {f"f/a.{suffix}" for suffix in common.split()} <= set(taken)


NOT_MEANT = """
    eps ps pdf mpg mpeg h5 hdf grib bufr wmf emf fit fits ico icns cur gbr iim pcd palm im
    svg txt json npz tex xml mp4
"""


@pytest.mark.parametrize("suffix", NOT_MEANT.split())
def test_what_no_folder_is_searched_for(suffix):
    files("f/kept.png", f"f/a.{suffix}", f"f/b.{suffix.upper()}")
    assert paths("f") == ["f/kept.png"]
    assert paths("f/[ab].*") == [f"f/a.{suffix}", f"f/b.{suffix.upper()}"]  # asked for, though


def test_folders_without_images():
    files("f/notes.txt", "f/.hidden.jpg")
    os.mkdir("new\nline")
    assert refused("f").startswith("no images in f: ")
    assert refused("new\nline").startswith("no images in 'new\\nline': ")


def test_a_folder_that_cannot_be_read_is_not_passed_over(monkeypatch):
    files("f/a.jpg", "f/sub/b.jpg")
    scandir = os.scandir

    def closed(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)  # root may read all, so mode 0 would not do
    assert refused("f").startswith("cannot search f/sub: Permission denied; ")


# ---- the output folder -------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["f/figs", "{here}/f/figs", "f/../f/figs/", "link/figs"])
@pytest.mark.parametrize("word", ["f", "f/**/*.png", "f/**", "f/*", "f/*/*.png"])
def test_the_output_folder_is_left_out_of_what_it_lies_in(here, word, out):
    files(
        "f/sub/a.png", "f/figs/a_detr.png", "f/figs/deep/b.png", "f/figs2/c.png", "f/sub/figs/d.png"
    )
    os.symlink("f", "link")
    found = set(paths(word, skip=Path(out.format(here=here))))
    deeper = {"f/sub/figs/d.png"} if word != "f/*/*.png" else set()
    assert found == {"f/sub/a.png", "f/figs2/c.png"} | deeper


def test_an_output_folder_that_is_elsewhere_or_not_there_yet_takes_nothing_away():
    files("f/a.png", "g/b.png")
    for out in ("g", "f/new", "new", "f2", "."):
        assert paths("f", skip=Path(out)) == ["f/a.png"]
    assert paths("g/b.png", skip=Path("g")) == ["g/b.png"]  # a file by name is as good as ever


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["f"], "f"),
        (["f"], "link"),
        (["h"], "h"),
        (["."], "."),
        (["one.jpg", "f/"], "f"),
        (["f", "f/sub"], "f/sub"),
        (["f/*.png"], "f"),
        (["*.png"], "."),
        (["f", "g"], "."),  # g/f/x.png is called f/x, and its figure would land in f
    ],
)
def test_figures_among_the_images_would_be_images_of_the_next_run(words, out):
    files("one.jpg", "two.png", "f/a.png", "f/sub/b.png", "g/f/x.png", "h/c.jpg")
    os.symlink("f", "link")
    line = refused(*words, skip=Path(out))
    assert line.startswith(f"--out {out} puts figures among the images of ")
    assert line.endswith("choose an --out outside or below it")


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["f/*.jpg"], "f"),  # figures are .png
        (["f"], "."),  # a figure called a_... lands beside f
        (["f"], "f/figs"),
        (["f/c.png"], "f"),
        (["@list.txt"], "f"),
    ],
)
def test_places_where_figures_are_in_nobodys_way(words, out):
    files("f/a.jpg", "f/c.png")
    listed("f/a.jpg")
    assert expand(words, skip=Path(out))


def test_figures_of_another_format_may_be_found_again():
    files("f/a.jpg")
    with pytest.raises(UserError, match="puts figures among the images"):
        expand(["f/*.jpg"], skip=Path("f"), figures=(".jpg",))


# ---- patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found", "called"),
    [
        ("f/*.jpg", ["f/a1.jpg", "f/a2.jpg"], ["a1", "a2"]),
        ("f/a?.jpg", ["f/a1.jpg", "f/a2.jpg"], ["a1", "a2"]),
        ("f/a[2-9].jpg", ["f/a2.jpg"], ["a2"]),
        ("*/a1.jpg", ["f/a1.jpg", "g/a1.jpg"], ["f/a1", "g/a1"]),
        ("*.jpg", ["top.jpg"], ["top"]),
        ("./*.jpg", ["top.jpg"], ["top"]),
        ("{here}/f/*.jpg", ["{here}/f/a1.jpg", "{here}/f/a2.jpg"], ["a1", "a2"]),
        ("**/a1.jpg", ["f/a1.jpg", "f/s/t/a1.jpg", "g/a1.jpg"], ["f/a1", "f/s/t/a1", "g/a1"]),
        ("f/**/t/*.jpg", ["f/s/t/a1.jpg"], ["s/t/a1"]),
        ("f/**/s/**/*.jpg", ["f/s/t/a1.jpg"], ["s/t/a1"]),
        ("f/*/**/*.jpg", ["f/s/t/a1.jpg"], ["s/t/a1"]),
        ("f/s/*", ["f/s/n.txt", "f/s/t/a1.jpg"], ["n", "t/a1"]),  # t is a folder: searched
        ("?", ["f/a1.jpg", "f/a2.jpg", "f/s/t/a1.jpg", "g/a1.jpg"], None),
        ("f/.*.jpg", ["f/.h.jpg"], [".h"]),
    ],
)
def test_patterns(here, pattern, found, called):
    files("top.jpg", "f/a2.jpg", "f/a1.jpg", "f/.h.jpg", "f/s/t/a1.jpg", "f/s/n.txt", "g/a1.jpg")
    files(".x/a1.jpg")
    found = [path.format(here=here) for path in found]
    assert paths(pattern.format(here=here)) == found
    if called:
        assert names(pattern.format(here=here)) == called


def test_names_that_hold_the_signs_of_patterns():
    files("a[1].jpg", "a1.jpg", "what?.jpg", "f[1]/b.jpg", "f[1]/c/*.jpg", "f1/no.jpg")
    assert paths("a[1].jpg") == ["a[1].jpg"]
    assert paths("what?.jpg") == ["what?.jpg"]
    assert paths("f[1]") == ["f[1]/b.jpg", "f[1]/c/*.jpg"]
    assert names("f[1]/*.jpg") == ["b"]
    assert names("f[1]/c/*.jpg") == ["*"]
    assert paths("a[12].jpg") == ["a1.jpg"]


@pytest.mark.parametrize("pattern", ["*.jpg", "no[.jpg", "gone/*.jpg", "f/**/*.jpg", "**/\n*"])
def test_patterns_that_match_nothing(pattern):
    files("f/a.png", "f/.b.jpg")
    assert refused(pattern).startswith("no images in ")
