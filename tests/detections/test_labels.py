"""Names of classes: the official ids, and files as people write them."""

import os
import zipfile

import pytest

from detr_viz.common.errors import UserError
from detr_viz.detections.labels import COCO_NAMES, LabelError, load_class_names, names_for


def write(tmp_path, data):
    path = tmp_path / "classes.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refusal(path):
    with pytest.raises(LabelError) as caught:
        load_class_names(path)
    message = str(caught.value)
    assert isinstance(caught.value, UserError) and message.isprintable()
    return message


def test_coco_ids():
    assert len(COCO_NAMES) == 91
    holes = [n for n, name in enumerate(COCO_NAMES) if name == "N/A"]
    assert holes == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert len(set(COCO_NAMES)) == 81  # 80 classes and the hole
    assert all(name == name.strip() and name for name in COCO_NAMES)
    known = {
        1: "person", 3: "car", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
        17: "cat", 18: "dog", 25: "giraffe", 27: "backpack", 31: "handbag", 44: "bottle",
        46: "wine glass", 62: "chair", 63: "couch", 65: "bed", 67: "dining table", 70: "toilet",
        72: "tv", 75: "remote", 77: "cell phone", 82: "refrigerator", 84: "book", 90: "toothbrush",
    }  # fmt: skip
    assert {n: COCO_NAMES[n] for n in known} == known


@pytest.mark.parametrize(
    "data",
    [
        "cat\ndog\nred fox\n",
        "cat\ndog\nred fox",
        "cat\ndog\nred fox\n\n \n\t\n",
        "cat\r\ndog\r\nred fox\r\n",
        "cat\rdog\rred fox\r",
        "\ufeffcat\ndog\nred fox\n",
        "  cat \n\tdog\nred \t fox\n",
    ],
)
def test_line_n_names_class_n(tmp_path, data):
    path = write(tmp_path, data)
    assert load_class_names(path) == ("cat", "dog", "red fox")
    assert load_class_names(str(path)) == ("cat", "dog", "red fox")


def test_blank_lines_between_names_are_holes(tmp_path):
    assert load_class_names(write(tmp_path, "\ncat\n\ndog\n\n")) == ("N/A", "cat", "N/A", "dog")


def test_names_beyond_ascii(tmp_path):
    # U+2028 ends a line for str.splitlines, not in a text file
    names = ("猫", "chien d'été", "a\u2028b".replace("\u2028", " "), "🐶")
    assert load_class_names(write(tmp_path, "猫\nchien d'été\na\u2028b\n🐶\n")) == names


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "empty"),
        (b"\n \r\n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
        ("été".encode("latin-1"), "UTF-8"),
        ("cat\ndog\n".encode("utf-16"), "UTF-8"),
        (b"cat\nd\0g\n", "line 2"),
        (b"cat\n\x1b[31mdog\n", "line 2"),
        (b"cat\n" * 300_000, "1 MB"),
    ],
)
def test_files_that_are_no_lists_of_names(tmp_path, data, word):
    path = write(tmp_path, data)
    message = refusal(path)
    assert word in message and str(path) in message


def test_a_checkpoint_given_by_mistake(tmp_path):
    path = tmp_path / "classes.txt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(range(256)))
    assert str(path) in refusal(path)


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    assert str(tmp_path / "gone.txt") in refusal(tmp_path / "gone.txt")
    assert "not a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it would wait for ever
    assert "not a file" in refusal(tmp_path / "pipe")
    assert "''" in refusal("")
    assert "a\\nb" in refusal("a\nb")
    assert "\\x00" in refusal("a\0b")
    assert "xxx" in refusal("x" * 5000)
    path = write(tmp_path, "cat")

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", fail)
    message = refusal(path)
    assert "Permission denied" in message and str(path) in message


def test_names_for():
    assert names_for(91) == COCO_NAMES
    assert names_for(3) == ("class 0", "class 1", "class 2")
    assert names_for(2, ["cat", "dog"]) == ("cat", "dog")
    assert names_for(91, ["x"] * 91) == ("x",) * 91
    for count in (1, 3):
        with pytest.raises(LabelError, match=rf"^{count} class names .* 2 classes") as caught:
            names_for(2, ["cat"] * count)
        assert str(caught.value).isprintable()
