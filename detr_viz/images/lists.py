"""The images that an @list names, one path on each line."""

from __future__ import annotations

import os

from detr_viz.common.bounds import beyond, bound
from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.locate import locate
from detr_viz.images.names import last_part
from detr_viz.images.search import NamedPaths
from detr_viz.images.text_files import LIST_BYTES, read_bytes

LINKS = ("http://", "https://")


def from_list(path: str, root: str | None, notes: list[str]) -> NamedPaths:
    """(path, name) of each line. root: where relative lines start. UserError for no list."""
    title = "the list on standard input" if path == "-" else f"the list {path_text(path)}"
    try:
        text = read_bytes(path, title, LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{title} is not UTF-8 text: save it as UTF-8, with one path a line")
    lines = [line for line in map(str.strip, text.split("\n")) if line and line[0] != "#"]
    if not lines:
        raise UserError(f"{title} names no image: write one path on each line")
    check_count(len(lines), title)
    top, direct, images = root or "", [], []
    for line in lines:
        absolute = os.path.isabs(line) or line.startswith(LINKS)
        file = line if absolute else os.path.join(top, line)
        images.append((file, last_part(line) if absolute else line))
        there = not line.startswith(LINKS) and os.path.lexists(file)
        direct.append(line if there else None)
    found = locate(lines, top, title, direct)
    for i, file in enumerate(found.files):
        if direct[i] is None and file is not None:
            images[i] = (os.path.join(top, file), file)
    notes += [note] if (note := found.note(title)) else []
    notes += [f"{title}: {missing}"] if (missing := found.missing(lines, top)) else []
    return images


def check_count(count: int, title: str) -> None:
    """UserError for more images than are read."""
    if count > bound("images"):
        raise UserError(f"{title} names {beyond('images', count)}")
