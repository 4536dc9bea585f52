"""From the words of --image (files, folders, patterns, @lists, COCO files) to a list of images.

Only lists and COCO files are opened. A missing or broken image is reported later, when the batch
reads it.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError
from detr_viz.common.file_kinds import HEAD_BYTES, kind_of
from detr_viz.common.files import path_text, reason
from detr_viz.common.regular import open_regular, own_descriptor, read_stream
from detr_viz.images.locate import is_below, locate
from detr_viz.images.names import STATE_FOLDER, last_part, output_name, unique_name
from detr_viz.images.search import NamedPaths, path_below, search_images

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

_KEPT = {"images", "file_name", "coco_url"}
_LIST_BYTES, _COCO_BYTES = 256_000_000, 2_000_000_000
_LINKS = ("http://", "https://")
_NAMES = ("file_name", "coco_url")  # of an image in COCO files; LVIS has addresses alone


@dataclass(frozen=True, slots=True)
class Input:
    """One image of a batch.

    path: of the file, as the user gave it: absolute, or relative to the working directory.
    name: that output files start with: no suffix, "/" between folders. No two images of a list
    have the same name, even where a file system ignores case. It has no ".." parts.
    annotated: its objects, where the word of --image was an annotation file.
    """

    path: str
    name: str
    annotated: Annotated | None = field(default=None, compare=False)


def is_single(words: Sequence[str]) -> bool:
    """Whether the words name one image, and no folder, pattern, @list or COCO file."""
    return len(words) == 1 and _kind(words[0]) == "file"


def expand(
    words: Iterable[str],
    image_root: str | None = None,
    skip: str | Path | None = None,
    notes: list[str] | None = None,
    figures: Sequence[str] = (".png",),
) -> list[Input]:
    """The images that the words name, in their order, each file once.

    image_root: the folder of relative lines of @lists and of file names in COCO files (default:
    the working directory for lists, the file's own folder for COCO).
    skip: the output folder; a search in a folder or with a pattern leaves its files out.
    notes: gets a line for each folder of which files were left out, and for names that were
    found elsewhere.
    figures: suffixes of the files that the run writes there.
    Raises UserError for a word without images or that cannot be read, for an image_root that is
    not a folder or not needed, and for a `skip` where new figures would be among the images.
    """
    inputs: list[Input] = []
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    searched: list[str] = []
    notes = [] if notes is None else notes
    kinds = [(word, _kind(word)) for word in words]
    _check_root(image_root, {kind for _, kind in kinds})
    for word, kind in kinds:
        if kind in ("folder", "pattern"):
            images, top, others = search_images(word, kind, skip)
            notes += [others] if others else []
            # a pattern such as *.jpg does not find figures that are .png files again
            again = any(path.lower().endswith(tuple(figures)) for path, _ in images)
            if kind == "folder" or again:
                searched.append(top)
        elif kind == "list":
            images = _from_list(word[1:], image_root, notes)
        elif kind == "coco":
            images = _from_coco(word, image_root, notes)
        else:
            images = [(word, last_part(word))]
        for path, name in images:
            if (absolute := os.path.abspath(path)) not in seen:
                seen.add(absolute)
                inputs.append(Input(path, unique_name(output_name(name), numbers)))
    if skip is not None:
        _check_skip(inputs, searched, skip)
        _check_swept(inputs, skip)
    return inputs


def shard(inputs: Sequence[Input], part: int, parts: int) -> list[Input]:
    """Every `parts`-th image from number `part`, counted from 0, in order."""
    return list(inputs[part::parts])


def _kind(word: str) -> str:
    if word.startswith(_LINKS):  # may have a ?; load_image says that it must be downloaded
        return "file"
    if word.startswith("@"):
        return "list"
    if os.path.isdir(word):
        return "folder"
    if word.lower().endswith(".json"):
        return "coco"
    return "pattern" if glob.has_magic(word) and not os.path.lexists(word) else "file"


def _check_root(image_root: str | None, kinds: set[str]) -> None:
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"--image-root {path_text(image_root)} is not a folder: check the path")
    if image_root is not None and not kinds & {"list", "coco"}:
        raise UserError("--image-root is for an @list or a COCO .json file: leave it out")


def _check_skip(inputs: Sequence[Input], searched: Sequence[str], out: str | Path) -> None:
    """UserError if a figure would be written to a folder that is searched for images."""
    for folder in searched:
        within = path_below(folder, out)
        start = f"{within}/" if within else ""
        if within is not None and any(image.name.startswith(start) for image in inputs):
            raise UserError(
                f"--out {path_text(out)} puts figures among the images of "
                f"{path_text(folder or '.')}, "
                "and the next run would take them for images: choose an --out outside or below it"
            )


def _check_swept(inputs: Sequence[Input], out: str | Path) -> None:
    """UserError for an image in the hidden folder of a run, which each run empties."""
    folders = {os.path.dirname(image.path): image.path for image in inputs}
    for folder, path in folders.items():
        within = path_below(folder, out) or ""
        first = within.split("/")[0]
        if first == STATE_FOLDER or first.startswith(f"{STATE_FOLDER}-"):  # of a shard
            raise UserError(
                f"{path_text(path)} lies in the hidden folder of a run ({STATE_FOLDER}), which a "
                "run empties: move the image, or choose another --out"
            )


# ---- lists and COCO files ---------------------------------------------------------------------


def _from_list(path: str, root: str | None, notes: list[str]) -> NamedPaths:
    title = "the list on standard input" if path == "-" else f"the list {path_text(path)}"
    try:
        text = _read(path, title, _LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{title} is not UTF-8 text: save it as UTF-8, with one path a line")
    lines = [line for line in map(str.strip, text.split("\n")) if line and line[0] != "#"]
    if not lines:
        raise UserError(f"{title} names no image: write one path on each line")
    _check_count(len(lines), title)
    top, direct, images = root or "", [], []
    for line in lines:
        absolute = os.path.isabs(line) or line.startswith(_LINKS)
        file = line if absolute else os.path.join(top, line)
        images.append((file, last_part(line) if absolute else line))
        there = not line.startswith(_LINKS) and os.path.lexists(file)
        direct.append(line if there else None)
    found = locate(lines, top, title, direct)
    for i, file in enumerate(found.files):
        if direct[i] is None and file is not None:
            images[i] = (os.path.join(top, file), file)
    notes += [note] if (note := found.note(title)) else []
    notes += [f"{title}: {missing}"] if (missing := found.missing(lines, top)) else []
    return images


def _from_coco(path: str, root: str | None, notes: list[str]) -> NamedPaths:
    title = path_text(path)
    data = _read(path, title, _COCO_BYTES)
    try:
        # annotations are most of such a file; each one is dropped as soon as it is parsed
        coco = json.loads(data, object_hook=lambda x: x if x.keys() & _KEPT else 0)
    except (ValueError, RecursionError) as error:
        why = reason(error)[:120]
        raise UserError(f"{title} is not JSON ({why}): give a COCO annotation file") from None
    entries = coco.get("images") if isinstance(coco, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{title} has no "images", or an empty list: give a COCO annotation file')
    _check_count(len(entries), title)
    folder = os.path.dirname(path) if root is None else root
    names = []
    for i, entry in enumerate(entries):
        given = [entry.get(key) for key in _NAMES] if isinstance(entry, dict) else []
        name = next((one for one in given if isinstance(one, str) and one), None)
        if name is None:
            raise UserError(f"{title}: images[{i}] has no file_name: give a COCO annotation file")
        names.append(name)
    found = locate(names, folder, title)
    missing = found.missing(names, folder)
    if not any(found.files):
        _refuse(names, title, missing)
    notes += [f"{title}: {missing}"] if missing else []
    notes += [note] if (note := found.note(title)) else []
    files = [file or _at_least(name) for name, file in zip(names, found.files, strict=True)]
    return [(os.path.join(folder, file), file) for file in files]


def _check_count(count: int, title: str) -> None:
    if count > bound("images"):
        raise UserError(f"{title} names {beyond('images', count)}")


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
    return name if is_below(name) and not name.startswith(_LINKS) else last_part(name)


def _read(path: str, title: str, most: int) -> bytes:
    """The file's content; UserError if it cannot be read or has more than `most` bytes.

    Also of standard input ("-") and of a pipe that the shell opened: @<(find . -name "*.jpg").
    """
    data: bytes | None
    try:
        if (descriptor := own_descriptor(path)) is not None:
            data = read_stream(descriptor, most, bound("seconds"))
        else:
            with open_regular(path) as file:
                data = file.read() if os.fstat(file.fileno()).st_size <= most else None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(f"cannot read {title}: {reason(error)}; check the path") from None
    if data is None:
        raise UserError(f"{title} is larger than {most // 1_000_000} MB: split it")
    kind = kind_of(data[:HEAD_BYTES])
    if kind is not None and kind.group == "lfs":
        raise UserError(f"{title} is {kind.title}, not the file itself: run git lfs pull")
    return data
