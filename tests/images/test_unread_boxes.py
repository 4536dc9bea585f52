"""Files beside images are read for boxes where boxes decide something, else only counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detr_viz.cli.main import main
from detr_viz.images import collect, label_files

XML = (
    "<annotation><size><width>40</width><height>20</height></size><object><name>cat</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """images/ with two photos and labels/ with one YOLO file; both/: a .txt and two .xml files."""
    monkeypatch.chdir(tmp_path)
    for path in ("set/images/a.png", "set/images/b.png", "both/a.png", "both/b.png"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(path)
    Path("set/labels").mkdir()
    Path("set/labels/a.txt").write_text("0 .5 .5 .2 .2\n")
    Path("both/a.txt").write_text("0 .5 .5 .2 .2\n")
    for name in "ab":
        Path(f"both/{name}.xml").write_text(XML)
    return tmp_path


def expanded(word: str, **more: object) -> tuple[list[collect.Input], list[str]]:
    notes: list[str] = []
    return collect.expand([word], notes=notes, **more), notes


def test_they_are_counted_and_not_opened(monkeypatch):
    def opened(*_args: object) -> None:
        raise AssertionError("a file of labels was opened")

    monkeypatch.setattr(label_files, "_read_all", opened)
    images, notes = expanded("set", boxes=False)
    assert [image.annotated for image in images] == [None, None]
    assert notes == ["set: 1 .txt file has the name of an image: --gt reads it as YOLO annotations"]
    images, notes = expanded("both", boxes=False)
    assert len(images) == 2
    assert notes == [
        "both: left out 1 file: 1 is not an image (.txt)",
        "both: 2 .xml files have names of images: --gt reads them as Pascal VOC annotations",
    ]


def test_without_such_files_nothing_is_said():
    Path("plain").mkdir()
    Image.new("RGB", (4, 4)).save("plain/a.png")
    assert expanded("plain", boxes=False)[1] == []


def test_with_boxes_they_are_read():
    images, notes = expanded("set")
    assert [len(image.annotated or ()) for image in images] == [1, 0]
    assert "boxes of 1 of 2 images" in notes[-1]


PLAIN = [
    [],
    ["--list-queries"],
    ["record", "--image", "set", "--out", "maps"],
    ["atlas", "--image", "set"],
]
WITH = [
    ["--gt"],
    ["--queries", "missed"],
    ["--format", "png,html"],
    ["errors", "--image", "set"],
    ["atlas", "--image", "set", "--queries", "wrong-class"],
    ["explore", "--image", "set"],
]


@pytest.mark.parametrize(
    ("words", "boxes"), [(w, False) for w in PLAIN] + [(w, True) for w in WITH], ids=str
)
def test_which_commands_read_them(words, boxes, monkeypatch):
    asked: list[bool] = []

    class Enough(BaseException):
        pass

    def expand(*args: object) -> list[collect.Input]:
        asked.append(bool(args[6]))
        raise Enough

    monkeypatch.setattr(collect, "expand", expand)
    command = words[:1] if words and not words[0].startswith("--") else []
    rest = words[len(command) :]
    rest = rest if "--image" in rest else ["--image", "set", *rest]
    with pytest.raises(Enough):
        main([*command, "--type", "detr", *rest])
    assert asked == [boxes]
