"""Names of classes: COCO's, or those of a file."""

from __future__ import annotations

import os
import stat
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text, printable
from detr_viz.common.regular import open_regular
from detr_viz.detections.class_files import HOLE, LINES, names_in

_MAX_BYTES = 1 << 20  # larger than any list of names: a checkpoint given by mistake is not read
_MAX_JSON_BYTES = 2_000_000_000

# Indexed by COCO category id, ten in a row; 0 and the ten unused ids are holes.
_COCO = """
    N/A, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat,
    traffic light, fire hydrant, N/A, stop sign, parking meter, bench, bird, cat, dog, horse,
    sheep, cow, elephant, bear, zebra, giraffe, N/A, backpack, umbrella, N/A,
    N/A, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
    baseball glove, skateboard, surfboard, tennis racket, bottle, N/A, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza,
    donut, cake, chair, couch, potted plant, bed, N/A, dining table, N/A, N/A,
    toilet, N/A, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
    toaster, sink, refrigerator, N/A, book, clock, vase, scissors, teddy bear, hair drier,
    toothbrush
"""
COCO_NAMES: tuple[str, ...] = tuple(name.strip() for name in _COCO.split(","))


class LabelError(UserError):
    """A list of class names that cannot be used; one line says why."""


@dataclass(frozen=True)
class ClassFile:
    """The names of a class file, by class id, and the kind of the file."""

    names: tuple[str, ...]
    kind: str

    @property
    def note(self) -> str:
        """How many names came from what, holes not counted; "" for plain lines."""
        if self.kind == LINES:
            return ""
        count = sum(name != HOLE for name in self.names)
        return f"{count} class {'name' if count == 1 else 'names'} from {self.kind}"


def load_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a class file; see read_class_file."""
    return read_class_file(path).names


def read_class_file(path: str | os.PathLike[str]) -> ClassFile:
    """Read a class file of any kind in class_files.py; in plain lines, line n names class n from 0.

    UTF-8, with or without a byte order mark, any kind of line ends. Spaces around a name are
    removed; in plain lines a blank line between names is a class without a name ("N/A"), blank
    lines at the end and comments ("# ...") are ignored. Raises LabelError for a file that is
    missing, empty, or not text, and for one that begins as another kind and is damaged.
    """
    path = os.fsdecode(path)
    name = path_text(path)
    data = _read(path, name)
    json_starts = (b"{", b"[")
    if len(data) > _MAX_BYTES and not data.removeprefix(BOM_UTF8).lstrip().startswith(json_starts):
        raise LabelError(f"class file {name} is over 1 MB: give a text file, one name a line")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LabelError(f"class file {name} is not UTF-8 text: save it as UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(data) <= _MAX_BYTES:
        for number, line in enumerate(text.rstrip().split("\n"), start=1):
            if any(unicodedata.category(c) == "Cc" for c in line.replace("\t", " ")):
                raise LabelError(
                    f"class file {name} is not text (control characters in line {number}): "
                    "give a text file, one name a line"
                )
    if not text.strip():
        raise LabelError(f"class file {name} is empty: put one name on each line, class 0 first")
    try:
        names, kind = names_in(text, os.path.splitext(path)[1])
    except ValueError as error:
        raise LabelError(f"class file {name} {printable(error)}") from None
    longest = max(map(len, names), default=0)
    if longest > bound("name"):
        raise LabelError(f"class file {name} has a name of {beyond('name', longest)}")
    for one in names:  # JSON and YAML can write any character as an escape
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in one):
            raise LabelError(f"class file {name} has control characters in the name {one[:40]!r}")
    return ClassFile(names, kind)


def names_for(num_classes: int, custom: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of `num_classes` classes: the custom ones, else COCO's for 91, else "class 0", ...

    num_classes counts real classes, without DETR's no-object. Raises LabelError if the custom list
    has another length.
    """
    if custom is not None:
        if len(custom) != num_classes:
            raise LabelError(
                f"{len(custom)} class names for a model of {num_classes} classes: "
                "name each class, line n for class n from 0, N/A for unused ids"
            )
        return tuple(custom)
    if num_classes == len(COCO_NAMES):
        return COCO_NAMES
    return tuple(f"class {n}" for n in range(num_classes))


def _read(path: str, name: str) -> bytes:
    """The file's content; cut after the largest size (JSON: 2 GB) that is read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LabelError(f"{name} is not a file: give a text file, one class name a line")
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
            if data.removeprefix(BOM_UTF8).lstrip().startswith((b"{", b"[")):
                data += file.read(_MAX_JSON_BYTES)  # annotations of a whole data set
            return data
    except FileNotFoundError:
        raise LabelError(f"no class file at {name}: check the path") from None
    except OSError as error:
        raise LabelError(f"cannot read class file {name}: {error.strerror or error}") from error
    except LabelError:
        raise
    except ValueError as error:  # a null character in the path
        raise LabelError(f"{name} is not a path: {error}") from error
