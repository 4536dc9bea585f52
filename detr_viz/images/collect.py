"""From the words of --image (files, folders, patterns, @lists, COCO files) to a list of images.

Only lists and COCO files are opened: an image that is missing or broken is one failure of the
batch, told when its turn comes.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from detr_viz.common.errors import UserError
from detr_viz.common.files import reason

_LONGEST_NAME = 150  # bytes of a file's own; of 255, the rest is for what follows it
_LIST_BYTES, _COCO_BYTES = 256_000_000, 2_000_000_000
_LINKS = ("http://", "https://")
# What Pillow opens but no folder is searched for: of the first it knows little but the name, or
# runs a program on them; the others are icons, brushes, sky surveys, point clouds (.pcd), or a
# format that Pillow is about to drop (.im).
_NOT_MEANT = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_NOT_MEANT |= {"CUR", "FITS", "GBR", "ICNS", "ICO", "IM", "IPTC", "PCD"}

Found = list[tuple[str, str]]  # path, and what the image's name is made of


@dataclass(frozen=True, slots=True)
class Input:
    """One image of a batch.

    path: to be opened, relative to the working directory or absolute, as the user gave it.
    name: what outputs are called after: no suffix, "/" between folders, no two alike in a list
    even where upper and lower case are one. It leads out of no folder that it is put in.
    """

    path: str
    name: str


def is_single(words: Sequence[str]) -> bool:
    """Whether the words are the name of one image: no folder, pattern, @list or COCO file."""
    return len(words) == 1 and _kind(words[0]) == "file"


def expand(
    words: Iterable[str], image_root: str | None = None, skip: str | Path | None = None
) -> list[Input]:
    """The images that the words stand for, in their order, each file once.

    image_root: where relative lines of @lists and the file names of COCO files start (default:
    the working directory, and the folder of the COCO file).
    skip: the output folder; left out where it lies below a folder or pattern.
    Raises UserError for a word that stands for nothing or cannot be read, an image_root that is
    no folder or has nothing to do, and a `skip` that would put figures among the images.
    """
    inputs: list[Input] = []
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    searched: list[str] = []
    kinds = [(word, _kind(word)) for word in words]
    _check_root(image_root, {kind for _, kind in kinds})
    for word, kind in kinds:
        if kind in ("folder", "pattern"):
            found, top = _search(word, kind, skip)
            # figures are .png files, which a pattern such as *.jpg does not find again
            if kind == "folder" or any(path.lower().endswith(".png") for path, _ in found):
                searched.append(top)
        elif kind == "list":
            found = _from_list(word[1:], image_root)
        else:
            found = _from_coco(word, image_root) if kind == "coco" else [(word, _last(word))]
        for path, called in found:
            if (place := os.path.abspath(path)) not in seen:
                seen.add(place)
                inputs.append(Input(path, _unique(_name(called), numbers)))
    if skip is not None:
        _check_skip(inputs, searched, skip)
    return inputs


def shard(inputs: Sequence[Input], part: int, parts: int) -> list[Input]:
    """Every `parts`-th image from number `part`, counted from 0, in order."""
    return list(inputs[part::parts])


def _kind(word: str) -> str:
    if word.startswith(_LINKS):  # may hold a ?; who opens it says that it must be downloaded
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
        raise UserError(f"--image-root {_said(image_root)} is no folder: check the path")
    if image_root is not None and not kinds & {"list", "coco"}:
        raise UserError("--image-root is for an @list or a COCO .json file: leave it out")


def _check_skip(inputs: Sequence[Input], searched: Sequence[str], out: str | Path) -> None:
    """UserError where a figure would land in a folder that the next run searches for images."""
    for folder in searched:
        within = _below(folder, out)
        start = f"{within}/" if within else ""
        if within is not None and any(image.name.startswith(start) for image in inputs):
            raise UserError(
                f"--out {_said(str(out))} puts figures among the images of {_said(folder or '.')}, "
                "and the next run would take them for images: choose an --out outside or below it"
            )


def _below(path: str | Path, folder: str | Path) -> str | None:
    """The way from a folder down to a path, "" where they are one, None where it is not in it."""
    inner, outer = os.path.realpath(path or "."), os.path.realpath(folder or ".")
    if inner == outer:
        return ""
    outer = os.path.join(outer, "")
    return _way(inner[len(outer) :]) if inner.startswith(outer) else None


# ---- folders and patterns ---------------------------------------------------------------------


def _search(word: str, kind: str, skip: str | Path | None) -> tuple[Found, str]:
    """(images, the folder that they are named from)."""
    top, rest = (word, ()) if kind == "folder" else _fixed(word)
    paths: set[str] = set()
    for match in [word] if kind == "folder" else _matches(top, rest):
        paths.update(_images_in(match) if os.path.isdir(match) else [match])
    start = len(os.path.join(top, ""))
    ordered = sorted(paths, key=lambda path: path.split(os.sep))  # no two file systems list alike
    found = [(path, _way(path[start:])) for path in ordered]
    if skip is not None and (out := _below(skip, top)):
        found = [(path, called) for path, called in found if not called.startswith(f"{out}/")]
    if not found:
        raise UserError(f"no images in {_said(word)}: check the path, or name files one by one")
    return found, top


def _images_in(top: str) -> list[str]:
    from PIL import Image

    suffixes = Image.registered_extensions()
    meant = (set(Image.OPEN) | {"MPO"}) - _NOT_MEANT  # MPO is opened by the reader of JPEG
    return [
        os.path.join(folder, file)
        for folder, files in _folders(top)
        for file in files
        if suffixes.get(os.path.splitext(file)[1].lower()) in meant
    ]


def _folders(top: str) -> Iterator[tuple[str, list[str]]]:
    """(folder, its files), without hidden ones; links to folders are not followed."""
    for folder, inner, files in os.walk(top, onerror=_unreadable):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield folder, [name for name in files if not name.startswith(".")]


def _unreadable(error: OSError) -> NoReturn:
    # going on would leave out its images unseen
    where = _said(os.fsdecode(error.filename))
    raise UserError(f"cannot search {where}: {reason(error)}; name the folders beside it") from None


def _fixed(pattern: str) -> tuple[str, tuple[str, ...]]:
    """(the folder before the first wildcard, the parts from there on).

    A folder whose own name holds a * ? or [ is no wildcard.
    """
    parts, at = Path(pattern).parts, 0
    while at < len(parts) - 1 and (
        not glob.has_magic(parts[at]) or os.path.isdir(os.path.join(*parts[: at + 1]))
    ):
        at += 1
    return os.path.join("", *parts[:at]), parts[at:]


def _matches(top: str, parts: tuple[str, ...]) -> Iterator[str]:
    """What glob finds below a folder; but ** follows no links, which may lead in circles."""
    at = parts.index("**") if "**" in parts else len(parts)
    starts = glob.iglob(os.path.join(glob.escape(top), *parts[:at])) if at else [top or "."]
    if at == len(parts):
        yield from starts
        return
    for start in filter(os.path.isdir, starts):
        for folder, files in _folders(start):
            if at == len(parts) - 1:
                yield from (os.path.join(folder, file) for file in files)
            else:
                yield from _matches(folder, parts[at + 1 :])


# ---- lists and COCO files ---------------------------------------------------------------------


def _from_list(path: str, root: str | None) -> Found:
    said = f"the list {_said(path)}"
    try:
        text = _read(path, said, _LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{said} is not UTF-8 text: save it so, the path of an image a line")
    lines = [line for line in map(str.strip, text.split("\n")) if line and line[0] != "#"]
    if not lines:
        raise UserError(f"{said} names no image: write the path of one a line")
    found = []
    for line in lines:
        whole = os.path.isabs(line) or line.startswith(_LINKS)
        place = line if whole or root is None else os.path.join(root, line)
        found.append((place, _last(line) if whole else line))
    return found


def _from_coco(path: str, root: str | None) -> Found:
    said = _said(path)
    data = _read(path, said, _COCO_BYTES)
    try:
        # annotations, by far the most of such a file, are dropped one by one as they are read
        coco = json.loads(
            data, object_hook=lambda x: x if x.keys() & {"images", "file_name"} else 0
        )
    except (ValueError, RecursionError) as error:
        why = reason(error)[:120]
        raise UserError(f"{said} is not JSON ({why}): give a COCO annotation file") from None
    images = coco.get("images") if isinstance(coco, dict) else None
    if not isinstance(images, list) or not images:
        raise UserError(f'{said} has no "images", or none in them: give a COCO annotation file')
    folder = os.path.dirname(path) if root is None else root
    found = []
    for i, entry in enumerate(images):
        file = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file:
            raise UserError(f"{said}: images[{i}] has no file_name: give a COCO annotation file")
        way = _way(file)
        if way.startswith("/") or way.split("/")[0] in ("..", ".") or os.path.splitdrive(file)[0]:
            raise UserError(
                f"{said}: images[{i}] has the file_name {file[:80]!r}, which is no path of a file "
                "below the image folder: write it so, and name that folder with --image-root"
            )
        found.append((os.path.join(folder, file), file))
    return found


def _read(path: str, said: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            fits = os.fstat(file.fileno()).st_size <= most
            data = file.read() if fits else b""
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(f"cannot read {said}: {reason(error)}; check the path") from None
    if not fits:
        raise UserError(f"{said} is larger than {most // 1_000_000} MB: split it")
    return data


# ---- names ------------------------------------------------------------------------------------


def _unique(name: str, numbers: dict[str, int]) -> str:
    """cat, then cat-2, cat-3; `numbers` holds the names taken and what each goes on counting at."""
    made, key = name, _alike(name)
    while _alike(made) in numbers:
        made = f"{name}-{numbers[key]}"
        numbers[key] += 1
    numbers[_alike(made)] = 2
    return made


def _alike(name: str) -> str:
    """The same for all names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _name(called: str) -> str:
    """A path without its suffix, of printable characters, that only leads downwards."""
    way = _way(called)
    if not way.isprintable():
        way = "".join(c if c.isprintable() else "_" for c in way)
    *folders, file = way.split("/")
    stem = file.rpartition(".")[0] if "." in file else file
    parts = [*folders, _cut(stem) if stem.strip(".") else "image"]
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _cut(name: str) -> str:
    """The beginning of a name that is too long to have something behind it."""
    return os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore").rstrip()


def _way(path: str) -> str:
    """A path with "/" between its parts, and as few of them as may be."""
    return posixpath.normpath(path.replace("\\", "/"))


def _last(path: str) -> str:
    return _way(path).rpartition("/")[2]


def _said(path: str) -> str:
    """A path as part of one line."""
    return path if path and path.isprintable() else repr(path)
