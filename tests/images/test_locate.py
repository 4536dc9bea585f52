"""Names of another machine in lists and COCO files: found by their last parts, or one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_viz.common.errors import UserError
from detr_viz.images import locate
from detr_viz.images.collect import expand


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def written(kind: str, entries: list) -> str:
    """A COCO file or an @list of names; a mapping is an image of the COCO file as it is."""
    if kind == "list":
        Path("names.txt").write_text("\n".join(entries), encoding="utf-8")
        return "@names.txt"
    images = [one if isinstance(one, dict) else {"id": 1, "file_name": one} for one in entries]
    Path("ann.json").write_text(json.dumps({"images": images, "annotations": []}))
    return "ann.json"


LVIS = {"id": 9, "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg"}
FOUND = {
    "another case": ("Train/IMG_1.JPG", ["train/img_1.jpg"], "train/img_1.jpg"),
    # what the file says: (the files that are there, what it leads to)
    "backslashes": ("val\\1.jpg", ["val/1.jpg", "train/1.jpg"], "val/1.jpg"),
    "windows drive": (r"C:\Users\bob\data\val\1.jpg", ["val/1.jpg", "train/1.jpg"], "val/1.jpg"),
    "windows drive, slashes": ("D:/data/1.jpg", ["val/1.jpg"], "val/1.jpg"),
    "windows share": (r"\\server\share\val\1.jpg", ["val/1.jpg"], "val/1.jpg"),
    "absolute": ("/mnt/disk/coco/val/1.jpg", ["val/1.jpg", "train/1.jpg"], "val/1.jpg"),
    "absolute, here flat": ("/mnt/disk/coco/val/1.jpg", ["1.jpg"], "1.jpg"),
    "dotted": ("./data/val/1.jpg", ["val/1.jpg", "train/1.jpg"], "val/1.jpg"),
    "parents": ("../../data/val/1.jpg", ["val/1.jpg"], "val/1.jpg"),
    "parents within": ("a/../../../val/1.jpg", ["val/1.jpg"], "val/1.jpg"),
    "flattened": ("val/day/1.jpg", ["1.jpg"], "1.jpg"),
    "flattened into the name": ("val/day/1.jpg", ["val_day_1.jpg"], "val_day_1.jpg"),
    "flattened with dashes": ("val/day/1.jpg", ["imgs/day-1.jpg"], "imgs/day-1.jpg"),
    "deeper": ("1.jpg", ["images/val/1.jpg"], "images/val/1.jpg"),
    "percent": ("val/my%20cat%231.jpg", ["val/my cat#1.jpg"], "val/my cat#1.jpg"),
    "address": ("https://host/a/val/my%20cat.jpg?x=1", ["val/my cat.jpg"], "val/my cat.jpg"),
    "file address": ("file:///C:/data/val/1.jpg", ["val/1.jpg"], "val/1.jpg"),
    "composed letters": ("/data/e\u0301t\u00e9.jpg", ["\u00e9te\u0301.jpg"], "\u00e9te\u0301.jpg"),
    "other folders": ("/data/val/1.jpg", ["images/1.jpg"], "images/1.jpg"),
}


@pytest.mark.parametrize("rooted", [True, False])
@pytest.mark.parametrize("kind", ["coco", "list"])
@pytest.mark.parametrize("case", FOUND)
def test_names_are_found_by_their_last_parts(here, case, kind, rooted):
    name, present, expected = FOUND[case]
    root = "root/" if rooted else ""
    files(*(root + one for one in present), root + "z.jpg", "../outside/val/1.jpg", ".h/1.jpg")
    notes: list[str] = []
    first, second = expand(
        [written(kind, ["z.jpg", name])], image_root="root" if rooted else None, notes=notes
    )
    assert Path(first.path) == Path(root + "z.jpg") and first.name == "z"
    assert Path(second.path) == Path(root + expected)
    assert second.name == expected.rpartition(".")[0]
    assert len(notes) == 1
    assert all("found by the last parts" in note and repr(name)[1:9] in note for note in notes)


def test_addresses_alone_as_in_lvis():
    files("train2017/000000391895.jpg", "val2017/000000391895.jpg")
    for root, expected in ((None, "train2017/"), ("train2017", "train2017/")):
        notes: list[str] = []
        (found,) = expand([written("coco", [LVIS])], image_root=root, notes=notes)
        assert found.path.endswith(f"{expected}000000391895.jpg") and len(notes) == 1
        assert "val2017" not in found.path


def refused(word: str, root: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        expand([word], image_root=root)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 600 and "--image-root" in line
    return line


@pytest.mark.parametrize("kind", ["coco", "list"])
def test_several_files_for_a_name_are_named(kind):
    files("a/1.jpg", "b/1.jpg")
    line = refused(written(kind, ["/data/c/1.jpg"]))
    assert "'/data/c/1.jpg' may be any of 2 files (a/1.jpg, b/1.jpg)" in line


@pytest.mark.parametrize("kind", ["coco", "list"])
def test_one_file_for_several_names_is_not_taken(kind):
    files("1.jpg")
    line = refused(written(kind, ["train/1.jpg", "val/1.jpg"]))
    assert "'train/1.jpg' and 'val/1.jpg' are both found at 1.jpg" in line
    same = expand([written(kind, ["1.jpg", "/data/val/1.jpg"])])  # may well be one image
    assert [one.name for one in same] == ["1"]


def test_a_missing_file_is_not_one_of_another_class():
    files("n01/1.jpg", "n01/2.jpg", "n02/3.jpg")
    notes: list[str] = []
    found = expand([written("list", ["n01/1.jpg", "n02/2.jpg"])], notes=notes)
    assert [one.path for one in found] == ["n01/1.jpg", "n02/2.jpg"]
    assert notes == [
        "the list names.txt: 1 of 2 images is not there: 'n02/2.jpg' "
        "(tried the names and their last parts below .)"
    ]


NAMES = [f"/data/val/{i}.jpg" for i in range(5)]
TRIED = "not there: '/data/val/0.jpg', '/data/val/1.jpg', '/data/val/2.jpg', ... (tried the names"


def test_a_coco_file_without_one_image_is_refused():
    files("images/cat.jpg")
    assert TRIED in refused(written("coco", NAMES))
    assert "5 of 5 images are" in refused(written("coco", [f"{i}.jpg" for i in range(5)]), "images")


@pytest.mark.parametrize("kind", ["coco", "list"])
def test_names_that_are_not_found_are_in_a_line_and_fail_later(kind):
    files("cat.jpg")
    notes: list[str] = []
    found = expand([written(kind, ["cat.jpg", *NAMES])], notes=notes)
    assert len(found) == 6 and len(notes) == 1 and TRIED in notes[0]
    assert "5 of 6 images are" in notes[0]


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "..\\secret.jpg", "{up}/secret.jpg"]
)
def test_nothing_outside_the_image_folder_is_read(here, name):
    files("../secret.jpg", "cat.jpg")
    word = written("coco", ["cat.jpg", name.format(up=here.parent)])
    for one in expand([word]):
        assert Path(one.path).resolve().is_relative_to(here)
        assert ".." not in Path(one.path).parts


def test_a_folder_of_too_many_files_is_not_searched(monkeypatch):
    files("a/1.jpg", "2.jpg")
    monkeypatch.setattr(locate, "_MOST_FILES", 1)
    assert "(tried the names alone below ." in refused(written("coco", ["/data/1.jpg"]))


@pytest.mark.parametrize("word", ["names.json", "@names.json"])
def test_a_pointer_of_git_lfs_is_no_list(word):
    Path("names.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(UserError, match="git-lfs pointer, not the file itself: run git lfs pull"):
        expand([word])
