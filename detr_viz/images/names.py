"""From the path of an image to the name that its output files start with."""

from __future__ import annotations

import os
import posixpath
import re

from detr_viz.common.file_names import alike, fitting, for_windows

# what a run itself writes beside the folders of figures, with the tag of a shard
STATE_FOLDER = ".detr_viz"
_OF_THE_RUN = re.compile(r"\.detr_viz.*|(index|failures).*\.csv|contact-sheet.*\.pdf")
_LONGEST_NAME = 150  # bytes; a file name may have 255, the rest is for suffixes such as _detr.png


def unique_name(name: str, numbers: dict[str, int]) -> str:
    """cat, then cat-2, cat-3, ... `numbers`: name already used -> the next number for it."""
    candidate, key = name, alike(name)
    while alike(candidate) in numbers:
        candidate = f"{name}-{numbers[key]}"
        numbers[key] += 1
    numbers[alike(candidate)] = 2
    return candidate


def output_name(path: str, windows: bool = os.name == "nt") -> str:
    """The path without its suffix: printable characters only, and never above its start.

    A folder at the top that is called as what a run itself writes there gets a _ before its name.
    A part that is too long, or that Windows (if `windows`) does not take, gets a digest.
    """
    clean = posix_path(path)
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else "_" for c in clean)
    *folders, file = clean.split("/")
    stem = file.rpartition(".")[0] if "." in file else file
    parts = [part for part in folders if part not in ("", ".", "..")]
    parts = [fitting(part) for part in parts]
    last = fitting(stem, most=_LONGEST_NAME) if stem.strip(".") else "image"
    parts += [last] if last not in ("", ".", "..") else []
    if len(parts) > 1 and _OF_THE_RUN.fullmatch(alike(parts[0])):
        parts[0] = f"_{parts[0]}"
    return "/".join(for_windows(part) if windows else part for part in parts)


def posix_path(path: str) -> str:
    """A path with "/" between its parts, without parts such as "." that change nothing."""
    return posixpath.normpath(path.replace("\\", "/"))


def last_part(path: str) -> str:
    """The file's name, without its folders."""
    return posix_path(path).rpartition("/")[2]
