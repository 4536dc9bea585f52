"""The images in a folder, and the images that match a pattern such as val/*.jpg."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text, reason
from detr_viz.images.left_out import HEIC_SUFFIXES, LeftOut
from detr_viz.images.names import posix_path

# Formats that Pillow opens, but that a search in a folder leaves out. The first row: Pillow only
# recognises them, or runs a program on them. The second row: icons, brushes, sky surveys, point
# clouds (.pcd), and a format that Pillow will drop (.im).
_LEFT_OUT = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_LEFT_OUT |= {"CUR", "FITS", "GBR", "ICNS", "ICO", "IM", "IPTC", "PCD"}

NamedPaths = list[tuple[str, str]]  # (path, the path that the image's name is derived from)


def path_below(path: str | Path, folder: str | Path) -> str | None:
    """The path relative to a folder: "" if both are the same, None if it is not in the folder."""
    inner, outer = os.path.realpath(path or "."), os.path.realpath(folder or ".")
    if inner == outer:
        return ""
    outer = os.path.join(outer, "")
    return posix_path(inner[len(outer) :]) if inner.startswith(outer) else None


def search_images(word: str, kind: str, skip: str | Path | None) -> tuple[NamedPaths, str, LeftOut]:
    """(images, the folder that their names are relative to, what was left out).

    kind: "folder" or "pattern". skip: a folder whose files are left out. UserError for no images.
    """
    top, rest = (word, ()) if kind == "folder" else _fixed(word)
    paths: set[str] = set()
    others = LeftOut()
    for match in [word] if kind == "folder" else _matches(top, rest):
        paths.update(_images_in(match, others) if os.path.isdir(match) else [match])
    start = len(os.path.join(top, ""))
    ordered = sorted(paths, key=lambda path: path.split(os.sep))  # file systems list differently
    images = [(path, posix_path(path[start:])) for path in ordered]
    if skip is not None and (out := path_below(skip, top)):
        others.drop_below(os.path.join(top, *out.split("/")))
        kept = [(path, name) for path, name in images if not name.startswith(f"{out}/")]
        others.outputs = len(images) - len(kept)
        images = kept
    if not images:
        line = others.line()
        reason = f" ({line})" if line else ""
        raise UserError(
            f"no images in {path_text(word)}: check the path, or name files one by one{reason}"
        )
    return images, top, others


def _images_in(top: str, others: LeftOut) -> list[str]:
    from PIL import Image

    suffixes = Image.registered_extensions()
    formats = (set(Image.OPEN) | {"MPO"}) - _LEFT_OUT  # the JPEG reader opens MPO
    has_heic = importlib.util.find_spec("pillow_heif") is not None
    found = []
    for folder, files in _folders(top, others):
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            is_heic = suffix in HEIC_SUFFIXES
            if has_heic if is_heic else suffixes.get(suffix) in formats:
                found.append(os.path.join(folder, file))
            else:
                others.add(os.path.join(folder, file), suffix in suffixes and not is_heic)
    return found


def _folders(top: str, others: LeftOut | None = None) -> Iterator[tuple[str, list[str]]]:
    """(folder, its files), without hidden ones; links to folders are not followed."""
    for folder, inner, files in os.walk(top, onerror=_unreadable):
        hidden = [name for name in (*inner, *files) if name.startswith(".")]
        if others is not None:
            others.hidden += [os.path.join(folder, name) for name in hidden]
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield folder, [name for name in files if not name.startswith(".")]


def _unreadable(error: OSError) -> NoReturn:
    # an error, since the search would otherwise leave out images without a word
    where = path_text(os.fsdecode(error.filename))
    raise UserError(f"cannot search {where}: {reason(error)}; name the folders beside it") from None


def _fixed(pattern: str) -> tuple[str, tuple[str, ...]]:
    """(the folder before the first wildcard, the parts from there on).

    An existing folder with *, ? or [ in its name is not a wildcard.
    """
    parts, at = Path(pattern).parts, 0
    while at < len(parts) - 1 and (
        not glob.has_magic(parts[at]) or os.path.isdir(os.path.join(*parts[: at + 1]))
    ):
        at += 1
    return os.path.join("", *parts[:at]), parts[at:]


def _matches(top: str, parts: tuple[str, ...]) -> Iterator[str]:
    """The paths that glob finds below a folder; ** does not follow links, which may be cyclic."""
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
