"""The images that a COCO or LVIS annotation file names, and their annotated objects."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text, reason
from detr_viz.images.coco_objects import CocoObjects
from detr_viz.images.lists import LINKS, check_count
from detr_viz.images.locate import is_below, locate
from detr_viz.images.names import last_part
from detr_viz.images.search import NamedPaths
from detr_viz.images.text_files import COCO_BYTES, read_bytes

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

_NAMES = ("file_name", "coco_url")  # of an image in COCO files; LVIS has addresses alone


def read_coco(path: str, notes: list[str]) -> tuple[list[str], list[Annotated | None]]:
    """The name of each image as the file has it, and its objects (None: the file has none).

    UserError for what is no COCO file. notes: gets a line where annotations are left out.
    """
    title = path_text(path)
    data = read_bytes(path, title, COCO_BYTES)
    kept = CocoObjects(title)
    try:
        coco = json.loads(data, object_hook=kept.keep)
    except (ValueError, RecursionError) as error:
        why = reason(error)[:120]
        raise UserError(f"{title} is not JSON ({why}): give a COCO annotation file") from None
    entries = coco.get("images") if isinstance(coco, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{title} has no "images", or an empty list: give a COCO annotation file')
    check_count(len(entries), title)
    names = [_name(entry, i, title) for i, entry in enumerate(entries)]
    return names, kept.of_images(entries, coco.get("categories"), path, notes)


def _name(entry: Any, i: int, title: str) -> str:
    given = [entry.get(key) for key in _NAMES] if isinstance(entry, dict) else []
    name = next((one for one in given if isinstance(one, str) and one), None)
    if name is None:
        raise UserError(f"{title}: images[{i}] has no file_name: give a COCO annotation file")
    return name


def from_coco(
    path: str, root: str | None, notes: list[str]
) -> tuple[NamedPaths, list[Annotated | None]]:
    """(path, name) of each image, and its objects. root: where the names of files start."""
    title = path_text(path)
    names, annotated = read_coco(path, notes)
    folder = os.path.dirname(path) if root is None else root
    found = locate(names, folder, title)
    missing = found.missing(names, folder)
    if not any(found.files):
        _refuse(names, title, missing)
    notes += [f"{title}: {missing}"] if missing else []
    notes += [note] if (note := found.note(title)) else []
    files = [file or _at_least(name) for name, file in zip(names, found.files, strict=True)]
    return [(os.path.join(folder, file), file) for file in files], annotated


def _refuse(names: Sequence[str], title: str, missing: str) -> NoReturn:
    """None of the images of a COCO file is there."""
    i = next((i for i, name in enumerate(names) if not is_below(name)), None)
    if i is not None:
        raise UserError(
            f"{title}: images[{i}] has the file_name {names[i][:80]!r}, which does not lead below "
            f"the image folder; {missing}: give the folder of the images as --image-root"
        )
    raise UserError(f"{title}: {missing}: give the folder of the images as --image-root")


def _at_least(name: str) -> str:
    """A path below the image folder for a name without a file; the batch reports it."""
    return name if is_below(name) and not name.startswith(LINKS) else last_part(name)
