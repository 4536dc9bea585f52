"""Images of @lists and COCO files, the names of their figures, and parts of a batch."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT
from input_tools import coco, files, listed, names, paths, refused

from detr_viz.cli import arguments
from detr_viz.common.errors import UserError
from detr_viz.images.collect import Input, expand, shard

pytestmark = pytest.mark.usefixtures("here")


# ---- lists -------------------------------------------------------------------------------------


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


# ---- COCO files --------------------------------------------------------------------------------


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


# ---- names -------------------------------------------------------------------------------------


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


# ---- parts of a batch --------------------------------------------------------------------------


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
