"""The words of --image: which files they stand for, in which order, under which names."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from detr_viz.cli import arguments
from detr_viz.common.errors import UserError
from detr_viz.images.collect import Input, expand, is_single, shard
from detr_viz.images.read import load_image


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(*names: str) -> None:
    """Empty files: to list images, none need be opened."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths(*words: str, **options) -> list[str]:
    return [os.path.normpath(made.path) for made in expand(words, **options)]


def names(*words: str, **options) -> list[str]:
    return [made.name for made in expand(words, **options)]


def listed(*lines: str) -> str:
    Path("list.txt").write_text("\n".join(lines), encoding="utf-8")
    return "@list.txt"


def coco(*file_names: object, path: str = "coco.json") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({"images": [{"file_name": name} for name in file_names]}))
    return path


def refused(*words: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        expand(words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what a word is ---------------------------------------------------------------------------


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


# ---- folders ----------------------------------------------------------------------------------


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


# ---- the output folder ------------------------------------------------------------------------


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


# ---- patterns ---------------------------------------------------------------------------------


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


# ---- lists ------------------------------------------------------------------------------------


def test_a_list_is_a_path_a_line(here):
    text = "\ufeff# my images\r\nb/cat.jpg\r\n\r\n   a/dog.v2.png \t\n\n  # not this\n"
    text += f"{here}/x/y.jpg\n../up/owl.jpg\nhttp://h/web.png\n./a/../a/fox.jpg\n"
    text += "ein Hund/größer \u2028 日本.jpg\n@odd.jpg"
    Path("list.txt").write_bytes(text.encode())
    assert expand(["@list.txt"]) == [
        Input("b/cat.jpg", "b/cat"),
        Input("a/dog.v2.png", "a/dog.v2"),
        Input(f"{here}/x/y.jpg", "y"),
        Input("../up/owl.jpg", "up/owl"),
        Input("http://h/web.png", "web"),
        Input("./a/../a/fox.jpg", "a/fox"),
        Input("ein Hund/größer \u2028 日本.jpg", "ein Hund/größer _ 日本"),
        Input("@odd.jpg", "@odd"),
    ]


def test_lines_are_files_whatever_signs_they_hold():
    os.mkdir("folder")
    assert paths(listed("*.jpg", "coco.json", "folder")) == ["*.jpg", "coco.json", "folder"]


def test_a_list_starts_at_the_image_root_not_at_its_own_folder(here):
    files("root/x")
    Path("lists").mkdir()
    Path("lists/l.txt").write_text(f"a/cat.jpg\n{here}/b.jpg\nhttps://h/c.jpg\n")
    assert expand(["@lists/l.txt"], image_root="root") == [
        Input("root/a/cat.jpg", "a/cat"),
        Input(f"{here}/b.jpg", "b"),
        Input("https://h/c.jpg", "c"),
    ]
    assert paths("@lists/l.txt")[0] == "a/cat.jpg"


def test_a_list_does_not_come_from_a_pipe():
    """It might never end."""
    os.mkfifo("pipe")
    with pytest.raises(UserError, match="the list pipe: it is a pipe, not a regular file"):
        paths("@pipe")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the list list.txt names no image"),
        (b"\xef\xbb\xbf\r\n \n# a.jpg\n", "the list list.txt names no image"),
        (b"\xff\xd8\xff\xe0 JFIF", "the list list.txt is not UTF-8 text"),
        ("a.jpg\n".encode("utf-16"), "the list list.txt is not UTF-8 text"),
        ("gr\xf6\xdfer.jpg".encode("latin-1"), "the list list.txt is not UTF-8 text"),
        (b"a.jpg\0b.jpg\0", "the list list.txt is not UTF-8 text"),
    ],
)
def test_files_that_are_no_lists(data, says):
    Path("list.txt").write_bytes(data)
    assert refused("@list.txt").startswith(says)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("@gone.txt", "cannot read the list gone.txt: No such file or directory; check the path"),
        ("@folder", "cannot read the list folder: Is a directory; check the path"),
        ("@", "cannot read the list '': No such file or directory; check the path"),
        ("@a\0b", "cannot read the list 'a\\x00b': embedded null byte; check the path"),
        ("gone.json", "cannot read gone.json: No such file or directory; check the path"),
        ("@large", "the list large is larger than 256 MB: split it"),
        ("large.json", "large.json is larger than 2000 MB: split it"),
    ],
)
def test_lists_and_coco_files_that_cannot_be_read(word, says):
    os.mkdir("folder")
    for path, size in (("large", 256_000_001), ("large.json", 2_000_000_001)):
        with open(path, "wb") as file:
            file.truncate(size)  # takes no room
    assert refused(word) == says


