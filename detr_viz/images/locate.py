"""Files for the names in a list or an annotation file, which may come from another machine.

A name that leads to no file below the root is found by its last parts, where these are of one
file only: C:/data/val/1.jpg, /mnt/coco/val/1.jpg and http://host/val/1.jpg may all be val/1.jpg.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.names import posix_path

_LOOSE = "\0"  # before a key of names that are compared without case
_MOST_FILES = 1_000_000  # that are searched below the root
_LINKS = ("http://", "https://", "file://", "s3://", "gs://")
_SHOWN = 3


@dataclass
class Located:
    """What was found for names, in their order.

    files: for each name its path below the root with "/", None where no file is. moved: the
    names that were found by their last parts.
    """

    files: list[str | None]
    moved: dict[str, str] = field(default_factory=dict)
    searched: bool = True

    def note(self, title: str) -> str:
        """A line about the names that were found elsewhere; "" if there are none."""
        if not self.moved:
            return ""
        name, file = next(iter(self.moved.items()))
        count = len(self.moved)
        words = "image is" if count == 1 else "images are"
        return (
            f"{title}: {count} {words} found by the last parts of their names: {_short(name)} is "
            f"{path_text(file)}"
        )

    def missing(self, names: Sequence[str], root: str) -> str:
        """Three of the names without a file, and what was tried; "" if there are none."""
        gone = [name for name, file in zip(names, self.files, strict=True) if file is None]
        if not gone:
            return ""
        shown = ", ".join(map(_short, gone[:_SHOWN])) + (", ..." if len(gone) > _SHOWN else "")
        tried = "the names and their last parts" if self.searched else "the names alone"
        verb = "is" if len(gone) == 1 else "are"
        return (
            f"{len(gone)} of {len(names)} images {verb} not there: {shown} (tried {tried} below "
            f"{path_text(root or '.')})"
        )


def is_below(name: str) -> bool:
    """Whether a name leads below the folder that it is relative to, on any system."""
    clean = posix_path(name)
    first = clean.split("/")[0]
    is_drive = bool(os.path.splitdrive(name)[0] or re.match(r"[A-Za-z]:([\\/]|$)", name))
    return not clean.startswith("/") and first not in ("..", ".") and not is_drive


def locate(
    names: Sequence[str], root: str, title: str, direct: Sequence[str | None] | None = None
) -> Located:
    """The files of the names below a root; UserError where a name may be one of several files.

    direct: for each name its file, if the caller knows it (default: as `below` finds it).
    """
    found = Located([below(name, root) for name in names] if direct is None else [*direct])
    if direct is None:
        pairs = zip(names, found.files, strict=True)
        found.moved = {n: f for n, f in pairs if f not in (None, n, posixpath.normpath(n))}
    pending = [i for i, file in enumerate(found.files) if file is None]
    if not pending:
        return found
    index = _index(root)
    if index is None:
        found.searched = False
        return found
    homes = {posixpath.dirname(_inside(file, root)) for file in found.files if file is not None}
    for i in pending:
        candidates = _candidates(names[i], index, homes)
        if len(candidates) > 1:
            shown = [path_text(one) for one in candidates[:_SHOWN]]
            more = ", ..." if len(candidates) > _SHOWN else ""
            raise UserError(
                f"{title}: {_short(names[i])} may be any of {len(candidates)} files "
                f"({', '.join(shown)}{more}): give the folder that the names start at as "
                "--image-root"
            )
        if candidates:
            found.files[i] = found.moved[names[i]] = candidates[0]
    _check_shared(names, found, root, title)
    return found


def _inside(file: str, root: str) -> str:
    """A path below the root, relative to it."""
    return posix_path(os.path.relpath(os.path.join(root, file), root or "."))


def below(name: str, root: str) -> str | None:
    """The name, or the same path written for this system, if it is a file below the root."""
    if not is_below(name):
        return None
    forms = [name, posix_path(name)]
    if "%" in name and not name.startswith(_LINKS):
        forms.append(posix_path(unquote(name)))
    return next((f for f in forms if is_below(f) and os.path.lexists(os.path.join(root, f))), None)


def _index(root: str) -> dict[str, list[str]] | None:
    """Last part -> paths below the root, without hidden ones; None for too many files.

    With _LOOSE before it: the last part as Windows would compare it.
    """
    index: dict[str, list[str]] = {}
    count, start = 0, len(os.path.join(root, ""))
    for folder, inner, files in os.walk(root or "."):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        count += len(files)
        if count > _MOST_FILES:
            return None
        for file in files:
            if not file.startswith("."):
                path = posix_path(os.path.join(folder, file)[start if root else 2 :])
                index.setdefault(_key(file), []).append(path)
                index.setdefault(_LOOSE + _loose(file), []).append(path)
    return index


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _loose(text: str) -> str:
    return _key(text).strip().casefold()


def _parts(name: str) -> list[str]:
    """The parts of a path or address of any system, without a drive and parts that lead nowhere."""
    if name.startswith(_LINKS):
        name = unquote(urlsplit(name).path)
    name = re.sub(r"^[A-Za-z]:(?=[\\/])", "", name)
    return [_key(part) for part in posix_path(name).split("/") if part not in ("", ".", "..")]


def _candidates(name: str, index: dict[str, list[str]], homes: set[str]) -> list[str]:
    """The files that share the most last parts with a name."""
    parts = _parts(name)
    unquoted = [_key(unquote(part)) for part in parts]
    for mark, key, form in (
        ("", _key, parts),
        ("", _key, unquoted),
        (_LOOSE, _loose, [_loose(part) for part in parts]),
    ):
        best: list[str] = []
        most = 0
        for path in index.get(mark + form[-1], []) if form else []:
            own = [key(part) for part in path.split("/")]
            same = 0
            while same < min(len(own), len(form)) and own[-1 - same] == form[-1 - same]:
                same += 1
            # another folder, in which other names have their files: not that of this name
            other = same < min(len(own), len(form)) and posixpath.dirname(path) in homes
            if not other and same >= most:
                best = [*best, path] if same == most else [path]
                most = same
        if best:
            return best
        for count in range(2, len(form) + 1):  # a/1.jpg that was flattened to a_1.jpg
            joined = [path for by in "_-" for path in index.get(by.join(form[-count:]), [])]
            if joined:
                return joined
    return []


def _check_shared(names: Sequence[str], found: Located, root: str, title: str) -> None:
    """UserError where two different names were found to be one file."""
    owners: dict[str, str] = {}
    if not found.moved:
        return
    for name, file in zip(names, found.files, strict=True):
        if file is None:
            continue
        other = owners.setdefault(_inside(file, root), name)
        if other != name and (name in found.moved or other in found.moved):
            short, long = sorted((_parts(name), _parts(other)), key=len)
            if long[len(long) - len(short) :] != short:
                raise UserError(
                    f"{title}: {_short(other)} and {_short(name)} are both found at "
                    f"{path_text(file)}: give the folder that the names start at as --image-root"
                )


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:38]}...{name[-38:]}")
