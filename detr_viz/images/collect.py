"""From the words of --image (files, folders, patterns, @lists, COCO files) to a list of images.

Only lists and files of annotated objects are opened. A missing or broken image is reported later,
when the batch reads it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.label_places import is_labelme
from detr_viz.images.lists import LINKS, from_list
from detr_viz.images.names import STATE_FOLDER, last_part, output_name, unique_name
from detr_viz.images.search import NamedPaths, path_below, search_images

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

Objects = Sequence["Annotated | None"]  # of each image; fewer than images: none
_VOC = ("JPEGImages", "Annotations")  # folders of a Pascal VOC data set; others have masks


@dataclass(frozen=True, slots=True)
class Input:
    """One image of a batch.

    path: of the file, as the user gave it: absolute, or relative to the working directory.
    name: that output files start with: no suffix, "/" between folders. No two images of a list
    have the same name, even where a file system ignores case. It has no ".." parts.
    annotated: its objects, where a file of annotations has it; None where none has.
    """

    path: str
    name: str
    annotated: Annotated | None = field(default=None, compare=False)


def is_single(words: Sequence[str]) -> bool:
    """Whether the words name one image, and no folder, pattern, @list or COCO file."""
    return len(words) == 1 and _kind(words[0]) in ("file", "one")


def expand(
    words: Iterable[str],
    image_root: str | None = None,
    skip: str | Path | None = None,
    notes: list[str] | None = None,
    figures: Sequence[str] = (".png",),
    annotations: str | None = None,
    boxes: bool = True,
) -> list[Input]:
    """The images that the words name, in their order, each file once.

    image_root: the folder of relative lines of @lists and of file names in COCO files (default:
    the working directory for lists, the file's own folder for COCO).
    skip: the output folder; a search in a folder or with a pattern leaves its files out.
    notes: gets a line for each folder of which files were left out, and for names that were
    found elsewhere.
    figures: suffixes of the files that the run writes there.
    annotations: a file or folder that has the objects of the images, in place of all others.
    boxes: whether files beside the images of a folder are read for their objects, if nothing else
    has them; else a note counts them.
    Raises UserError for a word without images or that cannot be read, for an image_root that is
    not a folder or not needed, and for a `skip` where new figures would be among the images.
    """
    inputs: list[Input] = []
    seen: dict[str, int] = {}
    numbers: dict[str, int] = {}
    searched: list[str] = []
    notes = [] if notes is None else notes
    kinds = [(word, _kind(word)) for word in words]
    _check_root(image_root, {kind for _, kind in kinds})
    for word, kind in kinds:
        if kind in ("folder", "pattern"):
            from detr_viz.images.label_files import beside, unread_beside

            images, top, others = search_images(word, kind, skip)
            # a pattern such as *.jpg does not find figures that are .png files again
            again = any(path.lower().endswith(tuple(figures)) for path, _ in images)
            if kind == "folder" or again:
                searched.append(top)
            annotated: Objects = []
            taken: list[str] = []
            if annotations is None:
                images = _photos(images, word, kind, taken)
                paths = [path for path, _ in images]
                if boxes:
                    annotated = beside(paths, word, taken)
                    others.drop(one.source for one in annotated if one is not None)
                else:
                    others.drop(unread_beside(paths, word, taken))
            notes += [*others.note(word), *taken]
        else:
            images, annotated = _named(word, kind, image_root, notes)
        fresh = len(inputs)  # entries of one file about the same image belong together
        for (path, name), own in zip_longest(images, annotated):
            at = seen.setdefault(os.path.abspath(path), len(inputs))
            if at == len(inputs):
                inputs.append(Input(path, unique_name(output_name(name), numbers), own))
            elif own is not None and (at >= fresh or inputs[at].annotated is None):
                inputs[at] = replace(inputs[at], annotated=_both(inputs[at].annotated, own))
    if annotations is not None:
        from detr_viz.images.annotation_words import annotate

        inputs = annotate(inputs, annotations, notes)
    if skip is not None:
        _check_skip(inputs, searched, skip)
        _check_swept(inputs, skip)
    return inputs


def shard(inputs: Sequence[Input], part: int, parts: int) -> list[Input]:
    """Every `parts`-th image from number `part`, counted from 0, in order."""
    return list(inputs[part::parts])


def _kind(word: str) -> str:
    if word.startswith(LINKS):  # may have a ?; load_image says that it must be downloaded
        return "file"
    if word.startswith("@"):
        return "list"
    if os.path.isdir(word):
        return "folder"
    if word.lower().endswith(".json"):
        return "one" if is_labelme(word) else "coco"
    if word.lower().endswith(".xml"):
        return "one"
    if word.lower().endswith((".yaml", ".yml")):
        return "yaml"
    return "pattern" if glob.has_magic(word) and not os.path.lexists(word) else "file"


def _named(word: str, kind: str, root: str | None, notes: list[str]) -> tuple[NamedPaths, Objects]:
    """The images of a word that names them one by one, and their objects where it has any."""
    if kind == "list":
        return from_list(word[1:], root, notes), []
    if kind == "coco":
        from detr_viz.images.coco import from_coco

        return from_coco(word, root, notes)
    if kind == "one":
        from detr_viz.images.label_files import one_file

        path, own = one_file(word)
        return [(path, last_part(path))], [own]
    if kind == "yaml":
        from detr_viz.images.yolo_yaml import from_yaml

        return from_yaml(word, notes)
    return [(word, last_part(word))], []


def _photos(images: NamedPaths, word: str, kind: str, notes: list[str]) -> NamedPaths:
    """The images of a folder or pattern; of a folder of Pascal VOC data masks are left out."""
    photos, marks = (os.path.join(word, name) for name in _VOC)
    if kind == "folder" and os.path.isdir(photos) and os.path.isdir(marks):
        kept = [pair for pair in images if pair[1].startswith(f"{_VOC[0]}/")] or images
        if others := len(images) - len(kept):
            notes.append(f"{path_text(word)}: left out {others} images beside its {_VOC[0]}")
        images = kept
    return images


def _both(before: Annotated | None, own: Annotated) -> Annotated:
    from detr_viz.images.annotated import joined

    return own if before is None else joined([before, own])


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