# ---- COCO files -------------------------------------------------------------------------------


def test_a_coco_file_names_its_images_in_its_order():
    Path("d").mkdir()
    Path("d/val.JSON").write_text(
        json.dumps(
            {
                "info": {"description": "hand-made", "images": 3},
                "annotations": [{"id": 7, "segmentation": [[0.5, 1e3]], "image_id": 2}] * 3,
                "images": [
                    {"id": 2, "file_name": "val/02.jpg", "height": 4},
                    {"id": 1, "file_name": "./val/x/../01.jpg"},
                    {"id": 3, "file_name": "größer.png", "license": {"id": 1}},
                    {"id": 4, "file_name": "val/02.jpg"},
                ],
                "categories": [{"id": 1, "name": "cat"}],
            }
        ),
        encoding="utf-8-sig",
    )
    places = [f"{top}/{name}" for top in ("d", "root") for name in ("val/02.jpg", "val/01.jpg")]
    files(*places, "d/größer.png", "root/größer.png")
    called = ["val/02", "val/01", "größer"]
    assert names("d/val.JSON") == called
    assert paths("d/val.JSON") == ["d/val/02.jpg", "d/val/01.jpg", "d/größer.png"]
    assert names("d/val.JSON", image_root="root") == called
    assert paths("d/val.JSON", image_root="root")[0] == "root/val/02.jpg"


def test_a_coco_file_beside_its_images():
    files("a.jpg")
    assert expand([coco("a.jpg")]) == [Input("a.jpg", "a")]


@pytest.mark.parametrize(
    "file_name",
    [
        *("/etc/passwd", "//host/x.jpg", "../x.jpg", "a/../../x.jpg", "..", "a/../..", ".", "a/.."),
        *("\\x.jpg", "..\\x.jpg", "a\\..\\..\\x.jpg", "../new\nline.jpg", "../" + "x" * 10_000),
    ],
)
def test_a_coco_file_leads_out_of_no_folder(file_name):
    line = refused(coco("fine.jpg", file_name))
    assert line.startswith("coco.json: images[1] has the file_name ") and len(line) < 400
    assert "--image-root" in line


@pytest.mark.parametrize("file_name", [None, "", 3, ["a.jpg"], {"file_name": "a.jpg"}])
def test_entries_of_a_coco_file_without_a_name(file_name):
    line = refused(coco("fine.jpg", "b.jpg", file_name))
    assert line.startswith("coco.json: images[2] has no file_name")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON (Expecting value"),
        ('{"images": [', "is not JSON (Expecting value"),
        ('{"images": [{"file_name": "a.jpg"}]} x', "is not JSON (Extra data"),
        ("\ufffe\udcff", "is not JSON ("),
        ("[" * 200_000, "is not JSON ("),
        ('{"images": [' + "9" * 10_000 + "]}", "is not JSON ("),
        ("{}", 'has no "images"'),
        ("[]", 'has no "images"'),
        ("3", 'has no "images"'),
        ('[{"image_id": 1, "bbox": []}]', 'has no "images"'),  # a file of results
        ('{"images": []}', 'has no "images"'),
        ('{"images": {"file_name": "a.jpg"}}', 'has no "images"'),
        ('{"images": "a.jpg"}', 'has no "images"'),
        ('{"images": [{"id": 1}]}', "images[0] has no file_name"),
        ('{"images": [null]}', "images[0] has no file_name"),
        ('{"images": ["a.jpg"]}', "images[0] has no file_name"),
    ],
)
def test_json_that_is_no_coco_file(text, says):
    Path("a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    line = refused("a.json")
    assert line.startswith("a.json") and says in line and len(line) < 300


def test_an_image_root_that_has_nothing_to_do_or_is_none():
    files("f/a.jpg")
    for words in (["f"], ["f/a.jpg"], ["f/*"], []):
        assert refused(*words, image_root="f").startswith("--image-root is for an @list")
    for root in ("gone", "f/a.jpg", ""):
        assert "is not a folder: check the path" in refused(listed("a.jpg"), image_root=root)
    assert paths("f", listed("b.jpg"), image_root="f") == ["f/a.jpg", "f/b.jpg"]


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("cat.jpg", "cat"),
        ("cat.v2.jpg", "cat.v2"),
        ("cat", "cat"),
        ("cat.", "cat"),
        (".jpg", "image"),
        ("a/.jpg", "a/image"),
        ("..jpg", "image"),
        ("...jpg", "image"),
        ("..", "image"),
        ("../..", "image"),
        (".cat.jpg", ".cat"),
        ("a.d/b.jpg", "a.d/b"),
        ("a//b/./c.jpg", "a/b/c"),
        ("../../a.jpg", "a"),
        ("a/../../../b/c.jpg", "b/c"),
        ("a\\b\\..\\..\\..\\c.jpg", "c"),
        ("a\tb\x1b[31m\x7f\u202e.jpg", "a_b_[31m__"),
        ("größe 日本 🐈.jpg", "größe 日本 🐈"),
        ("folder/", "folder"),
    ],
)
def test_names_lose_their_suffix_and_lead_downwards(line, name):
    assert names(listed(line)) == [name]


