"""From the path of an image to the name that its output files start with."""

from __future__ import annotations

import os
import posixpath
import unicodedata

_LONGEST_NAME = 150  # bytes; a file name may have 255, the rest is for suffixes such as _detr.png


def unique_name(name: str, numbers: dict[str, int]) -> str:
    """cat, then cat-2, cat-3, ... `numbers`: name already used -> the next number for it."""
    candidate, key = name, _alike(name)
    while _alike(candidate) in numbers:
        candidate = f"{name}-{numbers[key]}"
        numbers[key] += 1
    numbers[_alike(candidate)] = 2
    return candidate


def _alike(name: str) -> str:
    """One key for all names that are the same file on some file system."""
    return unicodedata.normalize("NFC", name.casefold())


def output_name(path: str) -> str:
    """The path without its suffix: printable characters only, and never above its start."""
    clean = posix_path(path)
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else "_" for c in clean)
    *folders, file = clean.split("/")
    stem = file.rpartition(".")[0] if "." in file else file
    parts = [*folders, _cut(stem) if stem.strip(".") else "image"]
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _cut(name: str) -> str:
    """The name, shortened if no suffix would fit behind it."""
    return os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore").rstrip()


def posix_path(path: str) -> str:
    """A path with "/" between its parts, without parts such as "." that change nothing."""
    return posixpath.normpath(path.replace("\\", "/"))


def last_part(path: str) -> str:
    """The file's name, without its folders."""
    return posix_path(path).rpartition("/")[2]
