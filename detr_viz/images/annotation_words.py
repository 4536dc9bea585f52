"""What --annotations names: a COCO file, a file about one image, or a folder of such files.

annotate(inputs, "instances.json", notes)      # the same images, with their objects
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.annotated import Annotated, joined
from detr_viz.images.coco import read_coco
from detr_viz.images.label_files import of_files
from detr_viz.images.label_places import KINDS, LABELME, Kind, is_labelme
from detr_viz.images.pairing import pair

if TYPE_CHECKING:
    from detr_viz.images.collect import Input

_CLASS_LISTS = ("classes.txt", "obj.names", "labels.txt")


def annotate(inputs: Sequence[Input], word: str, notes: list[str]) -> list[Input]:
    """The images with the objects that the word has for them; others have none.

    UserError where it cannot be read, or has nothing for any of the images.
    """
    title = f"--annotations {path_text(word)}"
    if os.path.isdir(word):
        found = _of_folder(inputs, word, title, notes)
    elif not os.path.lexists(word):
        raise UserError(f"no file or folder at {title}: check the path")
    elif (kind := _kind_of(word)) is None:
        found = _of_coco(inputs, word, title, notes)
    else:
        alone = len(inputs) == 1  # it is about this one, whatever it is called
        paths = [one.path for one in inputs]
        pairs = [0] if alone else pair(paths, [word], by_stem=True, title=title)
        found = of_files([None if i is None else word for i in pairs], kind, title, notes)
    if all(one is None for one in found):
        raise UserError(
            f"{title} has nothing about {path_text(inputs[0].path)}"
            f"{' or any other image' if len(inputs) > 1 else ''}: files and images are matched "
            "by their names"
        )
    return [replace(one, annotated=own) for one, own in zip(inputs, found, strict=True)]


def _kind_of(path: str) -> Kind | None:
    """The kind of a file about one image; None for a COCO file."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == LABELME.suffix:
        return LABELME if is_labelme(path) else None
    for kind in KINDS:
        if suffix == kind.suffix:
            return kind
    raise UserError(
        f"--annotations {path_text(path)}: give a COCO .json, a YOLO .txt, a Pascal VOC .xml, a "
        "LabelMe .json, or a folder of them"
    )


def _of_coco(
    inputs: Sequence[Input], word: str, title: str, notes: list[str]
) -> list[Annotated | None]:
    names, annotated = read_coco(word, notes)
    if all(one is None for one in annotated):
        raise UserError(f"{title} has no annotations: give a COCO file with boxes")
    of_name: dict[str, list[Annotated]] = {}
    for name, one in zip(names, annotated, strict=True):
        of_name.setdefault(name, []).extend([one] if one is not None else [])
    others = [name for name, parts in of_name.items() if parts]
    pairs = pair([one.path for one in inputs], others, by_stem=False, title=title)
    found = [None if i is None else joined(of_name[others[i]]) for i in pairs]
    boxes = sum(one is not None for one in found)
    notes.append(f"{title}: boxes of {boxes} of {len(inputs)} images from a COCO file")
    return found


def _of_folder(
    inputs: Sequence[Input], word: str, title: str, notes: list[str]
) -> list[Annotated | None]:
    suffixes = {kind.suffix: kind for kind in KINDS}
    files: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for folder, inner, names in os.walk(word):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            kind = suffixes.get(os.path.splitext(name)[1].lower())
            if kind is not None and not name.startswith(".") and name not in _CLASS_LISTS:
                files[kind].append(os.path.join(folder, name))
    paths = [one.path for one in inputs]
    matched = {
        kind: pair(paths, of_kind, by_stem=True, title=title) for kind, of_kind in files.items()
    }
    counts = Counter({kind: sum(i is not None for i in one) for kind, one in matched.items()})
    kind, count = counts.most_common(1)[0]
    if not count:
        return [None] * len(inputs)
    own = [None if i is None else files[kind][i] for i in matched[kind]]
    return of_files(own, kind, title, notes)