def test_a_name_that_is_no_text_is_made_one():
    os.close(os.open(b"\xff\xfe.jpg", os.O_CREAT))
    assert names(".") == ["__"]
    files("a.jpg")
    assert names(coco("a.jpg", "\ud800.jpg")) == ["a", "_"]


@pytest.mark.parametrize(
    ("lines", "called"),
    [
        (["a/cat.jpg", "b/cat.jpg"], ["a/cat", "b/cat"]),
        (["cat.jpg", "cat.png", "cat.gif"], ["cat", "cat-2", "cat-3"]),
        (["cat.jpg", "CAT.jpg", "Cat.jpg"], ["cat", "CAT-2", "Cat-3"]),
        (["cat.jpg", "cat.png", "cat-2.jpg"], ["cat", "cat-2", "cat-2-2"]),
        (["cat-2.jpg", "cat.jpg", "cat.png", "cat.gif"], ["cat-2", "cat", "cat-3", "cat-4"]),
        (["CAT-2.jpg", "cat.jpg", "cat.png"], ["CAT-2", "cat", "cat-3"]),
        (["straße.jpg", "STRASSE.jpg"], ["straße", "STRASSE-2"]),
        (["é.jpg", "e\u0301.jpg"], ["é", "e\u0301-2"]),
        (["a/x.jpg", "A/x.jpg"], ["a/x", "A/x-2"]),
        (["a\tb.jpg", "a_b.jpg"], ["a_b", "a_b-2"]),
        ([".jpg", ".png", "image.jpg"], ["image", "image-2", "image-3"]),
    ],
)
def test_no_two_images_share_a_name(lines, called):
    assert names(listed(*lines)) == called


def test_a_hundred_thousand_cats():
    # tried one number after another from 2, the names would take hours
    made = names(listed(*(f"/{i}/cat.jpg" for i in range(100_000)), "/x/cat-7.jpg"))
    assert made[:2] == ["cat", "cat-2"] and made[99_999] == "cat-100000"
    assert made[100_000] == "cat-7-2" and len(set(made)) == 100_001


# ---- parts of a batch -------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 12])
def test_the_parts_of_a_batch_are_all_of_it(parts):
    inputs = [Input(f"{i}.jpg", str(i)) for i in range(10)]
    dealt = [shard(inputs, part, parts) for part in range(parts)]
    assert sorted(chain(*dealt), key=inputs.index) == inputs
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert all(part == sorted(part, key=inputs.index) for part in dealt)


def test_a_part_takes_every_nth():
    inputs = [Input(f"{i}.jpg", str(i)) for i in range(10)]
    assert [made.name for made in shard(inputs, 1, 4)] == ["1", "5", "9"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0/1", (0, 1)), ("3/4", (3, 4)), ("00/08", (0, 8)), ("999999/1000000", (999_999, 1_000_000))],
)
def test_shards(text, meant):
    assert arguments.shard(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "1", "1/", "/4", "4/4", "5/4", "0/0", "-1/4", "0/-4", "1/4/2", "1 / 4", "a/b"),
        *("0.5/4", "1/1000001", "0/99999999", "0/1e3", "²/4", "9" * 10_000 + "/2", "1\\4", "1/4\n"),
    ],
)
def test_what_is_no_shard(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a part of a batch") as caught:
        arguments.shard(text)
    assert len(str(caught.value)) < 150 and "\n" not in str(caught.value)


def test_nothing_heavy_is_imported_before_a_folder_is_searched():
    code = (
        "import sys, detr_viz.common.progress; from detr_viz.images import collect\n"
        "collect.expand(['a.jpg', '@l.txt'])\n"
        "print([m for m in ('PIL', 'numpy', 'torch', 'matplotlib', 'tqdm') if m in sys.modules])"
    )
    listed("b.jpg")
    Path("list.txt").rename("l.txt")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
